"""`wam pack`: everything that a training needs, to take to another machine."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def pack(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Shard folders: play data, and perhaps action-free video.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder, or a file that ends in .tar.")] = None,
    video: Annotated[Path | None, typer.Option(help="Shards of action-free video.")] = None,
    robot: Annotated[str | None, typer.Option(help="Robot to see the shards as. Default: as ingested.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML with training settings.")] = None,
    base: Annotated[str | None, typer.Option(help="Base to train on: a name of `wam base list`, or a folder.")] = None,
    with_base: Annotated[bool, typer.Option("--with-base", help="Put the base into the pack.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy files where hard links would do.")] = False,
    check: Annotated[Path | None, typer.Option(help="Compare a pack, folder or tar, with its hashes.")] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Put shards, robot, settings and perhaps the base into one folder or tar, with a sha256 of every file.

    On the other machine: `wam pack --check PACK`, then `wam adapt PACK --out RUN`. Cut short, a folder goes on when
    the command is run again; a tar starts anew.
    """
    from schemas.errors import UsageError

    hide = quiet or json
    if check is not None:
        if sources or out:
            raise UsageError("--check: takes a pack and nothing else. Leave sources and --out out.")
        _check(check, json=json, quiet=hide)
        return
    if not sources or out is None:
        raise UsageError("give shard folders and --out FOLDER or FILE.tar, or --check PACK.")
    from adapt.handover.pack import contents
    from adapt.handover.pack import pack as write
    from cli.base import bases_home
    from schemas.embodiment import load_embodiment
    from schemas.yaml_io import load_yaml

    what = contents(
        sources,
        video=video,
        robot=load_embodiment(robot) if robot else None,
        settings=load_yaml(recipe) if recipe else None,
        base=base,
        home=bases_home() if with_base else None,
    )
    with console.progress("pack", quiet=hide) as bar:
        record = write(what, out, copy=copy, progress=_megabytes(bar))
    _tell(out, record, "packed", json=json)
    if not json:
        if not copy and out.suffix != ".tar":
            console.out("files are linked where the disk allows: a change in one place is one in both; --copy copies")
        console.out(f"on the other machine: wam pack --check {out.name}")
        if out.suffix == ".tar":
            console.out(f"                      tar -xf {out.name}")
        console.out(f"                      wam adapt {record.name} --out runs/{record.name}")


def show_pack(path: Path, *, json: bool) -> None:
    """What a pack holds; its hashes are not compared."""
    from adapt.handover.pack import read_record

    _tell(path, read_record(path), "a pack", json=json)
    if not json:
        console.out(f"next: wam pack --check {path}; wam adapt {path} --out RUN")


def _check(path: Path, *, json: bool, quiet: bool) -> None:
    from adapt.handover.pack import check

    with console.progress("check", quiet=quiet) as bar:
        record = check(path, progress=_megabytes(bar))
    _tell(path, record, "as packed", json=json)


def _tell(path: Path, record, state: str, *, json: bool) -> None:
    size = sum(facts.bytes for facts in record.files.values())
    if json:
        console.as_json({"path": str(path), "bytes": size} | record.as_dict())
        return
    base = {None: "no base", "base": "base included"}.get(record.base, f"base {record.base} not included")
    console.out(f"{path}: {state}, {len(record.files)} files, {console.megabytes(size)}; {base}")
    console.out(f"licences: {', '.join(record.licences) or 'unknown'}")


def _megabytes(bar):
    return lambda what, done, total: bar(done // 1_000_000, total // 1_000_000, f"MB ({what})")
