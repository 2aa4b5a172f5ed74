"""`wam shard`: shards into other shards."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console

app = typer.Typer(
    help="Merge, split, filter or resize shards. Always writes a new folder. Not yet: object stores, mix files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Out = Annotated[Path, typer.Option("--out", "-o", help="New folder.")]
Mb = Annotated[float, typer.Option("--shard-mb", help="Size of a shard, in MB.")]


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Shard folders of one robot.")],
    out: Out,
    shard_mb: Mb = 256.0,
    json: console.Json = False,
) -> None:
    """All clips of several folders in one; held-out parts are assigned anew over all sessions."""
    _run(sources, out, json=json, shard_mb=shard_mb)


@app.command()
def split(
    source: Path,
    out: Out,
    by: Annotated[str, typer.Option(help="hash or order.")] = "hash",
    val: Annotated[float, typer.Option(help="Share of sessions for choosing checkpoints.")] = 0.125,
    test: Annotated[float, typer.Option(help="Share of sessions for the report.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    json: console.Json = False,
) -> None:
    """Assign train, validation and report parts anew, by session."""
    from schemas.recipe import SplitRule
    from schemas.yaml_io import parse

    rule = parse(SplitRule, {"by": by, "val": val, "test": test, "seed": seed}, "split options")
    _run([source], out, json=json, rule=rule)


@app.command("filter")
def filter_(
    source: Path,
    out: Out,
    where: Annotated[str, typer.Option(help='For example: seconds > 5 and split == "train"')],
    json: console.Json = False,
) -> None:
    """Keep the clips for which an expression over key, rows, seconds, episode, session and split holds."""
    _run([source], out, json=json, where=where)


@app.command()
def reshard(source: Path, out: Out, shard_mb: Mb = 256.0, json: console.Json = False) -> None:
    """Write the same clips in shards of another size."""
    _run([source], out, json=json, shard_mb=shard_mb)


def _run(sources: list[Path], out: Path, *, json: bool, **options) -> None:
    from cli.ingest import print_summary, summary
    from wamdata.reshard import reshard as write

    with console.progress("shard", quiet=json) as bar:
        manifest = write(sources, out, on_clip=lambda done, total: bar(done, total, "clips"), **options)
    if json:
        console.as_json(summary(manifest, out))
    else:
        print_summary(manifest, out)
