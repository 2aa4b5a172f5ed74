"""What the engine asks of a backbone. One file or folder implements it; contract tests run on its `tiny` form."""

from __future__ import annotations  # training on a bare machine has no pydantic, which the schemas need

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from adapt.latents import Clips
    from schemas.embodiment import Embodiment
    from schemas.episode import Window
    from schemas.recipe import AdaptRecipe, TimeBase


@dataclass(frozen=True)
class Latents:
    """A window after the frozen encoders, low-dimensional parts in physical units.

    Args:
        video: (T, ...) latents of all frames; frame 0 first.
        frames: (F + 1, H, W, 3) uint8 of the last chunk and the frame before it; empty unless it is to be judged.
        state, history, last_action, action, action_valid: as in `Window`.
    """

    window_id: str
    clip_key: str
    start: int
    text: str
    video: np.ndarray
    frames: np.ndarray
    state: np.ndarray
    history: np.ndarray
    last_action: np.ndarray
    action: np.ndarray
    action_valid: np.ndarray

    @property
    def has_action(self) -> bool:
        return self.action.shape[-1] > 0

    @property
    def chunks(self) -> int:
        return len(self.state)


@dataclass(frozen=True)
class Prediction:
    """What a model says of each sample's last chunk: (B, K, A) absolute commands, (B, ...) latents of its video."""

    action: np.ndarray
    video: Tensor


class Backbone(Protocol):
    """A pretrained world action model, or a small one of the same family."""

    name: str
    time_base: TimeBase
    lora_targets: tuple[str, ...]
    head_modules: tuple[str, ...]

    @classmethod
    def fit(
        cls, play: Clips, videos: Sequence[Clips], recipe: AdaptRecipe, *, on_progress: Callable[[int], None]
    ) -> Self:
        """A backbone without a base: whatever must be fitted is fitted on the training part."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The backbone whose `files` lie in `folder`."""
        ...

    def for_robot(self, play: Clips, recipe: AdaptRecipe) -> Self:
        """The base's encoders and trunk for the robot of `play`: its widths and normalisation."""
        ...

    def files(self) -> dict[str, bytes]:
        """Encoders, normalisation and settings as files, by name."""
        ...

    @property
    def about(self) -> str:
        """One sentence for the report on where the encoders come from."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the frozen encoders and their settings: latents made by another one are not usable."""
        ...

    def view_size(self, robot: Embodiment) -> tuple[int, int] | None:
        """(height, width) to which views are decoded; None keeps the source's."""
        ...

    def canvas(self, window: Window, robot: Embodiment) -> np.ndarray:
        """(F, H, W, 3) uint8: the views tiled as the model sees them."""
        ...

    def encode(self, windows: Sequence[Window], robot: Embodiment) -> list[np.ndarray]:
        """Video latents of each window."""
        ...

    def decode(self, context: Tensor, video: Tensor) -> np.ndarray:
        """(B, F, H, W, 3) uint8 frames of predicted latents; `context` are the latents before them."""
        ...

    def build(self, seed: int) -> nn.Module:
        """The trainable part before LoRA, with fresh weights."""
        ...

    def load_base(self, model: nn.Module, weights: Path) -> tuple[str, ...]:
        """Put a base's weights into `model`; names of tensors that keep fresh values, their shapes differing."""
        ...

    def loss(self, model: nn.Module, samples: Sequence[Latents], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """`loss` and its parts over samples; every draw depends on (seed, epoch, window id)."""
        ...

    def act(
        self,
        model: nn.Module,
        samples: Sequence[Latents],
        *,
        denoise_steps: int,
        draws: int,
        seed: int,
        hide_video: bool = False,
    ) -> Prediction:
        """The last chunk of each sample from its earlier ones; the mean of `draws` denoisings."""
        ...


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that training changes, by name."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def count(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values())
