"""What goes into a nano model, already normalised: samples, and the random numbers each of them is trained with.

A sample's draws depend on (seed, epoch, window id) and nothing else, so one rank or many, fresh or resumed, see the
same noise.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor

from adapt.backbones.nano.config import NanoConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Samples side by side.

    Args:
        latents: (B, T, C, h, w); training: a whole window; `act`: frame 0 and the complete chunks before the present.
        state: (B, N, S) at the start of each chunk; `act` reads the last one.
        history: (B, N, L, S) scaled differences to earlier states (`Normalizer.history_to_model`).
        last_action: (B, N, A), or (B, N, 0) for a model without it.
        action: (B, N, K, A); zeros where absent; unused by `act`.
        action_valid: (B, N, K) bool; has_action: (B,) bool, false for video alone.
        text: (B, text_width) from `text.embed`.
    """

    latents: Tensor
    state: Tensor
    history: Tensor
    last_action: Tensor
    action: Tensor
    action_valid: Tensor
    has_action: Tensor
    text: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, like: Tensor) -> Self:
        """On the device of `like`, and in its dtype where a field is no yes or no."""
        return _like(self, like)

    @classmethod
    def stack(cls, samples: Sequence[Self]) -> Self:
        """Samples made without the leading B as one batch."""
        return _stack(cls, samples)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one sample, or of a batch with a leading B.

    Args:
        level: (N,) uniform in 0..1, one per chunk, shared by its video and its actions.
        video: (N, G, C, h, w) and action: (N, K, A) standard normal, G latent frames per chunk.
        state: (N, state_features) standard normal.
        context: (T - G, C, h, w) standard normal.
        hide_video, drop_text: () uniform in 0..1, compared with the config's probabilities.
    """

    level: Tensor
    video: Tensor
    action: Tensor
    state: Tensor
    context: Tensor
    hide_video: Tensor
    drop_text: Tensor

    def to(self, like: Tensor) -> Self:
        """On the device and in the dtype of `like`."""
        return _like(self, like)

    @classmethod
    def stack(cls, draws: Sequence[Self]) -> Self:
        """One sample's draws each, as one batch's."""
        return _stack(cls, draws)


def draws_for(seed: int, epoch: int, window_id: str, config: NanoConfig) -> Draws:
    """The draws of one training sample."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{window_id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    hide_video, drop_text = torch.rand(2, generator=generator)
    return Draws(
        level=torch.rand(config.chunks, generator=generator),
        video=torch.randn(config.chunks, config.latents_per_chunk, config.channels, *config.grid, generator=generator),
        action=torch.randn(config.chunks, config.steps, config.action_width, generator=generator),
        state=torch.randn(config.chunks, config.state_features, generator=generator),
        context=torch.randn(
            config.num_latents - config.latents_per_chunk, config.channels, *config.grid, generator=generator
        ),
        hide_video=hide_video,
        drop_text=drop_text,
    )


def _stack(cls: type[T], parts: Sequence[T]) -> T:
    return cls(**{f.name: torch.stack([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def _like(parts: T, like: Tensor) -> T:
    moved = {f.name: getattr(parts, f.name) for f in fields(parts)}
    kept = {n: t.to(like.device, like.dtype if t.is_floating_point() else t.dtype) for n, t in moved.items()}
    return type(parts)(**kept)
