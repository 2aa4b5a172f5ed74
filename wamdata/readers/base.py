"""What every reader gives: a listing of episodes that costs little, and one episode at a time.

A reader is one module with `NAME`, `VERSION`, `detect`, `list_episodes` and `read`. A broken episode is a
`DataError` from `read`; a broken video is a finding of the episode, which then lacks that camera. Sources
are never written to.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from schemas.episode import Episode, Finding, Int64, Stream, Text
from wamdata.source import Source


@dataclass(frozen=True)
class EpisodeRef:
    """One episode of a source, small enough to send to a worker.

    Args:
        key: stable and unique inside the source, free of dots and slashes.
        rows: rows of the main stream (frames for plain video) as the metadata declares them.
        place: reader's own plain values: where the episode lies.
    """

    source: Source
    key: str
    rows: int
    place: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """All episodes of a source and what was noticed while listing them.

    Args:
        hints: what the source says of itself: robot_type, fps, licence, format version.
    """

    reader: str
    episodes: tuple[EpisodeRef, ...]
    findings: tuple[Finding, ...]
    hints: dict[str, str] = field(default_factory=dict)


class Reader(Protocol):
    NAME: str
    VERSION: int

    def detect(self, source: Source) -> bool:
        """Whether this reader understands `source`, from its content."""
        ...

    def list_episodes(self, source: Source) -> Listing: ...

    def read(self, ref: EpisodeRef) -> Episode: ...


def no_instruction(key: str, why: str = "") -> Finding:
    """What is told of an episode without words, `why` they are not there where that is known."""
    message = f"no instruction{f': {why}' if why else ''}. Give one with `task:` in the recipe"
    return Finding("blank_text", "warning", key, message)


UNKNOWN_HZ = 10.0  # rate at which rows are counted where neither log nor data set says one; the robot's own replaces it


def counted(rows: int, hz: float) -> Int64:
    """(rows,) times in ns of rows that a log numbers and does not time."""
    return np.round(np.arange(rows) * (1e9 / hz)).astype(np.int64)


def content_sha256(streams: dict[str, Stream], texts: tuple[Text, ...], *parts: bytes) -> str:
    """Hash of what an episode says, whatever its number, its start time and however its files were written.

    Args:
        parts: what else tells it apart: of an episode without streams, its pictures.
    """
    digest = hashlib.sha256()
    start_ns = min((int(s.t_ns[0]) for s in streams.values() if len(s.t_ns)), default=0)
    for t_ns in {s.t_ns.tobytes(): s.t_ns for s in streams.values()}.values():
        digest.update((t_ns - start_ns).tobytes())
    for name in sorted(streams):
        values = streams[name].values
        digest.update(f"{name}{values.shape}".encode() + values.tobytes())
    for text in texts:
        digest.update(f"{text.start_ns - start_ns} {text.stop_ns - start_ns} {text.text}\n".encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
