"""LoRA through peft: which modules, the heads that are trained in full beside it, and going on from an earlier one."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from adapt.backbones.base import Backbone, trainable
from schemas.errors import DataError, UsageError

if TYPE_CHECKING:
    from schemas.recipe import Lora

ADAPTER = "adapter_model.safetensors"
SETTLED = {"r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "modules_to_save", "bias", "task_type"}


def with_lora(model: nn.Module, lora: "Lora", backbone: Backbone, *, seed: int) -> nn.Module:
    """`model` wrapped by peft: adapters on the backbone's linears, its heads trainable copies, all else frozen.

    peft starts B at zero, so a fresh adapter changes nothing; the heads start as the base's.

    Raises:
        UsageError: an option that peft does not know.
    """
    import peft

    _refuse_options(lora.options)
    fixed = {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "target_modules": [*backbone.lora_targets],
        "modules_to_save": [*backbone.head_modules],
        "bias": "none",
    }
    try:
        config = peft.LoraConfig(**fixed | lora.options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"lora.options: {error}. Give options of peft.LoraConfig.") from None
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # peft draws A from the global generator
        return peft.get_peft_model(model, config)


def _refuse_options(options: dict) -> None:
    """Options that others settle, and starting values for which peft takes a part out of the base."""
    if odd := sorted(SETTLED & options.keys()):
        raise UsageError(f"lora.options: {odd[0]} is settled by the recipe and the backbone. Leave it out.")
    start = options.get("init_lora_weights", True)
    if start not in (True, "gaussian"):
        raise UsageError(f"lora.options: init_lora_weights {start!r} changes the base. Give gaussian, or leave it out.")


def go_on_from(model: nn.Module, weights: Path) -> None:
    """Put an earlier adapter's trained weights into a model with adapters of the same kind.

    Args:
        weights: peft's file, or all weights of a model that was trained in full.

    Raises:
        DataError: it has other modules, another rank or other widths.
    """
    from safetensors.torch import load_file

    tensors = load_file(weights)
    try:
        if hasattr(model, "peft_config"):
            import peft

            told = peft.set_peft_model_state_dict(model, tensors)
            lacking = [k for k in told.missing_keys if ".lora_" in k or ".modules_to_save." in k]
            odd = [*told.unexpected_keys, *lacking]
        else:
            odd = list(model.load_state_dict(tensors, strict=False).unexpected_keys)
            odd += sorted(trainable(model).keys() - tensors.keys())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"{weights}: {reason} Give the rank and the robot that it was trained with.") from None
    if odd:
        raise DataError(f"{weights}: {odd[0]!r} is not in this run's LoRA. Give the recipe that it was trained with.")
