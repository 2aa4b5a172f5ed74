"""What the commands share: progress on stderr, reports on stdout, JSON on request."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]

LINE_EVERY_S = 30.0  # of progress off a terminal


def out(text: str = "") -> None:
    """One line of a report."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """One line beside the report."""
    sys.stderr.write(text + "\n")


def as_json(value: Any) -> None:
    out(json.dumps(value, indent=1, ensure_ascii=False))


def table(rows: list[list[str]], header: list[str], *, title: str | None = None, right: tuple[int, ...] = ()) -> None:
    """A table as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for at, name in enumerate(header):
        shown.add_column(name, justify="right" if at in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 150, highlight=False, markup=False).print(shown)


@contextmanager
def progress(label: str, *, quiet: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr: call it with (done, total, words). Off a terminal: lines, every half minute."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    last = [0, 0, ""]
    # rich also calls a file a terminal when colours are forced by the environment
    if quiet or not (console.is_terminal and console.file.isatty()):
        told_at = time.monotonic()

        def remember(done: int, total: int, words: str = "") -> None:
            nonlocal told_at
            last[:] = [done, total, words]
            if not quiet and time.monotonic() - told_at >= LINE_EVERY_S:
                told_at = time.monotonic()
                note(f"{label}: {done} of {total or '?'} {words}".rstrip())

        yield remember
        if not quiet and last[1]:
            note(f"{label}: {last[0]} of {last[1]} {last[2]}".rstrip())
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None, words="")

        def show(done: int, total: int, words: str = "") -> None:
            bar.update(task, completed=done, total=total, words=words)

        yield show


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
