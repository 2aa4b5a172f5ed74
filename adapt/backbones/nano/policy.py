"""Acting: video and actions of the next chunk are denoised together, by Euler steps, at the same noise level.

The context is computed once, whatever the number of steps and samples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapt.backbones.nano.batch import Batch
from adapt.backbones.nano.config import NanoConfig
from adapt.backbones.nano.model import Context, Noisy, nano_of
from adapt.backbones.nano.objective import lean, state_features

# B batch, R samples of each, G latent frames per chunk, C latent channels, h w cells, K steps, A action


@dataclass(frozen=True)
class Chunk:
    """Video (B, R, G, C, h, w) and action (B, R, K, A) of one chunk, normalised: the noise, or what became of it."""

    video: Tensor
    action: Tensor

    def to(self, like: Tensor) -> "Chunk":
        """On the device and in the type of `like`."""
        return Chunk(self.video.to(like), self.action.to(like))


def noise_for(config: NanoConfig, generator: torch.Generator, *, batch: int, samples: int = 1) -> Chunk:
    """Standard normal noise to start from."""
    video = (batch, samples, config.latents_per_chunk, config.channels, *config.grid)
    action = (batch, samples, config.steps, config.action_width)
    return Chunk(torch.randn(video, generator=generator), torch.randn(action, generator=generator))


@torch.no_grad()
def act(
    model: nn.Module,
    batch: Batch,
    *,
    denoise_steps: int,
    noise: Chunk,
    hide_video: bool = False,
    truth: Tensor | None = None,
) -> Chunk:
    """The chunk after the batch's latents, which are frame 0 and 0 to `chunks - 1` complete chunks.

    The mean over the samples axis is the better guess, one sample the honest draw.

    Args:
        truth: (B, G, C, h, w) the chunk's recorded video, to act from it instead of imagining it: at every level the
            video part is the point between it and its noise at that level, as in training, so the actions are
            denoised beside a video that ends as it was recorded. The result's video is then `truth` itself.
    """
    nano = nano_of(model)
    context = Context(clean=batch.latents, seen=batch.latents, text=batch.text)
    past, rest = divmod(batch.latents.shape[1] - 1, nano.config.latents_per_chunk)
    assert rest == 0 and past < nano.config.chunks, f"{batch.latents.shape[1]} latent frames are no context"
    samples = noise.action.shape[1]
    memory = nano.remember(context)
    state = state_features(batch)[:, -1:].expand(-1, samples, -1)
    levels = lean(torch.linspace(1, 0, denoise_steps + 1), nano.config.shift).to(noise.action)
    recorded = None if truth is None else truth[:, None].to(noise.video).expand_as(noise.video)
    chunk = noise
    for level, next_level in zip(levels[:-1], levels[1:], strict=True):
        noisy = Noisy(
            blocks=(past,) * samples,
            video=chunk.video,
            action=chunk.action,
            level=level.expand(len(batch), samples),
            state=state,
            has_action=torch.ones(len(batch), dtype=torch.bool, device=level.device),
            hide_video=torch.full((len(batch),), hide_video, device=level.device),
        )
        video, action = nano.predict(context, noisy, memory)
        kept = next_level / level  # the Euler step along (x_t - x) / level, written without the division by 0
        stepped = torch.lerp(video, chunk.video, kept)
        if recorded is not None:
            stepped = torch.lerp(recorded, noise.video, next_level)
        chunk = Chunk(stepped, torch.lerp(action, chunk.action, kept))
    return chunk
