"""What every reader gives: a listing of episodes that costs little, and one episode at a time.

A reader is one module with `NAME`, `VERSION`, `detect`, `list_episodes` and `read`. A broken episode is a
`DataError` from `read`; a broken video is a finding of the episode, which then lacks that camera. Sources
are never written to.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.episode import Episode, Finding
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
