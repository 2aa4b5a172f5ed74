"""HDF5 files opened so that a broken or hostile one does no harm.

Links to other files are never followed, datasets whose bytes lie in other files are refused, and nothing is unpickled.
Files are opened without a lock, so that a read-only mount works. Does not repair what a killed writer left; says so. A
heap of strings that was altered on purpose can keep HDF5's own library busy for ever.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from schemas.errors import DataError
from schemas.hdf5_layout import Value
from wamdata.extras import need
from wamdata.readers.hdf5.layout import matches, natural
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer

MAGIC = b"\x89HDF\r\n\x1a\n"
MAGIC_AT = (0, 512, 1024, 2048)  # the format allows a block of the user's own before it
MAX_DEPTH, MAX_DATASETS, MAX_HOPS = 12, 10_000, 8
MAX_VALUES = 1_000_000  # of a dataset that is read as one value
# What h5py raises for a damaged file, here and there.
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)


def is_hdf5(path: Path) -> bool:
    """Whether a file's bytes say HDF5."""
    with path.open("rb") as file:
        start = file.read(MAGIC_AT[-1] + len(MAGIC))
    return any(start[at : at + len(MAGIC)] == MAGIC for at in MAGIC_AT)


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Errors of h5py as a `DataError` in one line."""
    try:
        yield
    except _BROKEN as error:
        raise DataError(f"{where}: {_reason(error)}") from None


@contextlib.contextmanager
def opened(path: Path, where: str) -> Iterator[Any]:
    """The file as h5py gives it, closed again in the end.

    Args:
        where: how messages name it.

    Raises:
        DataError: it is a Git-LFS pointer, no HDF5 file, cut short, or its writer never closed it; or what is done with
            it meets damage.
    """
    with told(where):
        if is_lfs_pointer(path):
            raise DataError(f"{where}: a Git-LFS pointer, not the file itself. {LFS_ADVICE}")
        if not is_hdf5(path):
            raise DataError(f"{where}: not an HDF5 file. Copy it again from where it came from.")
        with _open(path) as file:
            yield file


def kept(path: Path) -> Any:
    """The file, open for as long as pictures of it are asked for: one handle per process, of the last few files."""
    stat = path.stat()
    return _kept(path, stat.st_size, stat.st_mtime_ns, os.getpid())


def find(group: Any, path: str, where: str, hops: int = 0) -> Any:
    """The group or dataset at a path, None where there is none; a leading "/" starts at the file's root.

    Raises:
        DataError: the path leads out of the file, or in a circle.
    """
    h5py = need("h5py", for_what="HDF5 logs")
    here = group.file if path.startswith("/") else group
    for name in (n for n in path.split("/") if n not in ("", ".")):
        if not isinstance(here, h5py.Group):
            return None
        here = _child(here, name, where, hops)
    return here


def groups(file: Any, pattern: str, where: str) -> Iterator[str]:
    """Paths of the groups and datasets that a glob finds, sorted by number; `/` finds the root, `""`."""
    yield from _below(file, [p for p in pattern.split("/") if p], "", where)


def datasets(group: Any, where: str) -> dict[str, Any]:
    """Every dataset below a group, by path.

    Raises:
        DataError: one of them lies in another file, or there are absurdly many.
    """
    h5py = need("h5py", for_what="HDF5 logs")
    found: dict[str, Any] = {}
    todo = [("", group)]
    while todo:
        prefix, here = todo.pop()
        for name in here:
            path, item = f"{prefix}{name}", _child(here, name, where, 0)
            if isinstance(item, h5py.Dataset):
                found[path] = _inside(item, path, where)
            elif isinstance(item, h5py.Group) and path.count("/") < MAX_DEPTH:
                todo.append((f"{path}/", item))
            if len(found) + len(todo) > MAX_DATASETS:
                raise DataError(
                    f"{where}: more than {MAX_DATASETS} datasets in one episode. Give a layout of your own."
                )
    return dict(sorted(found.items()))


def is_whole(dataset: Any) -> bool:
    """Whether all that a dataset declares was written; what was not reads as zeros, of a recorder that was killed."""
    if not dataset.size or dataset.is_virtual:
        return True
    if dataset.chunks is None:
        return dataset.id.get_storage_size() > 0
    chunks = (-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    return dataset.id.get_num_chunks() >= math.prod(chunks)


def look_up(group: Any, place: Value, name: str, where: str) -> Any:
    """A value as plain text, number or list of them; None where there is none.

    Args:
        name: of the file, relative to its source.
    """
    if place.file is not None:
        found = re.search(place.file, PurePosixPath(name).with_suffix("").as_posix())
        return found[1] if found else None
    path, _, attribute = (place.source or "").partition("@")
    target = find(group, path, where)
    if target is None:
        return None
    content = _plain(target.attrs.get(attribute) if attribute else _content(target, path, where))
    return _json_value(content, place.json_key) if place.json_key else content


def first_of(group: Any, places: tuple[Value, ...], name: str, where: str) -> Any:
    """The first of these values that is there."""
    return next((v for p in places if (v := look_up(group, p, name, where)) is not None), None)


def _open(path: Path) -> Any:
    return need("h5py", for_what="HDF5 logs").File(path, "r", locking=False)


@lru_cache(maxsize=4)
def _kept(path: Path, size: int, mtime_ns: int, process: int) -> Any:
    """A changed file is another key, and so is a forked process."""
    return _open(path)


def _child(group: Any, name: str, where: str, hops: int) -> Any:
    """What a name in a group stands for. Asks for the link first: h5py would follow one into another file."""
    links = need("h5py.h5l", for_what="HDF5 logs")
    if not isinstance(name, str):
        raise DataError(f"{where}: {name!r} is no name in UTF-8. Copy the file again from where it came from.")
    raw = name.encode()
    if not group.id.links.exists(raw):
        return None
    kind = group.id.links.get_info(raw).type
    if kind == links.TYPE_HARD:
        return group[name]
    if kind != links.TYPE_SOFT:
        raise DataError(f"{where}: {name!r} is a link into another file, which is never followed. Copy what it names.")
    if hops >= MAX_HOPS:
        raise DataError(f"{where}: the links at {name!r} lead in a circle. Write the file without them.")
    return find(group, group.id.links.get_val(raw).decode(), where, hops + 1)


def _below(here: Any, patterns: list[str], prefix: str, where: str) -> Iterator[str]:
    if not patterns:
        yield prefix
    elif hasattr(here, "keys"):
        for name in sorted((n for n in here if matches(n, (patterns[0],))), key=natural):
            item = _child(here, name, where, 0)
            if item is not None:
                yield from _below(item, patterns[1:], f"{prefix}/{name}".lstrip("/"), where)


def _inside(dataset: Any, path: str, where: str) -> Any:
    """The dataset, if its bytes lie in its own file."""
    outside = dataset.external or []
    if dataset.is_virtual:
        outside = [s.file_name for s in dataset.virtual_sources() if s.file_name != "."]
    if outside:
        raise DataError(f"{where}: {path!r} lies in another file, which is never opened. Write it into this one.")
    return dataset


def _content(dataset: Any, path: str, where: str) -> Any:
    if not hasattr(dataset, "shape") or dataset.size is None or "ref" in (dataset.dtype.metadata or {}):
        return None
    if dataset.size > MAX_VALUES:
        raise DataError(f"{where}: {path!r} holds {dataset.size} values where one was expected. Mend the layout.")
    return _inside(dataset, path, where)[()]


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode(errors="replace")
        case np.ndarray():
            return [_plain(v) for v in value.ravel().tolist()] if value.ndim else _plain(value.item())
        case np.generic():
            return _plain(value.item())
        case str() | int() | float() | bool():
            return value
    return None


def _json_value(text: Any, key: str) -> Any:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    for name in key.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _reason(error: Exception) -> str:
    line = next(iter(str(error).strip("'\"").splitlines()), "")[:200] or type(error).__name__
    if "open for write" in line:
        return "its writer is still at work or was killed. Wait for it, or run `h5clear -s` on a copy."
    if "truncated file" in line:
        return f"cut short ({line}): its writer was killed, or it was not copied whole. Copy it again or leave it out."
    if "filter" in line and "not registered" in line:
        return f"compressed in a way that h5py lacks ({line}). Repack it with `h5repack -f GZIP=4`."
    return f"damaged, or not as its layout says ({line}). Copy it again from where it came from."
