"""The arrays of a replay buffer, opened so that a broken or hostile store does no harm.

An array's codecs are looked up in a list before anything of it is read: numcodecs has one that unpickles, and a store
names its codecs itself. A chunk may declare at most MAX_CHUNK_BYTES.
"""

import contextlib
import json
import lzma
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from schemas.errors import DataError, first_line
from wamdata.extras import need
from wamdata.readers.zarr.members import ARRAY_FILES, Members, members_of, where_of
from wamdata.source import Source

MAX_CHUNK_BYTES = 1_000_000_000
IMAGE_CODECS = {f"imagecodecs_{name}" for name in ("jpegxl", "jpeg", "jpeg2k", "jpegls", "png", "webp")}
CODECS = IMAGE_CODECS | {
    "blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "shuffle", "delta", "fixedscaleoffset", "astype", "packbits",
    "vlen-utf8", "vlen-bytes", "crc32", "crc32c", "bytes", "transpose", "sharding_indexed",
}  # fmt: skip
# What zarr-python, numcodecs, imagecodecs and zipfile raise for a damaged store, here and there.
_BROKEN = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError, EOFError,
    struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, SystemError,
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """An array of a store, as h5py gives a dataset: with a length, and its dtype one of numpy's."""

    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.array.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        return self.array.chunks

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, wanted: int | slice) -> Any:
        return self.array[wanted]


@dataclass(frozen=True)
class Buffer:
    """A replay buffer.

    Args:
        arrays: arrays of `data` by name.
        meta: arrays of `meta` by name, `episode_ends` among them.
        unread: arrays that cannot be read, with the reason.
        kept: by array, the chunk of pictures that was decoded last, and its number.
    """

    members: Members
    arrays: dict[str, Rows]
    meta: dict[str, Rows]
    unread: dict[str, str]
    attributes: dict[str, Any]
    kept: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Errors of zarr and its codecs as a `DataError` in one line."""
    try:
        yield
    except DataError:
        raise
    except _BROKEN as error:
        line = first_line(error)[:200]
        raise DataError(f"{where}: damaged, or not as it declares ({line}). Copy the store again.") from None


def open_buffer(source: Source, name: str) -> Buffer:
    """The replay buffer, opened once per process; a store whose list of ends changed is opened anew.

    Raises:
        DataError: it is damaged or has no `meta/episode_ends`.
    """
    files = [name, *(f"{name}/meta/episode_ends/{file}".removeprefix("/") for file in ARRAY_FILES)]
    stats = (source.path(f).stat() for f in files if source.has(f))
    return _opened(source, name, tuple((s.st_size, s.st_mtime_ns) for s in stats), os.getpid())


def stored(buffer: Buffer, name: str, first: int, stop: int) -> tuple[int, int]:
    """How many of the chunks that hold rows [first, stop) of an array are there, and how many there should be."""
    array = buffer.arrays[name].array
    tiles = array.shards or array.chunks
    if any(tile < n for tile, n in zip(tiles[1:], array.shape[1:], strict=True)):
        return 1, 1  # pictures cut into tiles: of some a tile may well hold nothing
    at = range(first // tiles[0], -(-stop // tiles[0]))
    keys = [array.metadata.encode_chunk_key((i, *(0,) * (len(tiles) - 1))) for i in at]
    return sum(buffer.members.has(f"data/{name}/{key}") for key in keys), len(keys)


@lru_cache(maxsize=2)
def _opened(source: Source, name: str, state: tuple[tuple[int, int], ...], process: int) -> Buffer:
    members, where = members_of(source, name), where_of(source, name)
    with told(where):
        meta, _ = _arrays(members, "meta", where)
        if "episode_ends" not in meta:
            raise DataError(f"{where}: `meta/episode_ends` cannot be read, so it is no replay buffer. Copy it again.")
        arrays, unread = _arrays(members, "data", where)
        return Buffer(members, arrays, meta, unread, _attributes(members))


def _arrays(members: Members, group: str, where: str) -> tuple[dict[str, Rows], dict[str, str]]:
    """The arrays of a group, and those that cannot be read with the reason."""
    zarr = need("zarr", for_what="Zarr replay buffers")
    need("numcodecs", for_what="Zarr replay buffers")
    from wamdata.readers.zarr.store import ReadOnlyStore

    store = ReadOnlyStore(members)
    found: dict[str, Rows] = {}
    unread: dict[str, str] = {}
    for name in members.arrays(group):
        path = f"{group}/{name}"
        try:
            with told(path), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zarr warns of types that version 3 has not settled
                version, codecs = _declared(members, path)
                if strange := sorted(codecs - CODECS):
                    unread[name] = f"coded by {', '.join(strange)}, which is not read"
                    continue
                _register(codecs & IMAGE_CODECS)
                array = zarr.open_array(store=store, path=path, mode="r", zarr_format=version)
        except DataError as error:
            unread[name] = str(error).removeprefix(f"{path}: ").removesuffix(". Copy the store again.")
            continue
        if math.prod(array.chunks) * np.dtype(array.dtype).itemsize > MAX_CHUNK_BYTES:
            unread[name] = f"chunks {array.chunks} are larger than {MAX_CHUNK_BYTES / 1e9:g} GB"
        else:
            found[name] = Rows(array)
    return found, unread


def _declared(members: Members, path: str) -> tuple[int, set[str]]:
    """Version of the format and the names of all codecs that an array declares, nested ones too."""
    old = members.read(f"{path}/.zarray")
    content = json.loads(old if old is not None else members.read(f"{path}/zarr.json") or b"")
    if old is None:
        return 3, set(_names(content["codecs"], "name"))
    listed = [content.get("compressor"), *(content.get("filters") or [])]
    return 2, set(_names([c for c in listed if c is not None], "id"))


def _names(codecs: list[Any], field: str) -> Iterator[str]:
    for codec in codecs:
        yield str(codec if isinstance(codec, str) else codec[field]).removeprefix("numcodecs.")
        if isinstance(codec, dict) and isinstance(codec.get("configuration"), dict):
            for inner in ("codecs", "index_codecs"):
                yield from _names(codec["configuration"].get(inner) or [], field)


def _register(names: set[str]) -> None:
    """Make numcodecs know codecs of pictures; zarr 3 asks numcodecs for those of a store of version 2."""
    if names:
        need("imagecodecs.numcodecs", for_what="pictures in this Zarr store").register_codecs(names, verbose=False)


def _attributes(members: Members) -> dict[str, Any]:
    """Attributes of the store, of `data` and of `meta`, the first that says a name counts."""
    found: dict[str, Any] = {}
    for group in ("", "data/", "meta/"):
        old, new = members.read(f"{group}.zattrs"), members.read(f"{group}zarr.json")
        content = json.loads(old or new or b"{}")
        content = content if old else content.get("attributes", {})
        found = {**content, **found}
    return found
