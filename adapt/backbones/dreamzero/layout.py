"""The token sequence and who attends to whom: one description, from which every attention implementation is built.

A training window is [clean video | noisy video | actions | states] (the reference's order). It is cut into segments:
one for each latent frame, one for the actions and one for the states of each chunk. Latent frame 0 is alone; chunk c
owns frames 1 + c * n to n + c * n. Which segment sees which is a table of a few hundred truths:

    clean frame 0            itself
    clean frame of chunk c   clean frame 0, and clean frames of chunks <= c inside the window
    noisy frame 0            itself
    noisy frame, action of c clean frames before chunk c; noisy frames, actions and states of chunk c
    state of chunk c         states of chunk c

Attention inside a segment has no direction. Does not know tensors.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from adapt.backbones.dreamzero.config import DreamZeroConfig

Kind = Literal["clean", "noisy", "action", "state"]
Range = tuple[int, int]
FIRST = -1  # the chunk of latent frame 0, which belongs to none


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens that see, and are seen by, the same tokens.

    Args:
        frame: latent frame of video, from the window's start; of actions and states the first frame of their chunk.
        start, stop: half-open range of tokens.
    """

    kind: Kind
    chunk: int
    frame: int
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start

    @property
    def is_video(self) -> bool:
        return self.kind in ("clean", "noisy")


@dataclass(frozen=True)
class Group:
    """Queries that share one set of keys; ranges are half-open, in order, and never touch."""

    queries: tuple[Range, ...]
    keys: tuple[Range, ...]


@dataclass(frozen=True)
class Layout:
    """A token sequence as segments, and the table of which segment (row) sees which (column).

    Args:
        asking: tokens from here on are queries; those before are a cache's, and only keys.
        live: tokens whose output is used after the last block.
    """

    segments: tuple[Segment, ...]
    sees: tuple[tuple[bool, ...], ...]
    asking: int
    live: Range

    @property
    def tokens(self) -> int:
        return self.segments[-1].stop

    def count(self, *kinds: Kind) -> int:
        return sum(s.tokens for s in self.segments if s.kind in kinds)

    @cached_property
    def without_actions(self) -> "Layout":
        """The same tokens for a sample without actions: its actions and states are padding, seen by no video."""
        registers = [not s.is_video for s in self.segments]
        rows = tuple(
            tuple(i == j if asks or seen else truth for j, (seen, truth) in enumerate(zip(registers, row, strict=True)))
            for i, (asks, row) in enumerate(zip(registers, self.sees, strict=True))
        )
        return replace(self, sees=rows)

    def groups(self, queries: Range | None = None) -> tuple[Group, ...]:
        """Queries by their keys: one attention call each, no mask needed.

        Args:
            queries: only these tokens ask; all from `asking` on by default.
        """
        start, stop = queries or (self.asking, self.tokens)
        by_keys: dict[tuple[bool, ...], list[Range]] = {}
        for segment, row in zip(self.segments, self.sees, strict=True):
            part = (max(segment.start, start), min(segment.stop, stop))
            if part[0] < part[1]:
                by_keys.setdefault(row, []).append(part)
        return tuple(Group(_joined(asked), _joined(self._ranges(row))) for row, asked in by_keys.items())

    def _ranges(self, row: tuple[bool, ...]) -> Iterator[Range]:
        return ((s.start, s.stop) for s, seen in zip(self.segments, row, strict=True) if seen)


def training_layout(
    config: DreamZeroConfig,
    *,
    frame_tokens: int,
    chunks: int,
    clean: bool = True,
    registers: bool = True,
    trim: bool = True,
) -> Layout:
    """The sequence of one training window of `chunks` chunks.

    Args:
        clean: teacher forcing: the window's true latents stand before the noisy ones. Without them a noisy chunk sees
            the noisy chunks before it inside the window.
        registers: whether the batch has actions and states at all.
        trim: leave out the last clean chunk, which nothing that is used attends to; outputs stay the same.
    """
    per_chunk = config.latents_per_chunk
    frames = 1 + chunks * per_chunk
    build = _Builder()
    if clean:
        for frame in range(frames - per_chunk if trim else frames):
            build.add("clean", frame, (frame - 1) // per_chunk, frame_tokens)
    first = build.stop
    for frame in range(frames):
        build.add("noisy", frame, (frame - 1) // per_chunk, frame_tokens)
    if registers:
        for chunk in range(chunks):
            build.add("action", 1 + chunk * per_chunk, chunk, config.steps)
    live = (first, build.stop) if trim else (0, 0)
    if registers:
        for chunk in range(chunks):
            build.add("state", 1 + chunk * per_chunk, chunk, config.states_per_chunk)
    window = config.window_latents
    rule = _teacher_forced if clean else _self_forced
    sees = tuple(tuple(rule(q, k, per_chunk, window) for k in build.segments) for q in build.segments)
    return Layout(tuple(build.segments), sees, 0, live if trim else (0, build.stop))


def decoding_layout(
    config: DreamZeroConfig,
    *,
    frame_tokens: int,
    cached_frames: int,
    first_frame: int,
    frames: int,
    registers: bool,
    state_sees_all: bool = False,
) -> Layout:
    """Cached clean frames, then `frames` latent frames of one chunk (or frame 0), then its actions and states.

    Args:
        first_frame: position of the first new frame; the cached ones are those right before it.
        state_sees_all: the reference's inference, where the state token sees everything; in training it sees itself.
    """
    build = _Builder()
    chunk = (first_frame - 1) // config.latents_per_chunk
    for frame in range(first_frame - cached_frames, first_frame):
        build.add("clean", frame, (frame - 1) // config.latents_per_chunk, frame_tokens)
    asking = build.stop
    for frame in range(first_frame, first_frame + frames):
        build.add("noisy", frame, chunk, frame_tokens)
    if registers:
        build.add("action", first_frame, chunk, config.steps)
        build.add("state", first_frame, chunk, config.states_per_chunk)
    everything = (True,) * len(build.segments)
    itself = tuple(s.kind == "state" for s in build.segments)
    sees = tuple(itself if s.kind == "state" and not state_sees_all else everything for s in build.segments)
    return Layout(tuple(build.segments), sees, asking, (asking, build.stop))


def _teacher_forced(query: Segment, key: Segment, per_chunk: int, window: int) -> bool:
    match query.kind, key.kind:
        case "clean", "clean":
            return key.frame == 0 or (key.chunk <= query.chunk and key.frame >= _end(query.chunk, per_chunk) - window)
        case "noisy" | "action", "clean":
            return query.chunk != FIRST and key.chunk < query.chunk
        case "noisy" | "action", _:
            return key.chunk == query.chunk
        case "state", "state":
            return key.chunk == query.chunk
    return False


def _self_forced(query: Segment, key: Segment, per_chunk: int, window: int) -> bool:
    if query.kind == "state":
        return key.kind == "state" and key.chunk == query.chunk
    if key.kind == "noisy":
        return key.frame == 0 or (key.chunk <= query.chunk and key.frame >= _end(query.chunk, per_chunk) - window)
    return key.chunk == query.chunk


def _end(chunk: int, per_chunk: int) -> int:
    """The frame after the last of a chunk."""
    return 1 + (chunk + 1) * per_chunk


class _Builder:
    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.stop = 0

    def add(self, kind: Kind, frame: int, chunk: int, tokens: int) -> None:
        self.segments.append(Segment(kind, chunk, frame, self.stop, self.stop + tokens))
        self.stop += tokens


def _joined(ranges: Iterator[Range] | list[Range]) -> tuple[Range, ...]:
    """Ranges in order, with those that touch made one."""
    joined: list[Range] = []
    for start, stop in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)
