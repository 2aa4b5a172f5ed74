"""From what a recipe says of hardware, and what there is, to processes and a rung of the memory ladder."""

import os
from dataclasses import replace
from typing import Any

from adapt.planning.rung import Rung
from adapt.training.launch import Where
from schemas.errors import UsageError
from schemas.recipe import AdaptRecipe, Hardware

SETTLED = ("weights", "activations", "selective_blocks", "optimizer", "micro_batch", "compile", "fused_lora")


def where_of(hardware: Hardware, *, address: str | None = None) -> Where:
    """Where a run trains.

    Raises:
        UsageError: GPUs are asked for, and there are none or fewer.
    """
    import torch

    found = torch.cuda.device_count() if hardware.device != "cpu" and torch.cuda.is_available() else 0
    if hardware.device == "cuda" and not found and address is None:
        raise UsageError("hardware.device is cuda, and torch sees no GPU. Leave it out, or look at `wam doctor`.")
    kind = "cuda" if found or (address and hardware.device == "cuda") else "cpu"
    processes = hardware.gpus or max(1, found)
    if kind == "cuda" and address is None and processes > found:
        raise UsageError(f"{processes} GPUs asked for, {found} here. Give fewer, or a cluster with --ray-address.")
    if kind == "cpu" and processes > (os.cpu_count() or 1):
        raise UsageError(f"{processes} processes asked for, {os.cpu_count()} cores here. Give fewer.")
    launcher = "ray" if address else "local"
    return Where(processes, kind, hardware.shard, launcher, address)


def with_precision(recipe: AdaptRecipe, where: Where) -> AdaptRecipe:
    """The recipe with its precision written out: bf16 on GPUs, float32 elsewhere."""
    is_frozen = recipe.backbone != "nano"  # nano trains in full, and bf16 loses small steps
    precision = recipe.hardware.precision or ("bf16" if where.kind == "cuda" and is_frozen else "float32")
    return recipe.model_copy(update={"hardware": recipe.hardware.model_copy(update={"precision": precision})})


def given_of(hardware: Hardware) -> dict[str, Any]:
    """Fields of a rung that a recipe settles, by name."""
    given = {n: getattr(hardware, n) for n in SETTLED if getattr(hardware, n) is not None}
    return given | ({"fp8_matmul": True} if hardware.fp8_matmul else {})


def rung_of(recipe: AdaptRecipe, where: Where, chosen: Rung | None = None) -> Rung:
    """The rung: `chosen` by the plan (for GPUs), overruled by what the recipe says.

    On the CPU everything is kept and a step is one pass: memory is not what is short there.
    """
    fused = recipe.backbone == "dreamzero" and not recipe.lora.options.get("use_dora") and not recipe.lora.dropout
    micro_batch = max(1, -(-recipe.batch // where.processes))
    plain = Rung(weights="float32", activations="keep", micro_batch=micro_batch, fused_lora=fused)
    try:
        return replace(chosen or plain, **given_of(recipe.hardware))
    except ValueError as error:
        raise UsageError(f"hardware: {error}") from None
