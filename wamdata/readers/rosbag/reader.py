"""ROS bags: of ROS 1 (`.bag`), and of ROS 2 in SQLite (`.db3`, with or without metadata.yaml, also compressed).

One recording is one episode, as with MCAP, whose reader says what topics become. Bags of ROS 2 before Iron define no
types: those of ROS's own packages are known, others are left out and told.

Limits: of a bag that its recorder never closed, what reached the disk is read.
"""

from pathlib import Path

from schemas.episode import Episode
from schemas.errors import DataError
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.messages.bag import PACKED, BagFile, plain_file, starts_with
from wamdata.readers.messages.episode import read_recording
from wamdata.readers.messages.recordings import METADATA, bag_suffix, candidates, list_recordings
from wamdata.readers.rosbag.bag1 import MAGIC as ROS1
from wamdata.readers.rosbag.bag1 import Bag1
from wamdata.readers.rosbag.sqlite import MAGIC as SQLITE
from wamdata.readers.rosbag.sqlite import Sqlite
from wamdata.source import Source

NAME = "rosbag"
VERSION = 1
ROS2 = ".db3"
SUFFIXES = (".bag", ROS2)


def detect(source: Source) -> bool:
    """Whether `source` is or holds bags; a lone file of this machine may have any suffix."""
    return bool(_names(source))


def list_episodes(source: Source) -> Listing:
    """Every recording; no file is opened but to tell what it is.

    Raises:
        DataError: there is none.
    """
    names = _names(source)
    if not names:
        raise DataError(f"{source}: holds no ROS bags. Give the folder that holds them.")
    kinds = {"ROS 2 SQLite" if bag_suffix(n) == ROS2 else "ROS 1" for n in names}
    return list_recordings(source, NAME, names, ", ".join(sorted(kinds)), open_file)


def read(ref: EpisodeRef) -> Episode:
    """One recording as logged; its pictures stay where they are.

    Raises:
        DataError: none of its files can be read, or they hold no messages.
    """
    return read_recording(ref, open_file, f"{NAME}@{VERSION}")


def open_file(path: Path, where: str) -> BagFile:
    """The file, by its first bytes; one that ROS 2 compressed as a whole is unpacked to a temporary place first."""
    path = plain_file(path)
    is_sqlite = path.is_file() and (starts_with(path, SQLITE) or path.suffix.lower() == ROS2)
    return (Sqlite if is_sqlite else Bag1)(path, where)


def _names(source: Source) -> list[str]:
    names = candidates(source, SUFFIXES)
    if source.is_file and source.is_local and bag_suffix(source.name) not in SUFFIXES:
        path = source.path(source.name)
        return names if starts_with(path, ROS1) else []
    return [n for n in names if bag_suffix(n) != ROS2 or _is_bag(source, n)]


def _is_bag(source: Source, name: str) -> bool:
    """Whether a `.db3` file is one of ROS: others keep databases under this suffix too."""
    folder = name.rpartition("/")[0]
    beside = f"{folder}/{METADATA}" if folder else METADATA
    if not source.is_local or name.lower().endswith(PACKED) or (not source.is_file and source.has(beside)):
        return True
    path = source.path(name)
    if not path.stat().st_size or not starts_with(path, SQLITE):
        return True
    with path.open("rb") as file:
        return b"topics" in file.read(1 << 16)
