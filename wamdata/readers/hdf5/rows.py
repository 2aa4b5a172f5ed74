"""The rows of one episode of an HDF5 file: how many there are, when they were taken, and the streams.

Datasets of an episode that differ by a few rows are cut to the shortest, from the end; one that has nothing like a row
per step is left out. Both are told. Sizes are looked at before anything is read, so that a file that declares more than
memory holds is refused.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.episode import Finding, Int64, Stream
from schemas.errors import DataError
from schemas.hdf5_layout import Hdf5Layout, Value
from wamdata.readers.base import UNKNOWN_HZ, counted
from wamdata.readers.hdf5.file import find, first_of, is_whole, look_up
from wamdata.readers.tree import first_names

MAX_STREAM_BYTES = 4_000_000_000  # all streams of one episode, as float32
MAX_ROWS = 50_000_000
MAX_WIDTH, MAX_FLAT_WIDTH = 4096, 1024  # columns of a vector, and of a matrix per row
NEAR_ROWS, NEAR_PART = 2, 0.1  # as many rows, or this part of them, may lack before a dataset counts as another thing
SMALL_TABLE = 16  # rows; a dataset that has fewer is a calibration or a label, not a log that was cut off
_TICKS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(frozen=True)
class Rows:
    """Rows of an episode.

    Args:
        t_ns: (N,) time of each row.
        counted_hz: as in `Episode`.
    """

    t_ns: Int64
    streams: dict[str, Stream]
    counted_hz: float
    findings: tuple[Finding, ...]


def read_rows(
    group: Any, candidates: dict[str, Any], other_lengths: list[int], layout: Hdf5Layout, *, name: str, key: str,
    where: str,
) -> Rows:  # fmt: skip
    """Rows of one episode.

    Args:
        candidates: datasets of numbers by path below the episode.
        other_lengths: numbers of frames, used where no dataset of numbers says how many rows there are.
        name: of the file, relative to its source.
        key: how findings name the episode.

    Raises:
        DataError: the main dataset is missing or empty, rows declare too much, or time stands still.
    """
    main = _main_rows(candidates, other_lengths, layout, where)
    near = {p: d for p, d in candidates.items() if _is_near(len(d), main)}
    said = declared_length(group, layout, name, where)
    rows = min([main, *(len(d) for d in near.values()), *([said] if said is not None else [])])
    if rows < 1:
        raise DataError(f"{where}: says that none of its {main} rows count. Drop the episode.")
    findings = [*_length_findings(near, main, rows, said, key), *_left_out(candidates, near, main, key)]
    t_ns, hz = _times(group, rows, layout, name, where)
    _refuse_absurd(near, where)
    whole = {p: d for p, d in near.items() if is_whole(d)}
    findings += _unwritten(near, whole, layout, key, where)
    streams = {p: Stream(p, t_ns, _matrix(d, rows)) for p, d in whole.items() if p != layout.rate.times}
    return Rows(t_ns, streams, hz, tuple(findings))


def is_stream(dataset: Any) -> bool:
    """Whether a dataset holds numbers that can be rows of a stream."""
    if dataset.dtype.kind not in "biuf" or not dataset.shape:
        return False
    width = math.prod(dataset.shape[1:])
    return 0 < width <= (MAX_WIDTH if len(dataset.shape) <= 2 else MAX_FLAT_WIDTH)


def rate_hz(group: Any, layout: Hdf5Layout, name: str, where: str) -> float:
    """Rate that the file or the layout says, 0 where neither does."""
    rate = layout.rate
    place = Value.model_validate({"from": rate.source, "json": rate.json_key}) if rate.source else None
    said = look_up(group, place, name, where) if place else None
    said = said[0] if isinstance(said, list) and said else said
    is_rate = isinstance(said, int | float) and not isinstance(said, bool) and 0 < said <= 10_000
    return float(said) if is_rate else rate.hz or 0.0


def times_of(dataset: Any, rows: int, unit: str, where: str) -> Int64:
    """(rows,) ns of the first rows of a dataset of time stamps.

    Raises:
        DataError: they are too few, not finite, or do not increase.
    """
    if dataset is None or not hasattr(dataset, "shape") or dataset.dtype.kind not in "iuf":
        raise DataError(f"{where}: no such dataset of time stamps. Mend `times` in the layout, or the file.")
    stamps = dataset[:rows].reshape(-1) if dataset.shape else np.zeros(0)
    if len(stamps) != rows:
        raise DataError(f"{where}: {len(stamps)} time stamps for {rows} rows. Mend the file or drop the episode.")
    if not np.isfinite(stamps).all():
        row = int(np.argmin(np.isfinite(stamps)))
        raise DataError(f"{where}: the time is {stamps[row]} at row {row}. Mend it or drop the episode.")
    exact = stamps.astype(np.int64) * _TICKS[unit] if stamps.dtype.kind in "iu" else None
    t_ns = exact if exact is not None else np.round(stamps.astype(np.float64) * _TICKS[unit]).astype(np.int64)
    if (np.diff(t_ns) <= 0).any():
        row = int(np.argmax(np.diff(t_ns) <= 0)) + 1
        raise DataError(f"{where}: time does not increase at row {row}. Mend the time stamps or drop the episode.")
    return t_ns


def _main_rows(candidates: dict[str, Any], other_lengths: list[int], layout: Hdf5Layout, where: str) -> int:
    if layout.main is not None and layout.main not in candidates:
        raise DataError(f"{where}: no dataset {layout.main!r} of numbers, which {layout.name} logs have. Drop it.")
    lengths = Counter([len(candidates[layout.main])] if layout.main else [len(d) for d in candidates.values()])
    rows = max(lengths or other_lengths, key=lambda n: (lengths[n], n), default=0)
    if not rows:
        raise DataError(f"{where}: holds no rows. Its recording never began or was lost: drop it.")
    if rows > MAX_ROWS:
        raise DataError(f"{where}: declares {rows} rows, more than {MAX_ROWS}. Mend the file or leave it out.")
    return rows


def _is_near(rows: int, main: int) -> bool:
    return abs(rows - main) <= max(NEAR_ROWS, NEAR_PART * main) and 2 * rows > main


def declared_length(group: Any, layout: Hdf5Layout, name: str, where: str) -> int | None:
    """Rows that count, where the file says; of a flag per row, those before the first that is padding."""
    said = first_of(group, layout.length, name, where)
    if isinstance(said, list) and len(said) > 1:
        return next((row for row, is_padding in enumerate(said) if is_padding), len(said))
    said = said[0] if isinstance(said, list) and said else said
    return int(said) if isinstance(said, int | float) and math.isfinite(said) else None


def _length_findings(near: dict[str, Any], main: int, rows: int, said: int | None, key: str) -> list[Finding]:
    """Where datasets of one episode differ in length, or from what the file says of itself."""
    lengths = {p: len(d) for p, d in near.items()}
    if len(set(lengths.values())) > 1:
        odd = [f"{p} has {n}" for p, n in lengths.items() if n != main]
        message = f"most have {main} rows, {first_names(odd)}: the first {rows} are taken"
        return [Finding("count_mismatch", "warning", key, message)]
    if said is not None and said > main:
        message = f"declares {said} rows and holds {main}: those are taken"
        return [Finding("count_mismatch", "warning", key, message)]
    return []


def _left_out(candidates: dict[str, Any], near: dict[str, Any], main: int, key: str) -> list[Finding]:
    """Datasets that are not a row per step."""
    far = {p: d for p, d in candidates.items() if p not in near}
    cut = [f"{p} has {len(d)}" for p, d in far.items() if len(d) >= SMALL_TABLE]
    small = [f"{p} {d.shape}" for p, d in far.items() if len(d) < SMALL_TABLE]
    found = []
    if cut:
        message = f"{main} rows, but {first_names(cut)}: left out"
        found.append(Finding("count_mismatch", "warning", key, message))
    if small:
        found.append(Finding("not_per_row", "info", key, f"no row per step, left out: {first_names(small)}"))
    return found


def _unwritten(near: dict[str, Any], whole: dict[str, Any], layout: Hdf5Layout, key: str, where: str) -> list[Finding]:
    """Datasets that were declared and not filled."""
    lacking = [p for p in near if p not in whole]
    if layout.main in lacking:
        raise DataError(f"{where}: {layout.main!r} was never written to its end: the recorder was killed. Drop it.")
    return [unwritten(lacking, key)] if lacking else []


def unwritten(names: list[str], key: str) -> Finding:
    message = f"{first_names(names)}: never written to the end, so a recorder was killed: left out"
    return Finding("unwritten", "warning", key, message)


def _times(group: Any, rows: int, layout: Hdf5Layout, name: str, where: str) -> tuple[Int64, float]:
    """Times of the rows, and the rate at which they were counted; 0 where the log has its own."""
    if layout.rate.times:
        stamps = find(group, layout.rate.times, where)
        return times_of(stamps, rows, layout.rate.unit, f"{where}: {layout.rate.times}"), 0.0
    hz = rate_hz(group, layout, name, where) or UNKNOWN_HZ
    return counted(rows, hz), hz


def _refuse_absurd(near: dict[str, Any], where: str) -> None:
    sizes = {p: math.prod(d.shape) * max(4, d.dtype.itemsize) for p, d in near.items()}
    if sum(sizes.values()) > MAX_STREAM_BYTES:
        worst = max(sizes, key=sizes.__getitem__)
        raise DataError(
            f"{where}: declares {sum(sizes.values()) / 1e9:.0f} GB of rows, {worst!r} {near[worst].shape} the most; "
            f"at most {MAX_STREAM_BYTES / 1e9:.0f} GB are read. Split the episode, or leave it out in a layout."
        )


def _matrix(dataset: Any, rows: int) -> np.ndarray:
    """The first rows as (rows, D) float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is not finite, and later told as such
        return dataset[:rows].astype(np.float32).reshape(rows, -1)
