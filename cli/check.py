"""`wam check`: what is wrong with a source, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console
from cli.ingest import refuse_open_questions


def check(
    source: Annotated[Path, typer.Argument(help="Robot logs or videos.")],
    robot: Annotated[str | None, typer.Option(help="Built-in robot or YAML file; default: drafted in memory.")] = None,
    reader: Annotated[
        str, typer.Option(help="Format of the logs, or your own module; default: told by content.")
    ] = "auto",
    where: Annotated[
        str | None, typer.Option(help='Only episodes for which this SQL condition holds: "seconds > 5".')
    ] = None,
    labels: Annotated[list[Path] | None, typer.Option(help="Label tables that ingest will be given.")] = None,
    pixels: Annotated[bool, typer.Option(help="Look at a picture a second of each camera.")] = True,
    offsets: Annotated[
        bool, typer.Option(help="Measure how late each camera is against the rows; decodes some episodes whole.")
    ] = False,
    fix_plan: Annotated[
        Path | None, typer.Option(help="Write a label table (csv) that drops, trims or relabels; sources stay as is.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures and plots.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept a robot file with open questions.")] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if anything is an error.")] = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Look at every episode and list what is wrong, what was measured, and what to do; the source is only read.

    Exits with 1 if no episode is usable.
    """
    from wamdata.doctor.check import check_source
    from wamdata.labels import read_labels
    from wamdata.source import Source

    if robot:
        refuse_open_questions(Path(robot), yes=yes)
    page = _page(html)
    with console.progress("check", quiet=quiet or json) as bar:
        result = check_source(
            Source.at(source),
            robot=robot,
            reader=reader,
            where=where,
            labels=lambda refs: read_labels(labels or [], refs, refs),
            looks=pixels,
            offsets=offsets,
            on_episode=lambda done, total: bar(done, total, "episodes"),
            on_seen=page.add if page else lambda seen: None,
        )
    if page:
        page.write(result)
    if fix_plan:
        _write_plan(fix_plan, result)
    if json:
        console.as_json(_facts(result))
    else:
        _print(result)
        if fix_plan:
            console.out(f"fixes: {fix_plan} (look at it, then `wam ingest {source} --labels {fix_plan} ...`)")
        if html:
            console.out(f"page: {html}")
    if not result.usable or (strict and result.worst == "error"):
        raise typer.Exit(1)


def _page(path: Path | None):
    if path is None:
        return None
    from wamdata.doctor.page import Page

    return Page(path)


def _write_plan(path: Path, result) -> None:
    from schemas.errors import UsageError
    from schemas.files import write_atomic
    from wamdata.doctor.fixes import fix_plan
    from wamdata.label_table import write_table

    if path.suffix != ".csv":
        raise UsageError(f"--fix-plan {path}: is written as .csv. Name it so.")
    write_atomic(path, write_table(fix_plan(result.keys, result.findings)))


def _facts(result) -> dict:
    return {
        "source": result.source,
        "reader": result.reader,
        "robot": result.robot,
        "episodes": result.episodes,
        "usable": result.usable,
        "clean": result.clean,
        "minutes": result.minutes,
        "findings": [vars(f) | {"numbers": dict(f.numbers)} for f in result.findings],
    }


def _print(result) -> None:
    from wamdata.doctor.check import grouped

    console.out(
        f"{result.source}: {result.reader}, {result.episodes} episodes, {result.minutes:.1f} min; "
        f"{result.usable} usable, {result.clean} without any warning"
    )
    groups = grouped(result.findings)
    if not groups:
        console.out("nothing to report")
        return
    rows = [[severity, code, str(len(found)), _places(found), found[0].message] for severity, code, found in groups]
    console.table(rows, ["severity", "finding", "n", "where", "first one says"], right=(2,))


def _places(found: list) -> str:
    places = list(dict.fromkeys(f.where for f in found))
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
