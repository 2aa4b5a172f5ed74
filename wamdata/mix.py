"""Which windows of a mixture each step takes: many parts, each in its share of the batch and in its own epochs.

    windows of a part in steps 0 ... s - 1     whole numbers near share * batch * s; what a step lacks, a later one gets
    its epochs                                 one permutation after the other, by (seed, epoch), none cut short

An epoch seldom ends where a batch does, so a batch may hold the end of one epoch and the beginning of the next. A
window that is in that end already waits until the batch is over: none comes twice in one batch, and each comes once
in every epoch. All of it follows from (ids, shares, batch, seed, step): nothing is kept between steps but what was
computed, and ranks take slices of the same batch (`order.rank_slice`). Does not open shards.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DataError, UsageError
from wamdata.order import epoch_places

# Shares are whole numbers of this: halves to tenths, sixteenths and thousandths are exact, so that a share which
# makes whole counts makes the same ones in every step.
GRID = 2**4 * 3**2 * 5**3 * 7
LONG = 2  # an epoch of so many batches has an end that mending its beginning does not reach


class Pick(NamedTuple):
    """One window of a step, and which of its part's epochs it belongs to."""

    part: str
    id: str
    epoch: int


class MixOrder:
    """The windows of every step.

    A part with fewer windows than its share of one batch gives all of them to each batch, which is smaller by the rest.

    Args:
        parts: by name, ids and share; shares need not sum to 1. A batch lists its windows in this order of parts.

    Raises:
        DataError: a part has no windows, or one twice.
        UsageError: a share is not above zero, or too small beside the others.
    """

    def __init__(self, parts: Mapping[str, tuple[Sequence[str], float]], batch: int, seed: int) -> None:
        assert parts and batch >= 1, (len(parts), batch)
        for name, (ids, _) in parts.items():
            if not len(ids):
                raise DataError(f"part {name!r} has no window: its clips are shorter than one. See `wam plan`.")
            if len(set(ids)) < len(ids):
                raise DataError(f"part {name!r} holds a window twice. Give each shard folder once.")
        sizes = [len(ids) for ids, _ in parts.values()]
        self._counts = _Counts(_weights({n: share for n, (_, share) in parts.items()}), sizes, batch)
        self._parts = [_Epochs(sorted(ids), seed, self._counts, at) for at, (ids, _) in enumerate(parts.values())]
        self._names = list(parts)

    def at(self, step: int) -> list[Pick]:
        """The windows of a step, counted from 0, part after part."""
        before, after = self._counts.until(step), self._counts.until(step + 1)
        return [
            Pick(name, *part.draw(number))
            for name, part, first, stop in zip(self._names, self._parts, before, after, strict=True)
            for number in range(first, stop)
        ]

    def epochs(self, step: int) -> dict[str, float]:
        """How many epochs of each part are done before a step."""
        taken = self._counts.until(step)
        return {n: t / len(p) for n, t, p in zip(self._names, taken, self._parts, strict=True)}

    def state(self, step: int) -> dict[str, dict[str, int]]:
        """Windows taken, epoch and place in it of each part before a step: for records, resuming needs the step."""
        taken = self._counts.until(step)
        return {
            n: {"windows": t, "epoch": t // len(p), "place": t % len(p)}
            for n, t, p in zip(self._names, taken, self._parts, strict=True)
        }


class _Counts:
    """How many windows of each part come before a step: largest remainder, the remainders carried on.

    Every step adds each part's quota to its credit, then gives the batch's places one by one to the largest credit,
    the first of equals. Credits sum to zero after a step, so the largest is above zero and none falls to -1 window: a
    part is never a whole window ahead of its share, nor, of two parts, behind it. Once all credits are zero
    again the counts repeat.
    """

    def __init__(self, weights: Sequence[int], sizes: Sequence[int], batch: int) -> None:
        self._weights, self._sizes, self._batch = weights, sizes, batch
        self._credit = [0] * len(weights)
        self._before = [(0,) * len(weights)]
        self._repeats = False

    def until(self, step: int) -> tuple[int, ...]:
        """Windows of each part in the steps before `step`."""
        while not self._repeats and len(self._before) <= step:
            self._extend()
        if not self._repeats:
            return self._before[step]
        rounds, rest = divmod(step, len(self._before) - 1)
        return tuple(rounds * whole + part for whole, part in zip(self._before[-1], self._before[rest], strict=True))

    def most(self, part: int) -> int:
        """No step takes more windows of a part than this."""
        return min(math.ceil(self._weights[part] * self._batch / GRID) + len(self._weights) - 1, self._sizes[part])

    def step_of(self, part: int, number: int) -> int:
        """The step that takes a part's window of this number, counted over all epochs."""
        low, high = 0, 1
        while self.until(high)[part] <= number:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.until(middle)[part] <= number else (low, middle)
        return low

    def _extend(self) -> None:
        given = [0] * len(self._weights)
        credit = [c + w * self._batch for c, w in zip(self._credit, self._weights, strict=True)]
        for _ in range(self._batch):
            part = credit.index(max(credit))
            credit[part] -= GRID
            given[part] += 1
        self._credit = credit
        last = self._before[-1]
        self._before.append(tuple(b + min(g, size) for b, g, size in zip(last, given, self._sizes, strict=True)))
        self._repeats = not any(credit)


class _Epochs:
    """One part's windows in the order in which steps take them."""

    def __init__(self, ids: list[str], seed: int, counts: _Counts, part: int) -> None:
        self._ids, self._seed, self._counts, self._part = ids, seed, counts, part
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def draw(self, number: int) -> tuple[str, int]:
        """Id and epoch of the window of this number, counted over all epochs."""
        epoch, place = divmod(number, len(self._ids))
        return self._ids[self._order(epoch)[place]], epoch

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            start = self._known_before(epoch)
            order = self._orders[start] if start in self._orders else self._permuted(start)
            for later in range(start + 1, epoch + 1):
                order = self._mended(later, order)
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {epoch: order}
        return self._orders[epoch]

    def _known_before(self, epoch: int) -> int:
        """An epoch up to this one whose end needs no epoch before it: it is long, or a batch begins with it."""
        if len(self._ids) >= LONG * self._counts.most(self._part):
            return max(epoch - 1, 0)
        while epoch not in self._orders and self._shared(epoch)[0]:
            epoch -= 1
        return epoch

    def _shared(self, epoch: int) -> tuple[int, int]:
        """How many windows of the epoch before, and of this one, the batch holds in which this one begins."""
        start = epoch * len(self._ids)
        step = self._counts.step_of(self._part, start)
        return start - self._counts.until(step)[self._part], self._counts.until(step + 1)[self._part] - start

    def _permuted(self, epoch: int) -> NDArray[np.int64]:
        return epoch_places(len(self._ids), seed=self._seed, epoch=epoch)

    def _mended(self, epoch: int, before: NDArray[np.int64]) -> NDArray[np.int64]:
        """The permutation of an epoch, with what the shared batch holds from the epoch before put behind that batch."""
        order, (old, new) = self._permuted(epoch), self._shared(epoch)
        if not old:
            return order
        head = np.flatnonzero(~np.isin(order, before[-old:]))[:new]
        return np.concatenate([order[head], np.delete(order, head)])


def _weights(shares: Mapping[str, float]) -> list[int]:
    """Shares as whole numbers that sum to GRID, by largest remainder."""
    for name, share in shares.items():
        if not (math.isfinite(share) and share > 0):
            raise UsageError(f"part {name!r}: share is {share:g}, wanted a number above 0.")
    total = math.fsum(shares.values())
    exact = [share / total * GRID for share in shares.values()]
    whole = [round(e) for e in exact]
    step = 1 if sum(whole) < GRID else -1
    gaps = sorted(range(len(exact)), key=lambda i: step * (whole[i] - exact[i]))
    for i in gaps[: abs(GRID - sum(whole))]:
        whole[i] += step
    for name, weight in zip(shares, whole, strict=True):
        if weight < 1:
            raise UsageError(
                f"part {name!r}: share {shares[name]:g} of {total:g} is too small to come up. Leave it out."
            )
    return whole
