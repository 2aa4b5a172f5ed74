"""What is judged: a model, or a view of it, with the settings it acts under."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import nn

from adapt.backbones.base import Backbone, Future, Latents, Prediction
from schemas.recipe import AdaptRecipe

DTYPES = {"bf16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Serving:
    """How a policy acts when it is judged.

    Args:
        denoise_steps: levels of the sampler.
        computed: those at which the network runs; None is all of them.
        guidance: of the imagined video; None is the backbone's own, without any.
        dtype: `bf16` or `float16` to compute in; None leaves the weights' own.
        sees_all: the state token sees all tokens, as the public reference serves.
    """

    denoise_steps: int
    computed: int | None = None
    guidance: float | None = None
    dtype: str | None = None
    sees_all: bool = False

    @property
    def needs_more_than_act(self) -> bool:
        """Whether `Backbone.act` alone cannot express it."""
        return self.computed is not None or self.guidance is not None or self.sees_all

    @property
    def words(self) -> str:
        parts = [f"{self.denoise_steps} denoising steps"]
        if self.computed is not None:
            parts.append(f"{self.computed} of them computed")
        if self.guidance is not None:
            parts.append(f"guidance {self.guidance:g}")
        if self.dtype is not None:
            parts.append(self.dtype)
        return ", ".join(parts)


@runtime_checkable
class ServesAs(Protocol):
    """A backbone that can sample as in deployment, beyond what `act` is told."""

    def served_as(self, serving: Serving) -> Self:
        """The same backbone, whose `act` samples so."""
        ...


@runtime_checkable
class HasLossAt(Protocol):
    """A backbone whose loss at one noise level can be asked for."""

    def loss_at(self, model: nn.Module, samples: Sequence[Latents], *, level: float, seed: int) -> dict[str, float]:
        """Mean losses of whole windows with every chunk at `level`; noise from (seed, window id) alone."""
        ...


@dataclass(frozen=True)
class Arm:
    """One way to predict.

    Args:
        view: entered while it acts, for a base that is the adapted module with its adapters off:
            `Arm(backbone, model, serving, view=model.disable_adapter)`.
    """

    backbone: Backbone
    model: nn.Module
    serving: Serving
    seed: int = 0
    view: Callable[[], AbstractContextManager[Any]] = nullcontext

    def act(
        self,
        samples: Sequence[Latents],
        *,
        draws: int = 1,
        hide_video: bool = False,
        future: Future = "imagined",
        seed: int | None = None,
    ) -> Prediction:
        """The last chunk of each sample, as `Backbone.act` says; the arm's own seed by default."""
        self.model.eval()
        with self.view(), _precision(self.serving.dtype, self.model):
            return self.backbone.act(
                self.model,
                samples,
                denoise_steps=self.serving.denoise_steps,
                draws=draws,
                seed=self.seed if seed is None else seed,
                hide_video=hide_video,
                future=future,
            )


def arms_of(
    backbone: Backbone, models: Mapping[str, nn.Module | Arm], serving: Serving, *, seed: int
) -> tuple[dict[str, Arm], tuple[str, ...]]:
    """Every model as an arm that acts as `serving` says, and notes on what of it the backbone cannot do."""
    notes: tuple[str, ...] = ()
    if serving.needs_more_than_act:
        if isinstance(backbone, ServesAs):
            backbone = backbone.served_as(serving)
        else:
            notes = (
                f"judged with {serving.denoise_steps} denoising steps alone: {backbone.name} has no other setting",
            )
    arms = {
        name: replace(model, backbone=backbone, serving=serving, seed=seed)
        if isinstance(model, Arm)
        else Arm(backbone, model, serving, seed)
        for name, model in models.items()
    }
    return arms, notes


def deployed(backbone: str, recipe: AdaptRecipe) -> Serving:
    """The settings under which a backbone is deployed: the public reference's for DreamZero, nano's own."""
    if backbone == "dreamzero":
        from adapt.backbones.dreamzero.policy import REFERENCE as told

        return Serving(told.steps, told.computed, told.guidance, "bf16", told.state_sees_all)
    return Serving(recipe.denoise_steps)


def _precision(dtype: str | None, model: nn.Module) -> AbstractContextManager[Any]:
    if dtype is None:
        return nullcontext()
    device = next((p.device.type for p in model.parameters()), "cpu")
    return torch.autocast(device, dtype=DTYPES[dtype])
