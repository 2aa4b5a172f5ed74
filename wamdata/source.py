"""Where logs lie: a folder or file of this machine, or any fsspec URL (s3, gs, hf, https). Only ever read.

A file of a remote source is fetched whole when it is first needed, into a cache where it is known by its URL, its size
and what the store says of its version (checksum, etag or time): a file that changed there is fetched again.
"""

import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Self

from schemas.errors import DataError, UsageError, first_line

CACHE = "~/.cache/wamkit/sources"
PASSED_OVER = {".git", ".cache"}  # folders of version control and download caches
VERSION_FIELDS = ("ETag", "etag", "md5Hash", "sha256", "checksum", "generation", "mtime", "LastModified", "updated")
_FOLDED = re.compile(r"^([a-z][a-z0-9+.-]+:)/(?=[^/])")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


@dataclass(frozen=True)
class Source:
    """A folder of files, or a single one. Small enough to send to a worker.

    Args:
        url: as the user gave it: a path, or a URL that fsspec knows.
        cache: folder for fetched files.
    """

    url: str
    cache: str = CACHE

    @classmethod
    def at(cls, place: "str | Path | Source") -> "Source":
        """What a user named; a URL that went through `Path`, which folds its two slashes into one, is mended."""
        if isinstance(place, Source):
            return place
        return cls(str(place) if Path(place).exists() else _FOLDED.sub(r"\1//", str(place)))

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        return not _URL.match(self.url)

    @property
    def name(self) -> str:
        """The last part of where it lies: `logs` for `/data/logs` and for `s3://bucket/logs/`."""
        return Path(self.url).resolve().name if self.is_local else PurePosixPath(self.url.rstrip("/")).name

    @property
    def is_file(self) -> bool:
        return Path(self.url).is_file() if self.is_local else "" in self._remote

    def require(self) -> Self:
        """Itself.

        Raises:
            UsageError: there is nothing there.
        """
        if self.is_local and not Path(self.url).exists():
            raise UsageError(f"{self.url}: no such file or folder. Check the path.")
        if not self.is_local and not self._remote:
            raise UsageError(f"{self.url}: nothing is there, or it may not be listed. Check the URL and your access.")
        return self

    def files(self) -> tuple[str, ...]:
        """Names of all files, relative and in order; of a single file, its own."""
        if self.is_file:
            return (self.name,)
        if not self.is_local:
            return tuple(sorted(self._remote))
        root = Path(self.url)
        found = (p.relative_to(root) for p in root.rglob("*") if p.is_file())
        return tuple(p.as_posix() for p in sorted(found) if not PASSED_OVER & set(p.parts))

    def top(self) -> tuple[str, ...]:
        """Names of the files that lie in no folder."""
        if self.is_local and not self.is_file:
            return tuple(sorted(p.name for p in Path(self.url).iterdir() if p.is_file()))
        return tuple(f for f in self.files() if "/" not in f)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        if self.is_local or self.is_file:
            return name == self.name if self.is_file else (Path(self.url) / name).is_file()
        return name in self._remote

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of this name."""
        if self.is_local:
            return (Path(self.url) / name).is_dir()
        return any(f.startswith(f"{name}/") for f in self._remote)

    def size(self, name: str) -> int:
        """Bytes of a file, without fetching it."""
        return self._local(name).stat().st_size if self.is_local else int(self._entry(name)["size"] or 0)

    def version(self, name: str) -> str:
        """What the store says of a file's version; "" on this machine, where its bytes are looked at."""
        if self.is_local:
            return ""
        entry = self._entry(name)
        return next((str(entry[f]) for f in VERSION_FIELDS if entry.get(f)), "")

    def where(self, name: str) -> str:
        """How a message names a file."""
        return self.url if self.is_file else f"{self.url.rstrip('/')}/{name}"

    def path(self, name: str) -> Path:
        """A file on this machine, fetched if it has to be; a local file need not exist.

        Raises:
            DataError: a remote file is not there or cannot be fetched.
        """
        return self._local(name) if self.is_local else self._fetched(name)

    def folder(self, name: str = "") -> Path:
        """A folder on this machine with all that is below it: for formats that are a folder of many files."""
        if self.is_local:
            return Path(self.url) / name
        for file in self._remote:
            if file.startswith(f"{name}/" if name else ""):
                self._fetched(file)
        return self._root / name

    def without_place(self, message: str) -> str:
        """A message without where the source lies, so that it reads the same wherever it is mounted."""
        here = Path(self.url).parent if self.is_file else Path(self.url)
        for place in (here, self._root) if self.is_local else (self.url.rstrip("/"), self._root):
            message = message.replace(f"{place}/", "")
        return message

    def _local(self, name: str) -> Path:
        return Path(self.url) if self.is_file else Path(self.url) / name

    @property
    def _root(self) -> Path:
        return Path(self.cache).expanduser() / f"{hashlib.sha256(self.url.encode()).hexdigest()[:16]}-{self.name}"

    @property
    def _remote(self) -> dict[str, dict[str, Any]]:
        return _listed(self.url)

    def _entry(self, name: str) -> dict[str, Any]:
        entry = self._remote.get("" if self.is_file else name)
        if entry is None:
            raise DataError(f"{self.where(name)}: missing. Copy it again from where the source came from.")
        if entry.get("size") is None:  # a web server's listing gives names alone
            entry.update(_opened(self.url)[0].info(entry["name"]))
        return entry

    def _fetched(self, name: str) -> Path:
        size, version, target = self.size(name), self.version(name), self._root / name
        mark = target.with_name(f".{target.name}.version")
        known = f"{size} {version}"
        if target.is_file() and mark.is_file() and mark.read_text() == known:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")  # workers may fetch it at once
        try:
            system, _ = _opened(self.url)
            system.get_file(self._entry(name)["name"], str(partial))
        except Exception as error:  # every store has its own: botocore, gcsfs, aiohttp, huggingface
            partial.unlink(missing_ok=True)
            raise DataError(f"{self.where(name)}: cannot be fetched ({first_line(error)}). Try again.") from None
        if size and partial.stat().st_size != size:
            partial.unlink()
            raise DataError(f"{self.where(name)}: fetched short of its {size} bytes. Try again.")
        os.replace(partial, target)
        mark.write_text(known)
        return target


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    import fsspec

    try:
        return fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: {first_line(error)}. Install what it names, or give a local folder.") from None


@lru_cache(maxsize=64)
def _listed(url: str) -> dict[str, dict[str, Any]]:
    """What a remote source holds, by relative name; a single file stands under ""."""
    system, root = _opened(url)
    try:
        found = system.find(root, detail=True)
    except FileNotFoundError:
        return {}
    except Exception as error:
        raise UsageError(f"{url}: cannot be listed ({first_line(error)}). Check the URL and your access.") from None
    below = {_relative(entry["name"], root): entry for entry in found.values()}
    return {name: entry for name, entry in below.items() if not PASSED_OVER & set(name.split("/"))}


def _relative(name: str, root: str) -> str:
    return name.strip("/").removeprefix(root.strip("/")).strip("/")
