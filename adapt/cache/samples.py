"""The cache stage: windows through the frozen encoders, each once, before training or on first use.

`Cache` gives training and judging their samples by (part, window, copy). What is missing is encoded: ahead,
a clip at a time so that decoding is shared, or in the background by training's feed, in the order in which it asks.
A window's encoding depends on nothing but the window, so both give the same bytes.

Does not decide which windows there are (`catalogue`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adapt.backbones.base import AUGMENTED, Backbone, Latents
from adapt.cache.catalogue import Catalogue, Entry, Part
from adapt.cache.store import FRAMES, Store, as_frames, frames_of
from adapt.clips import Clips
from schemas.episode import Window
from wamdata.augment import Draw, apply
from wamdata.windows import cut_windows, on_time_base

GROUP = 32  # windows to a shard when encoding ahead: 86 MB for the 14B
Need = tuple[str, int, int]  # part, entry, copy


@dataclass(frozen=True)
class Cache:
    """The catalogue of a run's windows and the store of their encodings."""

    catalogue: Catalogue
    store: Store

    def load(self, part: str, window: str, copy: int = 0) -> Latents:
        """One sample."""
        return self._latents(self.catalogue.parts[part], self.catalogue.parts[part].place[window], copy)

    def all(self, part: str) -> list[Latents]:
        """The plain copy of every window of a part, in its order."""
        chosen = self.catalogue.parts.get(part)
        return [] if chosen is None else [self._latents(chosen, i, 0) for i in range(len(chosen.entries))]

    def swapped(self, part: str) -> list[Latents] | None:
        """Windows with their views in each other's places; None where there is one camera."""
        chosen = self.catalogue.parts[part]
        if not chosen.entries or not all(e.swapped for e in chosen.entries):
            return None
        return [self._latents(chosen, i, 0, key=e.swapped) for i, e in enumerate(chosen.entries)]

    def said(self, sample: Latents, prompt: str) -> Latents:
        """The same sample under another prompt, which must be one of the catalogue's."""
        words = self.store.text(prompt)
        return replace(sample, text=prompt, encoded={**sample.encoded, **words})

    def missing(self, needs: Iterable[Need]) -> list[Need]:
        """Of these, what has yet to be encoded."""
        found, seen = [], set()
        for need in needs:
            key = self.key(need)
            if key not in self.store and key not in seen:
                found.append(need)
                seen.add(key)
        return found

    def unread_prompts(self) -> list[str]:
        """Prompts that the text encoder has yet to see."""
        return [p for p in self.catalogue.prompts if not self.store.has_text(p)]

    def key(self, need: Need) -> str:
        part, entry, copy = need
        chosen = self.catalogue.parts[part].entries[entry]
        return chosen.swapped if copy < 0 else chosen.keys[copy]

    def needs(self, *, copies: bool = True) -> list[Need]:
        """All there is to encode, plain copies first; copy -1 stands for swapped views."""
        found: list[Need] = []
        for name, part in self.catalogue.parts.items():
            found += [(name, i, 0) for i in range(len(part.entries))]
            found += [(name, i, -1) for i, e in enumerate(part.entries) if e.swapped]
        for name, part in self.catalogue.parts.items() if copies else ():
            found += [(name, i, k) for k in range(1, part.copies) for i in range(len(part.entries))]
        return found

    def outlines(self, part: str) -> list[Latents]:
        """The plain copy of every window of a part, without what the encoders made of it: rows and names alone."""
        chosen = self.catalogue.parts[part]
        return [self._bare(chosen, i, 0) for i in range(len(chosen.entries))]

    def _latents(self, part: Part, at: int, copy: int, *, key: str | None = None) -> Latents:
        entry = part.entries[at]
        tensors = self.store.load(key or entry.keys[copy])
        frames = frames_of(tensors)
        encoded = tensors | dict(self.store.text(entry.prompt))
        return replace(self._bare(part, at, copy), encoded=encoded, frames=frames)

    def _bare(self, part: Part, at: int, copy: int) -> Latents:
        entry = part.entries[at]
        return Latents(
            window_id=entry.id,
            copy=copy,
            clip_key=entry.clip,
            start=entry.starts[copy],
            text=entry.prompt,
            robot=part.robot,
            encoded={},
            frames=None,
            **part.row(at, copy),
        )


@dataclass(frozen=True)
class Encoding:
    """Encodes windows of a catalogue: the encoders, and the clips to cut from."""

    backbone: Backbone
    clips: dict[str, Clips]
    imitated: frozenset[str]

    def encode(self, cache: Cache, needs: Sequence[Need]) -> None:
        """Encode these and put them into the store, as one shard."""
        made = {}
        for (name, clip), group in _by_clip(cache.catalogue, needs).items():
            part = cache.catalogue.parts[name]
            for need, window in zip(group, self._windows(part, clip, group), strict=True):
                made[cache.key(need)] = self._encoded(part, window)
        cache.store.add(made)

    def embed(self, cache: Cache) -> None:
        """Embed every prompt of the catalogue, once; nothing is kept of one where there is no text encoder."""
        left = cache.unread_prompts()
        if left:
            cache.store.add_texts({prompt: {} for prompt in left} | self.backbone.embed(left))

    def _encoded(self, part: Part, window: Window) -> dict[str, torch.Tensor]:
        robot = self.clips[part.source].embodiment
        tensors = dict(self.backbone.encode([window], robot)[0])
        if part.judged:
            last = self.backbone.time_base.frames_per_chunk + 1
            tensors[FRAMES] = as_frames(self.backbone.canvas(window, robot)[-last:])
        return tensors

    def _windows(self, part: Part, clip_key: str, group: Sequence[Need]) -> list[Window]:
        clips = self.clips[part.source]
        clip, time_base, robot = clips.read(clip_key), self.backbone.time_base, clips.embodiment
        rows = on_time_base(clip, robot, time_base, imitated=self.imitated)
        entries = [part.entries[at] for _, at, _ in group]
        starts = [e.starts[max(copy, 0)] for e, (_, _, copy) in zip(entries, group, strict=True)]
        size, chunks = self.backbone.view_size(robot), [e.chunks for e in entries]
        cut = cut_windows(clip, rows, starts, robot, time_base, view_size=size, chunks=chunks)
        tile = self.backbone.tile_size(robot)
        return [
            _seen(window, entry, copy, tile) for window, entry, (_, _, copy) in zip(cut, entries, group, strict=True)
        ]


def ahead(encoding: Encoding, cache: Cache, needs: Sequence[Need], on_done: Callable[[int], None]) -> None:
    """Encode what is missing of `needs`, a group of neighbours at a time."""
    done = 0
    for group in groups(cache.missing(needs)):
        encoding.encode(cache, group)
        done += len(group)
        on_done(done)


def groups(needs: Sequence[Need], size: int = GROUP) -> list[list[Need]]:
    """Needs in shards' worth, in their order."""
    return [list(needs[i : i + size]) for i in range(0, len(needs), size)]


def open_cache(folder: Path, store: Path | None = None) -> Cache:
    """The cache of a finished or begun latents stage."""
    own = folder / "store"
    return Cache(Catalogue.read(folder), Store(store or own, texts=own))


def _by_clip(catalogue: Catalogue, needs: Sequence[Need]) -> dict[tuple[str, str], list[Need]]:
    found: dict[tuple[str, str], list[Need]] = {}
    for need in needs:
        found.setdefault((need[0], catalogue.parts[need[0]].entries[need[1]].clip), []).append(need)
    return found


def _seen(window: Window, entry: Entry, copy: int, tile: tuple[int, int]) -> Window:
    """The window's frames as the encoders get them; augmented ones are on the size of their tile already."""
    if copy < 0:
        keys = list(window.frames)
        turned = dict(zip(keys, (window.frames[k] for k in [*keys[1:], keys[0]]), strict=True))
        return replace(window, frames=turned)
    if copy == 0:
        return window
    drawn = Draw(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.draws[copy].items()})
    frames = {k: apply(drawn, v, size=tile) for k, v in window.frames.items()}
    return replace(window, frames=frames, extras={AUGMENTED: "yes"})
