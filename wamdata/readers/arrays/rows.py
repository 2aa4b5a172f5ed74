"""Rows of one episode of plain arrays, and when they were taken."""

from dataclasses import dataclass, replace

import numpy as np

from schemas.episode import Finding, Int64, Stream
from schemas.errors import DataError
from schemas.hdf5_layout import CameraPlace, Hdf5Layout
from wamdata.readers.array_text import words_of
from wamdata.readers.arrays.files import Rows, arrays_in, told
from wamdata.readers.hdf5.pictures import Look, look_at
from wamdata.readers.hdf5.rows import is_stream, read_rows
from wamdata.readers.naming import natural
from wamdata.readers.stamps import to_ns, unit_of
from wamdata.readers.tree import first_names
from wamdata.source import Source

CLOCKS = ("t", "time", "times", "timestamp", "timestamps")
WORDS = ("language", "language_instruction", "instruction", "task", "prompt")
LAYOUT = Hdf5Layout.model_validate({"schema": "wamkit/hdf5_layout@1", "name": "arrays"})


@dataclass(frozen=True)
class Table:
    """What an episode's arrays hold.

    Args:
        t_ns: (N,) times of the rows.
        looks: by name, how an array holds pictures.
        files: by name of an array, its file and member.
        texts: lines that stand in arrays.
        counted_hz: as in `Episode`.
    """

    t_ns: Int64
    streams: dict[str, Stream]
    looks: dict[str, tuple[Look, int]]
    files: dict[str, tuple[str, str]]
    texts: tuple[str, ...]
    counted_hz: float
    findings: tuple[Finding, ...]


def table_of(source: Source, names: list[str], key: str) -> Table:
    """The arrays of an episode; a file that cannot be read is a finding.

    Raises:
        DataError: rows declare more than memory holds, or their times do not increase.
    """
    arrays: dict[str, Rows] = {}
    files: dict[str, tuple[str, str]] = {}
    findings = []
    for name in sorted(names, key=natural):
        stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        try:
            for member, rows in arrays_in(source.path(name), source.where(name)).items():
                called = member if member and len(names) == 1 else f"{stem}/{member}".rstrip("/")
                arrays[called], files[called] = rows, (name, member)
        except DataError as error:
            findings.append(Finding("unreadable", "warning", key, str(error)))
    where = f"{source}: {key}"
    looks, unread = _looks(arrays, where)
    numbers = {n: a for n, a in arrays.items() if n not in looks and n not in unread and is_stream(a) and len(a)}
    unread |= {n: "pickled" for n, a in arrays.items() if a.dtype.hasobject}
    unread |= {n: "one value" for n, a in arrays.items() if not a.shape and a.dtype.kind in "biufc"}
    if unread:
        message = f"left out: {first_names([f'{n} ({why})' for n, why in sorted(unread.items())])}"
        findings.append(Finding("unread_arrays", "info", key, message))
    texts = _texts(arrays)
    lengths = [length for _, length in looks.values()]
    if not numbers and not lengths:
        return Table(np.zeros(0, np.int64), {}, {}, files, texts, 0.0, tuple(findings))
    with told(where):
        rows = read_rows(None, numbers, lengths, LAYOUT, name="", key=key, where=where)
    table = Table(
        rows.t_ns, rows.streams, looks, files, texts, rows.counted_hz, (*findings, *rows.findings)
    )  # fmt: skip
    return _timed(table, numbers, key, where)


def _timed(table: Table, numbers: dict[str, Rows], key: str, where: str) -> Table:
    """The table at the times that one of its streams holds, if one does."""
    clock = next((n for n in table.streams if n.rsplit("/", 1)[-1].lower() in CLOCKS), None)
    if clock is None or table.streams[clock].values.shape[1] != 1:
        return table
    with told(f"{where}: {clock}"):
        stamps = numbers[clock][: len(table.t_ns)].reshape(-1)  # again, for a stream has 24 bits
    unit = unit_of(stamps)
    if unit is None:
        return table
    t_ns = to_ns(stamps, unit, f"{where}: {clock}")
    streams = {n: Stream(n, t_ns, s.values, s.columns) for n, s in table.streams.items() if n != clock}
    noticed = Finding("clock_unit", "info", key, f"times are those of {clock}, taken as {unit} by their size")
    return replace(table, t_ns=t_ns, streams=streams, counted_hz=0.0, findings=(*table.findings, noticed))


def _looks(arrays: dict[str, Rows], where: str) -> tuple[dict[str, tuple[Look, int]], dict[str, str]]:
    """The arrays that hold pictures, with their number, and those that hold some that cannot be used."""
    looks: dict[str, tuple[Look, int]] = {}
    unread: dict[str, str] = {}
    for name, array in arrays.items():
        if not array.shape or array.dtype.kind not in "uf":
            continue
        try:
            with told(name):
                look = look_at(array, name, CameraPlace(source=name), where)
        except DataError as error:
            look = str(error)
        if isinstance(look, Look) and look.codec == "raw" and not look.flat:
            looks[name] = look, len(array)
        elif look is not None:
            unread[name] = look if isinstance(look, str) else f"{look.codec} pictures as bytes, which are not read"
    return looks, unread


def _texts(arrays: dict[str, Rows]) -> tuple[str, ...]:
    """What arrays of text say of the whole episode."""
    found: list[str] = []
    for name, array in arrays.items():
        if name.rsplit("/", 1)[-1].lower() in WORDS and array.dtype.kind in "US" and array.size:
            with told(name):
                found += words_of(array.take(0, 1))[:1]
    return tuple(found)
