"""`wam export`: an adapter that can be carried away."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def export(
    run: Annotated[Path, typer.Argument(help="A finished run, or an adapter directory.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New directory.")],
    base: Annotated[Path | None, typer.Option(help="Base of a LoRA adapter, to check that it loads.")] = None,
    json: console.Json = False,
) -> None:
    """Copy a run's adapter, check every hash, and load it once.

    Not yet: DreamZero's own checkpoint layouts, merged weights.
    """
    import shutil

    from adapt.adapter import read_record
    from schemas.errors import UsageError

    folder = run / "adapter" / "export" if (run / "adapter" / "export").exists() else run
    record = read_record(folder)
    if out.exists():
        raise UsageError(f"{out}: exists already. Give a new --out.")
    if record.kind == "full" or base is not None:
        from adapt.export import load_adapter

        load_adapter(folder, base)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    partial.rename(out)
    if json:
        console.as_json(record.as_dict() | {"out": str(out)})
        return
    size = sum(p.stat().st_size for p in out.iterdir())
    console.out(f"{out}: {record.kind} adapter of {record.robot} on {record.backbone}, {console.megabytes(size)}")
    console.out(f"base: {record.base_name}, sha256 {record.base_sha256[:16]}")
    console.out(f"{record.verdict}: {record.reason}")
    if record.kind == "lora" and base is None:
        console.out("not loaded: give --base to check that it fits its base")
