"""Is a shot a copy of an earlier one, at another size, quality or frame rate?

Two questions, since one robot's films share their scene: do the pictures look alike (perceptual hashes), and does the
same move in them at the same time? How far they may differ, in shares of what moves, was set on few films: copies of
DROID's at half their size, and takes of the G1. A mirrored, cropped or slowed copy is not found, and a longer film that
holds an earlier one is kept.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Float32
from wamdata.curate.samples import Samples

DIFFERS = 0.5  # share of what moves
MOVES = 0.3  # grey levels; where less moves, the pictures alone decide
SHARE = 0.5  # of a shot that has to be in the other


@dataclass(frozen=True)
class Print:
    """What a shot is known by.

    Args:
        hashes: (K,) perceptual hashes.
        blocks: (N, 192) levels, five times a second.
    """

    hashes: NDArray[np.uint64]
    blocks: Float32


def print_of(samples: Samples, here: slice) -> Print:
    return Print(samples.hashes[here][samples.is_hashed[here]], samples.blocks[here])


def is_copy(new: Print, old: Print, *, bits: int) -> bool:
    """Whether most of `new` is in `old`; `bits` of two hashes may differ."""
    if not len(new.hashes) or not len(old.hashes):
        return False
    nearest = np.bitwise_count(new.hashes[:, None] ^ old.hashes[None]).min(axis=1)
    return (nearest <= bits).mean() >= SHARE and _moves_alike(new.blocks, old.blocks)


def _moves_alike(new: Float32, old: Float32) -> bool:
    """Whether there is a shift in time at which most of `new` changes as `old` does."""
    least = max(int(np.ceil(SHARE * len(new))), 1)
    for shift in range(least - len(new), len(old) - least + 1):
        a = new[max(-shift, 0) : len(old) - shift]
        b = old[max(shift, 0) : len(new) + shift]
        if len(a) >= least and _difference(a, b) < DIFFERS:
            return True
    return False


def _difference(a: Float32, b: Float32) -> float:
    """How far two runs of pictures move apart, as a share of how much they move."""
    moved_a, moved_b = a - a.mean(axis=0), b - b.mean(axis=0)
    moved = (np.abs(moved_a).mean() + np.abs(moved_b).mean()) / 2
    return float(np.abs(moved_a - moved_b).mean() / max(moved, MOVES))
