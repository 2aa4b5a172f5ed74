"""`wam compare`: reports side by side."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def compare(
    reports: Annotated[list[Path], typer.Argument(help="Runs, folders made by `wam eval`, or report.json files.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for comparison.html.")] = None,
    anyway: Annotated[bool, typer.Option(help="Compare even where different windows were judged.")] = False,
    json: console.Json = False,
) -> None:
    """One table of two or more reports, and paired differences where they judged the same windows."""
    from adapt.evaluate.compare import compare as compare_reports
    from adapt.evaluate.compare import rows_of, write_page

    found = compare_reports(reports, anyway=anyway)
    html = write_page(out, found) if out else None
    if json:
        console.as_json(found.as_dict() | ({"html": str(html)} if html else {}))
        return
    (header, rows), (pair_header, pairs) = rows_of(found)
    for note in found.notes:
        console.out(note)
    console.table(rows, header, right=tuple(range(2, len(header))))
    console.table(pairs, pair_header, right=(1, 2, 3))
    if html:
        console.out(f"page: {html}")
