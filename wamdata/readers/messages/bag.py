"""What every kind of bag file gives: its messages one after the other, and any of them again by its place."""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from schemas.errors import DataError
from wamdata.extras import need
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer

ZSTD = b"\x28\xb5\x2f\xfd"
MAX_CHUNK = 1 << 30  # bytes of a chunk or message once unpacked; recorders write a few MB
CHUNKS_KEPT = 2
PACKED = (".zstd", ".zst")
LEAST_UNPACKED, MAX_RATIO = 10**8, 1000  # bytes that any packed file may expand to, and times its size beyond
COPY_AGAIN = "Copy it again from where it came from."

Place = tuple[int, int, int]


@dataclass(frozen=True)
class Channel:
    """A topic and how its messages are written.

    Args:
        encoding: of the messages: cdr, ros1, protobuf, json.
        schema_encoding: of the definition: ros2msg, ros2idl, ros1msg, protobuf, jsonschema; "" where there is none.
        distro: ROS distribution that knows the type where the bag does not define it.
    """

    topic: str
    type: str
    encoding: str
    schema_encoding: str = ""
    schema: bytes = b""
    distro: str = ""


class Message(NamedTuple):
    """One message as recorded; by its `place` the file finds it again."""

    channel: Channel
    log_ns: int
    data: bytes
    place: Place


class BagFile(Protocol):
    problems: list[str]  # what could not be read, known when `messages` has run through

    def span_ns(self) -> tuple[int, int] | None: ...

    def messages(self) -> Iterator[Message]: ...

    def fetch(self, place: Place) -> bytes: ...


Opener = Callable[[Path, str], BagFile]


class Chunks:
    """The last few unpacked chunks of a file, by where they begin."""

    def __init__(self, unpack: Callable[[int], bytes]) -> None:
        self._unpack = unpack
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def at(self, offset: int) -> bytes:
        if offset not in self._kept:
            self._kept[offset] = self._unpack(offset)
            if len(self._kept) > CHUNKS_KEPT:
                self._kept.popitem(last=False)
        return self._kept[offset]


def kept(path: str, where: str, opener: Opener) -> BagFile:
    """A file that stays open for as long as pictures of it are asked for: a handle per process, of the last few."""
    stat = Path(path).stat()
    return _kept(path, where, opener, stat.st_size, stat.st_mtime_ns, os.getpid())


@lru_cache(maxsize=8)
def _kept(path: str, where: str, opener: Opener, size: int, mtime_ns: int, process: int) -> BagFile:
    return opener(Path(path), where)


def require_content(path: Path, where: str) -> None:
    """Nothing, if a file holds something of its own.

    Raises:
        DataError: it is missing, empty or a Git-LFS pointer.
    """
    if not path.is_file():
        raise DataError(f"{where}: missing. List the source again.")
    if not path.stat().st_size:
        raise DataError(f"{where}: empty, holds no bytes. {COPY_AGAIN}")
    if is_lfs_pointer(path):
        raise DataError(f"{where}: a Git-LFS pointer, not the file itself. {LFS_ADVICE}")


def starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def plain_file(path: Path) -> Path:
    """The file; one that ROS 2 compressed as a whole is unpacked to a temporary place first, once per process.

    Raises:
        DataError: it is damaged, or expands absurdly.
    """
    if path.suffix.lower() not in PACKED or not path.is_file():
        return path
    stat = path.stat()
    return _unpacked(path, stat.st_size, stat.st_mtime_ns)[0]


@lru_cache(maxsize=8)
def _unpacked(path: Path, size: int, mtime_ns: int) -> tuple[Path, object]:
    """The plain file, in a temporary folder that lasts as long as what is given with it."""
    zstandard = need("zstandard", for_what="reading a compressed bag")
    folder = tempfile.TemporaryDirectory(prefix="wamkit-")
    target = Path(folder.name) / path.stem
    try:
        with path.open("rb") as packed, target.open("wb") as plain:
            for piece in zstandard.ZstdDecompressor().read_to_iter(packed):
                plain.write(piece)
                if plain.tell() > max(LEAST_UNPACKED, MAX_RATIO * size):
                    raise DataError(f"{path}: expands to more than {MAX_RATIO} times its size. It is no bag: drop it.")
    except zstandard.ZstdError as error:
        raise DataError(f"{path}: cannot be unpacked ({error}). {COPY_AGAIN}") from None
    return target, folder


def plain_payload(data: bytes) -> bytes:
    """A message's bytes; ROS 2 can compress each by itself, and CDR never starts as zstd does.

    Raises:
        ValueError: it cannot be unpacked.
    """
    if not data.startswith(ZSTD):
        return data
    zstandard = need("zstandard", for_what="reading compressed messages")
    reader = zstandard.ZstdDecompressor().stream_reader(data)
    try:
        return reader.read(MAX_CHUNK)
    except zstandard.ZstdError as error:
        raise ValueError(f"a packed message is damaged: {error}") from None
