"""Transformer blocks and the masks they run under.

A block turns tokens into tokens and hands out their keys and values, so that the clean video of a window is computed
once and every predicted chunk, denoising step and sample attends to it.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones.nano.config import NanoConfig
from adapt.backbones.nano.layout import inference

KeysValues = tuple[Tensor, Tensor]  # (B, heads, tokens, width / heads) each

# B batch, N predicted blocks, L tokens, D width


class Block(nn.Module):
    """Masked attention, then a feed-forward layer, both modulated by the noise level and the text."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.ffn = nn.Sequential(
            nn.Linear(width, config.ffn_ratio * width), nn.SiLU(), nn.Linear(config.ffn_ratio * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)

    def forward(
        self, tokens_BLD: Tensor, condition_B1D: Tensor, mask: Tensor, memory: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """The new tokens, and the keys and values of the old; keys in `memory` come before the tokens' own."""
        modulation = self.modulation(F.silu(condition_B1D)).chunk(6, -1)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation
        mixed, own = self._attend(modulate(tokens_BLD, shift, scale), mask, memory)
        tokens_BLD = torch.addcmul(tokens_BLD, 1 + gate, mixed)
        return torch.addcmul(tokens_BLD, 1 + ffn_gate, self.ffn(modulate(tokens_BLD, ffn_shift, ffn_scale))), own

    def _attend(self, tokens_BLD: Tensor, mask: Tensor, memory: KeysValues | None) -> tuple[Tensor, KeysValues]:
        q, k, v = (self._split(project(tokens_BLD)) for project in (self.q, self.k, self.v))
        q, own = F.rms_norm(q, q.shape[-1:]), (F.rms_norm(k, k.shape[-1:]), v)
        k, v = own if memory is None else (torch.cat(pair, 2) for pair in zip(memory, own, strict=True))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o(mixed.transpose(1, 2).flatten(2)), own

    def _split(self, tokens_BLD: Tensor) -> Tensor:
        return tokens_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def modulate(tokens_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """Layer norm without parameters, then the condition's scale and shift."""
    return torch.addcmul(shift_B1D, F.layer_norm(tokens_BLD, tokens_BLD.shape[-1:]), 1 + scale_B1D)


@lru_cache(maxsize=32)
def clean_mask(config: NanoConfig, context: int) -> Tensor:
    """(L, L) bool among the clean tokens of frame 0 and `context` chunks."""
    return inference(config, context=context).clean_mask()


def block_masks(
    config: NanoConfig, context: int, blocks: tuple[int, ...], *, has_action: Tensor, hide_video: Tensor
) -> Tensor:
    """(B * N, 1, block tokens, clean + block tokens), added to the attention scores: 0 where seen, else -inf."""
    kinds = _block_masks(config, context, blocks)[2 * has_action.long() + hide_video.long()]
    return kinds.flatten(0, 1)[:, None]


@lru_cache(maxsize=32)
def _block_masks(config: NanoConfig, context: int, blocks: tuple[int, ...]) -> Tensor:
    """The block masks of the four kinds of sample: without and with actions, each with video seen and hidden.

    Absent actions are taken from the video's view, hidden video from the actions'.
    """
    video = config.tokens_per_latent * config.latents_per_chunk
    longest = inference(config, context=context)
    mask = torch.stack([_block_mask(config, block, longest.num_clean) for block in blocks])
    query_is_video = torch.arange(mask.shape[1]) < video
    key_is_video = torch.arange(mask.shape[2]) < longest.num_clean + video
    absent = query_is_video[:, None] & ~key_is_video
    hidden = ~query_is_video[:, None] & key_is_video
    seen = torch.stack([mask & ~absent, mask & ~absent & ~hidden, mask, mask & ~hidden])
    return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)


def _block_mask(config: NanoConfig, block: int, num_clean: int) -> Tensor:
    """A block's mask with room for all clean tokens; those of the block itself and of later ones are not seen."""
    layout = inference(config, context=block)
    own = layout.block_mask(block)
    later = torch.zeros(len(own), num_clean - layout.num_clean, dtype=torch.bool)
    return torch.cat([own[:, : layout.num_clean], later, own[:, layout.num_clean :]], 1)
