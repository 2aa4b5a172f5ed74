"""Samples for training, step after step, loaded (and encoded, where they are not yet) ahead of their use.

One thread fills a short queue; what training waits for it is measured. Which windows a step takes depends on the step
alone (`wamdata.mix`), so a run may be resumed, and divided over any number of ranks, without a change: of the step's
windows rank r takes positions r, r + world, ...
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

import numpy as np

from adapt.backbones.base import Latents, Totals
from wamdata.order import rank_slice

if TYPE_CHECKING:
    from adapt.cache.samples import Cache, Encoding, Need
    from wamdata.mix import MixOrder, Pick

AHEAD = 3  # steps in the queue: a sample takes milliseconds to load, and encoding is never done for a step twice


@dataclass(frozen=True)
class Step:
    """What one rank needs for a step.

    Args:
        samples, epochs: this rank's.
        of: of all ranks' together.
        waited_s: how long the loop waited for it.
        encoded: windows that had to be encoded for it.
    """

    number: int
    epochs: list[int]
    samples: list[Latents]
    of: Totals
    waited_s: float = 0.0
    encoded: int = 0


@dataclass(frozen=True)
class Taught:
    """Which losses a part of the mixture feeds."""

    copies: int
    is_silent: bool  # its commands are not learned from


class Feed:
    """Iterate it for the steps from `first` on; close it, or use it as a context.

    Args:
        parts: by name in the catalogue, what is taught by it.
    """

    def __init__(
        self,
        cache: "Cache",
        order: "MixOrder",
        parts: dict[str, Taught],
        *,
        first: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        encoding: "Encoding | None" = None,
        every_head: bool = False,
    ) -> None:
        self._cache, self._order, self._parts, self._encoding = cache, order, parts, encoding
        self._steps, self._rank, self._world, self._every_head = range(first, stop), rank, world, every_head
        self._queue: Queue[Step | BaseException | None] = Queue(maxsize=AHEAD)
        self._stop = Event()
        self._thread = Thread(target=self._fill, name="feed", daemon=True)
        self._unseen: set[str] | None = None  # keys that later steps need and nobody has encoded; None: not counted yet

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(timeout=0.05)

    def __iter__(self) -> Iterator[Step]:
        while True:
            started = time.perf_counter()
            step = self._queue.get()
            if step is None:
                return
            if isinstance(step, BaseException):
                self._queue.put(step)  # asked again, it says so again
                raise step
            yield replace(step, waited_s=time.perf_counter() - started)

    def _fill(self) -> None:
        try:
            for number in self._steps:
                if self._stop.is_set():
                    return
                self._put(self.take(number))
                if self._unseen is None:
                    self._unseen = self._to_encode()
                    self._free_if_done()
            self._put(None)
        except BaseException as error:  # told where the steps are used
            self._put(error)

    def _put(self, item: "Step | BaseException | None") -> None:
        while not self._stop.is_set():
            if not self._queue.full():
                self._queue.put(item)
                return
            self._stop.wait(0.002)

    def take(self, number: int) -> Step:
        """One step at once, by the caller's thread."""
        chosen = self._order.at(number)
        wanted = [(p.part, p.id, self._copy(p)) for p in chosen]
        catalogue = self._cache.catalogue
        rows = [
            0 if self._parts[part].is_silent else catalogue.parts[part].action_rows(window, copy)
            for part, window, copy in wanted
        ]
        mine = rank_slice(wanted, rank=self._rank, world=self._world)
        encoded = self._encode(mine)
        samples = [self._sample(*need) for need in mine]
        epochs = [p.epoch for p in rank_slice(chosen, rank=self._rank, world=self._world)]
        of = Totals(len(wanted), sum(rows), self._every_head)
        return Step(number, epochs, samples, of, encoded=encoded)

    def _encode(self, wanted: Sequence[tuple[str, str, int]]) -> int:
        """Encode what nobody has encoded yet."""
        needs: list[Need] = [(p, self._cache.catalogue.parts[p].place[w], c) for p, w, c in wanted]
        missing = self._cache.missing(needs)
        if missing:
            self._cache.store.refresh()
            missing = self._cache.missing(missing)
        if missing:
            if self._encoding is None:
                self._cache.store.load(self._cache.key(missing[0]))  # raises, naming the first that is missing
            self._encoding.encode(self._cache, missing)
        self._see(needs)
        return len(missing)

    def _to_encode(self) -> set[str]:
        """Keys that this rank's steps need and nobody has encoded yet."""
        if self._encoding is None:
            return set()
        self._cache.store.refresh()
        parts = {name: self._cache.catalogue.parts[name] for name in self._parts}
        missing = set(self._cache.store.missing(k for part in parts.values() for e in part.entries for k in e.keys))
        found: set[str] = set()
        for number in self._steps:
            if self._stop.is_set() or found == missing:
                break
            mine = self._order.at(number)[self._rank :: self._world]
            keys = {parts[p.part].entries[parts[p.part].place[p.id]].keys[self._copy(p)] for p in mine}
            found |= keys & missing
        return found

    def _copy(self, pick: "Pick") -> int:
        """Which augmented copy of a window an epoch takes."""
        return pick.epoch % self._parts[pick.part].copies

    def _see(self, needs: "Sequence[Need]") -> None:
        if self._unseen:
            self._unseen -= {self._cache.key(n) for n in needs}
            self._free_if_done()

    def _free_if_done(self) -> None:
        """Let the encoders go once everything that this rank will train on is encoded."""
        if self._encoding is not None and not self._unseen:
            self._encoding.backbone.free()

    def _sample(self, part: str, window: str, copy: int) -> Latents:
        sample = self._cache.load(part, window, copy)
        if self._parts[part].is_silent:
            sample = replace(sample, action_valid=np.zeros_like(sample.action_valid))
        return sample
