"""`wam export`: an adapter that can be carried away."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console

if TYPE_CHECKING:
    from adapt.backbones.dreamzero.checkpoint import Checkpoint
    from adapt.backbones.dreamzero.lora_weights import LoraWeights
    from adapt.backbones.dreamzero.served import ServedRobot

LAYOUTS = ("peft", "lora", "full")


def export(
    run: Annotated[Path, typer.Argument(help="A finished run, an adapter directory, or a DreamZero checkpoint.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New directory.")],
    base: Annotated[Path | None, typer.Option(help="What a LoRA adapter was trained on; it is checked.")] = None,
    layout: Annotated[str | None, typer.Option("--as", help="DreamZero: peft, lora or full (merged).")] = None,
    robot: Annotated[str | None, typer.Option(help="DreamZero: robot to serve, by name or YAML file.")] = None,
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
    shard_gb: Annotated[float, typer.Option(min=0.001, help="DreamZero: most GB in a file.")] = 5,
    quiet: console.Quiet = False,
    json: console.Json = False,
) -> None:
    """Copy a run's adapter, check every hash, and load it once.

    With --as: write a DreamZero LoRA as peft's folder, as the reference's LoRA save, or merged into a full checkpoint.
    The reference's servers join a robot's components from channel 0 on, in the order of its file. An adapter that was
    trained on other channels is served right only if --slots says on which: its heads are then reordered, exactly.
    """
    from schemas.errors import UsageError

    folder = run / "adapter" / "export" if (run / "adapter" / "export").exists() else run
    if layout is None:
        if not (folder / "adapter.json").exists() and next(folder.glob("*.safetensors"), None) is not None:
            raise UsageError(f"{folder}: a checkpoint. Say how to write it with --as peft, lora or full.")
        _copy(folder, out, base, json=json)
        return
    if layout not in LAYOUTS:
        raise UsageError(f"--as {layout}: not known. Give one of: {', '.join(LAYOUTS)}.")
    source = _source(folder, base, layout)
    robots = _robots(folder, robot, statistics, resolution, tag, embodiment_id)
    if slots is not None:
        source = _in_file_order(source, slots)
    if robots and layout == "peft":
        raise UsageError("--robot: peft's folder has no place for it. Leave it out, or export --as full.")
    if source.check.startswith("base not verifiable"):
        console.note(f"warning: {source.check}")
    match layout:
        case "peft":
            _peft(out, source)
        case "lora":
            _native(out, source, robots, wan=wan, tokenizer=tokenizer)
        case _:
            _full(out, source, robots, wan=wan, tokenizer=tokenizer, shard_gb=shard_gb, quiet=quiet)
    _report(out, source, robots, json=json)


@dataclass(frozen=True)
class Source:
    """What is exported: a LoRA (None: the base alone) and its base, and how that was checked."""

    lora: "LoraWeights | None"
    base: "Checkpoint"
    sha256: str
    check: str

    @property
    def is_verified(self) -> bool:
        return self.lora is None or self.lora.base_sha256 is not None


def _source(folder: Path, base: Path | None, layout: str) -> Source:
    from dataclasses import replace

    from adapt.adapter import RECORD, read_record
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.load import check_base, check_fit, checkpoint_fingerprint
    from adapt.backbones.dreamzero.lora_weights import read_lora
    from schemas.errors import UsageError

    record = read_record(folder) if (folder / RECORD).exists() else None
    if record is not None and not record.backbone.startswith("dreamzero"):
        raise UsageError(f"{folder}: an adapter of {record.backbone}; --as is for DreamZero's. Leave it out.")
    source = open_checkpoint(folder)
    if not source.is_lora:
        if layout != "full" or base is not None:
            raise UsageError(f"{folder}: is a base itself ({source.kind}). Give --as full, and no --base.")
        sha256 = checkpoint_fingerprint(source)
        return Source(None, source, sha256, f"written again: sha256 {sha256}")
    if base is None:
        raise UsageError(f"{folder}: a LoRA. Give what it was trained on with --base DIR.")
    lora, opened = read_lora(source), open_checkpoint(base)
    if record is not None and lora.base_sha256 is None:
        lora = replace(lora, base_sha256=record.base_sha256)
    check = check_base(lora, opened, source, base_named_by_user=True)
    check_fit(lora, opened.config, source)
    return Source(lora, opened, lora.base_sha256 or checkpoint_fingerprint(opened), check)


def _in_file_order(source: Source, file: Path) -> Source:
    """The same adapter with its heads' channels where the reference's servers expect them."""
    from dataclasses import replace
    from json import JSONDecodeError, loads

    from adapt.backbones.dreamzero.channels import in_file_order, slots_from_dict
    from schemas.errors import DataError, UsageError

    if source.lora is None:
        raise UsageError(f"--slots {file}: a base has no slots of a robot. Leave it out, or export an adapter.")
    try:
        values = loads(file.read_bytes())
    except (OSError, JSONDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}). Give the slots.json of the training.") from None
    if source.lora.is_in_file_order:
        raise UsageError(f"--slots {file}: this adapter's channels are in file order already. Leave it out.")
    try:
        slots = slots_from_dict(values)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    heads = in_file_order(source.lora.heads, slots)
    console.note(f"heads reordered from the channels of {file} to file order")
    return replace(source, lora=replace(source.lora, heads=heads, is_in_file_order=True))


def _robots(
    folder: Path,
    robot: str | None,
    statistics: Path | None,
    resolution: str | None,
    tag: str | None,
    embodiment_id: int | None,
) -> "list[ServedRobot]":
    """The robot to serve, if one is given; its file and statistics are an adapter directory's own by default."""
    if robot is None:
        if given := [f"--{n}" for n, v in (("statistics", statistics), ("resolution", resolution), ("tag", tag)) if v]:
            from schemas.errors import UsageError

            raise UsageError(f"{given[0]}: is for a robot to serve. Name it with --robot.")
        return []
    import re

    from adapt.backbones.dreamzero.served import served_robot
    from schemas.embodiment import load_embodiment
    from schemas.errors import UsageError
    from schemas.stats import Statistics

    file = statistics or folder / "statistics.json"
    if not file.is_file():
        raise UsageError(f"{file}: no such file. Give the statistics of --robot {robot} with --statistics FILE.json.")
    size = re.fullmatch(r"(\d+)x(\d+)", resolution or "")
    if size is None:
        given = resolution or "not given"
        raise UsageError(f"--resolution: {given}. Give width and height of the frames the client sends, as 640x480.")
    width, height = int(size[1]), int(size[2])
    known = served_robot(
        load_embodiment(robot),
        Statistics.read_json(file),
        resolution=(width, height),
        tag=tag,
        embodiment_id=embodiment_id,
    )
    return [known]


def _peft(out: Path, source: Source) -> None:
    from adapt.backbones.dreamzero.export import export_peft

    assert source.lora is not None
    name, sha256 = source.base.path.name, source.sha256
    export_peft(out, source.lora, base_name=name, base_sha256=sha256, base_verified=source.is_verified)


def _native(out: Path, source: Source, robots: "list[ServedRobot]", *, wan: Path | None, tokenizer: str) -> None:
    from adapt.backbones.dreamzero.export import export_native

    assert source.lora is not None
    export_native(
        out,
        source.lora,
        source.base.config,
        base_name=source.base.path.name,
        base_sha256=source.sha256,
        base_verified=source.is_verified,
        robots=robots,
        wan=None if wan is None else str(wan),
        tokenizer=tokenizer,
    )


def _full(
    out: Path,
    source: Source,
    robots: "list[ServedRobot]",
    *,
    wan: Path | None,
    tokenizer: str,
    shard_gb: float,
    quiet: bool,
) -> None:
    from adapt.backbones.dreamzero.export import export_full

    with console.progress("writing", quiet=quiet) as show:
        export_full(
            out,
            source.base,
            source.lora,
            robots=robots,
            base_named_by_user=True,
            shard_bytes=round(shard_gb * 1e9),
            wan=None if wan is None else str(wan),
            pth=wan,
            tokenizer=tokenizer,
            progress=lambda done, total: show(done // 1_000_000, total // 1_000_000, "MB"),
        )


def _report(out: Path, source: Source, robots: "list[ServedRobot]", *, json: bool) -> None:
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.describe import describe

    told = describe(open_checkpoint(out))
    facts: dict[str, Any] = {"out": str(out), "base": str(source.base.path), "base_check": source.check}
    facts |= {"robots": [robot.tag for robot in robots]}
    if json:
        console.as_json(told.as_dict() | facts)
        return
    console.out(f"{out}: {told.title}, {told.tensors} tensors, {console.megabytes(told.num_bytes)}")
    console.out(f"base: {source.base.path.name}; {source.check}")
    if not robots and told.kind != "peft":
        console.out("no --robot, so no experiment_cfg: the reference's servers will need it")
    for problem in told.to_serve:
        console.out(f"to serve: {problem}")


def _copy(folder: Path, out: Path, base: Path | None, *, json: bool) -> None:
    """An adapter directory of the house under a new name, checked."""
    import shutil

    from adapt.adapter import read_record
    from schemas.errors import UsageError

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
