"""`wam export --to`: a DreamZero adapter or base in one of the layouts that others read.

Does not know the files of a layout: `backbones.dreamzero.export` writes them. Options that contradict each other were
refused before, by `export`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import console
from cli.export_proof import Found, fresh, settled
from cli.export_robot import robots_to_serve
from cli.export_source import Asked, Source, in_given_file_order, in_own_file_order, open_source

if TYPE_CHECKING:
    from adapt.backbones.dreamzero.served import ServedRobot


def write_layout(
    folder: Path, out: Path, to: str, base: Path | None, asked: Asked, *, is_verified: bool, json: bool
) -> None:
    """A DreamZero adapter or base in one of the layouts that others read."""
    source = open_source(folder, base, to)
    robots = robots_to_serve(folder, source, asked) if to != "peft" else []
    if asked.slots is not None:
        source = in_given_file_order(source, asked.slots)
    elif to != "peft" and not asked.keep_channels:
        source = in_own_file_order(source)
    if source.check.startswith("base not verifiable"):
        console.note(f"warning: {source.check}")
    partial = fresh(out)
    match to:
        case "peft":
            _peft(partial, source)
        case "dreamzero-lora":
            _native(partial, source, robots, asked)
        case _:
            _full(partial, source, robots, asked)
    if source.backbone is not None:
        _hand_over(partial, folder, to, source)
    found = settled(partial, out, base, is_verified=is_verified)
    _report(out, source, robots, found, json=json)


def _peft(out: Path, source: Source) -> None:
    from adapt.backbones.dreamzero.export import export_peft

    assert source.lora is not None
    name, sha256 = source.base.path.name, source.sha256
    export_peft(out, source.lora, base_name=name, base_sha256=sha256, base_verified=source.is_verified)


def _native(out: Path, source: Source, robots: "list[ServedRobot]", asked: Asked) -> None:
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
        wan=None if asked.wan is None else str(asked.wan),
        tokenizer=asked.tokenizer,
    )


def _full(out: Path, source: Source, robots: "list[ServedRobot]", asked: Asked) -> None:
    from adapt.backbones.dreamzero.export import export_full

    with console.progress("writing", quiet=asked.quiet) as show:
        export_full(
            out,
            source.base,
            source.lora,
            robots=robots,
            base_named_by_user=True,
            shard_bytes=round(asked.shard_gb * 1e9),
            wan=None if asked.wan is None else str(asked.wan),
            pth=asked.wan,
            tokenizer=asked.tokenizer,
            progress=lambda done, total: show(done // 1_000_000, total // 1_000_000, "MB"),
        )


def _hand_over(out: Path, folder: Path, to: str, source: Source) -> None:
    """Model card, robot, check and hashes beside the weights."""
    from adapt.handover.card import card
    from adapt.handover.check import CHECK, hand_over
    from adapt.handover.export import read_report

    assert source.lora is not None and source.record is not None
    digest, channels = source.record.robot_sha256, "slots"
    if source.backbone is not None and source.backbone.robots[digest].statistics is None:
        channels = ""
    elif source.lora.is_in_file_order:
        channels = "file order"
    told = card(
        dict(source.record),
        read_report(folder),
        layout=to,
        channels=channels,
        has_check=(folder / CHECK).exists(),
    )
    facts = {"layout": to, "channels": channels, "stored": _stored(source, to)}
    facts |= {"base_name": source.base.path.name, "base_sha256": source.sha256}
    hand_over(out, folder, facts, files={"README.md": told.encode()})


def _stored(source: Source, to: str) -> str:
    """Form of the weights that were written."""
    from adapt.handover.check import DTYPES

    dtype = source.base.entries["patch_embedding.weight"].dtype if to == "dreamzero" else "float32"
    return next((name for name, known in DTYPES.items() if str(known) == f"torch.{dtype}"), "float32")


def _report(out: Path, source: Source, robots: "list[ServedRobot]", found: Found, *, json: bool) -> None:
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.describe import describe

    told = describe(open_checkpoint(out))
    facts: dict[str, Any] = {"out": str(out), "base": str(source.base.path), "base_check": source.check}
    facts |= {"robots": [robot.tag for robot in robots]} | found.facts
    if json:
        console.as_json(told.as_dict() | facts)
        return
    console.out(f"{out}: {told.title}, {told.tensors} tensors, {console.megabytes(told.num_bytes)}")
    console.out(f"base: {source.base.path.name}; {source.check}")
    if not robots and told.kind != "peft":
        console.out("no --robot, so no experiment_cfg: the reference's servers will need it")
    for problem in told.to_serve:
        console.out(f"to serve: {problem}")
    console.out(found.words)
