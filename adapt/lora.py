"""LoRA through peft: which modules, and the heads that are trained in full beside it."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from adapt.backbones.base import Backbone

if TYPE_CHECKING:
    from schemas.recipe import Lora


def with_lora(model: nn.Module, lora: "Lora", backbone: Backbone, *, seed: int) -> nn.Module:
    """`model` wrapped by peft: adapters on the backbone's linears, its heads trainable copies, all else frozen.

    peft starts B at zero, so a fresh adapter changes nothing; the heads start as the base's.
    """
    import peft

    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        target_modules=[*backbone.lora_targets],
        modules_to_save=[*backbone.head_modules],
        bias="none",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # peft draws A from the global generator
        return peft.get_peft_model(model, config)
