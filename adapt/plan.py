"""What a run would do, before anything is spent: windows, epochs, bytes; read from shards, no pixel decoded.

Does not yet know GPUs: seconds per step are measured on this machine for `nano` only.
"""

from dataclasses import dataclass

from adapt.backbones.registry import backbone_info
from adapt.run import Shards, resolve
from schemas.recipe import AdaptRecipe
from wamdata.shards import stream_clips
from wamdata.windows import on_time_base, window_starts

LATENT_BYTES = 9 * 32 * 8 * 10 * 2  # nano: latent frames x channels x cells, half precision


@dataclass(frozen=True)
class Plan:
    """Counts and warnings; `short_clips` give no whole window and are not trained on."""

    robot: str
    backbone: str
    base: str
    train_windows: int
    video_windows: int
    judged_chunks: dict[str, int]
    episodes: dict[str, int]
    minutes: dict[str, float]
    instructions: tuple[str, ...]
    epochs: float
    cache_bytes: int
    short_clips: tuple[str, ...]
    warnings: tuple[str, ...]


def plan(recipe: AdaptRecipe, play: Shards, video: Shards | None) -> Plan:
    """The plan of a run on these shards."""
    recipe = resolve(recipe, play.embodiment)
    time_base = recipe.time_base
    stride = max(1, round(recipe.window_stride_s * time_base.action_hz))
    windows, texts, short = {"train": 0}, {}, []
    chunks = {"val": 0, "test": 0}
    split_of = {s.key: s.split for s in play.manifest.samples}
    for clip in stream_clips(play.folder, play.manifest, embodiment=play.embodiment):
        rows = on_time_base(clip, play.embodiment, time_base)
        texts.setdefault(clip.text_at(int(rows.t_ns[0])), None)
        part = split_of[clip.key]
        if part == "train":
            starts = window_starts(clip, rows, time_base, stride=stride)
            windows["train"] += len(starts)
            if not starts:
                short.append(clip.key)
        else:
            chunks[part] += len(rows) // time_base.steps
    films = 0
    if video:
        for clip in stream_clips(video.folder, video.manifest, embodiment=video.embodiment):
            films += len(window_starts(clip, on_time_base(clip, video.embodiment, time_base), time_base, stride=stride))
    samples = play.manifest.samples
    total = windows["train"] + films
    return Plan(
        robot=play.embodiment.name,
        backbone=f"{recipe.backbone}: {backbone_info(recipe.backbone).about}",
        base=recipe.base or "none",
        train_windows=windows["train"],
        video_windows=films,
        judged_chunks=chunks,
        episodes={p: len({s.session for s in samples if s.split == p}) for p in ("train", "val", "test")},
        minutes={p: sum(s.seconds for s in samples if s.split == p) / 60 for p in ("train", "val", "test")},
        instructions=tuple(texts),
        epochs=recipe.steps * recipe.batch / total if total else 0.0,
        cache_bytes=(total + sum(chunks.values())) * LATENT_BYTES,
        short_clips=tuple(short),
        warnings=_warnings(recipe, play, chunks, tuple(texts), total),
    )


def _warnings(recipe: AdaptRecipe, play: Shards, chunks: dict, texts: tuple[str, ...], total: int) -> tuple[str, ...]:
    found = []
    time_base = recipe.time_base
    if not total:
        found.append(f"no whole window of {time_base.window_rows / time_base.action_hz:.1f} s: nothing to train on")
    if not chunks["test"]:
        found.append("nothing is held out for the report: at least three sessions are needed")
    if len(texts) == 1:
        found.append("one instruction: whether the model listens cannot be tested")
    if "" in texts:
        found.append("some clips have no instruction")
    rate = play.embodiment.native_hz
    if not play.embodiment.is_action_free and abs(rate / time_base.action_hz - 1) > 0.02:
        found.append(f"the robot runs at {rate:g} Hz, the model at {time_base.action_hz:g} Hz: rows are resampled")
    if play.embodiment.is_action_free:
        found.append("no actions: the result can imagine video, it cannot control a robot")
    return tuple(found)
