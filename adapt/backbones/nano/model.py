"""The network: one transformer over clean video, noisy video, actions and states.

It predicts clean data: video as a change to the last frame it may see, actions from nothing. Output layers start at
zero, so an untrained model repeats the last frame and stands still. Noise level and text enter by modulation, computed
once per noise level. Positions are learned. Does not draw random numbers.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones.nano.autoencoder import hold
from adapt.backbones.nano.config import NanoConfig
from adapt.backbones.nano.layout import Layout

LORA_TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
HEAD_MODULES = ("state_encoder", "action_encoder", "action_decoder")

# B batch, N predicted blocks, G latent frames per block, C latent channels, h w cells, K steps, A action, L tokens


@dataclass(frozen=True)
class Inputs:
    """One pass: context, and what is to be denoised.

    Args:
        clean: (B, 1 + G * context, C, h, w).
        video: (B, N * G, C, h, w) and action: (B, N, K, A), noisy.
        level: (B, N) noise level of each predicted block, 0 (clean) to 1 (pure noise).
        state: (B, N, state_features); text: (B, text_width), all zero for none.
        has_action: (B,) bool; hide_video: (B,) bool, true where actions must do without video.
    """

    clean: Tensor
    video: Tensor
    action: Tensor
    level: Tensor
    state: Tensor
    text: Tensor
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

    def forward(self, inputs: Inputs, layout: Layout) -> tuple[Tensor, Tensor]:
        """Estimates of the clean video (B, N * G, C, h, w) and the clean actions (B, N, K, A)."""
        blocks = list(layout.blocks)
        tokens_BLD = torch.cat([*self._video(inputs, blocks), self._action(inputs, blocks), self._state(inputs, blocks)], 1)
        condition, index = self._condition(inputs), _conditions(layout)
        mask = attention_mask(layout, has_action=inputs.has_action, hide_video=inputs.hide_video)
        for block in self.blocks:
            tokens_BLD = block(tokens_BLD, condition, index, mask)
        noisy, action = layout.span("noisy"), layout.span("action")
        read = modulate(tokens_BLD, *per_token(self.final(F.silu(condition)), index, width=self.config.width))
        change = self._unpatch(self.video_decoder(read[:, noisy]))
        actions = self.action_decoder(read[:, action]).unflatten(1, (len(blocks), self.config.steps))
        return self._last_frames(inputs.clean, blocks) + change, actions

    def _video(self, inputs: Inputs, blocks: list[int]) -> tuple[Tensor, Tensor]:
        per_chunk = self.config.latents_per_chunk
        times = [1 + block * per_chunk + i for block in blocks for i in range(per_chunk)]
        clean = self.video_encoder(self._patch(inputs.clean)) + self.time[: inputs.clean.shape[1], None]
        noisy = self.video_encoder(self._patch(inputs.video)) + self.time[times][:, None]
        return (clean + self.place + self.kind[0]).flatten(1, 2), (noisy + self.place + self.kind[1]).flatten(1, 2)

    def _action(self, inputs: Inputs, blocks: list[int]) -> Tensor:
        tokens = self.action_encoder(inputs.action) + self.step + self.chunk[blocks][:, None] + self.kind[2]
        return tokens.flatten(1, 2)

    def _state(self, inputs: Inputs, blocks: list[int]) -> Tensor:
        return self.state_encoder(inputs.state) + self.chunk[blocks] + self.kind[3]

    def _condition(self, inputs: Inputs) -> Tensor:
        """(B, 1 + N, D): the clean level first, then each block's."""
        levels = F.pad(inputs.level, (1, 0))
        given = inputs.text.any(-1, keepdim=True)
        text = torch.where(given, self.text_encoder(inputs.text), self.no_text)
        return self.level_encoder(sinusoids(levels, self.config.width)) + text[:, None]

    def _last_frames(self, clean: Tensor, blocks: list[int]) -> Tensor:
        """(B, N * G, C, h, w): for each predicted latent frame, the last clean frame it may see, held still."""
        per_chunk = self.config.latents_per_chunk
        last = clean[:, [block * per_chunk for block in blocks]]
        return hold(last, self.config.static_channels).repeat_interleave(per_chunk, 1)

    def _patch(self, latents: Tensor) -> Tensor:
        """(B, T, C, h, w) to (B, T, tokens, token_width)."""
        side = self.config.token_patch
        cells = latents.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))  # B T C rows side columns side
        return cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)

    def _unpatch(self, tokens: Tensor) -> Tensor:
        """(B, T * tokens, token_width) to (B, T, C, h, w)."""
        side, (height, width) = self.config.token_patch, self.config.grid
        rows, columns = height // side, width // side
        cells = tokens.unflatten(1, (-1, rows, columns)).unflatten(-1, (self.config.channels, side, side))
        return cells.permute(0, 1, 4, 2, 5, 3, 6).reshape(len(tokens), -1, self.config.channels, height, width)


class Block(nn.Module):
    """Masked attention, then a feed-forward layer, both modulated by the token's noise level."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.ffn = nn.Sequential(
            nn.Linear(width, config.ffn_ratio * width), nn.SiLU(), nn.Linear(config.ffn_ratio * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, tokens_BLD: Tensor, condition: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = per_token(self.modulation(F.silu(condition)), index, width=tokens_BLD.shape[-1])
        tokens_BLD = torch.addcmul(tokens_BLD, gate, self._attend(modulate(tokens_BLD, shift, scale), mask))
        return torch.addcmul(tokens_BLD, ffn_gate, self.ffn(modulate(tokens_BLD, ffn_shift, ffn_scale)))

    def _attend(self, tokens_BLD: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (self._split(project(tokens_BLD)) for project in (self.q, self.k, self.v))
        q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o(mixed.transpose(1, 2).flatten(2))

    def _split(self, tokens_BLD: Tensor) -> Tensor:
        return tokens_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def build(config: NanoConfig, seed: int) -> NanoWAM:
    """A new model; the same config and seed give the same weights, whatever was drawn before."""
    with torch.device("meta"):
        model = NanoWAM(config)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    zero = ("video_decoder.", "action_decoder.", "modulation.", "final.")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name != "no_text" or any(part in name for part in zero):
                parameter.zero_()
            else:
                std = 0.02 if "encoder" not in name and "." not in name else parameter.shape[-1] ** -0.5
                parameter.normal_(0, std, generator=generator)
    return model


def modulate(tokens_BLD: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without parameters, then the condition's scale and shift."""
    return torch.addcmul(shift, F.layer_norm(tokens_BLD, tokens_BLD.shape[-1:]), scale)


def per_token(modulation: Tensor, index: Tensor, *, width: int) -> list[Tensor]:
    """(B, 1 + N, n * D) by noise level to n of (B, L, D) by token; shifts start at 0, scales and gates at 1."""
    parts = modulation.unflatten(-1, (-1, width)).unbind(-2)
    return [(part if i % 3 == 0 else 1 + part)[:, index] for i, part in enumerate(parts)]


def sinusoids(levels: Tensor, width: int) -> Tensor:
    """(..., width) sines and cosines of noise levels in 0..1, periods from 2 pi / 1000 up."""
    rates = 1000 * 10000 ** (-torch.arange(width // 2) / (width // 2))
    angles = levels[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def attention_mask(layout: Layout, *, has_action: Tensor, hide_video: Tensor) -> Tensor:
    """(B, 1, L, L), added to the attention scores: the layout's mask for each of the four kinds of sample."""
    return _masks(layout)[2 * has_action.long() + hide_video.long()][:, None]


@lru_cache(maxsize=32)
def _masks(layout: Layout) -> Tensor:
    """(4, L, L): no action; that and hidden video; action; that and hidden video. 0 where seen, else -inf."""
    mask, is_video = layout.mask(), torch.zeros(len(layout), dtype=torch.bool)
    is_video[: layout.span("noisy").stop] = True
    absent = mask & ~(is_video[:, None] & ~is_video)
    hidden = ~(~is_video[:, None] & is_video)
    seen = torch.stack([absent, absent & hidden, mask, mask & hidden])
    return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)


@lru_cache(maxsize=32)
def _conditions(layout: Layout) -> Tensor:
    return layout.conditions()
