"""Windows through the encoders before training: in this process, or by one Ray actor to a GPU.

Each actor loads the encoders once, takes group after group and writes its own shards; only counts come back.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from adapt.cache.samples import Cache, Encoding, Need, ahead, groups, open_cache
from adapt.training.job import Job, load_backbone
from adapt.training.launch import Where


def encode(job: Job, cache: Cache, needs: Sequence[Need], where: Where, on_done: Callable[[int], None]) -> None:
    """Encode what is missing of `needs`, and every prompt; the encoders are let go afterwards."""
    missing = cache.missing(needs)
    if not missing and not cache.unread_prompts():
        return
    if where.processes == 1 and where.launcher == "local":
        encoding = encoding_of(job, where)
        encoding.embed(cache)
        ahead(encoding, cache, needs, on_done)
        encoding.backbone.free()
        return
    done = 0
    for count in _by_actors(job, missing, where):
        done += count
        on_done(done)
    cache.store.refresh()


def encoding_of(job: Job, where: Where) -> Encoding:
    """The encoders of a run, on the device of this process."""
    import torch

    device = torch.device("cuda" if where.kind == "cuda" else "cpu")
    backbone = load_backbone(job.run, job.recipe, device)
    return Encoding(backbone, job.clips(), frozenset(job.recipe.imitate))


class _Actor:
    """Encoders that stay loaded between groups."""

    def __init__(self, job: Job, where: Where, folder: str) -> None:
        self._encoding, self._cache = encoding_of(job, where), open_cache(Path(folder), job.store)

    def embed(self) -> int:
        self._encoding.embed(self._cache)
        return 0

    def encode(self, group: list[Need]) -> int:
        self._encoding.encode(self._cache, group)
        return len(group)


def _by_actors(job: Job, needs: Sequence[Need], where: Where) -> Iterator[int]:
    import ray
    from ray.util import ActorPool

    from wamdata.executors import start_ray

    start_ray(where.address)
    resources: dict[str, Any] = {"num_gpus": 1} if where.kind == "cuda" else {"num_cpus": 1}
    remote = ray.remote(max_restarts=2, max_task_retries=2, **resources)(_Actor)
    actors = [remote.remote(job, where, str(job.run / "latents")) for _ in range(where.processes)]
    try:
        yield ray.get(actors[0].embed.remote())
        yield from ActorPool(actors).map_unordered(lambda actor, group: actor.encode.remote(group), groups(needs))
    finally:
        for actor in actors:
            ray.kill(actor)
