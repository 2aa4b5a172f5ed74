"""A trained model as an adapter directory, and back into a policy."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from adapt.backbones.base import Backbone, Latents, trainable
from adapt.backbones.registry import backbone_info
from adapt.clips import Clips
from adapt.fingerprint import base_fingerprint
from adapt.handover import bases
from adapt.handover.adapter import CHECK, FULL, RECORD, AdapterRecord, read_record, refuse_wrong_base, write_folder
from adapt.handover.card import base_licence, card
from adapt.handover.check import DTYPES, Settings, check_of
from adapt.handover.released import KNOWN
from adapt.planning.rung import Rung, Weights
from adapt.training.lora import ADAPTER, go_on_from, with_lora
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.recipe import AdaptRecipe
from schemas.report import Report
from schemas.yaml_io import dump_yaml
from wamdata.clips import Clip
from wamdata.stats import statistics
from wamdata.windows import on_time_base

REPORT = "report.json"
PLAIN = ("float32", "bf16")  # forms of weights that are no quantisation: the dtype says the rest


def export_adapter(
    out: Path,
    backbone: Backbone,
    model: nn.Module,
    recipe: AdaptRecipe,
    play: Clips,
    report: Report,
    *,
    licences: tuple[str, ...],
    samples: Sequence[Latents] = (),
    rung: Rung | None = None,
    trained_on: tuple[str, ...] | None = None,
) -> AdapterRecord:
    """Write the self-contained directory of a trained model; base parameters are in it only where there is no base.

    Args:
        samples: encoded windows (`handover.check_windows`) on which the model acts once more, so that the directory
            can be verified wherever it is loaded; none leaves the check out.
        rung: in whose form the model was built; float32 weights by default.
        trained_on: hashes of all episodes that were trained on; those of `play` by default.
    """
    files = backbone.portable().files() | {"embodiment.yaml": dump_yaml(_plain(play.embodiment)).encode()}
    seen = _Seen({}, {})
    if play.embodiment.is_action_free:
        for clip in play.stream("train"):
            seen.add(clip)
    else:
        imitated = frozenset(recipe.imitate)
        clips = map(seen.add, play.stream("train"))
        rows = (on_time_base(c, play.embodiment, backbone.time_base, imitated=imitated) for c in clips)
        stats = statistics(rows, play.embodiment, backbone.time_base)
        files["statistics.json"] = json.dumps(stats.as_dict(), indent=1).encode()
    own = {s.content_sha256 for s in play.manifest.samples if s.split == "train"}
    told = {}
    if recipe.base:
        base = Path(recipe.base)
        kind, base_name = "lora", base.name
        base_sha256 = backbone.identify(base)
        files |= _peft_files(model)
        weights = base_fingerprint(trainable(model))
        told = _of_base(base)
    else:
        tensors = {n: t.detach().contiguous() for n, t in model.state_dict().items()}
        files[FULL] = save(tensors)
        weights = base_sha256 = base_fingerprint(tensors)
        kind, base_name = "full", "none: trained in full from a seed"
    if samples:
        files[CHECK] = check_of(backbone, model, samples, _settings(model, recipe, rung))
    record = told | {
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
        "trained_on": tuple(sorted(own)) if trained_on is None else trained_on,
        "licences": licences,
        "provenance": {k: v for k, v in report.provenance.items() if k != "command"},
        "cameras": seen.cameras,
        "instructions": tuple(seen.instructions),
    }
    report = _portable_report(report, base_name)
    files[REPORT] = json.dumps(report.as_dict(), indent=1, ensure_ascii=False).encode()
    files["README.md"] = card(record, report, has_check=bool(samples)).encode()
    return write_folder(out, files, record)


def merge_adapter(folder: Path, base: Path, out: Path) -> AdapterRecord:
    """A LoRA adapter merged into all weights of its base: a `full` directory, which is itself a base.

    Heads are as trained; the training episodes and the licences of both are on its record.

    Raises:
        DataError: a hash differs, or `base` is not the adapter's base.
        UsageError: `base` is no adapter directory, `folder` is merged already, or `out` exists.
    """
    if read_record(folder).kind == "full":
        raise UsageError(f"{folder}: holds all weights already, so there is nothing to merge. Leave --to out.")
    if not (base / RECORD).exists():
        raise UsageError(f"{base}: is no adapter directory, into which a LoRA could be merged. Give the right --base.")
    _, model, _, record = load_adapter(folder, base)
    tensors = {n: t.detach().contiguous() for n, t in model.merge_and_unload().state_dict().items()}
    below, sha256 = read_record(base), base_fingerprint(tensors)
    left = {RECORD, ADAPTER, "adapter_config.json", "README.md"}
    files = {n: (folder / n).read_bytes() for n in record.files if n not in left and (folder / n).exists()}
    files[FULL] = save(tensors)
    values = dict(record) | {
        "kind": "full",
        "base_sha256": sha256,
        "weights_sha256": sha256,
        "base_name": f"merged: LoRA on {record.base_name}",
        "trained_on": tuple(sorted({*record.trained_on, *below.trained_on})),
        "licences": tuple(dict.fromkeys((*record.licences, *below.licences))),
        "provenance": record.provenance | {"merged base": record.base_sha256, "merged LoRA": record.weights_sha256},
    }
    del values["files"]
    files["README.md"] = card(values, read_report(folder), has_check=CHECK in files).encode()
    return write_folder(out, files, values)


def read_report(folder: Path) -> Report | None:
    """The report beside an adapter; None where an older one has none."""
    return Report.read_json(folder / REPORT) if (folder / REPORT).exists() else None


def load_adapter(
    folder: Path,
    base: Path | None = None,
    *,
    device: torch.device = torch.device("cpu"),
    dtype: torch.dtype = torch.float32,
    weights: Weights = "float32",
) -> tuple[Backbone, nn.Module, Embodiment, AdapterRecord]:
    """Backbone, model in evaluation mode, robot and record of an adapter directory.

    Args:
        base: what a LoRA adapter was trained on: a `full` directory, or a DreamZero checkpoint.
        weights: form of the frozen linears, as in a rung.

    Raises:
        DataError: a hash differs, or `base` is not the adapter's base.
        UsageError: it is no adapter, or a LoRA adapter without `base`.
    """
    from schemas.yaml_io import read_yaml

    record = read_record(folder)
    recipe, kind = AdaptRecipe.model_validate(record.recipe), backbone_info(record.backbone).load()
    rung = Rung(weights=weights)
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


@dataclass(frozen=True)
class _Seen:
    """What the training clips hold beside rows: sizes of their cameras, and instructions in order of appearance."""

    cameras: dict[str, tuple[int, int]]
    instructions: dict[str, None]

    def add(self, clip: Clip) -> Clip:
        """The clip itself, noted."""
        for key, camera in clip.meta.cameras.items():
            self.cameras.setdefault(key, (camera.width, camera.height))
        self.instructions.update(dict.fromkeys(t.text for t in clip.meta.text if t.text))
        return clip


def _settings(model: nn.Module, recipe: AdaptRecipe, rung: Rung | None) -> Settings:
    dtype = next((p.dtype for p in model.parameters() if not p.requires_grad and p.is_floating_point()), None)
    dtype = dtype or next(model.parameters()).dtype
    name = next((n for n, known in DTYPES.items() if known == dtype), "float32")
    weights = rung.weights if rung is not None and rung.weights not in PLAIN else "float32"
    return Settings(denoise_steps=recipe.denoise_steps, seed=recipe.seed, dtype=name, weights=weights)


def _of_base(base: Path) -> dict[str, Any]:
    """Licence and repository of a base, as far as they are on record or known by its name."""
    if (base / RECORD).exists():
        below = read_record(base)
        return {"base_licence": ", ".join(x for x in below.licences if x != "unknown") or None}
    found = bases.read_record(base) if base.is_dir() else None
    known = KNOWN.get(base.name)
    licence = found.licence if found is not None and found.licence else base_licence(base.name)
    repo = found.repo if found is not None else known.repo if known else None
    return {"base_licence": licence, "base_repo": repo}


def _portable_report(report: Report, base_name: str) -> Report:
    """The report without this machine's paths."""
    kept = {k: v for k, v in report.provenance.items() if k != "command"}
    return report.model_copy(update={"base": base_name, "provenance": kept})


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
