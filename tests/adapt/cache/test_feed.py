"""Samples of each step: the same ahead or on first use, each encoded once, and an end to the thread in every case."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from training_jobs import toy_cache, toy_encodings, toy_job, toy_recipe

from adapt.cache.feed import AHEAD, Feed, Step
from adapt.cache.samples import Cache, Need
from adapt.cache.store import Store
from adapt.training.job import order_of, taught
from schemas.errors import DataError

STEPS = 9


@dataclass
class Encoders:
    """Stands for the encoders: gives what they would make, and counts."""

    done: Counter = field(default_factory=Counter)
    freed: list[int] = field(default_factory=list)
    fails_at: int | None = None
    seconds: float = 0.0

    @property
    def backbone(self) -> "Encoders":
        return self

    def free(self) -> None:
        self.freed.append(sum(self.done.values()))

    def encode(self, cache: Cache, needs: Sequence[Need]) -> None:
        time.sleep(self.seconds)
        keys = [cache.key(n) for n in needs]
        self.done.update(keys)
        if self.fails_at is not None and sum(self.done.values()) >= self.fails_at:
            raise DataError("clip 7: no picture at 3.2 s. Look at the source.")
        content = toy_encodings()
        cache.store.add({k: content[k] for k in keys})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    toy_job(tmp_path)
    return tmp_path


def emptied(run: Path) -> Cache:
    for path in (run / "latents/store").glob("*.tar"):
        path.unlink()
    return toy_cache(run)


def feed_of(cache: Cache, encoders: Encoders | None = None, **options: Any) -> Feed:
    recipe = toy_recipe()
    fixed = {"first": 0, "stop": STEPS} | options
    return Feed(cache, order_of(recipe, cache), taught(recipe, cache), encoding=encoders, **fixed)


def steps_of(feed: Feed) -> list[Step]:
    with feed as steps:
        return list(steps)


def told(step: Step) -> list[tuple]:
    return [
        (s.window_id, s.copy, e, s.video.tolist(), s.action.tolist(), s.action_valid.tolist())
        for s, e in zip(step.samples, step.epochs, strict=True)
    ]


def test_encoded_on_first_use_or_ahead_the_samples_are_the_same_and_each_is_encoded_once(run: Path) -> None:
    ahead = steps_of(feed_of(toy_cache(run)))
    encoders = Encoders()
    lazily = steps_of(feed_of(emptied(run), encoders))
    assert [told(s) for s in ahead] == [told(s) for s in lazily] and len(ahead) == STEPS
    assert set(encoders.done.values()) == {1}
    assert sum(s.encoded for s in lazily) == len(encoders.done) and sum(s.encoded for s in ahead) == 0
    assert {s.copy for step in ahead for s in step.samples} == {0, 1}


def test_encoders_are_let_go_once_all_that_is_still_needed_is_encoded(run: Path) -> None:
    encoders = Encoders()
    steps_of(feed_of(emptied(run), encoders))
    assert encoders.freed == [len(encoders.done)]
    later = Encoders()
    steps_of(feed_of(toy_cache(run), later))
    assert later.freed == [0] and not later.done  # nothing is missing: at once


def test_encoders_are_let_go_where_a_run_ends_before_it_has_seen_everything(run: Path) -> None:
    encoders = Encoders()
    steps_of(feed_of(emptied(run), encoders, stop=2))
    assert encoders.freed == [len(encoders.done)] and len(encoders.done) == 10


def test_ranks_share_a_step_and_what_it_counts(run: Path) -> None:
    cache = toy_cache(run)
    whole = steps_of(feed_of(cache))
    ranks = [steps_of(feed_of(cache, rank=r, world=3)) for r in range(3)]
    for number, step in enumerate(whole):
        mine = [r[number] for r in ranks]
        assert all(s.of == step.of and s.number == number for s in mine)
        assert sorted(x for s in mine for x in told(s)) == sorted(told(step))
        rows = sum(int(s.action_valid.sum()) for r in mine for s in r.samples if s.has_action)
        assert rows == step.of.action_rows and step.of.samples == 5


def test_a_part_that_teaches_no_actions_has_none_to_learn_from(run: Path) -> None:
    recipe, cache = toy_recipe(), toy_cache(run)
    silent = {n: t.__class__(t.copies, is_silent=True) for n, t in taught(recipe, cache).items()}
    with Feed(cache, order_of(recipe, cache), silent, first=0, stop=2) as steps:
        found = list(steps)
    assert all(s.of.action_rows == 0 for s in found)
    assert not any(s.has_action for step in found for s in step.samples)


def test_it_begins_at_any_step(run: Path) -> None:
    cache = toy_cache(run)
    whole = steps_of(feed_of(cache))
    assert [told(s) for s in steps_of(feed_of(cache, first=6))] == [told(s) for s in whole[6:]]
    assert steps_of(feed_of(cache, first=STEPS)) == []


def test_what_another_writer_has_encoded_since_is_not_encoded_again(run: Path) -> None:
    cache, encoders = emptied(run), Encoders()
    feed = feed_of(cache, encoders)
    Store(run / "latents/store").add(toy_encodings())
    steps_of(feed)
    assert not encoders.done


def test_an_encoder_s_error_arrives_where_the_steps_are_used(run: Path) -> None:
    got = []
    feed = feed_of(emptied(run), Encoders(fails_at=12))
    with pytest.raises(DataError, match=r"clip 7: no picture at 3\.2 s"), feed as steps:
        for step in steps:
            got.append(step.number)
    assert got == [0, 1]


def test_what_is_missing_without_an_encoder_is_named(run: Path) -> None:
    cache = emptied(run)
    wanted = steps_of(feed_of(cache, Encoders(), stop=1))[0].samples
    keys = {f"{s.window_id.replace('@', '')}c{s.copy}" for s in wanted[1:]}
    cache = emptied(run)
    content = toy_encodings()
    cache.store.add({k: v for k, v in content.items() if k not in keys})  # the first is there
    second = f"{wanted[1].window_id.replace('@', '')}c{wanted[1].copy}"
    with pytest.raises(DataError, match=f"holds no window {second}"):
        steps_of(feed_of(cache))


def test_the_time_that_training_waits_is_measured(run: Path) -> None:
    slow = steps_of(feed_of(emptied(run), Encoders(seconds=0.15), stop=3))
    assert slow[0].waited_s > 0.1
    with feed_of(toy_cache(run), stop=AHEAD) as quick:
        time.sleep(1.0)  # training itself takes time: the queue is full by then
        assert all(s.waited_s < 0.1 for s in quick)


@pytest.mark.parametrize("taken", [0, 1, AHEAD + 1])
def test_closing_early_ends_the_thread(run: Path, taken: int) -> None:
    started = time.monotonic()
    with feed_of(toy_cache(run), stop=100_000) as steps:
        for number, _ in zip(range(taken), steps, strict=False):
            assert number < taken
    assert not [t for t in threading.enumerate() if t.name == "feed"]
    assert time.monotonic() - started < 10


def test_no_more_than_a_few_steps_are_held_ahead(run: Path) -> None:
    encoders = Encoders()
    with feed_of(emptied(run), encoders, stop=1000):
        time.sleep(1.0)
        assert sum(encoders.done.values()) <= 5 * (AHEAD + 1)


def test_samples_are_of_the_type_that_was_encoded(run: Path) -> None:
    assert steps_of(feed_of(toy_cache(run), stop=1))[0].samples[0].video.dtype == torch.float16
