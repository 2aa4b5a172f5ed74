"""Arrays in `.npy` and `.npz` files, read a slice at a time and never unpickled.

A `.npy` file is mapped into memory; a member of a `.npz` is decoded up to the rows that are asked for, and its place is
kept, so that reading on in order decodes nothing twice.
"""

import contextlib
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from schemas.errors import DataError, first_line
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer

MAX_MEMBERS = 1000
MAX_WHOLE_BYTES = 1_000_000_000  # of an array in Fortran's order, whose rows do not lie together
PICKLED = "is pickled, and nothing is unpickled: that would run its code. Save it as plain numbers (`np.save`)"
_BROKEN = (
    OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, EOFError, SyntaxError,
    struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """An array on disk, as h5py gives a dataset, so that what reads those reads it.

    Args:
        take: rows [first, stop).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    take: Callable[[int, int], np.ndarray]
    is_virtual = True  # nothing that a writer may have left empty

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=object))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, wanted: int | slice) -> np.ndarray:
        if isinstance(wanted, slice):
            first, stop, _ = wanted.indices(len(self))
            return self.take(first, max(first, stop))
        return self.take(wanted, wanted + 1)[0]


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Errors of numpy and zipfile as a `DataError` in one line."""
    try:
        yield
    except _BROKEN as error:
        raise DataError(f"{where}: damaged, or no numpy file ({first_line(error)[:200]}). Copy it again.") from None


def arrays_in(path: Path, where: str) -> dict[str, Rows]:
    """The arrays of a file by member, that of a `.npy` file as "".

    Raises:
        DataError: it is damaged, declares more than it holds, or holds nothing but pickles.
    """
    with told(where):
        if is_lfs_pointer(path):
            raise DataError(f"{where}: a Git-LFS pointer, not the file itself. {LFS_ADVICE}")
        if path.suffix.lower() == ".npy":
            return {"": _of_npy(path, where)}
        file = _zip(path)
        names = [n for n in file.namelist() if n.endswith(".npy")]
        if not names or len(names) > MAX_MEMBERS:
            raise DataError(f"{where}: holds {len(names)} arrays, of 1 to {MAX_MEMBERS}. Copy it again.")
        found = {n.removesuffix(".npy"): _of_member(path, n, where) for n in names}
        if all(rows.dtype.hasobject for rows in found.values()):
            raise DataError(f"{where} {PICKLED}.")
        return found


def _of_npy(path: Path, where: str) -> Rows:
    with path.open("rb") as file:
        _, _, dtype = _header(file)
    if dtype.hasobject:
        raise DataError(f"{where} {PICKLED}.")
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return Rows(mapped.shape, mapped.dtype, partial(_mapped, path))


def _mapped(path: Path, first: int, stop: int) -> np.ndarray:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.array(mapped[first:stop] if mapped.ndim else mapped.reshape(1))


def _of_member(path: Path, name: str, where: str) -> Rows:
    """A member; one that is pickled shows by its dtype, and has no rows."""
    file = _zip(path)
    with file.open(name) as member:
        shape, is_fortran, dtype = _header(member)
        at = member.tell()
    if dtype.hasobject:
        return Rows(shape, dtype, _never)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if at + size != file.getinfo(name).file_size:
        raise DataError(f"{where}: {name} declares {size} bytes and holds {file.getinfo(name).file_size - at}.")
    if is_fortran and len(shape) > 1:
        if size > MAX_WHOLE_BYTES:
            raise DataError(f"{where}: {name} is too large for Fortran's order. Save it with `np.ascontiguousarray`.")
        return Rows(shape, dtype, partial(_whole, path, name))
    return Rows(shape, dtype, partial(_span, path, name, at, shape, dtype))


def _span(
    path: Path, name: str, at: int, shape: tuple[int, ...], dtype: np.dtype, first: int, stop: int
) -> np.ndarray:  # fmt: skip
    """Rows [first, stop) of a member whose numbers begin at byte `at`."""
    row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    stat = path.stat()
    member = _member(path, stat.st_size, stat.st_mtime_ns, name, os.getpid())
    member.seek(at + first * row)
    content = member.read((stop - first) * row)
    if len(content) != (stop - first) * row:
        raise ValueError(f"{name} ends early")
    return np.frombuffer(content, dtype).reshape(stop - first, *shape[1:])


def _never(first: int, stop: int) -> np.ndarray:
    raise ValueError("pickled")


def _whole(path: Path, name: str, first: int, stop: int) -> np.ndarray:
    with _zip(path).open(name) as member:
        return npy.read_array(member, allow_pickle=False)[first:stop]


def _header(file: BinaryIO | zipfile.ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)


def _zip(path: Path) -> zipfile.ZipFile:
    stat = path.stat()
    return _opened(path, stat.st_size, stat.st_mtime_ns, os.getpid())


@lru_cache(maxsize=4)
def _opened(path: Path, size: int, mtime_ns: int, process: int) -> zipfile.ZipFile:
    """A changed file is another key, and so is a forked process."""
    return zipfile.ZipFile(path)


@lru_cache(maxsize=16)
def _member(path: Path, size: int, mtime_ns: int, name: str, process: int) -> zipfile.ZipExtFile:
    return _opened(path, size, mtime_ns, process).open(name)
