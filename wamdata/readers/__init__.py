"""One file per log format, and the choice among them. The contract is in `base.py`."""

from schemas.errors import UsageError
from wamdata.readers import lerobot, video
from wamdata.readers.base import Reader
from wamdata.source import Source

READERS: tuple[Reader, ...] = (lerobot, video)  # asked in this order: a log may hold videos, a video holds no log


def detect_reader(source: Source, name: str = "auto") -> Reader:
    """The reader for a source: the one named, or the first that knows its content.

    Raises:
        UsageError: no such path, no such reader, or nothing that any reader knows.
        DataError: the source is a robot log whose metadata cannot be read.
    """
    source.require()
    if name != "auto":
        return _named(name)
    for reader in READERS:
        if reader.detect(source):
            return reader
    raise UsageError(
        f"no robot log or video found in {source} (looked for LeRobot meta/info.json and video files). "
        f"Give the folder that holds `meta/`, or the videos."
    )


def _named(name: str) -> Reader:
    for reader in READERS:
        if name == reader.NAME:
            return reader
    raise UsageError(f"no reader {name!r}. Known: auto, {', '.join(r.NAME for r in READERS)}.")
