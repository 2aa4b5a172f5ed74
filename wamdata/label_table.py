"""Rows of a label table, from `.csv`, `.parquet` and `.xlsx`: read and checked, not yet joined with episodes.

    episode,start_s,end_s,task,subtask,outcome,quality,operator,use,reason
    episode_000003,,,Pour the milk.,,success,4,ada,,
    episode_000003,0,2.5,,reach,,,,,
    episode_000007,,,,,failure,,,video,clumsy
    episode_000009,12.0,,,,,,,none,operator left
    episode_000011,,,,,,,,drop,camera hung

What the columns mean is told in `labels.py`. The same table is what `wam check --fix-plan`, `wam review` and
`wam curate` write.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import UsageError, first_line
from wamdata.extras import need

COLUMNS = (
    "episode", "source", "start_s", "end_s", "shot", "task", "subtask", "outcome", "quality", "operator", "use",
    "reason",
)  # fmt: skip
OUTCOMES = {"success": "success", "failure": "failure", "unknown": "unknown", "true": "success", "false": "failure",
            "1": "success", "0": "failure", "yes": "success", "no": "failure"}  # fmt: skip
USES = ("both", "video", "none", "drop")
TO_FILL_IN = "FILL IN"  # stands for an instruction that somebody has yet to write
SUFFIXES = (".csv", ".parquet", ".xlsx")


@dataclass(frozen=True)
class Label:
    """One row of a table.

    Args:
        place: file and row, for messages; the heading is row 1.
        values: what is not blank, by column.
    """

    place: str
    values: Mapping[str, str]

    @property
    def episode(self) -> str:
        return self.values["episode"]

    @property
    def use(self) -> str:
        return self.values.get("use", "both").lower()

    def seconds(self, name: str) -> float | None:
        return float(self.values[name]) if name in self.values else None


def read_table(path: Path) -> list[Label]:
    """The rows that are not blank.

    Raises:
        UsageError: no such file, no table, no rows, or an unknown column or value.
    """
    labels = []
    for row, cells in _cells(path):
        place = f"{path.name}, row {row}"
        label = Label(place, _plain(cells, place))
        _check(label)
        labels.append(label)
    if not labels:
        raise UsageError(f"--labels {path}: holds no rows. Leave it out.")
    return labels


def write_table(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as a `.csv` that `read_table` reads; columns that no row has are left out."""
    rows = list(rows)
    columns = [c for c in COLUMNS if c == "episode" or any(row.get(c) not in (None, "") for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _cells(path: Path) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """(row number, cells by column) of every row that is not blank."""
    if not path.is_file():
        raise UsageError(f"--labels {path}: no such file. Check the path.")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"--labels {path}: is none of {', '.join(SUFFIXES)}. Save the table as one of them.")
    try:
        rows = {".csv": _csv, ".parquet": _parquet, ".xlsx": _sheet}[suffix](path)
    except UsageError:
        raise
    except Exception as error:  # csv, pyarrow, zipfile, openpyxl: each has its own
        raise UsageError(f"--labels {path}: cannot be read ({first_line(error)}). Save it again.") from None
    return [(n, cells) for n, cells in enumerate(rows, start=2) if any(_text(value) for value in cells.values())]


def _csv(path: Path) -> list[Mapping[str, Any]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def _parquet(path: Path) -> list[Mapping[str, Any]]:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read().to_pylist()


def _sheet(path: Path) -> list[Mapping[str, Any]]:
    book = need("openpyxl", for_what=f"reading {path.name}", extra="labels").load_workbook(path, read_only=True)
    rows = book.active.iter_rows(values_only=True)
    names = [str(name or "") for name in next(rows, ())]
    return [dict(zip(names, cells, strict=False)) for cells in rows]


def _plain(cells: Mapping[str, Any], place: str) -> dict[str, str]:
    """Cells that say something, as text, under lower-case names."""
    if None in cells:
        raise UsageError(f"{place}: has more cells than the heading. Mend the row.")
    named = {str(name).strip().lower(): _text(value) for name, value in cells.items()}
    strange = [name for name in named if name and name not in COLUMNS]
    if strange:
        raise UsageError(f"{place}: unknown column {strange[0]!r}. Known: {', '.join(COLUMNS)}.")
    return {name: value for name, value in named.items() if value}


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN is not itself
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _check(label: Label) -> None:
    if "episode" not in label.values:
        raise UsageError(f"{label.place}: no `episode`. Give its key, its number or its file.")
    for name in ("start_s", "end_s"):
        try:
            finite = math.isfinite(label.seconds(name) or 0.0)
        except ValueError:
            finite = False
        if not finite:
            raise UsageError(f"{label.place}: {name} is {label.values[name]!r}, wanted seconds. Mend it.")
    for name, known in (("outcome", tuple(OUTCOMES)), ("use", USES)):
        if name in label.values and label.values[name].lower() not in known:
            word = label.values[name]
            raise UsageError(f"{label.place}: {name} is {word!r}, wanted one of {', '.join(known)}. Mend it.")
    if TO_FILL_IN in label.values.values():
        raise UsageError(f"{label.place}: still says {TO_FILL_IN!r}. Write what is done there, or `drop` under `use`.")
    if label.use == "drop" and {"start_s", "end_s"} & label.values.keys():
        raise UsageError(f"{label.place}: `drop` leaves out whole episodes, `none` a span. Write none.")
