"""Rotary positions: three axes for video (latent frame, row, column), one for actions, one for states.

A head's width is d/2 pairs. Video gives the row and the column axis (d/2)//3 pairs each and time the rest: 22, 21, 21
of 64; actions and states use all pairs, each counting from their own 0. Frequencies are 10000^(-2i/axis width), as in
Wan; angles are computed in float64.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.layout import Layout, Segment

BASE = 10000.0
Rotation = tuple[Tensor, Tensor]  # cosine and sine, each (tokens, 1, head_dim / 2) float32


def rotate(heads_BNHd: Tensor, rotation: Rotation) -> Tensor:
    """Neighbouring pairs turned by their token's angles, computed in float32 or better."""
    cosine, sine = rotation
    wide = heads_BNHd if heads_BNHd.dtype == torch.float64 else heads_BNHd.float()
    if wide.device.type == "cpu" and not torch.compiler.is_compiling():  # one pass in place of seven strided ones
        pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.complex(cosine, sine)).flatten(-2).to(heads_BNHd.dtype)
    even, odd = wide.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return turned.flatten(-2).to(heads_BNHd.dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # a tensor made in inference mode could not be used in training later
def rotation(
    config: DreamZeroConfig, layout: Layout, grid: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Rotation:
    """Cosines and sines of every asking token.

    Args:
        grid: (rows, columns) of a frame's tokens.
        dtype: float32, or float64 for tests.
    """
    asking = [s for s in layout.segments if s.start >= layout.asking]
    with torch.device("cpu"):
        angles = torch.cat([_angles(config, segment, grid) for segment in asking])[:, None]
    return angles.cos().to(device, dtype), angles.sin().to(device, dtype)


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Pairs of a head that turn with time, row and column."""
    pairs = head_dim // 2
    return pairs - 2 * (pairs // 3), pairs // 3, pairs // 3


def _angles(config: DreamZeroConfig, segment: Segment, grid: tuple[int, int]) -> Tensor:
    """(tokens, head_dim / 2) float64."""
    if segment.is_video:
        rows, columns = grid
        axes = [_turns(range(n), pairs) for n, pairs in zip(grid, axis_pairs(config.head_dim)[1:], strict=True)]
        time = _turns([segment.frame], axis_pairs(config.head_dim)[0])
        return torch.cat(
            [
                time.expand(rows * columns, -1),
                axes[0].repeat_interleave(columns, 0),
                axes[1].repeat(rows, 1),
            ],
            dim=1,
        )
    first = segment.chunk * segment.tokens
    return _turns(range(first, first + segment.tokens), config.head_dim // 2)


def _turns(positions: Sequence[int] | range, pairs: int) -> Tensor:
    """(positions, pairs) angles of one axis."""
    frequency = BASE ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    return torch.tensor(list(positions), dtype=torch.float64)[:, None] * frequency
