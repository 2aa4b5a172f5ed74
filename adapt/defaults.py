"""What a recipe leaves open, by backbone, with the reason of each default. Imports no torch."""

import math
from pathlib import Path
from typing import Any

from adapt.backbones.registry import backbone_info
from schemas.embodiment import Embodiment
from schemas.recipe import AdaptRecipe, Augment, TimeBase

# nano is trained in full from a seed on the CPU: a high rate, a short run, windows close together, little else.
NANO: dict[str, Any] = {
    "steps": 400,  # held-out error is flat from there on with two minutes of data
    "batch": 8,
    "lr": 2e-3,
    "heads_lr": 1.0,
    "warmup": 20,
    "weight_decay": 0.05,
    "ema": 0.98,  # about the last 50 of 400 steps
    "patience": 0,
    "window_stride_s": 2 / 15,
    "eval_every": 100,
    "save_every": 100,
    "denoise_steps": 2,  # more do not help a network that predicts clean data
    "augment": Augment(copies=1),
}

# DreamZero gets a LoRA on a pretrained base.
DREAMZERO: dict[str, Any] = {
    # 30 minutes are some 2,250 windows: 2,000 steps of 16. The reference's 100,000 would be 1,400 epochs.
    "epochs": 14.0,
    "batch": 16,  # as AWS's recipe that reached its reference; 2 and 4 are noisier for the same number of samples
    "lr": 1e-4,  # LoRA wants 10 to 20 times full fine-tuning's rate; 1e-5 never beat standing still (TeamLite)
    "heads_lr": 1.0,  # of lr; peers use 0.3 to 1
    "warmup": 100,
    "weight_decay": 1e-5,  # the reference's
    "ema": 0.99,  # of LoRA and heads: about the last 100 steps
    "patience": 5,
    "window_stride_s": None,  # one chunk: 75 windows a minute at 30 Hz, every frame in four of them
    "eval_every": 100,
    "save_every": 100,
    "denoise_steps": 4,
    "augment": Augment(copies=4),  # crop, colour and phase: the reference draws anew each time, which no cache can
}

# Minutes of film alone: from a seed, a held-out film's loss is best after 10 to 100 steps and triples by 400.
NANO_FILM: dict[str, Any] = {"eval_every": 25, "patience": 2}

DEFAULTS = {"nano": NANO, "dreamzero": DREAMZERO}


def resolve(recipe: AdaptRecipe, robot: Embodiment) -> AdaptRecipe:
    """The recipe with every default written out: the robot's own first, then its backbone's.

    The time base of DreamZero is the base checkpoint's own, from its files.
    """
    info = backbone_info(recipe.backbone)
    defaults = dict(DEFAULTS[recipe.backbone])
    if recipe.backbone == "nano" and not any("action" in p.losses for p in recipe.parts):
        defaults |= NANO_FILM
    if recipe.steps is not None or recipe.epochs is not None:
        defaults.pop("steps", None)
        defaults.pop("epochs", None)
    time_base = recipe.time_base or _own_time_base(recipe) or info.time_base
    if defaults.get("window_stride_s") is None:
        defaults["window_stride_s"] = time_base.chunk_s
    derived = info.derived_state if robot.derived is None else tuple(d.kind for d in robot.derived)
    defaults |= {"time_base": time_base, "derived_state": derived}
    open_fields = {k: v for k, v in defaults.items() if getattr(recipe, k) is None}
    return recipe.model_copy(update=open_fields)


def steps_for(recipe: AdaptRecipe, play_windows: int) -> int:
    """Steps of a resolved recipe: as given, or as many epochs of its play windows, which get their share of a batch."""
    if recipe.steps is not None:
        return recipe.steps
    return max(1, math.ceil(recipe.epochs * play_windows / play_per_step(recipe, play_windows)))


def play_per_step(recipe: AdaptRecipe, play_windows: int) -> float:
    """Windows of the play parts in a step, on average."""
    share = sum(p.share for p in recipe.plays) / sum(p.share for p in recipe.parts)
    return min(recipe.batch * share, play_windows)


def _own_time_base(recipe: AdaptRecipe) -> TimeBase | None:
    """What a base says of its own time base; None where it says nothing."""
    if recipe.backbone != "dreamzero" or recipe.base is None:
        return None
    from adapt.backbones.dreamzero.house import style_of, time_base_of  # imports torch

    base = Path(recipe.base)
    own = base if (base / "config.json").exists() else None
    return time_base_of(recipe.style or style_of(base), checkpoint=own)[0]
