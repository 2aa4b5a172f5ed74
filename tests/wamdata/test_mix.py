from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import DataError, UsageError
from wamdata.mix import MixOrder
from wamdata.order import epoch_order, rank_slice


def ids(count: int, name: str = "w") -> list[str]:
    return [f"{name}{i:03d}" for i in range(count)]


@st.composite
def mixtures(draw) -> tuple[dict, int, int]:
    """Parts that hold at least a batch each, batch, seed."""
    batch = draw(st.integers(1, 9))
    count = draw(st.integers(1, 4))
    shares = draw(st.lists(st.floats(0.02, 1), min_size=count, max_size=count))
    sizes = draw(st.lists(st.integers(batch, 40), min_size=count, max_size=count))
    parts = {f"p{i}": (ids(n, f"p{i}-"), s) for i, (n, s) in enumerate(zip(sizes, shares, strict=True))}
    return parts, batch, draw(st.integers(0, 2**31))


def ordinary(play: list[str], video: list[str], sizes: tuple[int, int], seed: int, step: int) -> list[str]:
    """The order of a run on two parts before there were mixtures: an epoch's remainder is left out."""
    chosen = []
    for part, size in zip((play, video), sizes, strict=True):
        epoch, place = divmod(step, len(part) // size)
        chosen += epoch_order(part, seed=seed, epoch=epoch)[place * size : (place + 1) * size]
    return chosen


@settings(max_examples=60, deadline=None)
@given(mixtures())
def test_every_window_of_a_part_comes_once_in_each_epoch_and_never_twice_in_a_batch(mixture) -> None:
    parts, batch, seed = mixture
    order = MixOrder(parts, batch, seed)
    steps = [order.at(step) for step in range(120)]
    for picks in steps:
        assert len(picks) == len({(p.part, p.id) for p in picks}) == batch
    for name, (members, _) in parts.items():
        taken = [p for picks in steps for p in picks if p.part == name]
        assert [p.epoch for p in taken] == sorted(p.epoch for p in taken)
        whole = [[p.id for p in group] for _, group in groupby(taken, key=lambda p: p.epoch)]
        assert all(sorted(epoch) == sorted(members) for epoch in whole[:-1])
        assert len(set(whole[-1])) == len(whole[-1]) if whole else True


@settings(max_examples=60, deadline=None)
@given(mixtures(), st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_any_step_can_be_asked_for_first(mixture, asked: list[int]) -> None:
    parts, batch, seed = mixture
    sequential = MixOrder(parts, batch, seed)
    steps = [sequential.at(step) for step in range(max(asked) + 1)]
    jumping = MixOrder(parts, batch, seed)
    for step in asked:
        assert jumping.at(step) == MixOrder(parts, batch, seed).at(step) == steps[step]


@settings(max_examples=60, deadline=None)
@given(mixtures(), st.integers(1, 200))
def test_a_part_is_never_a_window_ahead_of_its_share_nor_far_behind(mixture, step: int) -> None:
    parts, batch, seed = mixture
    total = sum(share for _, share in parts.values())
    state = MixOrder(parts, batch, seed).state(step)
    for name, (_, share) in parts.items():
        quota = share / total * batch * step
        assert -(len(parts) - 1) - 0.02 < state[name]["windows"] - quota < 1.02  # shares are rounded to 1/126000
    assert sum(s["windows"] for s in state.values()) == batch * step


@settings(max_examples=30, deadline=None)
@given(mixtures(), st.integers(1, 5))
def test_ranks_share_out_each_batch(mixture, world: int) -> None:
    parts, batch, seed = mixture
    picks = MixOrder(parts, batch, seed).at(17)
    slices = [rank_slice(picks, rank=rank, world=world) for rank in range(world)]
    assert [slices[i % world][i // world] for i in range(batch)] == picks


@given(st.permutations(ids(23)), st.integers(1, 30))
def test_a_parts_order_depends_on_its_own_windows_as_a_set_and_on_no_other_part(mixed: list[str], others: int) -> None:
    one = MixOrder({"a": (ids(23), 3), "b": (ids(9, "b"), 1)}, 8, 5)
    two = MixOrder({"a": (mixed, 3), "b": (ids(others + 1, "x"), 1)}, 8, 5)
    for step in range(12):
        assert [p for p in one.at(step) if p.part == "a"] == [p for p in two.at(step) if p.part == "a"]


def test_whole_counts_that_divide_the_epochs_give_the_order_of_two_plain_parts() -> None:
    play, video = ids(42), ids(6, "v")
    order = MixOrder({"play": (play, 0.875), "video": (video, 0.125)}, 8, 3)
    for step in range(40):
        assert [p.id for p in order.at(step)] == ordinary(play, video, (7, 1), 3, step)


def test_the_first_epoch_is_a_plain_one_up_to_its_remainder_which_is_not_left_out() -> None:
    play = ids(30)
    order = MixOrder({"play": (play, 1.0)}, 8, 3)
    taken = [p.id for step in range(4) for p in order.at(step)]
    assert taken[:30] == epoch_order(play, seed=3, epoch=0)
    assert [p.epoch for p in order.at(3)] == [0] * 6 + [1] * 2


def test_a_tenth_of_a_batch_of_four_is_two_windows_in_five_steps() -> None:
    order = MixOrder({"play": (ids(40), 0.9), "film": (ids(10, "f"), 0.1)}, 4, 0)
    counts = [Counter(p.part for p in order.at(step))["film"] for step in range(20)]
    assert [sum(counts[i : i + 5]) for i in range(0, 20, 5)] == [2] * 4 and max(counts) == 1
    places = [step for step, count in enumerate(counts) if count]
    assert {b - a for a, b in zip(places, places[1:], strict=False)} == {2, 3}


@pytest.mark.parametrize(("size", "share"), [(9, 1), (11, 1), (13, 1), (5, 0.5), (9, 0.77)])
def test_small_parts_whose_epochs_hang_together_can_be_entered_anywhere(size: int, share: float) -> None:
    parts = {"a": (ids(size), share)} | ({"b": (ids(60, "b"), 1 - share)} if share < 1 else {})
    sequential = MixOrder(parts, 8, 1)
    for step in range(80):
        picks = sequential.at(step)
        assert MixOrder(parts, 8, 1).at(step) == picks
        assert len({p.id for p in picks}) == len(picks) == 8


def test_thirds_of_a_batch_of_three_are_one_each_in_every_step() -> None:
    order = MixOrder({name: (ids(7, name), 1 / 3) for name in "abc"}, 3, 0)
    assert all([p.part for p in order.at(step)] == ["a", "b", "c"] for step in range(300))


def test_a_part_smaller_than_its_share_gives_all_it_has_to_every_batch() -> None:
    order = MixOrder({"play": (ids(40), 0.5), "few": (ids(2, "f"), 0.5)}, 8, 0)
    for step in range(9):
        assert Counter(p.part for p in order.at(step)) == {"play": 4, "few": 2}
        assert [p.epoch for p in order.at(step) if p.part == "few"] == [step] * 2


def test_the_state_and_the_epochs_need_nothing_but_the_step() -> None:
    order = MixOrder({"play": (ids(30), 1.0)}, 8, 3)
    assert order.state(5) == {"play": {"windows": 40, "epoch": 1, "place": 10}}
    assert order.epochs(5) == {"play": pytest.approx(40 / 30)}
    assert order.state(0)["play"]["windows"] == 0


def test_seeds_and_epochs_differ() -> None:
    one, two = (MixOrder({"a": (ids(32), 1)}, 8, seed) for seed in (0, 1))
    assert one.at(0) != two.at(0)
    assert [p.id for p in one.at(0)] != [p.id for p in one.at(4)]


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ({"a": (ids(3), 1.0), "b": ([], 1.0)}, DataError, r"part 'b' has no window.*wam plan"),
        ({"a": (["x", "x"], 1.0)}, DataError, r"part 'a' holds a window twice"),
        ({"a": (ids(3), 0.0)}, UsageError, r"part 'a': share is 0, wanted a number above 0"),
        ({"a": (ids(3), float("nan"))}, UsageError, r"share is nan"),
        ({"a": (ids(3), 1.0), "b": (ids(3), 1e-9)}, UsageError, r"part 'b': share 1e-09 of 1 is too small"),
    ],
)
def test_a_mixture_that_cannot_be_is_one_line(parts: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        MixOrder(parts, 4, 0)
    assert "\n" not in str(caught.value)
