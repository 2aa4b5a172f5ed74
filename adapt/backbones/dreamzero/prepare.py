"""A built model and a rung of the memory ladder, made into what a training step runs: the one way that all take."""

from collections.abc import Callable

import torch
from torch import nn

from adapt.backbones.dreamzero.frozen import freeze_linears, settle_adapters
from adapt.backbones.dreamzero.fused import fuse
from adapt.backbones.dreamzero.model import DreamZeroDiT, configured
from adapt.planning.rung import Rung


def prepare(
    model: DreamZeroDiT,
    rung: Rung,
    add_lora: Callable[[DreamZeroDiT], nn.Module],
    *,
    trained_dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """What `add_lora` makes of the model, ready to train.

    The order is fixed: blocks freeze (those that were read in this form are left as they are), LoRA goes on top, what
    trains gets its dtype, adapters are fused, and only then are blocks compiled. Of a rung the optimiser and the
    micro-batch are the loop's.

    Raises:
        UsageError: see `frozen.freeze_linears`.
    """
    model.requires_grad_(False)
    freeze_linears(model, rung.weights, fp8_matmul=rung.fp8_matmul)
    adapted = settle_adapters(add_lora(model), trained_dtype)
    if rung.fused_lora:
        fuse(adapted)
    model.settings = configured(model.settings, rung)
    if rung.compile:
        for block in model.blocks:
            block.compile()
    return adapted
