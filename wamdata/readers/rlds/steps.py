"""The steps of one record as streams: which leaf becomes one, and which is left out and why.

Left out with a finding: embeddings of language, sequences of changing length inside a step, tensors of changing shape
or wider than `WIDEST`.
"""

import math
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Finding, Float32, Int64, Stream
from schemas.errors import DataError
from wamdata.readers.rlds.example import Example
from wamdata.readers.rlds.features import Layout, Leaf

STEPS = "steps/"
MARKS = ("steps/is_first", "steps/is_last", "steps/is_terminal")  # what a step is, not what the robot does
EMBEDDING_WIDTH = 256
WIDEST = 1024
LETTERS = 16  # an instruction of so many integers is spelt in them, as in Language-Table
FLOATS = {"float16", "float32", "float64"}
INTS = {"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


@dataclass(frozen=True)
class Steps:
    """One record, and what its steps are.

    Args:
        count: steps in the record.
        rows: those whose action holds: one fewer where the last is marked as last.
        t_ns, ends_ns: (count,) time of each step, and where it ends.
    """

    example: Example
    layout: Layout
    key: str
    count: int
    rows: int
    t_ns: Int64
    ends_ns: Int64


def count_steps(example: Example, layout: Layout) -> int:
    """Steps of a record, from the first leaf that tells: a mark of the steps, else whatever has a fixed width.

    Raises:
        DataError: none does.
    """
    for leaf in _counters(layout):
        width = 1 if _is_bytes(leaf) else _width(leaf)
        values = len(example.spans(leaf.path) if _is_bytes(leaf) else _numbers(example, leaf))
        if values and values % width == 0:
            return values // width
    raise DataError(f"{example.where}: holds no steps. Drop the episode, or copy the file again.")


def read_streams(steps: Steps) -> tuple[dict[str, Stream], list[Finding]]:
    """Every numeric leaf of the steps that is the same size in each, under its path below `steps/`.

    Raises:
        DataError: a leaf has more or fewer values than there are steps.
    """
    streams: dict[str, Stream] = {}
    wanted, left_out = _stream_leaves(steps.layout)
    t_ns, absent = steps.t_ns[: steps.rows], []
    for leaf in wanted:
        name, values = leaf.path.removeprefix(STEPS), _values(steps, leaf)
        if values is None:
            absent.append(name)
        else:
            streams[name] = Stream(name, t_ns, values[: steps.rows])
    if absent:
        left_out = left_out | {"of changing length, or in no step": tuple(absent)}
    return streams, [
        Finding("column_left_out", "info", steps.key, f"{', '.join(names)}: {reason}, left out")
        for reason, names in sorted(left_out.items())
    ]


def read_values(steps: Steps, path: str) -> Float32 | None:
    """(count, D) values of one leaf at all steps, None where there is none or it can be no stream."""
    leaf = steps.layout.by_path.get(path)
    return _values(steps, leaf) if leaf in _stream_leaves(steps.layout)[0] else None


@lru_cache(maxsize=16)
def _counters(layout: Layout) -> tuple[Leaf, ...]:
    """Leaves whose number of values tells the number of steps, marks of the steps first."""
    found = [
        leaf
        for leaf in layout.leaves
        if leaf.path.startswith(STEPS) and leaf.levels == 1 and leaf.kind in ("tensor", "classLabel", "text", "image")
    ]
    found = [leaf for leaf in found if _is_bytes(leaf) or (_width(leaf) and leaf.dtype in FLOATS | INTS)]
    return tuple(sorted(found, key=lambda leaf: leaf.path not in MARKS))


@lru_cache(maxsize=16)
def _stream_leaves(layout: Layout) -> tuple[tuple[Leaf, ...], dict[str, tuple[str, ...]]]:
    """Leaves that can be streams, and the names of those that cannot by the reason."""
    numbers = [leaf for leaf in layout.leaves if leaf.path.startswith(STEPS) and leaf.kind in ("tensor", "classLabel")]
    numbers = [leaf for leaf in numbers if leaf.path not in MARKS and leaf.dtype != "string" and not is_spelt(leaf)]
    reasons = {leaf.path: _why_no_stream(leaf) for leaf in numbers}
    left_out = {
        reason: tuple(path.removeprefix(STEPS) for path, why in reasons.items() if why == reason)
        for reason in set(reasons.values()) - {""}
    }
    return tuple(leaf for leaf in numbers if not reasons[leaf.path]), left_out


def zero_first_action(steps: Steps, streams: dict[str, Stream]) -> list[Finding]:
    """Whether the first action is zero but for its last column, a gripper's, as in each episode of Bridge."""
    action = streams.get("action")
    if action is None or len(action.values) < 2 or action.values.shape[1] < 2:
        return []
    is_zero = np.abs(action.values[:2, :-1]).max(axis=1) < 1e-5
    if not is_zero[0] or is_zero[1]:
        return []
    message = "the first action is zero and the next is not: a placeholder of the converter's. Kept"
    return [Finding("zero_first_action", "info", steps.key, message)]


def is_spelt(leaf: Leaf) -> bool:
    """Whether a leaf holds an instruction letter by letter, as integers that zeros fill up."""
    is_list = leaf.kind == "tensor" and len(leaf.shape) == 1 and (leaf.shape[0] or 0) >= LETTERS
    return is_list and "instruction" in leaf.name and leaf.dtype in ("int32", "int64", "uint8")


def _why_no_stream(leaf: Leaf) -> str:
    """Why a leaf of numbers cannot be a stream, "" where it can."""
    width = _width(leaf)
    if "embedding" in leaf.path and (width or EMBEDDING_WIDTH) >= EMBEDDING_WIDTH:
        return "an embedding of language"
    if "depth" in leaf.name and (width is None or width > WIDEST):
        return "depth"
    if leaf.dtype not in FLOATS | INTS:
        return f"of dtype {leaf.dtype or 'unknown'}"
    if width is None or leaf.levels > 2:
        return "of changing shape"
    return f"wider than {WIDEST}" if width > WIDEST else "empty" if not width else ""


def _values(steps: Steps, leaf: Leaf) -> Float32 | None:
    """(count, D) values; None of a leaf that no step has, or that differs in length from step to step."""
    if leaf.encoding in ("bytes", "zlib"):
        return _unpacked(steps, leaf)
    values = _numbers(steps.example, leaf)
    if not len(values):
        return None
    rows = steps.count
    if leaf.levels == 2:
        lengths = steps.example.ints(f"{leaf.path}/ragged_row_lengths_0")
        if len(lengths) != rows or lengths.min() != lengths.max():
            return None
    if len(values) % rows or (leaf.levels == 1 and len(values) != rows * _width(leaf)):
        raise _miscounted(steps, leaf, f"{len(values)} values")
    flat = values.reshape(rows, -1)
    # TFDS stores unsigned 64-bit integers as signed ones of the same bits.
    return (flat.view(np.uint64) if leaf.dtype == "uint64" else flat).astype(np.float32)


def _numbers(example: Example, leaf: Leaf) -> NDArray[np.float32] | Int64:
    path = leaf.path if leaf.levels < 2 else f"{leaf.path}/ragged_flat_values"
    return example.floats(path) if leaf.dtype in FLOATS else example.ints(path)


def _unpacked(steps: Steps, leaf: Leaf) -> Float32 | None:
    """Values of a tensor whose bytes are stored, one string a step."""
    if leaf.levels > 1:
        return None
    dtype, coded = np.dtype(leaf.dtype).newbyteorder("<"), steps.example.texts(leaf.path)
    size = _width(leaf) * dtype.itemsize
    if not coded:
        return None
    if len(coded) != steps.count:
        raise _miscounted(steps, leaf, f"{len(coded)} values")
    try:
        raw = [_inflated(content, size) for content in coded] if leaf.encoding == "zlib" else coded
    except zlib.error:
        raise _miscounted(steps, leaf, "a broken zlib value") from None
    if any(len(content) != size for content in raw):
        raise _miscounted(steps, leaf, f"a value of other than {size} bytes")
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, as TFDS has it
        return np.frombuffer(b"".join(raw), dtype).reshape(steps.count, -1).astype(np.float32)


def _inflated(content: bytes, size: int) -> bytes:
    """At most a byte more than `size`, whatever the content claims."""
    return zlib.decompressobj().decompress(content, size + 1)


def _is_bytes(leaf: Leaf) -> bool:
    """Whether the leaf is stored as strings."""
    return leaf.kind in ("image", "text") or leaf.dtype == "string" or leaf.encoding in ("bytes", "zlib")


def _width(leaf: Leaf) -> int | None:
    """Numbers in one step's value, None where that varies."""
    return None if None in leaf.shape else math.prod(size or 0 for size in leaf.shape)


def _miscounted(steps: Steps, leaf: Leaf, got: str) -> DataError:
    want = f"{steps.count} steps of shape {leaf.shape}"
    return DataError(f"{steps.example.where}: {leaf.path} has {got} for {want}. Drop the episode, or copy it again.")
