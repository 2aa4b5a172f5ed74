"""A trained model as an adapter directory, and back into a policy."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from adapt.adapter import FULL, RECORD, AdapterRecord, card, read_record, refuse_wrong_base, write_folder
from adapt.backbones.base import Backbone, trainable
from adapt.backbones.registry import backbone_info
from adapt.clips import Clips
from adapt.fingerprint import base_fingerprint
from adapt.lora import ADAPTER, go_on_from, with_lora
from adapt.rung import Rung
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.recipe import AdaptRecipe
from schemas.report import Report
from schemas.yaml_io import dump_yaml
from wamdata.stats import statistics
from wamdata.windows import on_time_base


def export_adapter(
    out: Path,
    backbone: Backbone,
    model: nn.Module,
    recipe: AdaptRecipe,
    play: Clips,
    report: Report,
    *,
    licences: tuple[str, ...],
) -> AdapterRecord:
    """Write the self-contained directory of a trained model; base parameters are in it only where there is no base."""
    files = backbone.files() | {"embodiment.yaml": dump_yaml(_plain(play.embodiment)).encode()}
    if not play.embodiment.is_action_free:
        imitated = frozenset(recipe.imitate)
        clips = play.stream("train")
        rows = (on_time_base(c, play.embodiment, backbone.time_base, imitated=imitated) for c in clips)
        stats = statistics(rows, play.embodiment, backbone.time_base)
        files["statistics.json"] = json.dumps(stats.as_dict(), indent=1).encode()
    if recipe.base:
        kind, base_name = "lora", Path(recipe.base).name
        base_sha256 = backbone.identify(Path(recipe.base))
        files |= _peft_files(model)
        weights = base_fingerprint(trainable(model))
    else:
        tensors = {n: t.detach().contiguous() for n, t in model.state_dict().items()}
        files[FULL] = save(tensors)
        weights = base_sha256 = base_fingerprint(tensors)
        kind, base_name = "full", "none: trained in full from a seed"
    record = {
        "kind": kind,
        "backbone": recipe.backbone,
        "backbone_version": backbone_info(recipe.backbone).version,
        "base_sha256": base_sha256,
        "base_name": base_name,
        "weights_sha256": weights,
        "encoder_sha256": backbone.fingerprint,
        "robot": play.embodiment.name,
        "robot_sha256": play.embodiment.digest(),
        "time_base": backbone.time_base,
        "recipe": _portable(recipe, base_name),
        "verdict": report.verdict,
        "reason": report.reason,
        "trained_on": tuple(sorted(s.content_sha256 for s in play.manifest.samples if s.split == "train")),
        "licences": licences,
        "provenance": {k: v for k, v in report.provenance.items() if k != "command"},
    }
    files["README.md"] = card(record, report.notes).encode()
    return write_folder(out, files, record)


def load_adapter(
    folder: Path,
    base: Path | None = None,
    *,
    device: torch.device = torch.device("cpu"),
    dtype: torch.dtype = torch.float32,
) -> tuple[Backbone, nn.Module, Embodiment, AdapterRecord]:
    """Backbone, model in evaluation mode, robot and record of an adapter directory.

    Args:
        base: what a LoRA adapter was trained on: a `full` directory, or a DreamZero checkpoint.

    Raises:
        DataError: a hash differs, or `base` is not the adapter's base.
        UsageError: it is no adapter, or a LoRA adapter without `base`.
    """
    from schemas.yaml_io import read_yaml

    record = read_record(folder)
    recipe, kind = AdaptRecipe.model_validate(record.recipe), backbone_info(record.backbone).load()
    rung = Rung(weights="float32")
    if record.kind == "full":
        backbone = kind.load(folder).to(device)
        model = backbone.build(seed=0, base=None, rung=rung, dtype=dtype)
        tensors = load_file(folder / FULL)
        _check(base_fingerprint(tensors), record.weights_sha256, folder)
        model.load_state_dict(tensors)
    else:
        if base is None:
            raise UsageError(f"{folder}: a LoRA adapter. Give its base, {record.base_name!r}, with --base DIR.")
        if (base / RECORD).exists() and read_record(base).kind != "full":
            raise UsageError(f"{base}: holds a LoRA adapter, which is no base. Give {record.base_name!r}.")
        refuse_wrong_base(record, kind.identify(base), str(base))
        backbone = kind.load(folder, base=base).to(device)
        model = backbone.build(seed=recipe.seed, base=base, rung=rung, dtype=dtype)
        model = with_lora(model, recipe.lora, backbone, seed=recipe.seed)
        for parameter in trainable(model).values():
            parameter.data = parameter.data.to(torch.promote_types(dtype, torch.float32))
        go_on_from(model, folder / ADAPTER)
    model.eval()
    return backbone, model, read_yaml(folder / "embodiment.yaml", Embodiment), record


def _portable(recipe: AdaptRecipe, base_name: str) -> dict:
    """The recipe without this machine's paths."""
    values = recipe.as_dict()
    parts = [part | {"shards": Path(part["shards"]).name} for part in values["parts"]]
    return values | {"parts": parts, "base": base_name, "start": recipe.start and Path(recipe.start).name}


def _peft_files(model: nn.Module) -> dict[str, bytes]:
    """peft's own two files, by peft's own writer."""
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, safe_serialization=True)
        names = ("adapter_model.safetensors", "adapter_config.json")
        return {name: (Path(scratch) / name).read_bytes() for name in names}


def _check(got: str, wanted: str, folder: Path) -> None:
    if got != wanted:
        raise DataError(f"{folder}: weights are not those that were exported. Export the adapter again.")


def _plain(embodiment: Embodiment) -> dict:
    return embodiment.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"schema": embodiment.schema_id}
