"""`wam review`: a page on which a person decides about every episode."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def review(
    source: Annotated[Path, typer.Argument(help="Robot logs or videos.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the page and its videos.")],
    robot: Annotated[str | None, typer.Option(help="Robot, for the rate of logs without times.")] = None,
    reader: Annotated[
        str, typer.Option(help="Format of the logs, or your own module; default: told by content.")
    ] = "auto",
    labels: Annotated[list[Path] | None, typer.Option(help="Label tables to start from.")] = None,
    quiet: console.Quiet = False,
) -> None:
    """Write a page that plays every episode at 4x; keys keep, drop, trim or make it video-only, and save a table."""
    from schemas.embodiment import load_embodiment
    from wamdata.doctor.review import write_review
    from wamdata.labels import read_labels
    from wamdata.source import Source

    with console.progress("review", quiet=quiet) as bar:
        count = write_review(
            Source.at(source),
            out,
            reader=reader,
            robot=load_embodiment(robot) if robot else None,
            labels=lambda refs: read_labels(labels or [], refs, refs),
            on_episode=lambda done, total: bar(done, total, "episodes"),
        )
    console.out(f"{out / 'index.html'}: {count} episodes. Open it in a browser; save its table, then:")
    console.out(f"wam ingest {source} --labels labels.csv ...")
