"""An adapter out of the house: as peft's files, as the reference's LoRA-only save, or merged into a full checkpoint.

Everything is written beside the target and renamed: a killed export leaves `<out>.partial`, which nothing opens.
wamkit.json beside the weights records the base that they belong to.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapt.backbones.dreamzero.checkpoint import BASE_KEY, ORDER_KEY, SEED_KEY, Checkpoint, Lazy, encoder_sizes_for
from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.config_json import config_json, for_serving
from adapt.backbones.dreamzero.encoders.load import encoder_tensors
from adapt.backbones.dreamzero.load import (
    check_fit,
    check_fresh,
    checkpoint_fingerprint,
    drawn,
    first_of,
    own_change,
    refuse_damage,
    refuse_lora,
)
from adapt.backbones.dreamzero.lora_weights import FILE_ORDER, LoraWeights
from adapt.backbones.dreamzero.names import (
    IMAGE,
    MODEL,
    TEXT,
    VAE,
    WRAPPED,
    Shapes,
    canonical,
    checkpoint_shapes,
    dit_shapes,
    fresh_names,
    lora_name,
)
from adapt.backbones.dreamzero.served import ServedRobot, write_experiment
from adapt.backbones.dreamzero.shards import (
    Content,
    Spec,
    fresh_partial,
    spec_of,
    write_file,
    write_shards,
)
from schemas.errors import DataError, UsageError, WamError

SHARD_BYTES = 5_000_000_000  # the default of the library that the reference saves with
TOKENIZER = "google/umt5-xxl"
SIDECAR = "wamkit.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Weights:
    """Tensors to be written, by whole names in their order, and how each is had."""

    specs: Mapping[str, Spec]
    content: Callable[[str], Content]


def export_peft(out: Path, lora: LoraWeights, *, base_name: str, base_sha256: str, base_verified: bool = True) -> Path:
    """peft's adapter folder, for `peft.PeftModel.from_pretrained(DreamZeroDiT, out)`.

    Args:
        base_verified: whether the base is known to be the one it was trained on. If not, it is named in wamkit.json
            only, and loading asks for it again.

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
        _write(folder / "adapter_model.safetensors", tensors, lora, base_sha256 if base_verified else None)
        _json(folder / "adapter_config.json", config)
        _sidecar(folder, "peft", lora, base_name=base_name, base_sha256=base_sha256, base_verified=base_verified)
    return out


def export_native(
    out: Path,
    lora: LoraWeights,
    config: DreamZeroConfig,
    *,
    base_name: str,
    base_sha256: str,
    base_verified: bool = True,
    robots: Sequence[ServedRobot] = (),
    wan: str | None = None,
    tokenizer: str = TOKENIZER,
) -> Path:
    """The reference's LoRA-only save: 814 tensors for the 14B at its own targets.

    Modules that the reference leaves alone (k_img, v_img) are named in config.json, from which it builds its LoRA. Its
    server puts a LoRA on *raw Wan* whatever it was trained on: only a LoRA trained on raw Wan is served right by it.

    Args:
        base_verified: as for `export_peft`.
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
        _write(folder / "model.safetensors", tensors, lora, base_sha256 if base_verified else None)
        if robots:
            write_experiment(folder, robots, config, save_lora_only=True, tokenizer=tokenizer)
        facts = {"base_name": base_name, "base_sha256": base_sha256, "base_verified": base_verified}
        _sidecar(folder, "dreamzero-lora", lora, **facts)
        _json(folder / "config.json", values)
    return out


def export_full(
    out: Path,
    base: Checkpoint,
    lora: LoraWeights | None,
    *,
    config: DreamZeroConfig | None = None,
    robots: Sequence[ServedRobot] = (),
    base_named_by_user: bool = False,
    shard_bytes: int = SHARD_BYTES,
    wan: str | None = None,
    tokenizer: str = TOKENIZER,
    pth: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """A full checkpoint in the released layout with the adapter merged in; one tensor is in memory at a time.

    Weights are merged in float32 and cast to the base's dtype; what the adapter does not touch is copied byte for byte.
    Onto raw Wan the encoders of its .pth files are joined as they are, and what it lacks comes from the adapter or, for
    the 5B's branch for CLIP tokens, from the adapter's `heads_seed`.

    Args:
        base: a whole released checkpoint, one with its LoRA beside the weights (which is merged), or raw Wan.
        lora: None to write the base again, in other shards or for another robot.
        config: by default what the base says of itself.
        wan: folder of the raw Wan files as the server sees it, for config.json; by default as the base has it.
        pth: folder of .pth files that are not beside raw Wan.
        progress: called with bytes written and bytes in all.

    Raises:
        UsageError: `out` exists; `base` is a LoRA, or raw Wan without its encoders; the adapter records no base and the
            user named none.
        DataError: `base` is damaged, is not the adapter's base, or the adapter does not fit it.
    """
    refuse_lora(base)
    if out.exists():
        raise UsageError(f"{out}: exists already. Give a new --out.")
    config = config or base.config
    refuse_damage(base, config, only_model=False)
    check_fresh(lora, base, config)
    if lora is not None:
        check_fit(lora, config, base)
    encoders = _encoders(base, config, pth) if base.kind == "wan" else {}
    base_sha256 = checkpoint_fingerprint(base)
    if lora is not None:
        _refuse_other_base(lora, base, base_sha256, base_named_by_user=base_named_by_user)
    weights = _whole(base, config, lora, encoders)
    total, done = sum(spec.num_bytes for spec in weights.specs.values()), 0

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress is not None:
            progress(done, total)

    with _folder(out) as folder:
        if robots:  # before the shards: what it refuses should not cost their time
            write_experiment(folder, robots, config, save_lora_only=False, tokenizer=tokenizer)
        write_shards(
            folder,
            weights.specs,
            weights.content,
            shard_bytes=shard_bytes,
            metadata={"format": "pt"},
            progress=count,
        )
        is_known = lora is None or lora.base_sha256 is not None
        facts = {"base_name": base.path.name, "base_sha256": base_sha256, "base_verified": is_known}
        _sidecar(folder, "dreamzero", lora, **facts)
        _json(folder / "config.json", _served_config(base, config, wan))
    return out


def _whole(
    base: Checkpoint, config: DreamZeroConfig, lora: LoraWeights | None, encoders: Mapping[str, Tensor]
) -> Weights:
    """All of a full checkpoint: from the base's files, from raw Wan's encoders, from the adapter, or drawn."""
    own = own_change(base)
    lazy = Lazy(base, base.entries.keys(), change=own)
    merged = {name.split(".lora_A.")[0] + ".weight" for name in base.entries if ".lora_A." in name}
    changed = set() if lora is None else {f"{module}.weight" for module in lora.factors} | set(lora.heads)
    dit = base.entries["patch_embedding.weight"].dtype
    shapes = checkpoint_shapes(config, encoder_sizes_for(config, _shapes(encoders) or base.shapes))
    seed = lora.heads_seed or 0 if lora is not None else 0

    def spec(full: str) -> Spec:
        name = canonical(full)
        if full in encoders:
            return spec_of(encoders[full])
        return Spec(base.entries[name].dtype if name in base.entries else dit, shapes[full])

    def content(full: str) -> Content:
        name = canonical(full)
        if full in encoders:
            return encoders[full]
        if name in base.entries and name not in changed and name not in merged:
            return base.entries[name].content()
        drawn_or_read = lazy[name] if name in base.entries else drawn(name, shapes[full], seed)
        tensor = drawn_or_read.to(getattr(torch, specs[full].dtype))
        return tensor if lora is None else lora.applied(name, tensor)

    specs = {full: spec(full) for full in shapes}
    return Weights(specs, content)


def _encoders(base: Checkpoint, config: DreamZeroConfig, pth: Path | None) -> dict[str, Tensor]:
    """The encoders beside raw Wan by whole names, mapped from disk and checked."""
    found = {name: t for part in (TEXT, IMAGE, VAE) for name, t in encoder_tensors(base, part, pth=pth).items()}
    whole = checkpoint_shapes(config, encoder_sizes_for(config, _shapes(found)))
    wanted = {name: shape for name, shape in whole.items() if not name.startswith(MODEL)}
    got = _shapes(found)
    wrong = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
    if wrong:
        raise DataError(
            f"{base.path}: of the encoders' tensors {len(wrong)} are missing, not known or of another shape: "
            f"{first_of(wrong)}. Download the .pth files again."
        )
    return found


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


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
    try:
        yield partial
    except WamError:
        shutil.rmtree(partial)
        raise
    os.replace(partial, out)


def _write(path: Path, tensors: Mapping[str, Tensor], lora: LoraWeights, base_sha256: str | None) -> None:
    specs = {name: spec_of(tensor) for name, tensor in tensors.items()}
    metadata = {"format": "pt"}
    if base_sha256 is not None:
        metadata[BASE_KEY] = base_sha256
    if lora.heads_seed is not None:
        metadata[SEED_KEY] = str(lora.heads_seed)
    if lora.is_in_file_order:
        metadata[ORDER_KEY] = FILE_ORDER
    write_file(path, specs, tensors.__getitem__, metadata=metadata)


def _sidecar(
    folder: Path, kind: str, lora: LoraWeights | None, *, base_name: str, base_sha256: str, base_verified: bool
) -> None:
    facts: dict[str, Any] = {"kind": kind, "base": base_name, "base_sha256": base_sha256}
    if lora is not None:
        facts |= {"lora_rank": lora.rank, "lora_scale": lora.scale, "base_verified": base_verified}
        if lora.heads_seed is not None:
            facts["heads_seed"] = lora.heads_seed
        if lora.is_in_file_order:
            facts["channels"] = FILE_ORDER
    _json(folder / SIDECAR, facts)


def _json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
