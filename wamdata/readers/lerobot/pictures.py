"""Cameras of a LeRobot set whose pictures lie in its parquet files, or one by one in an `images` folder.

A picture is a struct of `bytes` and `path`. Its bytes are kept as they are; a path without bytes is looked for in the
source, which is what an interrupted recording leaves.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from schemas.episode import Coded, Finding, Pictures
from schemas.errors import DataError
from wamdata.readers.lerobot.rows import COPY_AGAIN, Rows, read_column
from wamdata.readers.picture_header import sniff
from wamdata.source import Source


def read_pictures(source: Source, key: str, data: str, rows: Rows) -> tuple[dict[str, Pictures], list[Finding]]:
    """A camera for each column of pictures, and a finding for each that cannot be shown."""
    pictures: dict[str, Pictures] = {}
    findings: list[Finding] = []
    for name in rows.images:
        if name not in rows.columns:
            message = f"{name}: info.json declares pictures, {source.where(data)} has no such column. {COPY_AGAIN}"
            findings.append(Finding("missing_video", "warning", key, message))
            continue
        load = _loader(source, data, name, rows.first)
        try:
            codec, width, height = sniff(bytes(load(0, 1)[0]), f"{source.where(data)}: {name}")
        except DataError as error:
            findings.append(Finding("corrupt_video", "warning", key, f"{name}: {error}"))
            continue
        pictures[name] = Pictures(rows.t_ns.copy(), codec, width, height, load)
    return pictures, findings


def _loader(source: Source, data: str, name: str, offset: int) -> Callable[[int, int], list[Coded]]:
    def load(first: int, stop: int) -> list[Coded]:
        path = source.path(data)
        cells = read_column(path, name, offset + first, offset + stop)
        return [_bytes(source, data, name, cell, first + at) for at, cell in enumerate(cells)]

    return load


def _bytes(source: Source, data: str, name: str, cell: object, row: int) -> bytes:
    """The bytes of one cell: its own, or those of the file that it names inside the source."""
    if isinstance(cell, bytes):
        return cell
    fields = cell if isinstance(cell, dict) else {}
    if fields.get("bytes"):
        return fields["bytes"]
    found = _file(source, name, fields.get("path"))
    if found is None:
        raise DataError(f"{source.where(data)}: {name} has no picture in row {row}. {COPY_AGAIN}")
    return found.read_bytes()


def _file(source: Source, name: str, path: object) -> Path | None:
    """A file below `images/` of the source; a path that leads out of it is not followed."""
    if not isinstance(path, str) or not path:
        return None
    parts = PurePosixPath(path).parts
    if ".." in parts:
        return None
    tails = ["/".join(parts[-n:]) for n in range(1, min(len(parts), 4) + 1)]
    wanted = [place for tail in reversed(tails) for place in (tail, f"images/{tail}", f"images/{name}/{tail}")]
    return next((source.path(place) for place in wanted if source.has(place)), None)
