"""The cache stage: every window through the frozen encoders, once.

    latents/train.tar val.tar test.tar video.tar     <window id>.npz + .json, readable by plain webdataset
    latents/encoder.safetensors encoder.json         the encoders and normalisation, fitted on the training part
    latents/statistics.json

Training windows start every `window_stride_s`; held-out ones at every chunk, with as much past as there is
(none at an episode's start), which is how a policy meets them.
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from adapt.backbones.base import Backbone, Latents
from schemas.embodiment import Embodiment
from schemas.episode import Window
from schemas.errors import DataError
from schemas.manifest import Manifest, Split
from schemas.recipe import TimeBase
from wamdata.clips import Clip
from wamdata.shards import stream_clips
from wamdata.windows import Rows, cut_windows, has_frames, has_one_text, on_time_base, window_starts

_ARRAYS = tuple(f.name for f in fields(Latents) if f.type is np.ndarray or f.type == "np.ndarray")


@dataclass(frozen=True)
class Clips:
    """Shards of one robot, as the cache stage reads them."""

    folder: Path
    manifest: Manifest
    embodiment: Embodiment

    def stream(self, split: Split | None = None) -> Iterator[Clip]:
        return stream_clips(self.folder, self.manifest, split=split, embodiment=self.embodiment)


def training_windows(
    clips: Clips, time_base: TimeBase, *, stride: int, view_size, split: Split | None = "train"
) -> Iterator[Window]:
    """Whole windows every `stride` rows, clip after clip."""
    for clip in clips.stream(split):
        rows = on_time_base(clip, clips.embodiment, time_base)
        starts = window_starts(clip, rows, time_base, stride=stride)
        yield from cut_windows(clip, rows, starts, clips.embodiment, time_base, view_size=view_size)


def judged_windows(clips: Clips, time_base: TimeBase, *, split: Split, view_size) -> Iterator[Window]:
    """One window per chunk of every held-out clip, whose last chunk is to be predicted from the ones before."""
    for clip in clips.stream(split):
        rows = on_time_base(clip, clips.embodiment, time_base)
        starts, chunks = [], []
        for anchor in judged_anchors(rows, time_base):
            past = min(anchor // time_base.steps, time_base.chunks - 1)
            for context in range(past, -1, -1):  # as much past as there is under the same instruction
                start, stop = anchor - context * time_base.steps, anchor + time_base.steps
                whole = rows.valid[start:stop].all() and has_frames(clip, rows, start, context + 1, time_base)
                if whole and has_one_text(clip, rows, start, stop):
                    starts.append(start)
                    chunks.append(context + 1)
                    break
        yield from cut_windows(clip, rows, starts, clips.embodiment, time_base, view_size=view_size, chunks=chunks)


def judged_anchors(rows: Rows, time_base: TimeBase) -> list[int]:
    """Rows at which a chunk begins that the clip still holds whole."""
    return list(range(0, len(rows) - time_base.steps + 1, time_base.steps))


def encode_to(
    path: Path,
    windows: Iterator[Window],
    backbone: Backbone,
    robot: Embodiment,
    *,
    judged: bool,
    on_window: Callable[[int], None],
    batch: int = 16,
) -> int:
    """Encode windows into one tar, atomically; returns how many."""
    import webdataset

    partial = path.with_name(path.name + ".partial")
    done = 0
    with partial.open("wb") as file:
        tar = webdataset.TarWriter(file, mtime=0, encoder=False)
        for group in _batches(windows, batch):
            for window, video in zip(group, backbone.encode(group, robot), strict=True):
                tar.write({"__key__": window.id, **_to_sample(_latents(window, video, backbone, robot, judged=judged))})
                done += 1
            on_window(done)
        tar.close()
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return done


def load_latents(path: Path) -> list[Latents]:
    """All samples of one tar, in its order.

    Raises:
        DataError: it cannot be read.
    """
    import tarfile

    found: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = tar.extractfile(member).read()
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Delete the latents folder and run again.") from None
    return [_from_sample(sample) for sample in found.values()]


def _latents(window: Window, video: np.ndarray, backbone: Backbone, robot: Embodiment, *, judged: bool) -> Latents:
    last = backbone.time_base.frames_per_chunk + 1
    frames = backbone.canvas(window, robot)[-last:] if judged else np.zeros((0, 0, 0, 3), np.uint8)
    return Latents(
        window_id=window.id,
        clip_key=window.clip_key,
        start=window.start,
        text=window.text,
        video=video.astype(np.float16),
        frames=frames,
        state=window.state,
        history=window.history,
        last_action=window.last_action,
        action=window.action,
        action_valid=window.action_valid,
    )


def _to_sample(latents: Latents) -> dict[str, bytes]:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: getattr(latents, name) for name in _ARRAYS})
    words = {k: getattr(latents, k) for k in ("window_id", "clip_key", "start", "text")}
    return {"npz": buffer.getvalue(), "json": json.dumps(words, ensure_ascii=False).encode()}


def _from_sample(sample: dict[str, bytes]) -> Latents:
    with np.load(io.BytesIO(sample["npz"]), allow_pickle=False) as arrays:
        return Latents(**json.loads(sample["json"]), **{name: arrays[name] for name in _ARRAYS})


def _batches(windows: Iterator[Window], size: int) -> Iterator[Sequence[Window]]:
    """Neighbours of equal length together, at most `size` of them."""
    group: list[Window] = []
    for window in windows:
        if group and (len(group) == size or len(group[0].state) != len(window.state)):
            yield group
            group = []
        group.append(window)
    if group:
        yield group
