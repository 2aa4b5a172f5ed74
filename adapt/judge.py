"""An exported adapter judged on any shards of its robot: `wam eval`."""

from collections.abc import Callable
from pathlib import Path

import torch

from adapt.evaluate import judge
from adapt.export import load_adapter
from adapt.latents import Clips, encode_to, judged_windows, load_latents
from adapt.report import write_report
from adapt.run import Shards, episode_split
from adapt.scoring import verdict
from schemas.errors import DataError, UsageError
from schemas.recipe import AdaptRecipe
from schemas.report import Report


def judge_adapter(
    folder: Path, shards: Shards, out: Path, *, base: Path | None, on_progress: Callable[[int, int, str], None]
) -> tuple[Report, Path]:
    """Report and page of an adapter on the held-out part of `shards`.

    Raises:
        UsageError: the shards are of another robot.
        DataError: nothing is held out.
    """
    backbone, model, robot, record = load_adapter(folder, base)
    if robot.action_width != shards.embodiment.action_width or robot.state_width != shards.embodiment.state_width:
        raise UsageError(
            f"{shards.folder}: robot {shards.embodiment.name!r} has {shards.embodiment.state_width} state and "
            f"{shards.embodiment.action_width} action columns, the adapter's {robot.name!r} {robot.state_width} and "
            f"{robot.action_width}. Ingest with the adapter's embodiment.yaml."
        )
    recipe = AdaptRecipe.model_validate(record.recipe)
    torch.set_num_threads(recipe.threads)
    clips = Clips(shards.folder, shards.manifest, robot)
    out.mkdir(parents=True, exist_ok=True)
    cache = out / "test.tar"
    windows = judged_windows(clips, backbone.time_base, split="test", view_size=backbone.view_size(robot))
    count = encode_to(cache, windows, backbone, robot, judged=True, on_window=lambda n: on_progress(n, 0, "windows"))
    if not shards.manifest.split_keys("train"):
        raise DataError(
            f"{shards.folder}: no training part to fit the baselines on. Assign parts with `wam shard split`."
        )
    test = load_latents(cache)
    cache.unlink()
    if not test:
        raise DataError(f"{shards.folder}: nothing is held out. Assign parts with `wam shard split`.")
    judged = judge(backbone, {"model": model}, test, clips, recipe)
    split = episode_split(shards.manifest, {"test": count})
    words = verdict(judged.action, has_base=False, episodes=len(split["test"].episodes))
    report = Report(
        verdict=words[0],
        reason=words[1],
        robot=robot.name,
        backbone=record.backbone,
        base=record.base_name,
        information=("as trained: see the adapter's README",),
        chunk_s=backbone.time_base.chunk_s,
        action_hz=backbone.time_base.action_hz,
        split=split,
        action=judged.action,
        video=judged.video,
        training=None,
        rejects={},
        notes=(_overlap(shards, record.trained_on),),
        provenance={
            "adapter weights": record.weights_sha256[:16],
            "source fingerprint": shards.manifest.fingerprint[:16],
        },
    )
    return report, write_report(out, report, judged.figures)


def _overlap(shards: Shards, trained_on: tuple[str, ...]) -> str:
    """Whether the adapter was trained on what it is judged on here."""
    seen = [s.episode for s in shards.manifest.samples if s.split == "test" and s.content_sha256 in trained_on]
    if seen:
        return f"NOT HELD OUT: the adapter was trained on {len(seen)} of these episodes, {seen[0]} among them"
    return "judged again by `wam eval` on episodes that the adapter was not trained on"
