"""What a run of `nano` takes: small enough to be measured at once, on random numbers of its own shapes."""

import math
from typing import Any

from adapt.planning.counts import CHECKPOINTS, Counts, decisions
from adapt.planning.probe import Probe, probe
from schemas.embodiment import Embodiment
from schemas.recipe import AdaptRecipe

# Seconds a judged window takes beside the network: pixels, likenesses, intervals, figures. 58 windows of the G1 took
# 26 s of it on two cores (2026-11-23).
SCORED_S = 0.45


def plan_nano(recipe: AdaptRecipe, robot: Embodiment, counts: Counts, steps: int) -> dict[str, Any]:
    """Two steps on random numbers of the run's own shapes, on this machine's CPU."""
    from adapt.backbones.registry import backbone_info

    config, found, parameters, saved = _probed(recipe, robot)
    encoded = counts.encoded(recipe.augment.copies)
    latents = 2 * config.num_latents * config.channels * math.prod(config.grid)
    # A decision runs the network forward alone, a third of a step's operations, on one chunk of the window.
    decision = found.seconds / recipe.batch / 3 / config.chunks * recipe.denoise_steps
    each = 4 * parameters
    return {
        "backbone": f"{recipe.backbone}: {backbone_info(recipe.backbone).about}",
        "base": recipe.base or "none",
        "gpu": f"CPU, {recipe.hardware.threads} thread" + "s" * (recipe.hardware.threads > 1),
        "rung": "float32, everything kept",
        "is_measured": True,
        "seconds_per_step": found.seconds,
        "seconds_range": (found.seconds, found.seconds),
        "hours": {
            "train": steps * found.seconds / 3600,
            "judge": (decisions(recipe, counts, steps) * decision + counts.judged["test"] * SCORED_S) / 3600,
        },
        "bytes": {
            "weights": each,
            "gradients": each,
            "optimizer": 2 * each,
            "moving average": each * (recipe.ema > 0),
            "activations": saved,
        },
        "host_bytes": 0,
        "headroom": None,
        "operations": found.flops,
        "disk": {
            "cache": encoded * latents,
            "checkpoints": CHECKPOINTS * each * (3 + (recipe.ema > 0)),
            "adapter": each,
        },
        "control": None,
    }


def _probed(recipe: AdaptRecipe, robot: Embodiment) -> tuple[Any, Probe, int, int]:
    """The config, a probe, the number of parameters, and bytes that a step keeps for its backward pass."""
    import torch

    from adapt.backbones.base import Totals
    from adapt.backbones.nano.backbone import config_for
    from adapt.backbones.nano.batch import Draws, draws_for
    from adapt.backbones.nano.model import build
    from adapt.backbones.nano.objective import loss

    config = config_for(robot, recipe)
    model, batch = build(config, 0), _random_batch(config, recipe.batch)
    draws = Draws.stack([draws_for(0, 0, str(i), config) for i in range(recipe.batch)])
    of = Totals(recipe.batch, recipe.batch * config.chunks * config.steps)
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = sum(loss(model, batch, draws, of).values())
        total.backward()

    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.hardware.threads)
    try:
        found = probe(step, device="cpu")
    finally:
        torch.set_num_threads(threads)
    return config, found, sum(p.numel() for p in model.parameters()), sum(kept.values())


def _random_batch(config: Any, size: int) -> Any:
    import torch

    from adapt.backbones.nano.batch import Batch

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn((size, *shape), generator=generator)

    last = config.action_width if config.last_command else 0
    return Batch(
        latents=normal(config.num_latents, config.channels, *config.grid),
        state=normal(config.chunks, config.state_width),
        history=normal(config.chunks, config.lags, config.state_width),
        last_action=normal(config.chunks, last),
        action=normal(config.chunks, config.steps, config.action_width),
        action_valid=torch.ones(size, config.chunks, config.steps, dtype=torch.bool),
        has_action=torch.ones(size, dtype=torch.bool),
        text=normal(config.text_width),
    )
