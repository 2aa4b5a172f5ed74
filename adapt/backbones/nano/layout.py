"""The sequence [clean video][noisy video][actions][states] and who may look at whom; the one description of both.

Latent frame 0 is alone; block b owns the latent frames after it, its actions and its state. A block that is predicted
has noisy video, actions and a state; a block that serves as context has clean video. Parts that nothing looks at are
left out: the last block's clean copy, and a noisy copy of frame 0, which DreamZero keeps (dreamzero.md 1.7).

Predicted blocks never see each other and clean video sees only itself, so the model computes the clean part once and
each block on its own against it (`clean_mask`, `block_mask`); a test holds that this loses nothing of `mask`.
Samples without actions and hidden video are taken out of the masks in `attention.py`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adapt.backbones.nano.config import NanoConfig

Kind = Literal["clean", "noisy", "action", "state"]
FIRST_FRAME = -1  # the block number of latent frame 0


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens that see and are seen alike."""

    kind: Kind
    block: int
    start: int
    stop: int


def sees(query: Segment, key: Segment) -> bool:
    """Whether the query segment's tokens attend to the key segment's."""
    match query.kind, key.kind:
        case "clean", "clean":
            return key.block <= query.block
        case "noisy" | "action", "clean":
            return key.block < query.block
        case "noisy" | "action", "noisy" | "action" | "state":
            return key.block == query.block
        case "state", "state":
            return key.block == query.block
        case _:
            return False


@dataclass(frozen=True)
class Layout:
    """Segments in their order, without gaps."""

    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return self.segments[-1].stop

    @property
    def num_clean(self) -> int:
        """Clean tokens; they come first."""
        return max(segment.stop for segment in self.segments if segment.kind == "clean")

    def mask(self) -> Tensor:
        """(L, L) bool, true where the row's token sees the column's."""
        mask = torch.zeros(len(self), len(self), dtype=torch.bool)
        for query in self.segments:
            for key in self.segments:
                mask[query.start : query.stop, key.start : key.stop] = sees(query, key)
        return mask

    def clean_mask(self) -> Tensor:
        """The mask among the clean tokens."""
        return self.mask()[: self.num_clean, : self.num_clean]

    def block_mask(self, block: int) -> Tensor:
        """The mask from a predicted block's tokens (noisy, action, state) to the clean tokens and to themselves."""
        own = self.tokens(block)
        return self.mask()[own][:, torch.cat([torch.arange(self.num_clean), own])]

    def tokens(self, block: int) -> Tensor:
        """Indices of a predicted block's tokens: noisy video, actions, state."""
        own = [segment for segment in self.segments if segment.kind != "clean" and segment.block == block]
        return torch.cat([torch.arange(segment.start, segment.stop) for segment in own])


def training(config: NanoConfig) -> Layout:
    """Every block of a window is predicted from the clean blocks before it, in one pass."""
    return _layout(config, context=config.chunks - 1, blocks=tuple(range(config.chunks)))


def inference(config: NanoConfig, *, context: int) -> Layout:
    """The block after `context` complete ones."""
    return _layout(config, context=context, blocks=(context,))


def _layout(config: NanoConfig, *, context: int, blocks: tuple[int, ...]) -> Layout:
    video = config.tokens_per_latent * config.latents_per_chunk
    parts: list[tuple[Kind, int, int]] = [("clean", FIRST_FRAME, config.tokens_per_latent)]
    parts += [("clean", block, video) for block in range(context)]
    parts += [("noisy", block, video) for block in blocks]
    parts += [("action", block, config.steps) for block in blocks]
    parts += [("state", block, 1) for block in blocks]
    segments, start = [], 0
    for kind, block, size in parts:
        segments.append(Segment(kind, block, start, start + size))
        start += size
    return Layout(tuple(segments))
