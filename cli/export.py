"""`wam export`: an adapter that can be carried away, and proof that it acts as the trained model did."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console

if TYPE_CHECKING:
    from adapt.backbones.dreamzero.backbone import DreamZeroBackbone
    from adapt.backbones.dreamzero.checkpoint import Checkpoint
    from adapt.backbones.dreamzero.lora_weights import LoraWeights
    from adapt.backbones.dreamzero.served import ServedRobot
    from adapt.handover.adapter import AdapterRecord
    from adapt.handover.check import Verified

LAYOUTS = ("peft", "dreamzero", "dreamzero-lora", "merged")


@dataclass(frozen=True)
class Asked:
    """What the user said of the robot to serve and of the files; None where nothing was said."""

    robot: str | None
    statistics: Path | None
    resolution: str | None
    tag: str | None
    embodiment_id: int | None
    slots: Path | None
    keep_channels: bool
    wan: Path | None
    tokenizer: str
    shard_gb: float
    quiet: bool


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
    base = base or _base_of(run)
    if verify and out is None:
        if to is not None:
            raise UsageError(f"--to {to}: needs --out DIR. `wam export DIR --verify` alone verifies what is there.")
        _tell(_verified(folder, base), json=json)
        return
    if to is not None and to not in LAYOUTS:
        raise UsageError(f"--to {to}: not known. Give one of: {', '.join(LAYOUTS)}.")
    asked = Asked(
        robot, statistics, resolution, tag, embodiment_id, slots, keep_channels, wan, tokenizer, shard_gb, quiet
    )
    _refuse(folder, out, to, base, asked)
    assert out is not None
    is_verified = verify is not False
    if _record(folder) is not None and to in (None, "merged"):
        _house(folder, out, to, base, is_verified=is_verified, json=json)
        return
    if to is None:
        raise UsageError(f"{folder}: no adapter here. Give a finished run or an adapter, or --to for a checkpoint.")
    _layout(folder, out, to, base, asked, is_verified=is_verified, json=json)


def _base_of(run: Path) -> Path | None:
    """The base that a run's recipe names, if it is still there; every use of it checks its fingerprint."""
    if not (run / "recipe.yaml").exists() or not (run / "adapter").exists():
        return None
    from schemas.recipe import AdaptRecipe
    from schemas.yaml_io import read_yaml

    named = read_yaml(run / "recipe.yaml", AdaptRecipe).base
    return Path(named) if named and Path(named).exists() else None


def _record(folder: Path) -> "AdapterRecord | None":
    from adapt.handover.adapter import RECORD, read_record

    return read_record(folder) if (folder / RECORD).exists() else None


def _refuse(folder: Path, out: Path | None, to: str | None, base: Path | None, asked: Asked) -> None:
    """Raise one error that says all that contradicts or is missing, before anything is read or written."""
    from schemas.errors import UsageError

    record = _record(folder)
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
            f"{folder}: an adapter of {record.backbone}; --to {to} is for DreamZero's. Its directory is peft's folder "
            "as it is: leave --to out, or give --to merged."
        )
    if asked.robot and to == "peft":
        raise UsageError("--robot: peft's folder has no place for it. Leave it out, or export --to dreamzero.")
    if asked.slots and asked.keep_channels:
        raise UsageError("--slots and --keep-channels contradict each other. Give one of them.")
    missing = [] if out is not None else ["--out DIR"]
    if to is not None and base is None and _is_lora(folder):
        missing.append("--base DIR, a LoRA's own base")
    missing += _missing_of_robot(folder, asked, is_known=record is not None and (folder / SETTINGS).exists())
    if missing:
        raise UsageError(f"{folder}: missing for this export: {'; '.join(missing)}.")


SETTINGS = "dreamzero.json"


def _is_lora(folder: Path) -> bool:
    record = _record(folder)
    if record is not None:
        return record.kind == "lora"
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint

    return open_checkpoint(folder).is_lora


def _missing_of_robot(folder: Path, asked: Asked, *, is_known: bool) -> list[str]:
    """What a robot to serve lacks; of a known one everything has a default."""
    given = {"statistics": asked.statistics, "resolution": asked.resolution, "tag": asked.tag}
    if asked.robot is None:
        odd = [f"--{name}" for name, value in given.items() if value is not None]
        return [f"--robot, whose {', '.join(odd)} is given"] if odd and not is_known else []
    from adapt.backbones.dreamzero.served import PROMPT_IDS

    missing = []
    if not (asked.statistics or folder / "statistics.json").is_file():
        missing.append(f"--statistics FILE.json of --robot {asked.robot}")
    if asked.resolution is None:
        missing.append("--resolution WxH of the frames that the client sends, as 640x480")
    if asked.embodiment_id is None and (asked.tag or asked.robot) not in PROMPT_IDS:
        name = asked.tag or asked.robot
        missing.append(
            f"--tag or --embodiment-id: the reference has no prompt for {name!r}, but for {', '.join(PROMPT_IDS)}"
        )
    return missing


def _house(folder: Path, out: Path, to: str | None, base: Path | None, *, is_verified: bool, json: bool) -> None:
    """An adapter directory of the house under a new name, or merged into one."""
    import shutil

    from adapt.handover.adapter import read_record
    from adapt.handover.export import merge_adapter

    partial = _fresh(out)
    if to == "merged":
        assert base is not None
        merge_adapter(folder, base, partial)
    else:
        if base is not None and read_record(folder).kind == "lora":
            _refuse_other_base(folder, base)
        shutil.copytree(folder, partial)
    record = read_record(partial)
    found = _settled(partial, out, base if record.kind == "lora" else None, is_verified=is_verified)
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


def _layout(
    folder: Path, out: Path, to: str, base: Path | None, asked: Asked, *, is_verified: bool, json: bool
) -> None:
    """A DreamZero adapter or base in one of the layouts that others read."""
    source = _source(folder, base, to)
    robots = _robots(folder, source, asked) if to != "peft" else []
    if asked.slots is not None:
        source = _in_file_order(source, asked.slots)
    elif to != "peft" and not asked.keep_channels:
        source = _in_own_file_order(source)
    if source.check.startswith("base not verifiable"):
        console.note(f"warning: {source.check}")
    partial = _fresh(out)
    match to:
        case "peft":
            _peft(partial, source)
        case "dreamzero-lora":
            _native(partial, source, robots, asked)
        case _:
            _full(partial, source, robots, asked)
    if source.backbone is not None:
        _hand_over(partial, folder, to, source)
    found = _settled(partial, out, base, is_verified=is_verified)
    _report(out, source, robots, found, json=json)


def _fresh(out: Path) -> Path:
    """Where an export lies until it is verified."""
    import shutil

    partial = out.with_name(out.name + ".unverified")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    return partial


@dataclass(frozen=True)
class Found:
    """What the verification said, or why there was none."""

    words: str
    verified: "Verified | None" = None

    @property
    def facts(self) -> dict[str, Any]:
        from dataclasses import asdict

        return {"verified": None if self.verified is None else asdict(self.verified), "verification": self.words}


def _settled(partial: Path, out: Path, base: Path | None, *, is_verified: bool) -> Found:
    """Verify what was written and give it its name.

    Raises:
        DataError: it does not act as the trained model did; it keeps its preliminary name.
    """
    found = _try(partial, base) if is_verified else Found("not verified: --no-verify")
    partial.rename(out)
    return found


def _try(folder: Path, base: Path | None) -> Found:
    from adapt.handover.check import CHECK, HANDOVER, HOUSE

    record = _record(folder)
    inner = folder if record is not None else folder / HOUSE
    if record is None and not (inner / HANDOVER).exists():
        return Found("not verified: it does not come from an adapter directory, so there is nothing to compare with")
    if not (inner / CHECK).exists():
        loaded = "loaded, but " if record is not None and _loads(folder, record, base) else ""
        return Found(f"{loaded}not verified: the adapter came without {CHECK}. Export it again from its run")
    if record is not None and record.kind == "lora" and base is None:
        return Found("not verified: give --base to check that it fits its base and acts as trained")
    found = _verified(folder, base)
    return Found(found.words, found)


def _loads(folder: Path, record: "AdapterRecord", base: Path | None) -> bool:
    """Whether an adapter directory was loaded, which refuses damage and misfits; a LoRA needs its base for it."""
    from adapt.handover.export import load_adapter

    if record.kind == "lora" and base is None:
        return False
    load_adapter(folder, base)
    return True


def _verified(folder: Path, base: Path | None) -> "Verified":
    """Raises DataError if the folder does not act as the trained model did."""
    from adapt.handover.check import verify
    from schemas.errors import DataError

    found = verify(folder, base)
    if not found.is_equal:
        raise DataError(f"{folder}: {found.words}. Do not use it; export it again from its run.")
    return found


def _tell(found: "Verified", *, json: bool) -> None:
    if json:
        console.as_json(Found(found.words, found).facts)
    else:
        console.out(found.words)


@dataclass(frozen=True)
class Source:
    """What is exported: a LoRA (None: the base alone) and its base, and how that was checked.

    Args:
        backbone: settings and robots, of an adapter directory of the house.
        record: of the same.
    """

    lora: "LoraWeights | None"
    base: "Checkpoint"
    sha256: str
    check: str
    backbone: "DreamZeroBackbone | None" = None
    record: "AdapterRecord | None" = None

    @property
    def is_verified(self) -> bool:
        return self.lora is None or self.lora.base_sha256 is not None


def _source(folder: Path, base: Path | None, layout: str) -> Source:
    from adapt.backbones.dreamzero.backbone import DreamZeroBackbone
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.load import check_base, check_fit, checkpoint_fingerprint
    from adapt.backbones.dreamzero.lora_weights import read_lora
    from schemas.errors import UsageError

    record, source = _record(folder), open_checkpoint(folder)
    if not source.is_lora:
        if layout != "dreamzero" or base is not None:
            raise UsageError(f"{folder}: is a base itself ({source.kind}). Give --to dreamzero, and no --base.")
        sha256 = checkpoint_fingerprint(source)
        return Source(None, source, sha256, f"written again: sha256 {sha256}")
    assert base is not None
    lora, opened = read_lora(source), open_checkpoint(base)
    if record is not None and lora.base_sha256 is None:
        lora = replace(lora, base_sha256=record.base_sha256)
    if record is not None and lora.heads_seed is None:
        lora = replace(lora, heads_seed=record.recipe.get("seed"))
    check = check_base(lora, opened, source, base_named_by_user=True)
    check_fit(lora, opened.config, source)
    backbone = DreamZeroBackbone.load(folder) if record is not None and (folder / SETTINGS).exists() else None
    return Source(lora, opened, lora.base_sha256 or checkpoint_fingerprint(opened), check, backbone, record)


def _in_own_file_order(source: Source) -> Source:
    """The same, reordered by the slots that an adapter directory knows; unchanged where none are known."""
    if source.backbone is None or source.record is None or source.lora is None or source.lora.is_in_file_order:
        return source
    known = source.backbone.robots[source.record.robot_sha256]
    if known.statistics is None:
        return source
    slots = source.backbone.space(source.record.robot_sha256).slots
    style = source.backbone.style
    return _reordered(source, slots, f"{known.embodiment.name} on {style}; --keep-channels leaves them")


def _in_file_order(source: Source, file: Path) -> Source:
    """The same adapter with its heads' channels where the reference's servers expect them."""
    from json import JSONDecodeError, loads

    from adapt.backbones.dreamzero.channels import slots_from_dict
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
    return _reordered(source, slots, str(file))


def _reordered(source: Source, slots: Any, whose: str) -> Source:
    from adapt.backbones.dreamzero.channels import in_file_order

    assert source.lora is not None
    heads = in_file_order(source.lora.heads, slots)
    console.note(f"heads reordered to file order from the channels of {whose}")
    return replace(source, lora=replace(source.lora, heads=heads, is_in_file_order=True))


def _robots(folder: Path, source: Source, asked: Asked) -> "list[ServedRobot]":
    """The robot to serve: the one that is given, else an adapter directory's own, else none."""
    from schemas.errors import WamError

    if asked.robot is not None:
        return [_given_robot(folder, asked)]
    if source.backbone is None or source.record is None:
        return []
    try:
        return _own_robot(source, asked)
    except WamError as error:
        console.note(f"no experiment_cfg: {error}")
        return []


def _given_robot(folder: Path, asked: Asked) -> "ServedRobot":
    from adapt.backbones.dreamzero.served import served_robot
    from schemas.embodiment import load_embodiment
    from schemas.stats import Statistics

    assert asked.robot is not None and asked.resolution is not None
    return served_robot(
        load_embodiment(asked.robot),
        Statistics.read_json(asked.statistics or folder / "statistics.json"),
        resolution=_size(asked.resolution),
        tag=asked.tag,
        embodiment_id=asked.embodiment_id,
    )


def _own_robot(source: Source, asked: Asked) -> "list[ServedRobot]":
    """The robot that the adapter was trained for, under the tag of the base's own robot, whose words it was given."""
    from adapt.backbones.dreamzero.house import TAGS, mosaic_of
    from adapt.backbones.dreamzero.served import served_robot
    from schemas.errors import UsageError
    from schemas.stats import Statistics

    assert source.backbone is not None and source.record is not None
    known, style = source.backbone.robots[source.record.robot_sha256], source.backbone.style
    if known.statistics is None:
        raise UsageError(f"{known.embodiment.name} has no actions, so there is nothing to serve")
    sizes = [source.record.cameras.get(camera.key) for camera in known.embodiment.model_cameras]
    if asked.resolution is None and (not sizes or sizes[0] is None):
        raise UsageError("the size of its frames is not on record. Give --resolution WxH to have one")
    size = _size(asked.resolution) if asked.resolution else tuple(sizes[0])
    if asked.resolution is None and len(set(sizes)) > 1:
        console.note(f"cameras differ in size; {size[0]}x{size[1]} of the first is written. --resolution says another")
    statistics = Statistics.read_json(asked.statistics) if asked.statistics else known.statistics
    tag = asked.tag or TAGS[style]
    made = served_robot(known.embodiment, statistics, resolution=size, tag=tag, embodiment_id=asked.embodiment_id)
    assert made.prompt_id >= 0  # refuses a tag that the reference has no prompt for
    if mosaic_of(known.embodiment, base=style).style != style:
        console.note(
            f"its cameras do not fit the tiling of {style}: servers under the tag {tag} tile and describe them "
            "otherwise than in training, so it will act worse there"
        )
        return [made]
    return [replace(made, video_keys=_in_tiling_order(known.embodiment, style))]


def _in_tiling_order(robot: Any, style: str) -> tuple[str, ...]:
    """Camera keys in the order in which the style takes them."""
    from itertools import permutations

    from adapt.backbones.dreamzero.house import cameras_of, mosaic_of
    from adapt.backbones.dreamzero.views import mosaic_for
    from schemas.errors import UsageError

    wanted = mosaic_of(robot, base=style)
    for order in permutations(cameras_of(robot)):
        try:
            if mosaic_for(order, style) == wanted:
                return tuple(camera.key for camera in order)
        except UsageError:
            continue
    raise AssertionError(style)


def _size(words: str) -> tuple[int, int]:
    import re

    from schemas.errors import UsageError

    size = re.fullmatch(r"(\d+)x(\d+)", words)
    if size is None:
        raise UsageError(f"--resolution: {words}. Give width and height of the frames the client sends, as 640x480.")
    return int(size[1]), int(size[2])


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
