"""The network: one transformer over clean video, noisy video, actions and states.

It predicts clean data: video as a change to the last frame it may see, actions from nothing. Output layers start at
zero, so an untrained model repeats the last frame and stands still. What it is shown of noisy data is the guess that
one would make without a network (`first_guess`), so pure noise does not disturb a prediction. Noise level and text
enter by modulation, which is computed once per predicted block. Positions are learned. Draws no random numbers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones.nano.attention import Block, KeysValues, block_masks, clean_mask, modulate
from adapt.backbones.nano.autoencoder import hold
from adapt.backbones.nano.config import NanoConfig

LORA_TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
HEAD_MODULES = ("state_encoder", "action_encoder", "action_decoder")

# B batch, N predicted blocks, G latent frames per block, C latent channels, h w cells, K steps, A action, D width


@dataclass(frozen=True)
class Context:
    """What is known at the start.

    Args:
        clean: (B, 1 + G * context, C, h, w), of which predictions are changes.
        seen: the same as the network sees it; training blurs it with noise.
        text: (B, text_width), all zero for none.
    """

    clean: Tensor
    seen: Tensor
    text: Tensor


@dataclass(frozen=True)
class Noisy:
    """What is to be denoised, block by block.

    Args:
        blocks: N numbers of chunks, each at most the context's chunks; one may come again with other noise.
        video: (B, N, G, C, h, w); action: (B, N, K, A); level: (B, N) from 0, clean, to 1, pure noise.
        state: (B, N, state_features).
        has_action: (B,) bool; hide_video: (B,) bool, true where actions must do without video.
    """

    blocks: tuple[int, ...]
    video: Tensor
    action: Tensor
    level: Tensor
    state: Tensor
    has_action: Tensor
    hide_video: Tensor


class NanoWAM(nn.Module):
    """A small world action model; `forward` returns clean video and clean actions."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.video_encoder = nn.Linear(config.token_width, width)
        self.action_encoder = nn.Linear(config.action_width, width)
        self.state_encoder = nn.Sequential(nn.Linear(config.state_features, width), nn.SiLU(), nn.Linear(width, width))
        self.place = nn.Parameter(torch.empty(config.tokens_per_latent, width))
        self.time = nn.Parameter(torch.empty(config.num_latents, width))
        self.step = nn.Parameter(torch.empty(config.steps, width))
        self.chunk = nn.Parameter(torch.empty(config.chunks, width))
        self.kind = nn.Parameter(torch.empty(4, width))
        self.level_encoder = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.text_encoder = nn.Linear(config.text_width, width, bias=False)
        self.no_text = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final = nn.Linear(width, 2 * width)
        self.video_decoder = nn.Linear(width, config.token_width)
        self.action_decoder = nn.Linear(width, config.action_width)

    def forward(self, context: Context, noisy: Noisy) -> tuple[Tensor, Tensor]:
        """Estimates of the clean video (B, N, G, C, h, w) and the clean actions (B, N, K, A)."""
        return self.predict(context, noisy, self.remember(context))

    def remember(self, context: Context) -> list[KeysValues]:
        """Keys and values of the clean video in every transformer block."""
        frames = context.clean.shape[1]
        tokens = self.video_encoder(self._patch(context.seen)) + self.time[:frames, None] + self.place + self.kind[0]
        condition = self._condition(context.clean.new_zeros(len(context.clean), 1), context.text)
        mask = clean_mask(self.config, (frames - 1) // self.config.latents_per_chunk)
        tokens, memory = tokens.flatten(1, 2), []
        for block in self.blocks:
            tokens, keys_values = block(tokens, condition, mask)
            memory.append(keys_values)
        return memory

    def predict(self, context: Context, noisy: Noisy, memory: list[KeysValues]) -> tuple[Tensor, Tensor]:
        """`forward`, with the context's keys and values at hand. Predicted blocks are a second batch axis."""
        count, config = len(noisy.blocks), self.config
        last = self._last_frames(context, noisy)
        tokens = torch.cat([self._video(noisy, last), self._actions(noisy), self._states(noisy)], 2).flatten(0, 1)
        condition = self._condition(noisy.level, context.text).flatten(0, 1)[:, None]
        context_chunks = (context.clean.shape[1] - 1) // config.latents_per_chunk
        mask = block_masks(
            config, context_chunks, noisy.blocks, has_action=noisy.has_action, hide_video=noisy.hide_video
        )
        for block, (keys, values) in zip(self.blocks, memory, strict=True):
            shared = keys.repeat_interleave(count, 0), values.repeat_interleave(count, 0)
            tokens, _ = block(tokens, condition, mask, shared)
        read = modulate(tokens, *self.final(F.silu(condition)).chunk(2, -1))
        video, actions, _ = read.split([tokens.shape[1] - config.steps - 1, config.steps, 1], 1)
        change = self._unpatch(self.video_decoder(video)).unflatten(0, (-1, count))
        return last + change, self.action_decoder(actions).unflatten(0, (-1, count))

    def _video(self, noisy: Noisy, last: Tensor) -> Tensor:
        per_chunk = self.config.latents_per_chunk
        times = torch.tensor([[1 + block * per_chunk + i for i in range(per_chunk)] for block in noisy.blocks])
        guess = first_guess(noisy.video, noisy.level, mean=last, spread=self.config.video_spread)
        tokens = self.video_encoder(self._patch(guess)) + self.time[times][:, :, None] + self.place
        return (tokens + self.kind[1]).flatten(2, 3)

    def _actions(self, noisy: Noisy) -> Tensor:
        guess = first_guess(noisy.action, noisy.level, mean=torch.zeros(()), spread=1.0)
        return self.action_encoder(guess) + self.step + self.chunk[list(noisy.blocks), None] + self.kind[2]

    def _states(self, noisy: Noisy) -> Tensor:
        return (self.state_encoder(noisy.state) + self.chunk[list(noisy.blocks)] + self.kind[3])[:, :, None]

    def _condition(self, level_BN: Tensor, text: Tensor) -> Tensor:
        """(B, N, D)."""
        words = torch.where(text.any(-1, keepdim=True), self.text_encoder(text), self.no_text)
        return self.level_encoder(sinusoids(level_BN, self.config.width)) + words[:, None]

    def _last_frames(self, context: Context, noisy: Noisy) -> Tensor:
        """(B, N, 1, C, h, w): the last clean frame that each predicted block may see, held still."""
        last = context.clean[:, [block * self.config.latents_per_chunk for block in noisy.blocks]]
        return hold(last, self.config.static_channels)[:, :, None]

    def _patch(self, latents: Tensor) -> Tensor:
        """(..., C, h, w) to (..., tokens, token_width)."""
        side = self.config.token_patch
        cells = latents.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))  # ... C rows side columns side
        return cells.movedim((-4, -2), (-5, -4)).flatten(-3).flatten(-3, -2)

    def _unpatch(self, tokens: Tensor) -> Tensor:
        """(B, G * tokens, token_width) to (B, G, C, h, w)."""
        side, (height, width) = self.config.token_patch, self.config.grid
        rows, columns = height // side, width // side
        cells = tokens.unflatten(1, (-1, rows, columns)).unflatten(-1, (self.config.channels, side, side))
        return cells.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(tokens), -1, self.config.channels, height, width)


def build(config: NanoConfig, seed: int) -> NanoWAM:
    """A new model; the same config and seed give the same weights, whatever was drawn before."""
    with torch.device("meta"):
        model = NanoWAM(config)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    zero = ("video_decoder", "action_decoder", "modulation", "final")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or any(part in name for part in zero):
                parameter.zero_()
            else:
                std = parameter.shape[-1] ** -0.5 if name.endswith("weight") else 0.02
                parameter.normal_(0, std, generator=generator)
    return model


def nano_of(model: nn.Module) -> NanoWAM:
    """The NanoWAM itself, also when peft is wrapped around it."""
    return next(module for module in model.modules() if isinstance(module, NanoWAM))


def first_guess(noisy: Tensor, level_BN: Tensor, *, mean: Tensor, spread: float) -> Tensor:
    """The expected clean data if it were normally distributed about `mean`; `mean` itself for pure noise."""
    level = level_BN.reshape(*level_BN.shape, *[1] * (noisy.ndim - 2))
    clean = 1 - level
    return mean + clean * spread**2 / ((clean * spread) ** 2 + level**2) * (noisy - clean * mean)


def sinusoids(levels: Tensor, width: int) -> Tensor:
    """(..., width) cosines and sines of noise levels in 0..1, the angle at most 1000."""
    rates = 1000 * 10000 ** (-torch.arange(width // 2) / (width // 2))
    angles = levels[..., None] * rates.to(levels)
    return torch.cat([angles.cos(), angles.sin()], -1)
