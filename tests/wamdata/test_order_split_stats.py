import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robots import episode, robot

from schemas.errors import DataError
from schemas.manifest import SampleInfo
from schemas.recipe import SplitRule, TimeBase
from wamdata.clips import cut_clip
from wamdata.mapping import map_episode
from wamdata.order import epoch_order, epoch_places, rank_slice, sample_seed
from wamdata.split import assign_splits
from wamdata.stats import Accumulator, statistics
from wamdata.windows import on_time_base

IDS = [f"w{i:03d}" for i in range(50)]


GOLDEN = [2, 1, 4, 0, 5, 7, 6, 3]


def sample(at: int, session: str | None = None, content: str | None = None) -> SampleInfo:
    return SampleInfo(
        key=f"k{at}", members={}, rows=10, seconds=1.0, episode=f"e{at}", session=session or f"s{at}",
        content_sha256=content or f"{at:064d}", split="train",
    )  # fmt: skip


@given(st.integers(1, 9), st.permutations(IDS))
def test_ranks_together_see_one_epochs_order_whatever_order_the_ids_come_in(world: int, ids: list[str]) -> None:
    order = epoch_order(IDS, seed=3, epoch=1)
    assert sorted(order) == IDS and epoch_order(ids, seed=3, epoch=1) == order
    slices = [rank_slice(order, rank=r, world=world) for r in range(world)]
    woven = [slices[i % world][i // world] for i in range(len(order))]
    assert woven == order


def test_an_epochs_order_is_its_places_in_the_sorted_ids() -> None:
    """Golden: an order that changes would train other runs. Made with `epoch_places(8, seed=3, epoch=1)`."""
    assert epoch_places(8, seed=3, epoch=1).tolist() == GOLDEN
    assert epoch_order(IDS[:8], seed=3, epoch=1) == [IDS[i] for i in epoch_places(8, seed=3, epoch=1)]


def test_epochs_and_seeds_differ() -> None:
    assert epoch_order(IDS, seed=0, epoch=0) != epoch_order(IDS, seed=0, epoch=1)
    assert epoch_order(IDS, seed=0, epoch=0) != epoch_order(IDS, seed=1, epoch=0)
    assert sample_seed(0, 0, "a") != sample_seed(0, 0, "b")


def test_sixteen_sessions_split_ten_two_four() -> None:
    parts = list(assign_splits([sample(i) for i in range(16)], SplitRule()).values())
    assert [parts.count(p) for p in ("train", "val", "test")] == [10, 2, 4]


def test_order_holds_out_the_last_ones() -> None:
    parts = assign_splits([sample(i) for i in range(16)], SplitRule(by="order"))
    assert [k for k, p in parts.items() if p == "test"] == ["k12", "k13", "k14", "k15"]


def test_neighbours_of_a_session_and_copies_of_an_episode_never_straddle() -> None:
    samples = [sample(i, session=f"s{i // 2}") for i in range(16)]
    samples.append(sample(99, session="copy", content=samples[0].content_sha256))
    for seed in range(20):
        parts = assign_splits(samples, SplitRule(seed=seed))
        assert all(parts[f"k{i}"] == parts[f"k{i + 1}"] for i in range(0, 16, 2))
        assert parts["k99"] == parts["k0"] == parts["k1"]


def test_the_split_does_not_depend_on_the_order_of_the_listing() -> None:
    samples = [sample(i) for i in range(16)]
    assert assign_splits(samples, SplitRule()) == assign_splits(samples[::-1], SplitRule())


def test_two_sessions_hold_nothing_out() -> None:
    assert set(assign_splits([sample(0), sample(1)], SplitRule()).values()) == {"train"}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**31))
def test_statistics_merged_over_any_split_equal_numpy_on_the_whole(sizes: list[int], seed: int) -> None:
    rows = [np.random.default_rng(seed + i).normal(size=(n, 3)).astype(np.float32) for i, n in enumerate(sizes)]
    merged = Accumulator()
    for part in rows[::-1]:
        one = Accumulator()
        one.add(part)
        merged.merge(one)
    whole = np.concatenate(rows).astype(np.float64)
    moments = merged.moments()
    assert moments.mean == pytest.approx(whole.mean(0), abs=1e-9) and moments.std == pytest.approx(
        whole.std(0), abs=1e-9
    )
    assert moments.min == tuple(whole.min(0)) and moments.max == tuple(whole.max(0))
    assert moments.q01 == pytest.approx(np.quantile(whole, 0.01, axis=0)) and moments.count == len(whole)
    assert moments.q99 == pytest.approx(np.quantile(whole, 0.99, axis=0))


def test_relative_statistics_are_of_commands_less_the_state_at_the_chunks_start() -> None:
    base = TimeBase(chunk_s=0.4, video_fps=10, steps=4, chunks=2)
    clip = cut_clip(map_episode(episode(20), robot()), 0, 20, prefix="toy")
    stats = statistics([on_time_base(clip, robot(), base)], robot(), base)
    steps = [np.rad2deg(m.mean[0]) for m in stats.relative_step]
    assert steps == pytest.approx([2, 3, 4, 5], abs=1e-3)  # two degrees ahead, and one more each row
    assert stats.relative.count == 4 * stats.relative_step[0].count


def test_no_rows_at_all_is_a_message() -> None:
    with pytest.raises(DataError, match="the training split is empty"):
        Accumulator().moments()
