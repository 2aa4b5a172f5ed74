from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robots import episode, robot

from schemas.episode import CONTROL_CODES
from schemas.errors import DataError, UsageError
from schemas.manifest import UseMeta
from schemas.recipe import TimeBase
from wamdata.clips import Clip, cut_clip, from_sample, to_sample
from wamdata.mapping import map_episode
from wamdata.stats import relative_chunks, statistics
from wamdata.use import IMITATED, clip_feeds, row_feeds
from wamdata.windows import cut_windows, judged_starts, on_time_base, window_at, window_starts

BASE = TimeBase(chunk_s=0.4, video_fps=10, steps=4, chunks=2)  # 10 Hz rows, 9 rows a window
BOTH, VIDEO, NONE = ("video", "action"), ("video",), ("none",)
ROW = 10**8  # ns
CLIP = cut_clip(map_episode(episode(40), robot()), 0, 40, prefix="toy")


def used(*spans: tuple[int, int, tuple[str, ...]], control: dict[str, tuple[int, int]] | None = None, **meta) -> Clip:
    """The 40 row clip with use spans in rows, and controls by name over rows."""
    codes = CLIP.control.copy()
    for name, (first, stop) in (control or {}).items():
        codes[first:stop] = CONTROL_CODES[name]
    use = tuple(UseMeta(start_ns=a * ROW, stop_ns=b * ROW, losses=losses) for a, b, losses in spans)
    return replace(CLIP, control=codes, meta=CLIP.meta.model_copy(update={"use": use or CLIP.meta.use, **meta}))


def on_base(clip: Clip, base: TimeBase = BASE, **options):
    return on_time_base(clip, robot(), base, **options)


@st.composite
def marked_clips(draw) -> Clip:
    """A clip with random spans, controls, outcome and validity."""
    spans = draw(
        st.lists(
            st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from([BOTH, VIDEO, NONE])),
            min_size=1,
            max_size=4,
        )
    )
    clip = used(*spans, outcome=draw(st.sampled_from(["success", "unknown", "failure"])))
    names = draw(st.lists(st.sampled_from(list(CONTROL_CODES)), min_size=4, max_size=4))
    cuts = [0, *sorted(draw(st.lists(st.integers(0, 40), min_size=3, max_size=3))), 40]
    control, valid = clip.control.copy(), np.ones(40, bool)
    for name, first, stop in zip(names, cuts, cuts[1:], strict=False):
        control[first:stop] = CONTROL_CODES[name]
    valid[draw(st.lists(st.integers(0, 39), max_size=2))] = False
    return replace(clip, control=control, valid=valid)


def loop_feeds(clip: Clip) -> tuple[list[bool], list[bool]]:
    """The table of `use`, row by row."""
    names = {code: name for name, code in CONTROL_CODES.items()}
    video, action = [], []
    for t, code in zip(clip.t_ns.tolist(), clip.control.tolist(), strict=True):
        meta = clip.meta
        here = [
            set(u.losses)
            for u in meta.use
            if (u.start_ns <= t or u.start_ns <= meta.start_ns) and (t < u.stop_ns or u.stop_ns >= meta.stop_ns)
        ]
        losses = set.intersection(*here) if here else set()
        if any("none" in u for u in here) or names[code] == "reset":
            losses = set()
        if names[code] == "policy" or meta.outcome == "failure":
            losses -= {"action"}
        video.append("video" in losses)
        action.append("action" in losses)
    return video, action


@settings(deadline=None)
@given(marked_clips())
def test_rows_feed_what_the_strictest_mark_allows(clip: Clip) -> None:
    feeds = clip_feeds(clip)
    assert (feeds.video.tolist(), feeds.action.tolist()) == loop_feeds(clip)
    assert not (feeds.action & ~feeds.video).any()


@settings(deadline=None)
@given(marked_clips(), st.sampled_from([4, 8, 3]))
def test_no_window_holds_a_row_that_feeds_nothing_and_actions_count_only_where_they_may(clip: Clip, steps: int) -> None:
    base = BASE.model_copy(update={"steps": steps})
    rows = on_base(clip, base)
    starts = window_starts(clip, rows, base, stride=1)
    need = base.window_rows
    usable = rows.valid & rows.feeds_video
    assert starts == [a for a in range(len(rows) - need + 1) if usable[a : a + need].all()]
    for window in cut_windows(clip, rows, starts, robot(), base):
        covered = np.arange(window.start, window.start + 2 * steps)
        assert np.array_equal(window.action_valid.ravel(), (rows.valid & rows.feeds_action)[covered])


@settings(deadline=None)
@given(marked_clips(), st.sampled_from([2.5, 7.5, 12.5, 20.0]))
def test_a_resampled_row_feeds_what_both_its_neighbours_do(clip: Clip, hz: float) -> None:
    base = TimeBase(chunk_s=4 / hz, video_fps=hz / 4, steps=4, chunks=1)
    rows, feeds = on_base(clip, base), clip_feeds(clip)
    for t, video, action in zip(rows.t_ns, rows.feeds_video, rows.feeds_action, strict=True):
        near = np.flatnonzero(np.abs(clip.t_ns - t) < ROW) if t not in clip.t_ns else np.flatnonzero(clip.t_ns == t)
        assert video == feeds.video[near].all() and action == feeds.action[near].all()


@settings(deadline=None)
@given(marked_clips())
def test_statistics_see_only_actions_that_count(clip: Clip) -> None:
    rows = on_base(clip)
    counts = rows.valid & np.array(loop_feeds(clip)[1])
    chunks = sum(counts[a : a + 4].all() for a in range(37))
    assert len(relative_chunks(rows, robot(), 4)) == chunks
    if not chunks:
        with pytest.raises(DataError, match="no action in it may be imitated"):
            statistics([rows], robot(), BASE)
        return
    found = statistics([rows], robot(), BASE)
    assert found.action.count == found.state.count == counts.sum()
    assert np.rad2deg(found.state.max[0]) == pytest.approx(np.flatnonzero(counts).max(), abs=1e-3)


@settings(deadline=None)
@given(marked_clips())
def test_judged_chunks_hold_an_action_that_counts_and_no_row_that_feeds_nothing(clip: Clip) -> None:
    rows = on_base(clip)
    starts, chunks = judged_starts(clip, rows, BASE)
    anchors = [a + (count - 1) * 4 for a, count in zip(starts, chunks, strict=True)]
    usable, counts = rows.valid & rows.feeds_video, rows.valid & rows.feeds_action
    assert anchors == [a for a in range(0, 37, 4) if usable[a : a + 4].all() and counts[a : a + 4].any()]
    for a, count, anchor in zip(starts, chunks, anchors, strict=True):
        assert usable[a : a + count * 4].all()
        assert count == 2 or anchor < 4 or not usable[anchor - 4 : anchor].all()


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_rows_of_a_human_under_both_losses_are_used_as_if_there_were_no_marks(valid: list[bool]) -> None:
    clip = replace(CLIP, valid=np.array(valid))
    rows = on_base(clip)
    assert rows.feeds_video.all() and rows.feeds_action.all() and np.array_equal(rows.action_counts, valid)
    starts = [a for a in range(40 - 9 + 1) if all(valid[a : a + 9])]
    assert window_starts(clip, rows, BASE, stride=1) == starts
    for window in cut_windows(clip, rows, starts, robot(), BASE):
        assert window.action_valid.all()
    assert len(relative_chunks(rows, robot(), 4)) == sum(all(valid[a : a + 4]) for a in range(37))
    judged = [a for a in range(0, 37, 4) if all(valid[a : a + 4])]
    found = zip(*judged_starts(clip, rows, BASE), strict=True)
    assert [a + (count - 1) * 4 for a, count in found] == judged


def test_all_rows_of_the_real_shards_feed_both_losses(g1_shards) -> None:
    from schemas.embodiment import load_embodiment
    from wamdata.shards import read_manifest, stream_clips

    g1, base = load_embodiment("g1_inspire"), TimeBase(chunk_s=0.8, video_fps=10)
    for clip in stream_clips(g1_shards, read_manifest(g1_shards), embodiment=g1):
        rows = on_time_base(clip, g1, base)
        assert rows.feeds_video.all() and rows.feeds_action.all() and rows.action_counts.all()


def test_a_window_may_be_video_alone_in_part_or_whole() -> None:
    clip = used((0, 20, VIDEO), (20, 40, BOTH))
    rows = on_base(clip)
    starts = window_starts(clip, rows, BASE, stride=1)
    assert starts == list(range(32))
    windows = list(cut_windows(clip, rows, [5, 14, 25], robot(), BASE))
    assert [w.action_valid.sum() for w in windows] == [0, 2, 8]
    assert windows[1].action_valid.tolist() == [[False] * 4, [False, False, True, True]]


def test_a_policys_failures_are_not_imitated_unless_asked_for() -> None:
    clip = used(control={"policy": (0, 10), "intervention": (10, 20), "reset": (20, 25), "scripted": (25, 40)})
    feeds = clip_feeds(clip)
    assert feeds.video.tolist() == [True] * 20 + [False] * 5 + [True] * 15
    assert feeds.action.tolist() == [False] * 10 + [True] * 10 + [False] * 5 + [True] * 15
    allowed = on_base(clip, imitated=IMITATED | {"policy"})
    assert allowed.feeds_action.tolist() == [True] * 20 + [False] * 5 + [True] * 15
    assert not on_base(clip, imitated=frozenset()).feeds_action.any()


def test_a_failed_episode_teaches_video_whoever_was_in_control() -> None:
    failed = used(control={"policy": (0, 10)}, outcome="failure")
    feeds = clip_feeds(failed, imitated=IMITATED | {"policy"})
    assert feeds.video.all() and not feeds.action.any()
    assert judged_starts(failed, on_base(failed), BASE) == ([], [])


def test_video_without_actions_is_still_judged() -> None:
    film = robot(state=[], action=[])
    clip = cut_clip(replace(map_episode(episode(40), robot()), embodiment=film, state=np.zeros((40, 0), np.float32),
                            action=np.zeros((40, 0), np.float32)), 0, 40, prefix="film")  # fmt: skip
    rows = on_time_base(clip, film, BASE)
    assert rows.feeds_video.all() and not rows.feeds_action.any()
    assert len(judged_starts(clip, rows, BASE)[0]) == 10


def test_marks_survive_the_shard() -> None:
    clip = used((0, 20, VIDEO), (20, 40, NONE), control={"policy": (5, 8)}, outcome="failure")
    again = from_sample(to_sample(clip))
    assert all(np.array_equal(a, b) for a, b in zip(clip_feeds(again), clip_feeds(clip), strict=True))


def test_a_span_to_the_clips_edge_holds_beyond_it_and_a_gap_between_spans_feeds_nothing() -> None:
    clip = used((0, 10, BOTH), (20, 40, BOTH))
    early = replace(clip, t_ns=clip.t_ns - ROW // 2)  # what mapping again may give
    assert clip_feeds(early).action.tolist() == [True] * 11 + [False] * 10 + [True] * 19
    late = replace(clip, t_ns=clip.t_ns + 2 * ROW)
    assert clip_feeds(late).action[-3:].all()


def test_a_window_without_frames_holds_the_same_rows() -> None:
    rows = on_base(CLIP)
    bare, whole = window_at(CLIP, rows, 5, robot(), BASE, 2), next(cut_windows(CLIP, rows, [5], robot(), BASE))
    assert bare.id == whole.id and bare.frames == {}
    for name in ("state", "history", "last_action", "action", "action_valid"):
        assert np.array_equal(getattr(bare, name), getattr(whole, name))


@pytest.mark.parametrize("losses", [("action",), ("video", "sound"), ("none", "video"), ()])
def test_other_losses_are_refused_with_the_clip(losses: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r'clip toy_000000: use .*wanted \["video", "action"\]') as error:
        clip_feeds(used((0, 40, losses)))
    assert "\n" not in str(error.value)


def test_unknown_controls_are_refused() -> None:
    control = CLIP.control.copy()
    control[3] = 9
    with pytest.raises(DataError, match=r"clip toy_000000: control code 9 is not known \(0 human"):
        clip_feeds(replace(CLIP, control=control))
    with pytest.raises(UsageError, match=r"imitate 'reset': wanted some of human, intervention, policy, scripted"):
        row_feeds(CLIP.t_ns, CLIP.control, CLIP.meta.use, "unknown", imitated=frozenset({"reset"}))
