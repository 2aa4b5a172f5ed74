"""The sequence [clean video][noisy video][actions][states] and who may look at whom; the one description of both.

Latent frame 0 is alone; block b owns the latent frames after it, its actions and its state. A block that is predicted
has noisy video, actions and a state; a block that serves as context has clean video. Parts that nothing looks at are
left out: the last block's clean copy, and a noisy copy of frame 0, which DreamZero keeps (dreamzero.md 1.7).
Does not know tensors' contents: samples without actions and hidden video are taken out of the mask in `model.py`.
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
    """Which blocks are context, which are predicted, and where their tokens lie.

    Args:
        context: clean blocks after the first frame.
        blocks: the predicted blocks, ascending; each at most `context`, so that all of its past is there.
    """

    context: int
    blocks: tuple[int, ...]
    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return self.segments[-1].stop

    def span(self, kind: Kind) -> slice:
        """Tokens of one kind; all of them are neighbours."""
        of_kind = [segment for segment in self.segments if segment.kind == kind]
        return slice(of_kind[0].start, of_kind[-1].stop)

    def mask(self) -> Tensor:
        """(L, L) bool, true where the row's token sees the column's."""
        mask = torch.zeros(len(self), len(self), dtype=torch.bool)
        for query in self.segments:
            for key in self.segments:
                mask[query.start : query.stop, key.start : key.stop] = sees(query, key)
        return mask

    def conditions(self) -> Tensor:
        """(L,) index of each token's noise level among [clean, *blocks]; a state counts as clean."""
        index = torch.zeros(len(self), dtype=torch.long)
        for segment in self.segments:
            if segment.kind in ("noisy", "action"):
                index[segment.start : segment.stop] = 1 + self.blocks.index(segment.block)
        return index


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
    return Layout(context, blocks, tuple(segments))
