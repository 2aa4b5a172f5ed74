"""`wam export`: an adapter that can be carried away, and proof that it acts as the trained model did.

The command, what it refuses, and an adapter directory of the house; other layouts are in `export_to`.
"""

from pathlib import Path
from typing import Annotated

import typer

from cli import console
from cli.export_proof import fresh, settled, tell, verified
from cli.export_robot import missing_of_robot
from cli.export_source import SETTINGS, Asked, base_of, is_lora, record_of
from cli.export_to import write_layout

LAYOUTS = ("peft", "dreamzero", "dreamzero-lora", "merged")


def export(
    run: Annotated[Path, typer.Argument(help="A finished run, an adapter directory, or a DreamZero checkpoint.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New directory.")] = None,
    to: Annotated[str | None, typer.Option(help="peft, dreamzero, dreamzero-lora or merged.")] = None,
    base: Annotated[
        Path | None, typer.Option(help="What a LoRA was trained on; it is checked. Of a run: its recipe's.")
    ] = None,
    verify: Annotated[
        bool | None, typer.Option(help="Verify only, without --out; or leave out the verification of an export.")
    ] = None,
    robot: Annotated[str | None, typer.Option(help="DreamZero: robot to serve. An adapter directory's own.")] = None,
    statistics: Annotated[Path | None, typer.Option(help="DreamZero: the robot's statistics.json.")] = None,
    resolution: Annotated[str | None, typer.Option(help="DreamZero: frames the client sends, as 640x480.")] = None,
    tag: Annotated[str | None, typer.Option(help="DreamZero: name of the robot at the reference's servers.")] = None,
    embodiment_id: Annotated[int | None, typer.Option(help="DreamZero: number of the prompt of a new tag.")] = None,
    wan: Annotated[Path | None, typer.Option(help="DreamZero: folder of raw Wan's files, as servers see it.")] = None,
    tokenizer: Annotated[
        str, typer.Option(help="DreamZero: umt5-xxl's tokenizer, folder or name.")
    ] = "google/umt5-xxl",
    slots: Annotated[
        Path | None, typer.Option(help="DreamZero: slots.json of the training, to put its channels into file order.")
    ] = None,
    keep_channels: Annotated[bool, typer.Option(help="DreamZero: leave the heads on the slots of training.")] = False,
    shard_gb: Annotated[float, typer.Option(min=0.001, help="DreamZero: most GB in a file.")] = 5,
    quiet: console.Quiet = False,
    json: console.Json = False,
) -> None:
    """Copy a run's adapter, or write it in another layout, with a model card; then verify it in a fresh process.

    --to peft: peft's folder. dreamzero: a whole checkpoint in the released layout, LoRA merged, encoders included.
    dreamzero-lora: the public reference's LoRA-only save. merged: nano with its LoRA merged into all weights, a base.

    The reference's servers know no slots: they join a robot's components from channel 0 on, in the order of its file.
    So in its layouts heads are reordered, exactly, where the slots are known; --keep-channels leaves them. What wamkit
    is to train on further wants --keep-channels.

    The verification runs the exported folder on a few held-out windows and compares with the trained model's
    predictions on them. `wam export DIR --verify` does it alone; exit code 2 if they differ.
    """
    from schemas.errors import UsageError

    folder = run / "adapter" / "export" if (run / "adapter" / "export").exists() else run
    base = base or base_of(run)
    if verify and out is None:
        if to is not None:
            raise UsageError(f"--to {to}: needs --out DIR. `wam export DIR --verify` alone verifies what is there.")
        tell(verified(folder, base), json=json)
        return
    if to is not None and to not in LAYOUTS:
        raise UsageError(f"--to {to}: not known. Give one of: {', '.join(LAYOUTS)}.")
    asked = Asked(
        robot, statistics, resolution, tag, embodiment_id, slots, keep_channels, wan, tokenizer, shard_gb, quiet
    )
    _refuse(folder, out, to, base, asked)
    assert out is not None
    is_verified = verify is not False
    if record_of(folder) is not None and to in (None, "merged"):
        _house(folder, out, to, base, is_verified=is_verified, json=json)
        return
    if to is None:
        raise UsageError(f"{folder}: no adapter here. Give a finished run or an adapter, or --to for a checkpoint.")
    write_layout(folder, out, to, base, asked, is_verified=is_verified, json=json)


def _refuse(folder: Path, out: Path | None, to: str | None, base: Path | None, asked: Asked) -> None:
    """Raise one error that says all that contradicts or is missing, before anything is read or written."""
    from schemas.errors import UsageError

    record = record_of(folder)
    is_dreamzero = record is None or record.backbone.startswith("dreamzero")
    if out is not None and out.exists():
        raise UsageError(f"{out}: exists already. Give a new --out.")
    if record is None and to is None and next(folder.glob("*.safetensors"), None) is not None:
        raise UsageError(f"{folder}: a checkpoint. Say how to write it with --to {', '.join(LAYOUTS[:3])}.")
    if to == "merged" and is_dreamzero:
        raise UsageError(
            f"{folder}: DreamZero's encoders belong to a base too. Give --to dreamzero, which `wam adapt --base` takes."
        )
    if not is_dreamzero and to not in (None, "merged"):
        raise UsageError(
            f"{folder}: an adapter of {record.backbone}; --to {to} is for DreamZero's. A LoRA's directory is peft's "
            "folder as it is, and a full adapter's is whole: leave --to out."
        )
    if to == "merged" and not is_lora(folder):
        raise UsageError(f"{folder}: a full adapter has no LoRA to merge; its weights are whole. Leave --to out.")
    if asked.robot and to == "peft":
        raise UsageError("--robot: peft's folder has no place for it. Leave it out, or export --to dreamzero.")
    if asked.slots and asked.keep_channels:
        raise UsageError("--slots and --keep-channels contradict each other. Give one of them.")
    missing = [] if out is not None else ["--out DIR"]
    if to is not None and base is None and is_lora(folder):
        missing.append("--base DIR, a LoRA's own base")
    missing += missing_of_robot(folder, asked, is_known=record is not None and (folder / SETTINGS).exists())
    if missing:
        raise UsageError(f"{folder}: missing for this export: {'; '.join(missing)}.")


def _house(folder: Path, out: Path, to: str | None, base: Path | None, *, is_verified: bool, json: bool) -> None:
    """An adapter directory of the house under a new name, or merged into one."""
    import shutil

    from adapt.handover.adapter import read_record
    from adapt.handover.export import merge_adapter

    partial = fresh(out)
    if to == "merged":
        assert base is not None
        merge_adapter(folder, base, partial)
    else:
        if base is not None and read_record(folder).kind == "lora":
            _refuse_other_base(folder, base)
        shutil.copytree(folder, partial)
    record = read_record(partial)
    found = settled(partial, out, base if record.kind == "lora" else None, is_verified=is_verified)
    if json:
        console.as_json(record.as_dict() | {"out": str(out)} | found.facts)
        return
    size = sum(p.stat().st_size for p in out.iterdir())
    console.out(f"{out}: {record.kind} adapter of {record.robot} on {record.backbone}, {console.megabytes(size)}")
    console.out(f"base: {record.base_name}, sha256 {record.base_sha256[:16]}")
    console.out(f"{record.verdict}: {record.reason}")
    console.out(found.words)


def _refuse_other_base(folder: Path, base: Path) -> None:
    from adapt.backbones.registry import backbone_info
    from adapt.handover.adapter import read_record, refuse_wrong_base

    record = read_record(folder)
    refuse_wrong_base(record, backbone_info(record.backbone).load().identify(base), str(base))
