"""What is random in a training step: the noise, and the level at which each frame and each action row is noised.

Every sample draws from a generator of its own, and video before actions, so its draws depend neither on the samples it
is batched with nor on whether actions follow. Latents come as one first frame and then whole chunks; the frames of a
chunk share their level, the first frame has its own. Rules of the public reference, dreamzero0/dreamzero @ ab790c1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self

import torch
from torch import Tensor

from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.schedule import LEVELS
from schemas.errors import DataError

Mode = Literal["coupled", "decoupled", "high_noise"]
NOISE_BIAS = 3.0  # alpha of the Beta(alpha, 1) that `decoupled` and `high_noise` draw video levels from


@dataclass(frozen=True)
class Draws:
    """Noise and level ids of a batch, or of one sample, which then lacks the first axis B.

    Args:
        video_noise: (B, C, F, H, W).
        video_ids: (B, F), int64 in 0..999.
        action_noise: (B, T, A); T is 0 where there are no actions.
        action_ids: (B, T), int64 in 0..999.
    """

    video_noise: Tensor
    video_ids: Tensor
    action_noise: Tensor
    action_ids: Tensor

    def to(self, device: torch.device | str) -> Self:
        return type(self)(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


def draw(
    config: DreamZeroConfig,
    *,
    seeds: Sequence[int],
    latent_shape: tuple[int, int, int],
    rows: int,
    mode: Mode = "coupled",
) -> Draws:
    """Draws of a batch on the CPU, one seed to a sample; see `draw_for`."""
    return stack(
        [
            draw_for(
                config,
                generator=torch.Generator().manual_seed(seed),
                latent_shape=latent_shape,
                rows=rows,
                mode=mode,
            )
            for seed in seeds
        ]
    )


def draw_for(
    config: DreamZeroConfig,
    *,
    generator: torch.Generator,
    latent_shape: tuple[int, int, int],
    rows: int,
    mode: Mode = "coupled",
) -> Draws:
    """Draws of one sample, on the generator's device.

    Args:
        latent_shape: (frames, height, width) of the sample's latents.
        rows: action rows, 24 to a chunk; 0 for a video-only sample.
        mode: `coupled` gives a chunk's actions the level of its frames, drawn uniformly. `decoupled` draws noisier
            video and a level for every action row by itself, for policies that denoise video part of the way.
            `high_noise` is `coupled` with noisier levels.

    Raises:
        DataError: the frames are not one first frame and whole chunks, or the rows belong to another number of chunks.
    """
    frames = latent_shape[0]
    chunks, rest = divmod(frames - 1, config.latents_per_chunk)
    if rest or chunks < 0 or rows not in (0, chunks * config.steps):
        raise DataError(
            f"draws: {frames} latent frames and {rows} action rows; wanted 1 + {config.latents_per_chunk} frames and "
            f"{config.steps} rows for each chunk, or no rows. Cut the window at a chunk's end."
        )
    device = generator.device
    video_noise = torch.randn((config.out_dim, *latent_shape), generator=generator, device=device)
    if mode == "coupled":
        ids = torch.randint(LEVELS, (frames,), generator=generator, device=device)
    else:
        ids = biased_ids(torch.rand(frames, generator=generator, device=device) ** (1 / NOISE_BIAS))
    video_ids = share_in_chunks(ids, latents_per_chunk=config.latents_per_chunk)
    action_noise = torch.randn((rows, config.action_dim), generator=generator, device=device)
    if mode == "decoupled":
        action_ids = torch.randint(LEVELS, (rows,), generator=generator, device=device)
    else:
        action_ids = action_ids_of(video_ids, latents_per_chunk=config.latents_per_chunk, steps=config.steps)[:rows]
    return Draws(video_noise, video_ids, action_noise, action_ids)


def stack(samples: Sequence[Draws]) -> Draws:
    """The batch of these samples, all of one shape."""
    return Draws(*(torch.stack([getattr(sample, f.name) for sample in samples]) for f in fields(Draws)))


def biased_ids(beta: Tensor) -> Tensor:
    """Level ids of draws from Beta(3, 1), most of them near pure noise."""
    return ((1 - beta) * LEVELS).long().clamp(0, LEVELS - 1)


def share_in_chunks(ids: Tensor, *, latents_per_chunk: int) -> Tensor:
    """(..., F) ids in which each chunk's frames have the id of its first; frame 0 keeps its own."""
    leaders = ids[..., 1::latents_per_chunk]
    return torch.cat([ids[..., :1], leaders.repeat_interleave(latents_per_chunk, -1)], -1)


def action_ids_of(video_ids: Tensor, *, latents_per_chunk: int, steps: int) -> Tensor:
    """(..., T) ids of action rows that share their chunk's level."""
    return video_ids[..., 1::latents_per_chunk].repeat_interleave(steps, -1)
