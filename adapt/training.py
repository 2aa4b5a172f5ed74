"""The train stage of a run, as one process of one or many does it: from the run folder to trained weights in it."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from adapt.adapter import FULL
from adapt.backbones.base import Backbone, Latents
from adapt.backbones.registry import backbone_info
from adapt.cache import Cache, Encoding, open_cache
from adapt.clips import Clips
from adapt.curves import Trained
from adapt.feed import Feed, Taught
from adapt.lora import ADAPTER, go_on_from, with_lora
from adapt.rung import Rung
from adapt.sharding import divide
from adapt.train import Course, HeldOut, Tick, train
from adapt.world import World
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.recipe import AdaptRecipe
from wamdata.mix import MixOrder

LATENTS, TRAIN = "latents", "train"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Job:
    """What a process must know to take part in a run's training; it can be sent to another machine.

    Args:
        run: the run folder, which all processes see.
        sources: by part of the recipe, its shards and the robot to see them as.
        steps: of the schedule.
        ends_at: `time.time()` at which training has to end.
        stop_after: for tests of resuming.
    """

    run: Path
    recipe: AdaptRecipe
    sources: dict[str, tuple[Path, Embodiment]]
    rung: Rung
    steps: int
    store: Path | None = None
    ends_at: float = math.inf
    stop_after: int | None = None

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.recipe.hardware.precision or "float32"]

    def clips(self) -> dict[str, Clips]:
        return {name: Clips.open(folder, robot) for name, (folder, robot) in self.sources.items()}


def train_here(
    job: Job,
    world: World,
    *,
    on_tick: Callable[[Tick], None] = lambda tick: None,
    on_note: Callable[[str], None] = lambda words: None,
    on_save: Callable[[], None] = lambda: None,
) -> Trained:
    """Take part in the training of `job` as one process of `world`.

    Raises:
        torch.OutOfMemoryError: the rung is too high for this device.
    """
    recipe = job.recipe
    torch.set_num_threads(recipe.hardware.threads)  # results are bit-equal at a fixed number only
    backbone = load_backbone(job.run, recipe, world.device)
    cache = open_cache(job.run / LATENTS, job.store)
    if world.is_sharded:
        _refuse_undividable(job, world)
    maker = backbone.to(torch.device("cpu")) if world.is_sharded else backbone  # cut on the host: no GPU holds it whole
    model = build_model(maker, recipe, job.rung, job.dtype, start=True, device=world.device)
    if world.is_sharded:
        model = divide(model, backbone, world)
    order = order_of(recipe, cache)
    clips = job.clips()
    held = HeldOut.of(
        held_out(cache, "val"), lambda s: stand_still(s, backbone, clips[recipe.play.name]), recipe.eval_windows
    )
    encoding = Encoding(backbone, clips, frozenset(recipe.imitate))

    def feed(first: int) -> AbstractContextManager:
        return Feed(
            cache, order, taught(recipe, cache), first=first, stop=job.steps,
            rank=world.rank, world=world.size, encoding=encoding,
        )  # fmt: skip

    course = Course(job.steps, job.stop_after, time.monotonic() + job.ends_at - time.time())
    done = train(
        backbone, model, feed, held, recipe, job.run / TRAIN,
        course=course, rung=job.rung, world=world, on_tick=on_tick, on_note=on_note, on_save=on_save,
    )  # fmt: skip
    counts = {p.name: len(cache.catalogue.parts[p.name].entries) for p in recipe.parts}
    silent = sum(counts[p.name] for p in recipe.parts if "action" not in p.losses)
    return replace(
        done,
        windows=sum(counts.values()) - silent,
        video_windows=silent,
        epochs=order.epochs(done.steps)[recipe.play.name],
        budget=f"{job.steps} steps of {recipe.batch}" + (f", until {recipe.until}" if recipe.until else ""),
    )


def load_backbone(run: Path, recipe: AdaptRecipe, device: torch.device) -> Backbone:
    """The run's backbone, its encoders and batches on `device`."""
    base = None if recipe.base is None else Path(recipe.base)
    return backbone_info(recipe.backbone).load().load(run / LATENTS, base=base).to(device)


def build_model(
    backbone: Backbone,
    recipe: AdaptRecipe,
    rung: Rung,
    dtype: torch.dtype,
    *,
    start: bool,
    device: torch.device,
) -> nn.Module:
    """The model to train: the base with fresh adapters or those of the recipe's `start`; all of it without a base."""
    base = None if recipe.base is None else Path(recipe.base)
    with torch.random.fork_rng():
        model = backbone.build(seed=recipe.seed, base=base, rung=rung, dtype=dtype)
        if base is not None:
            model = backbone.adapted(model, rung, lambda m: with_lora(m, recipe.lora, backbone, seed=recipe.seed))
    if start and recipe.start is not None:
        go_on_from(model, Path(recipe.start) / (FULL if base is None else ADAPTER))
    return model


def order_of(recipe: AdaptRecipe, cache: Cache) -> MixOrder:
    """Which windows each step takes.

    Raises:
        DataError: a part has no window.
    """
    parts = {p.name: ([e.id for e in cache.catalogue.parts[p.name].entries], p.share) for p in recipe.parts}
    return MixOrder(parts, recipe.batch, recipe.seed)


def taught(recipe: AdaptRecipe, cache: Cache) -> dict[str, Taught]:
    """What is learned from each part."""
    return {
        p.name: Taught(copies=cache.catalogue.parts[p.name].copies, is_silent="action" not in p.losses)
        for p in recipe.parts
    }


def held_out(cache: Cache, split: str) -> list[Latents]:
    """The judged windows of a split, of all parts that have some."""
    names = [n for n, part in cache.catalogue.parts.items() if part.split == split]
    return [sample for name in names for sample in cache.all(name)]


def steps_of(recipe: AdaptRecipe, cache: Cache) -> int:
    """The schedule's length: as given, or as many epochs of the play part."""
    if recipe.steps is not None:
        return recipe.steps
    windows = len(cache.catalogue.parts[recipe.play.name].entries)
    if not windows:
        raise DataError("no training clip holds a whole window. Log longer episodes or lower chunk_s.")
    per_step = order_of(recipe, cache).epochs(1000)[recipe.play.name] * windows / 1000
    return max(1, math.ceil(recipe.epochs * windows / per_step))


def stand_still(sample: Latents, backbone: Backbone, clips: Clips) -> np.ndarray:
    """(K, A): the present state held; velocities stop."""
    hold = np.array(clips.embodiment.hold_columns(), np.int64)
    still = np.where(hold >= 0, sample.state[-1][np.maximum(hold, 0)], 0.0)
    return np.broadcast_to(still, (backbone.time_base.steps, len(still)))


def _refuse_undividable(job: Job, world: World) -> None:
    """Divided over ranks, every rank must pass through the model equally often, and all state is plain tensors."""
    if job.rung.optimizer != "adamw":
        raise UsageError(f"{job.rung.optimizer}: 8-bit moments cannot be divided over GPUs. Give optimizer adamw.")
    if job.recipe.batch % (world.size * job.rung.micro_batch):
        raise UsageError(
            f"batch {job.recipe.batch} over {world.size} ranks of micro-batch {job.rung.micro_batch}: a divided base "
            "needs a batch that they divide evenly."
        )
