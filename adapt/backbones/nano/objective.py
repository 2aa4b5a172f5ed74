"""Flow matching with a network that predicts clean data.

x_t = (1 - level) x + level * noise, velocity = noise - x = (x_t - x) / level, so an error of the velocity is the error
of x divided by the level. The division stops at `sigma_floor`, which keeps nearly clean samples from ruling the loss.
"""

import torch
from torch import Tensor

from adapt.backbones.nano.batch import Batch, Draws
from adapt.backbones.nano.config import NanoConfig
from adapt.backbones.nano.layout import training
from adapt.backbones.nano.model import Inputs, NanoWAM


def loss(model: NanoWAM, batch: Batch, draws: Draws) -> dict[str, Tensor]:
    """`loss`, `video_loss` and `action_loss`, each a mean over what is there; whole windows only."""
    config = config_of(model)
    level = lean(draws.level, config.shift)
    video, action = model(noisy_inputs(config, batch, draws, level), training(config))
    weight = level.clamp_min(config.sigma_floor) ** -2
    video_error = (video - batch.latents[:, 1:]).square().mean((2, 3, 4)).unflatten(1, (config.chunks, -1)).mean(2)
    action_error = (action - batch.action).square().mean(-1)
    counts = (batch.action_valid & batch.has_action[:, None, None]).float()
    video_loss = (video_error * weight).mean()
    action_loss = (action_error * weight[..., None] * counts).sum() / counts.sum().clamp_min(1)
    return {
        "loss": action_loss + config.video_weight * video_loss, "video_loss": video_loss, "action_loss": action_loss,
    }


def noisy_inputs(config: NanoConfig, batch: Batch, draws: Draws, level: Tensor) -> Inputs:
    """What the network sees of a training batch at noise levels (B, N)."""
    clean_video, per_chunk = batch.latents[:, 1:], config.latents_per_chunk
    return Inputs(
        clean=batch.latents[:, :-per_chunk],
        video=mix(clean_video, draws.video, level.repeat_interleave(per_chunk, 1)),
        action=mix(batch.action, draws.action, level),
        level=level,
        state=state_features(batch) + config.state_noise * draws.state,
        text=batch.text * (draws.drop_text >= config.text_dropout)[:, None],
        has_action=batch.has_action,
        hide_video=draws.hide_video < config.hide_video,
    )


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


def config_of(model: torch.nn.Module) -> NanoConfig:
    """The config of a NanoWAM, also when peft is wrapped around it."""
    return next(module.config for module in model.modules() if isinstance(module, NanoWAM))
