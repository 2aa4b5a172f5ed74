"""LoRA and heads as plain tensors: read from the reference's save, from peft's, or from a live peft model.

One rank and one scale for all modules; per-module patterns, DoRA and trained biases are refused, since merging them as
plain LoRA would be silently wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from adapt.backbones.dreamzero.checkpoint import BASE_KEY, ORDER_KEY, SEED_KEY, Checkpoint
from adapt.backbones.dreamzero.names import canonical, is_head
from schemas.errors import DataError

FILE_ORDER = "file order"
PLAIN = {"rank_pattern": {}, "alpha_pattern": {}, "use_dora": False, "bias": "none", "fan_in_fan_out": False}


@dataclass(frozen=True)
class LoraWeights:
    """What an adapter changes: W' = W + scale * B @ A of each module, and the heads, which it replaces.

    Args:
        factors: module (`blocks.0.ffn.0`) to A (rank, in) and B (out, rank).
        heads: canonical name to tensor.
        base_sha256: fingerprint of the base that it was trained on; None where nobody recorded it.
        is_in_file_order: its heads' channels were put into the order of the reference's servers (`channels`).
        heads_seed: from which loading drew what its base lacks and it does not hold; None where nobody recorded it.
    """

    rank: int
    scale: float
    factors: Mapping[str, tuple[Tensor, Tensor]]
    heads: Mapping[str, Tensor]
    base_sha256: str | None = None
    heads_seed: int | None = None
    is_in_file_order: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        """Endings of the modules, inside their block."""
        return tuple(dict.fromkeys(module.split(".", 2)[-1] for module in self.factors))

    def applied(self, name: str, weight: Tensor) -> Tensor:
        """A base tensor with the adapter in it; `weight` itself where the adapter does not touch it.

        Computed in float32 on the weight's device, returned in the weight's dtype.
        """
        if name in self.heads:
            return self.heads[name].to(device=weight.device, dtype=weight.dtype)
        factors = self.factors.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if factors is None:
            return weight
        a, b = (factor.to(weight.device, torch.float32) for factor in factors)
        return torch.addmm(weight.float(), b, a, alpha=self.scale).to(weight.dtype)


def read_lora(checkpoint: Checkpoint) -> LoraWeights:
    """The adapter of a LoRA checkpoint, whole in memory.

    Raises:
        DataError: it is none, its scale cannot be told, or it holds what plain LoRA does not.
    """
    path = checkpoint.path
    if not checkpoint.is_lora:
        raise DataError(f"{path}: is a {checkpoint.kind} checkpoint, not a LoRA. Give the adapter's folder.")
    state = {name: tensor.clone() for name, tensor in checkpoint.tensors()}
    if checkpoint.kind == "peft":
        if checkpoint.adapter_json is None:
            raise DataError(f"{path}: has no adapter_config.json, so its scale is not known. Add that file.")
        rank, scale = _peft_scale(checkpoint.adapter_json, str(path))
    else:
        rank, scale = _native_scale(checkpoint)
    weights = _weights(state, rank, scale, checkpoint.metadata.get(BASE_KEY), str(path))
    weights = replace(weights, is_in_file_order=checkpoint.metadata.get(ORDER_KEY) == FILE_ORDER)
    seed = checkpoint.metadata.get(SEED_KEY)
    return weights if seed is None else replace(weights, heads_seed=int(seed))


def inner_lora(checkpoint: Checkpoint) -> LoraWeights | None:
    """The LoRA beside the weights of a `dreamzero-both` checkpoint, without heads; None for other kinds.

    Raises:
        DataError: its scale cannot be told, or a factor is missing.
    """
    if checkpoint.kind != "dreamzero-both":
        return None
    names = [name for name in checkpoint.entries if ".lora_" in name]
    state = {name: tensor.clone() for name, tensor in checkpoint.tensors(names)}
    return _weights(state, *_native_scale(checkpoint), None, str(checkpoint.path))


def lora_of(model: nn.Module, *, base_sha256: str | None = None, heads_seed: int | None = None) -> LoraWeights:
    """The adapter of a live peft model, copied to the CPU.

    Args:
        heads_seed: that `load_dit` was given. The 5B of raw Wan cannot be composed or merged again without it.
    """
    import peft

    state = {canonical(n): t.detach().cpu().clone() for n, t in peft.get_peft_model_state_dict(model).items()}
    rank, scale = _peft_scale(model.peft_config["default"].to_dict(), "the model")
    return replace(_weights(state, rank, scale, base_sha256, "the model"), heads_seed=heads_seed)


def _weights(state: dict[str, Tensor], rank: int, scale: float, base_sha256: str | None, where: str) -> LoraWeights:
    first = {name.split(".lora_A.")[0]: tensor for name, tensor in state.items() if ".lora_A." in name}
    second = {name.split(".lora_B.")[0]: tensor for name, tensor in state.items() if ".lora_B." in name}
    if not first:
        raise DataError(f"{where}: holds no LoRA factors. Save the adapter again.")
    if lone := sorted(first.keys() ^ second.keys()):
        raise DataError(f"{where}: LoRA of {lone[0]} lacks one of its factors A and B. Save the adapter again.")
    for module, a in first.items():
        if a.ndim != 2 or second[module].ndim != 2 or (a.shape[0], second[module].shape[1]) != (rank, rank):
            shapes = f"{tuple(a.shape)} and {tuple(second[module].shape)}"
            raise DataError(f"{where}: LoRA of {module} is {shapes}, wanted rank {rank}. Save the adapter again.")
    heads = {name: tensor for name, tensor in state.items() if is_head(name)}
    odd = [name for name in state if ".lora_A." not in name and ".lora_B." not in name and name not in heads]
    if odd:
        raise DataError(f"{where}: {odd[0]} is neither LoRA nor a head. Merge it where it was trained.")
    return LoraWeights(rank, scale, {m: (a, second[m]) for m, a in first.items()}, heads, base_sha256)


def _peft_scale(config: Mapping[str, Any], where: str) -> tuple[int, float]:
    for key, plain in PLAIN.items():
        if config.get(key, plain) not in (plain, None):
            raise DataError(f"{where}: {key} is {config[key]!r}, which is no plain LoRA. Merge it with peft first.")
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: adapter_config.json does not give {error}. Save the adapter again.") from None
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _native_scale(checkpoint: Checkpoint) -> tuple[int, float]:
    try:
        head = (checkpoint.config_json or {})["action_head_cfg"]["config"]
        rank, alpha = int(head["lora_rank"]), float(head["lora_alpha"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{checkpoint.path}: config.json does not give {error}, so the scale is not known. Add its config.json."
        ) from None
    if rank != checkpoint.lora_rank:
        raise DataError(
            f"{checkpoint.path}: config.json says rank {rank}, the tensors are of rank {checkpoint.lora_rank}. "
            "Give the config.json that belongs to them."
        )
    return rank, alpha / rank
