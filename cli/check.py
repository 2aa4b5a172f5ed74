"""`wam check`: what is wrong with a source, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def check(
    source: Annotated[Path, typer.Argument(help="Robot logs or videos.")],
    robot: Annotated[str | None, typer.Option(help="Built-in robot or YAML file; default: drafted in memory.")] = None,
    reader: Annotated[
        str, typer.Option(help="Format of the logs, or your own module; default: told by content.")
    ] = "auto",
    strict: Annotated[bool, typer.Option(help="Exit with 1 if any episode has an error.")] = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Read every episode's rows and video index and list what is wrong; writes nothing.

    Not yet: pixel checks (freezes, black frames), drift, swapped cameras, a fix plan.
    """
    from wamdata.check import check_source
    from wamdata.source import Source

    with console.progress("check", quiet=quiet or json) as bar:
        result = check_source(
            Source.at(source), robot=robot, reader=reader, on_episode=lambda done, total: bar(done, total, "episodes")
        )
    if json:
        console.as_json(
            {
                "source": result.source,
                "reader": result.reader,
                "episodes": result.episodes,
                "usable": result.usable,
                "clean": result.clean,
                "minutes": result.minutes,
                "findings": [vars(f) for f in result.findings],
            }
        )
    else:
        _print(result)
    if strict and result.worst == "error":
        raise typer.Exit(1)


def _print(result) -> None:
    console.out(
        f"{result.source}: {result.reader}, {result.episodes} episodes, {result.minutes:.1f} min; "
        f"{result.usable} usable, {result.clean} without any warning"
    )
    groups: dict[tuple[str, str], list] = {}
    for finding in result.findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    if not groups:
        console.out("nothing to report")
        return
    order = {"error": 0, "warning": 1, "info": 2}
    rows = [
        [severity, code, str(len(found)), _places(found), found[0].message]
        for (severity, code), found in sorted(groups.items(), key=lambda item: order[item[0][0]])
    ]
    console.table(rows, ["severity", "finding", "n", "where", "first one says"], right=(2,))


def _places(found: list) -> str:
    places = list(dict.fromkeys(f.where for f in found))
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
