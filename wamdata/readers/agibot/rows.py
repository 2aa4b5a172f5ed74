"""Rows of `proprio_stats.h5`: the robot's state at every time stamp, its commands where some were sent.

`action/<part>/index` lists the rows at which the part's controller was sending; between them a command says nothing, so
such a stream holds those rows alone. One whose list is empty is kept whole, and told.
"""

from typing import Any

import numpy as np

from schemas.episode import Finding, Int64, Stream
from schemas.errors import DataError
from schemas.hdf5_layout import Hdf5Layout
from wamdata.readers.hdf5.file import datasets, find, is_whole
from wamdata.readers.hdf5.rows import MAX_STREAM_BYTES, NEAR_ROWS, Rows, is_stream, read_rows
from wamdata.readers.stamps import unit_of
from wamdata.readers.tree import first_names

CLOCK = "timestamp"
HZ = 30  # of every AgiBot World recording; used where one holds no times
TOLD = {
    "sparse": ("info", "sparse_actions", "commands were sent at some rows only, which these streams hold"),
    "silent": ("info", "silent_actions", "no command was sent, by their `index`: the streams are kept whole"),
    "odd": ("warning", "count_mismatch", "neither a row per time stamp nor one per `index`, left out"),
}


def rows_of(group: Any, name: str, key: str, where: str) -> Rows:
    """Every stream of a recording.

    Args:
        group: root of the open file.
        name: of the file, relative to its source.
        key: how findings name the episode.

    Raises:
        DataError: it is damaged, has no state, or its times do not increase.
    """
    found = {p: d for p, d in datasets(group, where).items() if is_stream(d) and len(d)}
    state = {p: d for p, d in found.items() if p.startswith("state/")}
    action = {p: d for p, d in found.items() if p.startswith("action/") and not p.endswith("/index")}
    layout, findings = _layout(group, key, where)
    rows = read_rows(group, state, [], layout, name=name, key=key, where=where)
    if sum(d.size for d in action.values()) * 4 > MAX_STREAM_BYTES:
        raise DataError(f"{where}: declares more than {MAX_STREAM_BYTES / 1e9:.0f} GB of commands. Leave it out.")
    streams = dict(rows.streams)
    kinds: dict[str, list[str]] = {kind: [] for kind in TOLD}
    for path, dataset in action.items():
        at, kind = _rows_sent(dataset, _index(group, path, where), len(rows.t_ns))
        kinds.get(kind, []).append(path)
        if at is not None:
            values = dataset[:].astype(np.float32).reshape(len(dataset), -1)
            values = values[at] if len(dataset) >= len(rows.t_ns) else values
            streams[path] = Stream(path, rows.t_ns[at], np.ascontiguousarray(values))
    findings += [
        Finding(code, severity, key, f"{first_names(kinds[kind])}: {message}")
        for kind, (severity, code, message) in TOLD.items()
        if kinds[kind]
    ]
    return Rows(rows.t_ns, streams, rows.counted_hz, (*rows.findings, *findings))


def _layout(group: Any, key: str, where: str) -> tuple[Hdf5Layout, list[Finding]]:
    """Where the times are, and a finding if they are not the nanoseconds that are documented."""
    stamps = find(group, CLOCK, where)
    is_clock = getattr(stamps, "shape", None) and stamps.dtype.kind in "iuf" and len(stamps)
    unit = unit_of(np.ravel(stamps[:1000])) if is_clock else None
    rate = {"times": CLOCK, "unit": unit} if unit else {"hz": HZ}
    layout = Hdf5Layout.model_validate({"schema": "wamkit/hdf5_layout@1", "name": "agibot", "rate": rate})
    if unit is None:
        return layout, [Finding("no_clock", "warning", key, f"no times in `{CLOCK}`: rows are counted at {HZ} Hz")]
    message = f"`{CLOCK}` is taken as {unit}, by its size"
    return layout, [Finding("clock_unit", "info", key, message)] if unit != "ns" else []


def _index(group: Any, path: str, where: str) -> Int64 | None:
    """The rows at which a part was commanded, None where its file does not say."""
    index = find(group, f"{path.rsplit('/', 1)[0]}/index", where)
    if getattr(index, "shape", None) is None or len(index.shape) != 1 or index.dtype.kind not in "iu":
        return None
    return index[:].astype(np.int64)


def _rows_sent(dataset: Any, index: Int64 | None, rows: int) -> tuple[Int64 | None, str]:
    """The rows that a dataset of commands holds values of, None if it cannot be told; and how it is to be told."""
    count = len(dataset)
    is_per_row = 0 <= count - rows <= NEAR_ROWS and is_whole(dataset)
    if index is None or not len(index):
        return (np.arange(rows), "" if index is None else "silent") if is_per_row else (None, "odd")
    inside = index[index < rows]
    if (np.diff(index) <= 0).any() or index[0] < 0 or not len(inside):
        return (np.arange(rows), "") if is_per_row else (None, "odd")
    if is_per_row:
        return inside, "" if len(inside) == rows else "sparse"
    return (inside, "sparse") if count == len(index) == len(inside) else (None, "odd")
