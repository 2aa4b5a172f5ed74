"""One transformer block: modulated self-attention over the layout, cross-attention to words and image, modulated MLP.

    x += gate * SelfAttn(LN(x) * (1 + scale) + shift)
    x += CrossAttn(LN'(x), context)                     LN' affine; text and image attended apart, and summed
    x += gate * MLP(LN(x) * (1 + scale) + shift)

Shift, scale and gate come one row to a timestep (a frame, a chunk's actions), never one to a token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones.dreamzero.attention import Attend, unmasked
from adapt.backbones.dreamzero.cache import KVCache
from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.layers import RMSNorm
from adapt.backbones.dreamzero.layout import Range
from adapt.backbones.dreamzero.remember import rule_of, selectively
from adapt.backbones.dreamzero.rope import Rotation, rotate


class Context(NamedTuple):
    """Embedded words (B, L, dim), and the embedded first image (B, 257, dim) where there is one."""

    text: Tensor
    image: Tensor | None


class ContextKV(NamedTuple):
    """Keys and values of a context in one block, each (B, L, heads, head width)."""

    text: tuple[Tensor, Tensor]
    image: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Spread:
    """How the rows of a per-timestep table reach the tokens of a sequence: video first, then registers.

    Args:
        video: (frames,) the row of each video frame.
        registers: (tokens after the video,) the row of each.
    """

    video: Tensor
    registers: Tensor
    frame_tokens: int

    def apply(self, function: Callable[..., Tensor], streams: tuple[Tensor, ...], tables: tuple[Tensor, ...]) -> Tensor:
        """`function(*streams, *rows)`, elementwise; streams are (B, N, D), tables (B, rows, D)."""
        cut = len(self.video) * self.frame_tokens
        by_frame = (s[:, :cut].unflatten(1, (len(self.video), self.frame_tokens)) for s in streams)
        video = function(*by_frame, *(t[:, self.video, None] for t in tables)).flatten(1, 2)
        if not len(self.registers):
            return video
        rest = function(*(s[:, cut:] for s in streams), *(t[:, self.registers] for t in tables))
        return torch.cat((video, rest), dim=1)


@dataclass(frozen=True)
class Scene:
    """What every block of a forward pass shares.

    Args:
        rotation: of every asking token.
        live: asking tokens that the last block answers for, and their spread.
        video: tokens of video among the asking ones.
    """

    spread: Spread
    rotation: Rotation
    live: Range
    live_spread: Spread
    video: int
    cache: KVCache | None = None


class SelfAttention(nn.Module):
    """Attention among the tokens of the sequence; q and k normed over the full width, then rotated."""

    def __init__(self, config: DreamZeroConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)

    def forward(self, x: Tensor, scene: Scene, attend: Attend, *, layer: int, queries: Range | None) -> Tensor:
        start, stop = queries or (0, x.shape[1])
        turn = tuple(t[start:stop] for t in scene.rotation)
        q = rotate(split_heads(self.norm_q(self.q(x[:, start:stop])), self.heads), turn)
        k = rotate(split_heads(self.norm_k(self.k(x)), self.heads), scene.rotation)
        v = split_heads(self.v(x), self.heads)
        if scene.cache is not None:
            k, v = scene.cache.extended(layer, k, v, video=scene.video)
        return self.o(attend(q, k, v).flatten(2))


class CrossAttention(nn.Module):
    """Attention to words and, with keys and values of their own, to the first image. Padding is not masked."""

    def __init__(self, config: DreamZeroConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)
        self.k_img = nn.Linear(config.dim, config.dim)
        self.v_img = nn.Linear(config.dim, config.dim)
        self.norm_k_img = RMSNorm(config.dim, config.eps)

    def keys_values(self, context: Context) -> ContextKV:
        """What the context contributes, which no token changes: a policy computes it once per prompt."""
        text, image = context
        words = split_heads(self.norm_k(self.k(text)), self.heads), split_heads(self.v(text), self.heads)
        if image is None:
            return ContextKV(words, None)
        keys, values = self.norm_k_img(self.k_img(image)), self.v_img(image)
        return ContextKV(words, (split_heads(keys, self.heads), split_heads(values, self.heads)))

    def forward(self, x: Tensor, context: ContextKV) -> Tensor:
        q = split_heads(self.norm_q(self.q(x)), self.heads)
        out = unmasked(q, *context.text)
        if context.image is not None:
            out = out + unmasked(q, *context.image)
        return self.o(out.flatten(2))


class Block(nn.Module):
    """(B, N, D) -> (B, N, D), or only the live tokens if it is the last."""

    def __init__(self, config: DreamZeroConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.eps, self.config = layer, config.eps, config
        self.modulation = nn.Parameter(torch.empty(1, 6, config.dim))
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, config.dim),
        )

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        context: Context | ContextKV,
        scene: Scene,
        attend: Attend,
        last: bool,
        selective: bool = False,
    ) -> Tensor:
        """`modulation` is (B, rows, 6, D) float32, before this block's own table is added.

        Args:
            selective: keep less for the backward pass; see `remember`.
        """
        if not selective:
            return self._answer(x, modulation, context, scene, attend, last)
        is_asked = self.modulation.requires_grad or modulation.requires_grad
        # DoRA's magnitudes ask for the value of the layer that they scale.
        is_asked = is_asked or bool(getattr(self.ffn[2], "lora_variant", None))
        rule = rule_of(self.config, last_asked=is_asked)
        return selectively(self._answer, rule, x, modulation, context, scene, attend, last)

    def _answer(
        self, x: Tensor, modulation: Tensor, context: Context | ContextKV, scene: Scene, attend: Attend, last: bool
    ) -> Tensor:
        tables = (self.modulation.to(modulation.dtype) + modulation).unbind(2)
        spread, queries = scene.spread, None
        hidden = spread.apply(modulated, (self._norm(x),), tables[:2])
        if last and scene.live != (0, x.shape[1]):
            queries, spread = scene.live, scene.live_spread
            x = x[:, queries[0] : queries[1]]
        update = self.self_attn(hidden, scene, attend, layer=self.layer, queries=queries)
        x = spread.apply(gated, (x, update), tables[2:3])
        kv = context if isinstance(context, ContextKV) else self.cross_attn.keys_values(context)
        x = x + self.cross_attn(self.norm3(x), kv)
        update = self.ffn(spread.apply(modulated, (self._norm(x),), tables[3:5]))
        return spread.apply(gated, (x, update), tables[5:6])

    def keys_values(self, context: Context) -> ContextKV:
        """What the context contributes to this block."""
        return self.cross_attn.keys_values(context)

    def _norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=self.eps)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, D) -> (B, N, heads, head width)."""
    return x.unflatten(2, (heads, -1))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift, computed in the tables' dtype."""
    return torch.addcmul(shift, x.to(scale.dtype), 1 + scale).to(x.dtype)


def gated(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """x + gate * update, computed in the table's dtype."""
    return torch.addcmul(x.to(gate.dtype), update.to(gate.dtype), gate).to(x.dtype)
