"""The objects of a Zarr store by key, whether it is a folder of files or one zip file. Nothing is ever unpacked.

Keys that a store asks for are made of its own arrays' names, so that a zip's entries with other names are never looked
at. An object larger than MAX_OBJECT_BYTES is refused before it is read.
"""

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from schemas.errors import DataError
from wamdata.source import Source

MAX_OBJECT_BYTES = 1_000_000_000
ARRAY_FILES = (".zarray", "zarr.json")
_NAME = re.compile(r"[A-Za-z0-9_ .()\[\]+-]{1,200}")


class Members(Protocol):
    def read(self, key: str) -> bytes | None:
        """An object's bytes, None where there is none."""
        ...

    def has(self, key: str) -> bool: ...

    def arrays(self, group: str) -> list[str]:
        """Names of the arrays directly below a group, sorted."""
        ...


@dataclass(frozen=True)
class Folder:
    """A store that is a folder.

    Args:
        name: relative to its source; "" for the source itself.
    """

    source: Source
    name: str

    def read(self, key: str) -> bytes | None:
        name = self._of(key)
        if not self.source.has(name):
            return None
        _refuse_huge(self.source.size(name), self.source.where(name))
        return self.source.path(name).read_bytes()

    def has(self, key: str) -> bool:
        return self.source.has(self._of(key))

    def arrays(self, group: str) -> list[str]:
        below = self._of(group)
        if self.source.is_local:
            folder = Path(self.source.url) / below
            names = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        else:
            names = {f[len(below) + 1 :].split("/")[0] for f in self.source.files() if f.startswith(f"{below}/")}
        return sorted(_arrays(names, group, self))

    def _of(self, key: str) -> str:
        return f"{self.name}/{key}" if self.name else key


@dataclass(frozen=True)
class Zip:
    """A store that is a zip file, and may lie in a folder inside it."""

    file: zipfile.ZipFile
    where: str
    prefix: str

    def read(self, key: str) -> bytes | None:
        if not self.has(key):
            return None
        entry = self.file.getinfo(f"{self.prefix}{key}")
        _refuse_huge(entry.file_size, f"{self.where}: {key}")
        return self.file.read(entry)

    def has(self, key: str) -> bool:
        return f"{self.prefix}{key}" in self.file.NameToInfo

    def arrays(self, group: str) -> list[str]:
        below = f"{self.prefix}{group}/"
        names = {n[len(below) :].split("/")[0] for n in self.file.NameToInfo if n.startswith(below)}
        return sorted(_arrays(names, group, self))


def where_of(source: Source, name: str) -> str:
    """How a message names a store."""
    return source.where(name).rstrip("/")


def members_of(source: Source, name: str) -> Members:
    """The objects of a store that `stores_in` found.

    Raises:
        DataError: the zip file is broken or is no replay buffer.
    """
    if source.has_folder(name) or (not name and not source.is_file):
        return Folder(source, name)
    path, where = source.path(name), where_of(source, name)
    try:
        stat = path.stat()
        file = _opened(path, stat.st_size, stat.st_mtime_ns, os.getpid())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{where}: not a whole zip file ({error}). Copy it again from where it came from.") from None
    prefix = next(iter(prefixes(file.namelist())), None)
    if prefix is None:
        raise DataError(f"{where}: holds no `meta/episode_ends`, so it is no replay buffer. Give another file.")
    return Zip(file, where, prefix)


def prefixes(names: Iterator[str] | list[str] | tuple[str, ...]) -> list[str]:
    """Folders, "" or ending in a slash, below which a replay buffer's `meta/episode_ends` lies."""
    ends = tuple(f"meta/episode_ends/{file}" for file in ARRAY_FILES)
    found = (n[: -len(e)] for n in names for e in ends if n.endswith(e))
    return sorted({f for f in found if not f or f.endswith("/")})


@lru_cache(maxsize=4)
def _opened(path: Path, size: int, mtime_ns: int, process: int) -> zipfile.ZipFile:
    """A changed file is another key, and so is a forked process."""
    return zipfile.ZipFile(path)


def _arrays(names: set[str], group: str, members: Members) -> Iterator[str]:
    for name in names:
        if _NAME.fullmatch(name) and any(members.has(f"{group}/{name}/{file}") for file in ARRAY_FILES):
            yield name


def _refuse_huge(size: int, where: str) -> None:
    if size > MAX_OBJECT_BYTES:
        raise DataError(f"{where}: one object of {size / 1e9:.1f} GB. Write the store with smaller chunks.")
