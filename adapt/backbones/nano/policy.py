"""Acting: video and actions of the next chunk are denoised together, by Euler steps, from the same noise levels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.backbones.nano.batch import Batch
from adapt.backbones.nano.layout import inference
from adapt.backbones.nano.model import Inputs, NanoWAM
from adapt.backbones.nano.objective import config_of, lean, state_features


@dataclass(frozen=True)
class Noise:
    """Where denoising starts: video (B, G, C, h, w) and action (B, K, A), standard normal."""

    video: Tensor
    action: Tensor


@dataclass(frozen=True)
class Rollout:
    """A predicted chunk, normalised: action (B, K, A), latents (B, G, C, h, w)."""

    action: Tensor
    latents: Tensor


def noise_for(model: NanoWAM, batch_size: int, generator: torch.Generator) -> Noise:
    """Noise for `act`; draw sample by sample with a generator each where it must not depend on the batch."""
    config = config_of(model)
    video = (batch_size, config.latents_per_chunk, config.channels, *config.grid)
    action = (batch_size, config.steps, config.action_width)
    return Noise(torch.randn(video, generator=generator), torch.randn(action, generator=generator))


@torch.no_grad()
def act(model: NanoWAM, batch: Batch, *, denoise_steps: int, noise: Noise, hide_video: bool = False) -> Rollout:
    """The chunk that follows the batch's latents: frame 0 and 0 to `chunks - 1` complete chunks of context."""
    config = config_of(model)
    context, rest = divmod(batch.latents.shape[1] - 1, config.latents_per_chunk)
    assert rest == 0 and context < config.chunks, f"{batch.latents.shape[1]} latent frames are no context"
    layout = inference(config, context=context)
    levels = lean(torch.linspace(1, 0, denoise_steps + 1), config.shift)
    video, action = noise.video, noise.action[:, None]
    for level, next_level in zip(levels[:-1], levels[1:], strict=True):
        clean_video, clean_action = model(
            Inputs(
                clean=batch.latents, video=video, action=action, level=level.expand(len(batch), 1),
                state=state_features(batch)[:, -1:], text=batch.text, has_action=torch.ones_like(batch.has_action),
                hide_video=torch.full_like(batch.has_action, hide_video),
            ),
            layout,
        )
        kept = next_level / level
        video, action = clean_video + kept * (video - clean_video), clean_action + kept * (action - clean_action)
    return Rollout(action[:, 0], video)
