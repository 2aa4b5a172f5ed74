"""An adapter out of the house: as peft's files, as the reference's LoRA-only save, or merged into a full checkpoint.

Everything is written beside the target and renamed: a killed export leaves `<out>.partial`, which nothing opens.
wamkit.json beside the weights records the base that they belong to.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from adapt.backbones.dreamzero.checkpoint import Checkpoint, Lazy
from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.config_json import config_json, for_serving
from adapt.backbones.dreamzero.load import check_fit, checkpoint_fingerprint, refuse_damage, refuse_lora
from adapt.backbones.dreamzero.lora_weights import BASE_KEY, LoraWeights
from adapt.backbones.dreamzero.names import MODEL, WRAPPED, dit_shapes, fresh_names, lora_name
from adapt.backbones.dreamzero.served import ServedRobot, write_experiment
from adapt.backbones.dreamzero.shards import Content, Spec, fresh_partial, write_file, write_shards
from schemas.errors import DataError, UsageError

SHARD_BYTES = 5_000_000_000  # the default of the library that the reference saves with
TOKENIZER = "google/umt5-xxl"
SIDECAR = "wamkit.json"


def export_peft(out: Path, lora: LoraWeights, *, base_name: str, base_sha256: str) -> Path:
    """peft's adapter folder, for `peft.PeftModel.from_pretrained(DreamZeroDiT, out)`.

    Raises:
        UsageError: `out` exists.
    """
    tensors = {WRAPPED + name: tensor for name, tensor in lora.heads.items()}
    for module, (a, b) in lora.factors.items():
        tensors |= {f"{WRAPPED}{module}.lora_A.weight": a, f"{WRAPPED}{module}.lora_B.weight": b}
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "inference_mode": True,
        "base_model_name_or_path": None,  # peft would look a name up on the hub
        "r": lora.rank,
        "lora_alpha": alpha_of(lora),
        "lora_dropout": 0.0,
        "use_rslora": False,  # lora_alpha already says the scale
        "bias": "none",
        "target_modules": _peft_targets(lora),
        "modules_to_save": sorted({name.split(".")[0] for name in lora.heads}) or None,
    }
    with _folder(out) as folder:
        _write(folder / "adapter_model.safetensors", tensors, base_sha256)
        _json(folder / "adapter_config.json", config)
        _sidecar(folder, "peft", lora, base_name=base_name, base_sha256=base_sha256)
    return out


def export_native(
    out: Path,
    lora: LoraWeights,
    config: DreamZeroConfig,
    *,
    base_name: str,
    base_sha256: str,
    robots: Sequence[ServedRobot] = (),
    wan: str | None = None,
    tokenizer: str = TOKENIZER,
) -> Path:
    """The reference's LoRA-only save: 814 tensors for the 14B at its own targets.

    Modules that the reference leaves alone (k_img, v_img) are named in config.json, from which it builds its LoRA. Its
    server puts a LoRA on *raw Wan* whatever it was trained on: only a LoRA trained on raw Wan is served right by it.

    Args:
        wan: folder of the raw Wan files as the server sees it.

    Raises:
        UsageError: `out` exists.
        DataError: the reference's formula or naming cannot say what this adapter is: export it merged.
    """
    alpha = alpha_of(lora)
    if not isinstance(alpha, int):
        raise DataError(
            f"LoRA scale {lora.scale:g} at rank {lora.rank} is alpha {alpha:g}, and the reference knows whole ones. "
            "Export the merged checkpoint."
        )
    if gone := [name for name in fresh_names(config) if name not in lora.heads]:
        raise DataError(f"the adapter has no {gone[0]}, and the reference takes heads from it. Export it merged.")
    targets = reference_targets(lora, config)
    tensors = {MODEL + WRAPPED + name: tensor for name, tensor in _in_order(lora, config).items()}
    values = config_json(
        config, train_architecture="lora", lora_rank=lora.rank, lora_alpha=alpha, lora_targets=targets, wan=wan
    )
    with _folder(out) as folder:
        _write(folder / "model.safetensors", tensors, base_sha256)
        if robots:
            write_experiment(folder, robots, config, save_lora_only=True, tokenizer=tokenizer)
        _sidecar(folder, "dreamzero-lora", lora, base_name=base_name, base_sha256=base_sha256)
        _json(folder / "config.json", values)
    return out


def export_full(
    out: Path,
    base: Checkpoint,
    lora: LoraWeights | None,
    *,
    robots: Sequence[ServedRobot] = (),
    base_named_by_user: bool = False,
    shard_bytes: int = SHARD_BYTES,
    wan: str | None = None,
    tokenizer: str = TOKENIZER,
) -> Path:
    """A full checkpoint in the released layout with the adapter merged in; one tensor is in memory at a time.

    Weights are merged in float32 and cast to the base's dtype; what the adapter does not touch is copied byte for byte.

    Args:
        base: a whole released checkpoint, encoders included.
        lora: None to write the base again, in other shards or for another robot.
        wan: folder of the raw Wan files as the server sees it, for config.json; by default as the base has it.

    Raises:
        UsageError: `out` exists; `base` is raw Wan or a LoRA; the adapter records no base and the user named none.
        DataError: `base` is damaged, is not the adapter's base, or the adapter does not fit it.
    """
    refuse_lora(base)
    if base.kind != "dreamzero":
        raise UsageError(f"{base.path}: raw Wan weights have no encoders to carry over. Give a released checkpoint.")
    config = base.config
    refuse_damage(base, config, only_model=False)
    base_sha256 = checkpoint_fingerprint(base)
    if lora is not None:
        _refuse_other_base(lora, base, base_sha256, base_named_by_user=base_named_by_user)
        check_fit(lora, config, base)
    names = {full_name(name): name for name in base.expected(config)}
    specs = {full: Spec(base.entries[name].dtype, base.entries[name].shape) for full, name in names.items()}
    lazy = Lazy(base, base.entries.keys())
    changed = set() if lora is None else {f"{module}.weight" for module in lora.factors} | set(lora.heads)

    def content(full: str) -> Content:
        name = names[full]
        if lora is None or name not in changed:
            return base.entries[name].content()
        return lora.applied(name, lazy[name])

    with _folder(out) as folder:
        write_shards(folder, specs, content, shard_bytes=shard_bytes, metadata={"format": "pt"})
        if robots:
            write_experiment(folder, robots, config, save_lora_only=False, tokenizer=tokenizer)
        _sidecar(folder, "dreamzero", lora, base_name=base.path.name, base_sha256=base_sha256)
        _json(folder / "config.json", _served_config(base, config, wan))
    return out


def alpha_of(lora: LoraWeights) -> int | float:
    """lora_alpha for the plain scale alpha / rank, whole where it is (a hair of rounding aside)."""
    alpha = lora.scale * lora.rank
    return round(alpha) if abs(alpha - round(alpha)) <= 1e-9 * abs(alpha) else alpha


def reference_targets(lora: LoraWeights, config: DreamZeroConfig) -> str:
    """lora_target_modules of config.json: endings of module names that name the adapter's modules and no others.

    Raises:
        DataError: endings cannot, since some blocks have a module with LoRA that others have without.
    """
    modules = [name.removesuffix(".weight") for name, shape in dit_shapes(config).items() if len(shape) == 2]
    wanted = list(lora.factors)
    endings: list[str] = []
    for module in wanted:
        whole = module.split(".", 2)[-1] if module.startswith("blocks.") else module
        short = whole.rpartition(".")[2]
        ending = short if _ends(modules, short) <= set(wanted) else whole
        if ending not in endings:
            endings.append(ending)
    reached = set().union(*(_ends(modules, ending) for ending in endings))
    if odd := sorted(reached ^ set(wanted)):
        raise DataError(f"{odd[0]}: the reference names LoRA modules by their endings only. Export the adapter merged.")
    return ",".join(endings)


def full_name(name: str) -> str:
    """Name in a released checkpoint of a tensor with this canonical name."""
    return name if name.startswith("action_head.") else MODEL + name


def _ends(modules: Sequence[str], ending: str) -> set[str]:
    """What peft 0.5 takes `ending` for."""
    pattern = re.compile(rf"(.*\.)?{re.escape(ending)}")
    return {module for module in modules if pattern.fullmatch(module)}


def _peft_targets(lora: LoraWeights) -> list[str]:
    """Endings where all blocks have the same modules, whole names otherwise."""
    blocks: dict[str, set[str]] = {}
    for module in lora.factors:
        at, _, ending = module.removeprefix("blocks.").partition(".")
        blocks.setdefault(ending, set()).add(at)
    in_blocks = all(module.startswith("blocks.") for module in lora.factors)
    alike = len(set(map(frozenset, blocks.values()))) == 1
    return list(blocks) if in_blocks and alike else list(lora.factors)


def _in_order(lora: LoraWeights, config: DreamZeroConfig) -> dict[str, Tensor]:
    """Heads and factors by canonical names, as the reference orders them."""
    tensors: dict[str, Tensor] = {}
    for name in dit_shapes(config):
        module = name.removesuffix(".weight")
        if name in lora.heads:
            tensors[name] = lora.heads[name]
        elif module in lora.factors and name.endswith(".weight"):
            tensors |= dict(zip((lora_name(module, "A"), lora_name(module, "B")), lora.factors[module], strict=True))
    return tensors


def _refuse_other_base(lora: LoraWeights, base: Checkpoint, base_sha256: str, *, base_named_by_user: bool) -> None:
    if lora.base_sha256 is None and not base_named_by_user:
        raise UsageError(
            "the adapter does not record its base, and merged into another one it would act wrongly. "
            f"Say that {base.path} is the one with --base."
        )
    if lora.base_sha256 not in (None, base_sha256):
        raise DataError(
            f"{base.path}: is not the adapter's base (sha256 {base_sha256[:12]}, wanted {str(lora.base_sha256)[:12]}). "
            "Merged into another base it would act wrongly; give the right one."
        )


def _served_config(base: Checkpoint, config: DreamZeroConfig, wan: str | None) -> dict[str, Any]:
    fresh = config_json(config, wan=wan)
    values = dict(base.config_json) if base.config_json and "action_head_cfg" in base.config_json else fresh
    if wan is None or values is fresh:
        return for_serving(values)
    head, new = values["action_head_cfg"]["config"], fresh["action_head_cfg"]["config"]
    paths = {
        part: head.get(part, {}) | {key: value for key, value in new[part].items() if key.endswith("_pretrained_path")}
        for part in ("diffusion_model_cfg", "text_encoder_cfg", "image_encoder_cfg", "vae_cfg")
    }
    return for_serving(values | {"action_head_cfg": values["action_head_cfg"] | {"config": head | paths}})


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder to write into that gets its name when all is written."""
    if out.exists():
        raise UsageError(f"{out}: exists already. Give a new --out.")
    partial = fresh_partial(out)
    yield partial
    os.replace(partial, out)


def _write(path: Path, tensors: Mapping[str, Tensor], base_sha256: str) -> None:
    specs = {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_file(path, specs, tensors.__getitem__, metadata={"format": "pt", BASE_KEY: base_sha256})


def _sidecar(folder: Path, kind: str, lora: LoraWeights | None, *, base_name: str, base_sha256: str) -> None:
    facts: dict[str, Any] = {"kind": kind, "base": base_name, "base_sha256": base_sha256}
    if lora is not None:
        facts |= {"lora_rank": lora.rank, "lora_scale": lora.scale, "base_verified": lora.base_sha256 is not None}
    _json(folder / SIDECAR, facts)


def _json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
