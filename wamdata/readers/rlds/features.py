"""What features.json says a record of a TFDS set holds: its leaves, each with kind, shape, dtype and encoding.

Both layouts are read, by the same walk:

    {"pythonClassName": "....Tensor", "tensor": {"shape": {"dimensions": ["7"]}, "dtype": "float32"}}    since 4.6
    {"type": "....Tensor", "content": {"shape": [7], "dtype": "float32"}}                                before

Classes are never imported: a feature of one's own is known by the kind of content it has, or not at all.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from schemas.errors import DataError
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer
from wamdata.source import Source

FILE = "features.json"
DEEPEST = 32
# How the newer layout names a content, and what the last part of a class is called in the older one.
KINDS = {
    "featuresDict": ("FeaturesDict",),
    "sequence": ("Sequence", "Dataset"),
    "tensor": ("Tensor", "Scalar"),
    "image": ("Image", "LabeledImage"),
    "video": ("Video",),
    "text": ("Text",),
    "classLabel": ("ClassLabel",),
    "boundingBox": ("BBoxFeature",),
}  # fmt: skip
FIXED = {"boundingBox": ((4,), "float32"), "classLabel": ((), "int64"), "text": ((), "string")}


@dataclass(frozen=True)
class Leaf:
    """One value of a record.

    Args:
        path: its name there, `steps/observation/state`.
        kind: `tensor`, `image`, `video`, `text`, `classLabel`, or `other`.
        shape: of one step's value, None where it varies.
        encoding: of a tensor: `none`, `bytes` or `zlib`.
        levels: sequences it lies in; the steps are one, a second makes it ragged.
    """

    path: str
    kind: str
    shape: tuple[int | None, ...]
    dtype: str
    encoding: str
    levels: int

    @cached_property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, eq=False)
class Layout:
    """What all records of a set hold; one object per file, so that what follows from it is worked out once.

    Args:
        leaves: in order of their paths.
    """

    leaves: tuple[Leaf, ...]

    @cached_property
    def by_path(self) -> dict[str, Leaf]:
        return {leaf.path: leaf for leaf in self.leaves}


def load_layout(source: Source, folder: str) -> Layout:
    """The layout that a folder's features.json gives; `folder` ends in a slash or is empty.

    Raises:
        DataError: the file is missing, a Git-LFS pointer, no JSON, or describes no features.
    """
    name = f"{folder}{FILE}"
    path = source.path(name)
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise DataError(f"{source.where(name)}: missing. Copy it again: it says what the records hold.") from None
    return _read(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: str, size: int, mtime_ns: int) -> Layout:
    """The layout, once per file and not per episode. A changed file is another key."""
    if is_lfs_pointer(Path(path)):
        raise DataError(f"{path}: a Git-LFS pointer, not the file itself. {LFS_ADVICE}")
    try:
        found = tuple(_leaves(json.loads(Path(path).read_text(encoding="utf-8")), "", 0, 0))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: no description of features ({reason}). Copy it again.") from None
    if not found:
        raise DataError(f"{path}: describes no feature. Copy it again.")
    return Layout(tuple(sorted(found, key=lambda leaf: leaf.path)))


def _leaves(node: dict[str, Any], path: str, levels: int, depth: int) -> Iterator[Leaf]:
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST}")
    kind, content = _content(node)
    if kind == "featuresDict":
        for name, child in content.get("features", content).items():
            yield from _leaves(child, f"{path}/{name}" if path else name, levels, depth + 1)
    elif kind == "sequence":
        yield from _leaves(content["feature"], path, levels + 1, depth + 1)
    else:
        shape, dtype = FIXED.get(kind, (_shape(content.get("shape")), _dtype(content.get("dtype"))))
        encoding = str(content.get("encoding") or "none").lower()
        yield Leaf(path, "tensor" if kind == "boundingBox" else kind, shape, dtype, encoding, levels)


def _content(node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The kind of a feature, and what is said of it."""
    for kind in KINDS:
        if isinstance(node.get(kind), dict):
            return kind, node[kind]
    content = node.get("content") or {}
    content = json.loads(content) if isinstance(content, str) else content
    called = str(node.get("type") or node.get("pythonClassName") or "").rpartition(".")[2]
    kind = next((kind for kind, names in KINDS.items() if called in names), "other")
    return kind, content if isinstance(content, dict) else {}


def _shape(shape: object) -> tuple[int | None, ...]:
    """From `{"dimensions": ["7", "-1"]}` or `[7, null]`; of a scalar, which has neither, ()."""
    sizes = shape.get("dimensions", []) if isinstance(shape, dict) else shape or []
    return tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)


def _dtype(dtype: object) -> str:
    name = str(dtype or "").removeprefix("tf.")
    return "string" if name in ("string", "object", "str", "bytes") else name
