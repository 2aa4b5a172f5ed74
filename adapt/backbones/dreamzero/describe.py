"""What a checkpoint is, in words: whole or not, and what a server of the reference would stumble over."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from adapt.backbones.dreamzero.checkpoint import BASE_KEY, SEED_KEY, Checkpoint
from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.config_json import size_name
from adapt.backbones.dreamzero.names import LORA_TARGETS, PARTS
from adapt.backbones.dreamzero.served import VLA
from schemas.errors import DataError

TITLES = {
    "dreamzero": "DreamZero checkpoint",
    "dreamzero-both": "DreamZero base with unmerged LoRA",
    "wan": "raw Wan weights",
    "dreamzero-lora": "DreamZero LoRA",
    "peft": "peft LoRA",
}
CODE_PATHS = {
    "diffusion_model_cfg": "diffusion_model_pretrained_path",
    "text_encoder_cfg": "text_encoder_pretrained_path",
    "image_encoder_cfg": "image_encoder_pretrained_path",
    "vae_cfg": "vae_pretrained_path",
}


@dataclass(frozen=True)
class Description:
    """Facts of a checkpoint, all from headers and text files.

    Args:
        size: `14b`, `5b`, another known size, `other`, or `unknown` where nothing tells.
        parameters: part (model, text encoder, image encoder, vae, lora, heads) to number of parameters.
        missing, unexpected, misshapen: tensors; empty where the sizes are unknown.
        fresh: tensors that raw Wan has not and that loading starts anew.
        encoders: those that are in the files.
        beside: .pth files in the folder, unopened.
        lora: rank, alpha, scale and base of a LoRA, as far as they are recorded.
        to_serve: what keeps the reference's servers from it, each with what to do; empty when they would load it.
    """

    path: str
    kind: str
    size: str
    tensors: int
    num_bytes: int
    files: int
    dtypes: Mapping[str, int]
    parameters: Mapping[str, int]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    fresh: tuple[str, ...]
    encoders: tuple[str, ...]
    beside: tuple[str, ...]
    lora: Mapping[str, Any]
    to_serve: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        return self.size != "unknown" and not (self.missing or self.unexpected or self.misshapen)

    @property
    def title(self) -> str:
        """One line: what it is and whether it is whole."""
        if self.size == "unknown":
            state = "its base's sizes are not recorded" if self.lora else "of unknown sizes"
        elif self.is_complete:
            state = "complete"
        else:
            wrong = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshapen}
            state = "NOT complete: " + ", ".join(f"{len(names)} {what}" for what, names in wrong.items() if names)
        size = "" if self.size in ("other", "unknown") else f" {self.size}"
        return f"{TITLES[self.kind]}{size}, {state}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready facts."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        return values | {"title": self.title, "complete": self.is_complete}

    def rows(self) -> list[tuple[str, str]]:
        """Label and words of each line below the title."""
        dtypes = ", ".join(
            f"{dtype} ({count})" if len(self.dtypes) > 1 else dtype for dtype, count in self.dtypes.items()
        )
        plural = "s" if self.files > 1 else ""
        rows = [("weights", f"{self.tensors} tensors, {_size(self.num_bytes)}, {dtypes}, {self.files} file{plural}")]
        rows += [(part, f"{count:,} parameters") for part, count in self.parameters.items()]
        if self.kind.startswith("dreamzero") and self.kind != "dreamzero-lora":
            rows.append(("encoders", ", ".join(self.encoders) or "none"))
        if self.kind == "wan":
            rows.append(("beside", ", ".join(self.beside) or "no .pth file, so no encoder"))
        if self.lora:
            rows.append(("adapter", ", ".join(f"{key} {value}" for key, value in self.lora.items())))
        if self.fresh:
            rows.append(("starts anew", f"{len(self.fresh)} tensors that Wan has not: {_some(self.fresh)}"))
        listed = {"missing": self.missing, "unexpected": self.unexpected, "wrong shape": self.misshapen}
        rows += [(label, _some(names)) for label, names in listed.items() if names]
        return rows + [("to serve", problem) for problem in self.to_serve]


def describe(checkpoint: Checkpoint) -> Description:
    """The facts of a checkpoint; reads no weight."""
    try:
        config: DreamZeroConfig | None = checkpoint.config
        reason = ()
    except DataError as error:
        config, reason = None, () if checkpoint.is_lora else (str(error),)
    prefixes = {part: checkpoint.part(prefix) for part, prefix in PARTS.items()}
    held = {part: sum(prod(e.shape) for e in entries.values()) for part, entries in prefixes.items() if entries}
    if checkpoint.is_lora:
        lora = sum(prod(e.shape) for name, e in checkpoint.entries.items() if ".lora_" in name)
        held = {"LoRA": lora, "heads": held["model"] - lora}
    elif checkpoint.kind == "dreamzero-both":
        held["LoRA"] = sum(prod(e.shape) for name, e in checkpoint.entries.items() if ".lora_" in name)
    return Description(
        path=str(checkpoint.path),
        kind=checkpoint.kind,
        size=size_name(config) if config else "unknown",
        tensors=len(checkpoint.entries),
        num_bytes=checkpoint.num_bytes,
        files=len(checkpoint.files),
        dtypes=checkpoint.dtypes,
        parameters=held,
        missing=tuple(checkpoint.missing(config)) if config else (),
        unexpected=tuple(checkpoint.unexpected(config)) if config else (),
        misshapen=tuple(checkpoint.misshapen(config)) if config else (),
        fresh=tuple(checkpoint.fresh(config)) if config else (),
        encoders=tuple(part for part in held if part in PARTS and part != "model"),
        beside=checkpoint.beside,
        lora=_lora(checkpoint) if checkpoint.lora_rank else {},
        to_serve=(*reason, *_to_serve(checkpoint)),
    )


def _lora(checkpoint: Checkpoint) -> dict[str, Any]:
    head = _head(checkpoint)
    config = checkpoint.adapter_json or {"lora_alpha": head.get("lora_alpha")}
    alpha = config.get("lora_alpha")
    facts: dict[str, Any] = {"rank": checkpoint.lora_rank, "alpha": "not recorded" if alpha is None else alpha}
    if config.get("use_rslora"):
        facts["rsLoRA"] = "yes"
    facts["on"] = " ".join(sorted(checkpoint.lora_targets, key=_place))
    if not checkpoint.is_lora:
        return facts
    base = checkpoint.metadata.get(BASE_KEY)
    facts["base"] = base[:12] if base else "not recorded: composing needs --base, and cannot be checked"
    if SEED_KEY in checkpoint.metadata:
        facts["heads seed"] = checkpoint.metadata[SEED_KEY]
    return facts


def _to_serve(checkpoint: Checkpoint) -> list[str]:
    match checkpoint.kind:
        case "wan":
            return ["raw Wan has no heads for a robot: adapt it first"]
        case "peft":
            return ["the reference's servers read no peft folder: export it merged"]
        case "dreamzero-lora":
            found = ["the reference's server puts a LoRA on raw Wan, whatever it was trained on: export it merged"]
        case _:
            found = []
    return found + _config_problems(checkpoint) + _experiment_problems(_folder(checkpoint), checkpoint)


def _config_problems(checkpoint: Checkpoint) -> list[str]:
    if checkpoint.config_json is None:
        return ["config.json is missing: fetch it from where the checkpoint came from, or export again"]
    head = _head(checkpoint)
    if not head:
        return ["config.json is not DreamZero's: fetch it from where the checkpoint came from, or export again"]
    found = []
    if checkpoint.kind != "dreamzero-lora":
        architecture = "full" if checkpoint.kind == "dreamzero" else "lora"
        wanted = {"train_architecture": architecture, "defer_lora_injection": False, "skip_component_loading": True}
        for key, value in wanted.items():
            got = head.get(key, False if key != "train_architecture" else "lora")
            if got != value:
                found.append(f"config.json: {key} is {json.dumps(got)}, set {json.dumps(value)}")
    paths = [(head.get(part) or {}).get(key) or part for part, key in CODE_PATHS.items()]
    if gone := [path for path in paths if not Path(path).exists()]:
        found.append(
            f"config.json: {len(gone)} of {len(paths)} files of raw Wan are not where it says ({gone[0]}): "
            "a server that lacks them downloads them"
        )
    return found


def _experiment_problems(folder: Path, checkpoint: Checkpoint) -> list[str]:
    conf, metadata = folder / "experiment_cfg" / "conf.yaml", folder / "experiment_cfg" / "metadata.json"
    if gone := [path.name for path in (conf, metadata) if not path.exists()]:
        return [f"experiment_cfg/{name} is missing: export the checkpoint with its robot" for name in gone]
    import yaml

    try:
        values, tags = yaml.safe_load(conf.read_text()), json.loads(metadata.read_text())
        transforms, modalities = set(values["transforms"]), set(values["modality_configs"])
    except (ValueError, KeyError, TypeError, yaml.YAMLError):
        return ["experiment_cfg is damaged: export the checkpoint with its robot"]
    found = []
    wanted = {"save_lora_only": checkpoint.kind == "dreamzero-lora", "eval_bf16": True}
    found += [
        f"conf.yaml: {key} is {json.dumps(values.get(key))}, set {json.dumps(value)}"
        for key, value in wanted.items()
        if values.get(key) != value
    ]
    if (values.get("model") or {}).get("_target_") != VLA:
        found.append(f"conf.yaml: model._target_ is not {VLA}")
    served = transforms & modalities & set(tags)
    found += [f"tag {tag}: not in conf.yaml and metadata.json alike" for tag in sorted({*tags, *transforms} - served)]
    if served and "oxe_droid" not in served:
        found.append(f"tags {', '.join(sorted(served))}: the shipped servers map keys for oxe_droid only")
    for tag in sorted(served):
        tokenizer = values["transforms"][tag]["transforms"][-1].get("tokenizer_path", "")
        if Path(tokenizer).is_absolute() and not Path(tokenizer).exists():
            found.append(f"conf.yaml: tokenizer_path {tokenizer} is not on this machine")
    return found


def _place(target: str) -> int:
    return LORA_TARGETS.index(target) if target in LORA_TARGETS else len(LORA_TARGETS)


def _folder(checkpoint: Checkpoint) -> Path:
    return checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent


def _head(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return ((checkpoint.config_json or {}).get("action_head_cfg") or {}).get("config") or {}


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" ... ({len(names)} in all)" if len(names) > 5 else "")
