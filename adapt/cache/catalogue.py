"""Every window of a run before a pixel is decoded: where it lies, what the robot did in it, and its key in the store.

    latents/windows.json               clips, and of every window its start, chunks, prompt and keys
    latents/rows-<part>.safetensors    states and commands of the windows of a part, a row for each copy

Training windows start every `window_stride_s`; held-out ones at every chunk, with as much past as there is (none at an
episode's start), which is how a policy meets them. Copy 0 of a window is plain; the others are augmented and may begin
up to a stride later (`wamdata.augment`), their draws seeded by (seed, window, copy) and recorded here.

A key names what the encoders will see, and which encoders: clip content, start, time base, views, draw, encoder. So a
cache can be shared between runs, and never gives what another encoder made.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adapt.clips import Clips
from schemas.embodiment import Embodiment
from schemas.episode import Window
from schemas.errors import DataError
from schemas.files import write_atomic
from schemas.manifest import Split
from schemas.recipe import AdaptRecipe, TimeBase
from schemas.record import sha256_of
from wamdata.augment import Augmentation, draw
from wamdata.clips import Clip
from wamdata.windows import Rows, judged_starts, on_time_base, window_at, window_starts

FILE = "windows.json"
ROWS = ("state", "history", "last_action", "action", "action_valid")


@dataclass(frozen=True)
class Entry:
    """One window.

    Args:
        id: the plain copy's, by which it is ordered.
        clip: key of its clip.
        text: its instruction; `prompt`: what the model reads.
        starts, keys, draws: of each copy: first row, key in the store, augmentation.
        swapped: key of the same window with its views in each other's places; "" where there is none.
    """

    id: str
    clip: str
    chunks: int
    text: str
    prompt: str
    starts: tuple[int, ...]
    keys: tuple[str, ...]
    draws: tuple[dict[str, Any], ...]
    swapped: str = ""


@dataclass(frozen=True)
class Part:
    """Windows of one source that are used alike.

    Args:
        source: name of the recipe's part that it comes from.
        split: which of the three; training windows are in `train`.
        robot: digest of its embodiment.
        judged: its last chunk's frames are kept, to be compared with what was imagined.
    """

    name: str
    source: str
    split: Split
    robot: str
    judged: bool
    entries: tuple[Entry, ...]
    rows: dict[str, np.ndarray] = field(repr=False)

    @cached_property
    def place(self) -> dict[str, int]:
        """Window id -> number of its entry."""
        return {entry.id: at for at, entry in enumerate(self.entries)}

    @property
    def copies(self) -> int:
        return max((len(e.keys) for e in self.entries), default=1)

    def row(self, entry: int, copy: int) -> dict[str, np.ndarray]:
        """States and commands of one copy, cut to the window's chunks."""
        at, chunks = entry * self.copies + copy, self.entries[entry].chunks
        return {name: self.rows[name][at, :chunks] for name in ROWS}

    def action_rows(self, window: str, copy: int) -> int:
        """How many of its commands are to be learned from."""
        row = self.row(self.place[window], copy)
        return int(row["action_valid"].sum()) if row["action"].shape[-1] else 0


@dataclass(frozen=True)
class Catalogue:
    """All parts of a run."""

    parts: dict[str, Part]

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(sorted({e.prompt for part in self.parts.values() for e in part.entries}))

    def write(self, folder: Path) -> None:
        """Write both kinds of files, the record last."""
        from safetensors.numpy import save

        for name, part in self.parts.items():
            write_atomic(folder / f"rows-{name}.safetensors", save(part.rows))
        values = {
            name: {
                "source": part.source,
                "split": part.split,
                "robot": part.robot,
                "judged": part.judged,
                "entries": [asdict(e) for e in part.entries],
            }
            for name, part in self.parts.items()
        }
        write_atomic(folder / FILE, json.dumps(values, ensure_ascii=False).encode())

    @classmethod
    def read(cls, folder: Path) -> "Catalogue":
        """Raises DataError if a file is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            values = json.loads((folder / FILE).read_bytes())
            parts = {
                name: Part(
                    name=name,
                    rows=load_file(folder / f"rows-{name}.safetensors"),
                    entries=tuple(_entry(e) for e in part.pop("entries")),
                    **part,
                )
                for name, part in values.items()
            }
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(f"{folder / FILE}: cannot be read ({error}). Delete that folder and run again.") from None
        return cls(parts)


def _entry(values: dict[str, Any]) -> Entry:
    return Entry(**values | {k: tuple(values[k]) for k in ("starts", "keys", "draws")})


@dataclass(frozen=True)
class Naming:
    """What the keys of a catalogue depend on besides the window."""

    encoder: str
    layout: Callable[[Embodiment], str]
    time_base: TimeBase
    augmentation: Augmentation
    seed: int

    def key(self, clips: Clips, clip: Clip, t_ns: int, chunks: int, how: dict[str, Any]) -> str:
        """Name of what an encoder makes of these frames."""
        robot = clips.embodiment
        seen = {
            "encoder": self.encoder,
            "layout": self.layout(robot),
            "clip": [clip.key, clips.content[clip.key]],
            "cameras": [[c.key, c.role, c.side, c.rotate, c.flip, c.channels] for c in robot.model_cameras],
            "t_ns": t_ns,
            "chunks": chunks,
            "chunk_s": self.time_base.chunk_s,
            "video_fps": self.time_base.video_fps,
            "how": how,
        }
        return sha256_of(seen)[:32]


def training_part(name: str, source: str, clips: Clips, backbone, recipe: AdaptRecipe, naming: Naming) -> Part:
    """Whole windows of the training split every `window_stride_s`, each with its copies."""
    time_base = naming.time_base
    stride = max(1, round(recipe.window_stride_s * time_base.action_hz))
    copies = recipe.augment.copies
    is_silent = next("action" not in p.losses for p in recipe.parts if p.name == source)
    imitated = frozenset() if is_silent else frozenset(recipe.imitate)
    entries, windows = [], []
    for clip, rows in _rows(clips, time_base, imitated, "train"):
        possible = set(window_starts(clip, rows, time_base, stride=1))
        for start in range(0, len(rows), stride):
            if start not in possible:
                continue
            plain = window_at(clip, rows, start, clips.embodiment, time_base, time_base.chunks)
            drawn = [draw(naming.augmentation, naming.seed, plain.id, copy, stride=stride) for copy in range(copies)]
            starts = [start + d.phase if start + d.phase in possible else start for d in drawn]
            hows = [d.as_dict() for d in drawn]
            entries.append(_named(clips, clip, rows, plain, starts, hows, backbone, naming))
            windows += [
                window_at(clip, rows, a, clips.embodiment, time_base, time_base.chunks) if a != start else plain
                for a in starts
            ]
    return _part(name, source, clips, entries, windows, time_base, split="train", judged=False)


def judged_part(
    name: str, source: str, clips: Clips, backbone, recipe: AdaptRecipe, naming: Naming, *, split: Split, frames: bool
) -> Part:
    """One window per chunk of every held-out clip, whose last chunk is to be predicted from the ones before.

    Args:
        frames: keep the last chunk's frames, and encode the windows with views swapped as well.
    """
    time_base = naming.time_base
    is_silent = next("action" not in p.losses for p in recipe.parts if p.name == source)
    imitated = frozenset() if is_silent else frozenset(recipe.imitate)
    entries, windows = [], []
    for clip, rows in _rows(clips, time_base, imitated, split):
        for start, chunks in zip(*judged_starts(clip, rows, time_base, video_alone=is_silent), strict=True):
            window = window_at(clip, rows, start, clips.embodiment, time_base, chunks)
            entry = _named(clips, clip, rows, window, [start], [{"plain": True}], backbone, naming)
            if frames and len(clips.embodiment.model_cameras) > 1:
                at = int(rows.t_ns[start])
                entry = replace(entry, swapped=naming.key(clips, clip, at, chunks, {"swapped": True}))
            entries.append(entry)
            windows.append(window)
    return _part(name, source, clips, entries, windows, time_base, split=split, judged=frames)


def _rows(clips: Clips, time_base: TimeBase, imitated: frozenset[str], split: Split) -> Iterator[tuple[Clip, Rows]]:
    for clip in clips.stream(split):
        yield clip, on_time_base(clip, clips.embodiment, time_base, imitated=imitated)


def _named(
    clips: Clips,
    clip: Clip,
    rows: Rows,
    window: Window,
    starts: Sequence[int],
    hows: Sequence[dict[str, Any]],
    backbone,
    naming: Naming,
) -> Entry:
    chunks = len(window.state)
    return Entry(
        id=window.id,
        clip=clip.key,
        chunks=chunks,
        text=window.text,
        prompt=backbone.prompt(window.text, clips.embodiment),
        starts=tuple(starts),
        keys=tuple(
            naming.key(clips, clip, int(rows.t_ns[a]), chunks, how) for a, how in zip(starts, hows, strict=True)
        ),
        draws=tuple(hows),
    )


def _part(
    name: str,
    source: str,
    clips: Clips,
    entries: Sequence[Entry],
    windows: Sequence[Window],
    time_base: TimeBase,
    *,
    split: Split,
    judged: bool,
) -> Part:
    """Windows of fewer chunks are filled up with zeros, which `Part.row` cuts off again."""
    robot = clips.embodiment
    rows = {}
    for field_name in ROWS:
        parts = [_filled(getattr(w, field_name), time_base.chunks) for w in windows]
        rows[field_name] = np.stack(parts) if parts else np.zeros((0, time_base.chunks), np.float32)
    return Part(name, source, split, robot.digest(), judged, tuple(entries), rows)


def _filled(values: np.ndarray, chunks: int) -> np.ndarray:
    missing = chunks - len(values)
    return np.ascontiguousarray(np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1)))
