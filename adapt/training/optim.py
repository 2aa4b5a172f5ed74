"""What changes the weights: groups with their rates, the schedule, and the moving average."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from schemas.errors import UsageError

if TYPE_CHECKING:
    from adapt.planning.rung import Rung
    from schemas.recipe import AdaptRecipe

BETAS = (0.9, 0.99)


def optimizer_for(
    parameters: Mapping[str, Tensor], heads: tuple[str, ...], recipe: "AdaptRecipe", rung: "Rung"
) -> torch.optim.Optimizer:
    """AdamW with weight decay for matrices, none for biases, gains and tables; heads at their own rate.

    Raises:
        UsageError: 8-bit states are wanted, and bitsandbytes is not installed.
    """
    groups = _groups(parameters, heads, recipe)
    if rung.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=BETAS)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UsageError('8-bit Adam needs bitsandbytes: pip install "wamkit[quant]".') from None
    return AdamW8bit(groups, betas=BETAS)


def is_head(name: str, heads: tuple[str, ...]) -> bool:
    """Whether a parameter belongs to the robot's heads, also below peft's wrappers."""
    return any(part in heads for part in name.split("."))


def _groups(parameters: Mapping[str, Tensor], heads: tuple[str, ...], recipe: "AdaptRecipe") -> list[dict]:
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((is_head(name, heads) and recipe.base is not None, parameter.ndim >= 2), []).append(parameter)
    found = []
    for (head, matrix), members in groups.items():
        lr = recipe.lr * (recipe.heads_lr if head else 1.0)
        decay = recipe.weight_decay if matrix else 0.0
        found.append({"params": members, "weight_decay": decay, "lr": lr, "base_lr": lr})
    return found


def learning_rate_scale(step: int, *, warmup: int, steps: int) -> float:
    """Linear warm-up, then a half cosine to zero at the last step."""
    if step < warmup:
        return (step + 1) / warmup
    part = (step - warmup) / max(steps - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))


def set_rate(optimizer: torch.optim.Optimizer, scale: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale


@torch.no_grad()
def follow(average: Mapping[str, Tensor], parameters: Mapping[str, Tensor], step: int, *, decay: float) -> None:
    """Exponential moving average with a warm-up, so that early weights do not linger."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_([average[n] for n in parameters], list(parameters.values()), weight)


def fill_gradients(parameters: Mapping[str, Tensor], heads: tuple[str, ...], *, has_actions: bool) -> list[Tensor]:
    """Gradients of all parameters that the whole step reaches, zeros where this rank had none.

    Heads that no sample of any rank reached keep none, so that neither decay nor old moments move them.
    """
    found = []
    for name, parameter in parameters.items():
        if not has_actions and is_head(name, heads):
            parameter.grad = None
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found
