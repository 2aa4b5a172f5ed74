"""Flow matching with a network that predicts clean data.

x_t = (1 - level) x + level * noise, velocity = noise - x = (x_t - x) / level, so an error of the velocity is the error
of x divided by the level. The division stops at `sigma_floor`, which keeps nearly clean samples from ruling the loss.
A chunk's video and actions share their noise level.
"""

import torch
from torch import Tensor, nn

from adapt.backbones.base import Totals
from adapt.backbones.nano.autoencoder import hold
from adapt.backbones.nano.batch import Batch, Draws
from adapt.backbones.nano.config import NanoConfig
from adapt.backbones.nano.model import Context, Noisy, nano_of


def loss(model: nn.Module, batch: Batch, draws: Draws, of: Totals) -> dict[str, Tensor]:
    """`video` (times the config's weight) and `action`: this batch's part of means over `of`; whole windows only.

    A chunk's video error is divided by how much its video changes, or the few chunks with much motion would rule and
    still pictures come out noisy.
    """
    config = nano_of(model).config
    level = lean(draws.level, config.shift)
    video, action = model(*noised(config, batch, draws, level=level))
    weight = level.clamp_min(config.sigma_floor) ** -2
    truth = chunked(config, batch.latents)
    last = hold(batch.latents[:, : -1 : config.latents_per_chunk], config.static_channels)[:, :, None]
    change = (truth - last).square().mean((2, 3, 4, 5))
    video_error = (video - truth).square().mean((2, 3, 4, 5)) / (change + config.change_floor)
    action_error = (action - batch.action).square().mean(-1)
    counts = (batch.action_valid & batch.has_action[:, None, None]).to(action_error.dtype)
    video_loss = (video_error * weight).sum() / (of.samples * config.chunks)
    action_loss = (action_error * weight[..., None] * counts).sum() / max(of.action_rows, 1)
    return {"video": config.video_weight * video_loss, "action": action_loss}


def noised(config: NanoConfig, batch: Batch, draws: Draws, *, level: Tensor) -> tuple[Context, Noisy]:
    """What the network sees of a training batch at noise levels (B, N)."""
    clean = batch.latents[:, : -config.latents_per_chunk]
    context = Context(
        clean=clean,
        seen=clean + config.context_noise * draws.context,
        text=batch.text * (draws.drop_text >= config.text_dropout)[:, None],
    )
    noisy = Noisy(
        blocks=tuple(range(config.chunks)),
        video=mix(chunked(config, batch.latents), draws.video, level),
        action=mix(batch.action, draws.action, level),
        level=level,
        state=state_features(batch) + config.state_noise * draws.state,
        has_action=batch.has_action,
        hide_video=draws.hide_video < config.hide_video,
    )
    return context, noisy


def chunked(config: NanoConfig, latents: Tensor) -> Tensor:
    """A window's latents after the first frame, (B, N, G, C, h, w)."""
    return latents[:, 1:].unflatten(1, (-1, config.latents_per_chunk))


def state_features(batch: Batch) -> Tensor:
    """(B, N, state_features): present state, velocities, last command."""
    return torch.cat([batch.state, batch.history.flatten(2), batch.last_action], -1)


def mix(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """The point between data and noise at `level`, which lacks the trailing axes."""
    level = level.reshape(*level.shape, *[1] * (clean.ndim - level.ndim))
    return (1 - level) * clean + level * noise


def lean(level: Tensor, shift: float) -> Tensor:
    """Levels in 0..1 moved towards 1; `shift` 1 leaves them (the timestep shift of dreamzero.md 2.1)."""
    return shift * level / (1 + (shift - 1) * level)
