"""What `wam export` starts from: the words of the user, and an adapter's weights with the base that they are for.

Puts heads into file order, since that changes what is written. Does not write.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import console

if TYPE_CHECKING:
    from adapt.backbones.dreamzero.backbone import DreamZeroBackbone
    from adapt.backbones.dreamzero.checkpoint import Checkpoint
    from adapt.backbones.dreamzero.lora_weights import LoraWeights
    from adapt.handover.adapter import AdapterRecord

SETTINGS = "dreamzero.json"


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


def record_of(folder: Path) -> "AdapterRecord | None":
    """The record of an adapter directory of the house; None of any other folder."""
    from adapt.handover.adapter import RECORD, read_record

    return read_record(folder) if (folder / RECORD).exists() else None


def base_of(run: Path) -> Path | None:
    """The base that a run's recipe names, if it is still there; every use of it checks its fingerprint."""
    if not (run / "recipe.yaml").exists() or not (run / "adapter").exists():
        return None
    from schemas.recipe import AdaptRecipe
    from schemas.yaml_io import read_yaml

    named = read_yaml(run / "recipe.yaml", AdaptRecipe).base
    return Path(named) if named and Path(named).exists() else None


def is_lora(folder: Path) -> bool:
    """Whether a folder is of no use without a base."""
    record = record_of(folder)
    if record is not None:
        return record.kind == "lora"
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint

    return open_checkpoint(folder).is_lora


def open_source(folder: Path, base: Path | None, layout: str) -> Source:
    """An adapter on its base, checked, or a base alone.

    Raises:
        UsageError: a base is to be written as what only a LoRA can be, or on another base.
        DataError: the adapter is of another base, or does not fit it.
    """
    from adapt.backbones.dreamzero.backbone import DreamZeroBackbone
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.load import check_base, check_fit, checkpoint_fingerprint
    from adapt.backbones.dreamzero.lora_weights import read_lora
    from schemas.errors import UsageError

    record, source = record_of(folder), open_checkpoint(folder)
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


def in_own_file_order(source: Source) -> Source:
    """The same, reordered by the slots that an adapter directory knows; unchanged where none are known."""
    if source.backbone is None or source.record is None or source.lora is None or source.lora.is_in_file_order:
        return source
    known = source.backbone.robots[source.record.robot_sha256]
    if known.statistics is None:
        return source
    slots = source.backbone.space(source.record.robot_sha256).slots
    style = source.backbone.style
    return _reordered(source, slots, f"{known.embodiment.name} on {style}; --keep-channels leaves them")


def in_given_file_order(source: Source, file: Path) -> Source:
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
