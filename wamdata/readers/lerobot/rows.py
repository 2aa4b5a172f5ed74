"""The rows of one LeRobot episode: times, streams and task indices, read with pyarrow.

Goes round the calls of pyarrow that import pandas (`to_numpy`, `read_table`, comparison with a number): that import
costs each worker 1.6 s.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.episode import Finding, Int64, Stream
from schemas.errors import DataError, first_line
from wamdata.readers.lerobot.meta import column_names
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
COPY_AGAIN = "Copy it again from where the set came from."
EVERY = np.iinfo(np.int64)  # bounds of a row group that says none


@dataclass(frozen=True)
class Rows:
    """Rows of an episode.

    Args:
        t_ns: (N,) time of each row as logged; starts where the log starts.
        task_index: (N,) index of each row's instruction, or None when the log has none.
        images: columns that hold encoded pictures.
        first: place of the first row in its file, which in v3 holds many episodes.
        columns: all columns of the file.
    """

    t_ns: Int64
    streams: dict[str, Stream]
    task_index: Int64 | None
    images: tuple[str, ...]
    first: int
    columns: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_rows(path: Path, key: str, features: dict[str, dict[str, Any]], fps: float, *, index: int | None) -> Rows:
    """Rows of one episode.

    Every column of numbers becomes a stream under its name in the log, whole-number columns only when they are
    vectors or actions: single ones are indices and counters.

    Args:
        key: how findings name the episode.
        index: episode to pick out of a file that holds many (v3); None takes all rows.

    Raises:
        DataError: the file is missing, a Git-LFS pointer or unreadable, has no such rows, or its time stands still.
    """
    try:
        return _read_rows(path, key, features, fps, index=index)
    except pa.ArrowException as error:
        raise DataError(f"{path}: {key} is not readable ({first_line(error)}). {COPY_AGAIN}") from None


def _read_rows(path: Path, key: str, features: dict[str, dict[str, Any]], fps: float, *, index: int | None) -> Rows:
    table, schema, first = _table(path, index)
    if not table.num_rows:
        raise DataError(f"{path}: holds no rows of {key}. {COPY_AGAIN}")
    findings: list[Finding] = []
    t_ns = _times(path, key, table, fps, findings)
    streams = {}
    for name in table.column_names:
        if name in BOOKKEEPING:
            continue
        values = _matrix(table[name])
        if values is None:
            message = f"{path}: column {name!r} has rows of different lengths or empty rows: left out"
            findings.append(Finding("ragged_column", "warning", key, message))
            continue
        names = _names(name, features.get(name, {}), values.shape[1], key, findings)
        streams[name] = Stream(name, t_ns, values, names)
    tasks = _numbers(table["task_index"]).astype(np.int64) if "task_index" in table.column_names else None
    declared = [n for n, f in features.items() if f.get("dtype") == "image"]
    images = tuple(dict.fromkeys([*declared, *(f.name for f in schema if _is_image(f.type))]))
    return Rows(t_ns, streams, tasks, images, first, tuple(schema.names), tuple(findings))


def read_column(path: Path, name: str, first: int, stop: int) -> list[Any]:
    """Rows [first, stop) of a column as Python values; of a large file, only the row groups that hold them are read.

    Raises:
        DataError: the file cannot be read, or is shorter.
    """
    found: list[Any] = []
    try:
        with pq.ParquetFile(path) as file:
            at = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if at < stop and at + rows > first:
                    column = file.read_row_group(group, columns=[name]).column(0)
                    low, high = max(first - at, 0), min(stop - at, rows)
                    found += column.slice(low, high - low).to_pylist()
                at += rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {name} is not readable ({first_line(error)}). {COPY_AGAIN}") from None
    if len(found) != stop - first:
        raise DataError(f"{path}: {name} has {at} rows, not {stop}. {COPY_AGAIN}")
    return found


def _table(path: Path, index: int | None) -> tuple[pa.Table, pa.Schema, int]:
    """The columns of numbers of an episode, the schema of the whole file, and where in it the episode starts."""
    try:
        if is_lfs_pointer(path):
            raise DataError(f"{path}: a Git-LFS pointer, not the file itself. {LFS_ADVICE}")
        stat = path.stat()
        shape = _shape(path, stat.st_size, stat.st_mtime_ns)
        schema = shape.schema
        columns = tuple(f.name for f in schema if f.name in BOOKKEEPING or _is_stream(f))
        if index is None:
            with pq.ParquetFile(path, metadata=shape.metadata) as file:
                return file.read(columns=list(columns)), schema, 0
        if "episode_index" not in schema.names:
            raise DataError(f"{path}: no column `episode_index`, so episode {index} cannot be found. {COPY_AGAIN}")
        groups = shape.groups_of(index)
        table = _groups(path, stat.st_size, stat.st_mtime_ns, groups, columns)
        mine = np.flatnonzero(_numbers(table["episode_index"]) == index)
        together = not groups or groups[-1] - groups[0] == len(groups) - 1
        if len(mine) and (mine[-1] - mine[0] != len(mine) - 1 or not together):
            raise DataError(f"{path}: the rows of episode {index} do not stand together. {COPY_AGAIN}")
        before = int(shape.starts[groups[0]]) if groups else 0
        first = int(mine[0]) if len(mine) else 0
        return table.slice(first, len(mine)), schema, before + first
    except FileNotFoundError:
        raise DataError(f"{path}: missing, so the episode has no rows. {COPY_AGAIN}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not readable as parquet ({first_line(error)}). {COPY_AGAIN}") from None


@dataclass(frozen=True)
class Shape:
    """What a parquet file says of itself, which is read once: a shared file has hundreds of row groups and columns.

    Args:
        low, high: (groups,) the episodes that a row group may hold.
        starts: (groups,) place of each group's first row.
    """

    metadata: pq.FileMetaData
    schema: pa.Schema
    low: Int64
    high: Int64
    starts: Int64

    def groups_of(self, index: int) -> tuple[int, ...]:
        return tuple(int(g) for g in np.flatnonzero((self.low <= index) & (index <= self.high)))


@lru_cache(maxsize=4)
def _shape(path: Path, size: int, mtime_ns: int) -> Shape:
    """The shape of a file; a changed file is another key."""
    with pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    column = paths.index("episode_index") if "episode_index" in paths else None
    low, high, rows = [], [], []
    for group in (metadata.row_group(g) for g in range(metadata.num_row_groups)):
        bound = group.column(column).statistics if column is not None else None
        is_known = bound is not None and bound.has_min_max
        low.append(bound.min if is_known else EVERY.min)
        high.append(bound.max if is_known else EVERY.max)
        rows.append(group.num_rows)
    starts = np.cumsum([0, *rows])[:-1].astype(np.int64)
    return Shape(metadata, schema, np.array(low, np.int64), np.array(high, np.int64), starts)


@lru_cache(maxsize=2)
def _groups(path: Path, size: int, mtime_ns: int, groups: tuple[int, ...], columns: tuple[str, ...]) -> pa.Table:
    """Row groups, decoded once for all the episodes that one of them holds."""
    with pq.ParquetFile(path, metadata=_shape(path, size, mtime_ns).metadata) as file:
        return file.read_row_groups(list(groups), columns=list(columns))


def _is_stream(column: pa.Field) -> bool:
    inner, depth = column.type, 0
    while _is_list(inner):
        inner, depth = inner.value_type, depth + 1
    if pa.types.is_integer(inner):
        return depth > 0 or column.name.startswith("action")
    return pa.types.is_floating(inner) or pa.types.is_boolean(inner)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _matrix(column: pa.ChunkedArray) -> np.ndarray | None:
    """A column as (N, D) float32; None when its rows differ in length."""
    rows = len(column)
    array = column.combine_chunks()
    while _is_list(array.type):
        if array.null_count or len(pc.unique(pc.list_value_length(array))) != 1:
            return None
        array = array.flatten()
    return _numbers(array).astype(np.float32).reshape(rows, -1)


def _numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A flat column; a missing number becomes NaN, or -1 among whole numbers."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise pa.ArrowInvalid(f"a column of numbers holds {array.type}")
    if array.null_count:
        array = pc.fill_null(array, np.nan if pa.types.is_floating(array.type) else -1)
    return np.from_dlpack(array)


def _times(path: Path, key: str, table: pa.Table, fps: float, findings: list[Finding]) -> Int64:
    """Row times in ns. Without `timestamp` the rows are counted at the declared rate, and a finding says so."""
    if "timestamp" in table.column_names:
        seconds = _numbers(table["timestamp"]).astype(np.float64)
    else:
        counted = "frame_index" in table.column_names
        frames = _numbers(table["frame_index"]) if counted else np.arange(table.num_rows)
        seconds = frames / fps
        message = f"{path}: no column `timestamp`; times are {'frame_index' if counted else 'row'} / {fps:g}"
        findings.append(Finding("no_timestamp", "warning", key, message))
    if not np.isfinite(seconds).all():
        row = int(np.argmin(np.isfinite(seconds)))
        raise DataError(f"{path}: {key}: timestamp is {seconds[row]} at row {row}. Mend it or drop the episode.")
    t_ns = np.round(seconds * 1e9).astype(np.int64)
    steps = np.diff(t_ns)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        raise DataError(
            f"{path}: {key}: timestamp goes from {seconds[row - 1]:.4f} s to {seconds[row]:.4f} s at row {row}. "
            f"Mend the time stamps or drop the episode."
        )
    if len(steps) and abs(np.median(steps) * fps / 1e9 - 1) > 0.02:
        message = (
            f"{path}: rows run at {1e9 / np.median(steps):.3f} Hz, info.json declares {fps:g}; timestamps are taken"
        )
        findings.append(Finding("fps_mismatch", "warning", key, message))
    return t_ns


def _names(name: str, feature: dict[str, Any], width: int, key: str, findings: list[Finding]) -> tuple[str, ...]:
    names = column_names(feature.get("names"))
    if names and len(names) != width:
        message = f"info.json gives {len(names)} names for the {width} columns of {name!r}: taken as unnamed"
        findings.append(Finding("column_names", "warning", key, message))
        return ()
    return tuple(names)
