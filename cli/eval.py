"""`wam eval`: judge an adapter again, on shards it may never have seen."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def evaluate(
    adapter: Annotated[Path, typer.Argument(help="Exported adapter, or a finished run.")],
    shards: Annotated[Path, typer.Argument(help="Shards to judge on; their held-out part is used.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for report.json and report.html.")],
    base: Annotated[str | None, typer.Option(help="Base of a LoRA adapter: a name or a folder.")] = None,
    as_served: Annotated[
        bool, typer.Option(help="Precision, denoising steps and guidance of deployment, not of the recipe.")
    ] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="Another policy's predictions (.jsonl, .parquet, .npz), judged beside it.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 unless the verdict is OFFLINE PASS.")] = False,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Report on the held-out part of SHARDS; the baselines are fitted on its training part.

    Without a training part, baselines that must be fitted are left out, and the report says so.
    """
    from adapt.clips import Clips
    from adapt.handover.bases import find
    from adapt.run import RunResult
    from cli.base import bases_home
    from schemas.errors import UsageError

    if (out / "report.json").exists():
        raise UsageError(f"{out}: holds a report already. Give a new --out.")
    play = Clips.open(shards)
    found = None if base is None else find(base, bases_home())
    folder = adapter / "adapter" / "export" if (adapter / "adapter" / "export").exists() else adapter
    with console.progress("judge", quiet=quiet or json) as bar:
        from adapt.evaluate.adapter import judge_adapter

        report, html = judge_adapter(
            folder, play, out, base=found, as_served=as_served, predictions=predictions, on_progress=bar
        )
    if json:
        console.as_json(report.as_dict() | {"html": str(html)})
    else:
        from cli.adapt import print_result

        print_result(RunResult(report, html, folder))
    if strict and report.verdict != "OFFLINE PASS":
        raise typer.Exit(1)
