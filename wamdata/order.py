"""Which sample comes when: one permutation of all ids per epoch, the same for any number of ranks."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def epoch_order(ids: Sequence[str], *, seed: int, epoch: int) -> list[str]:
    """All ids in the order of one epoch; depends on the set of ids, not on the order they are given in."""
    ordered = sorted(ids)
    return [ordered[i] for i in epoch_places(len(ordered), seed=seed, epoch=epoch)]


def epoch_places(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """(count,) places, in the sorted ids, of what comes first, second, ... in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def rank_slice(order: Sequence[T], *, rank: int, world: int) -> list[T]:
    """Positions i with i mod world == rank: all ranks together see the epoch's order, or a batch, unchanged."""
    return list(order[rank::world])


def sample_seed(seed: int, epoch: int, sample_id: str) -> int:
    """Seed of one sample's noise, timesteps and augmentation: never a rank's own state."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
