from dataclasses import replace

import numpy as np
import pytest
from robots import episode, robot

from schemas.episode import Text
from schemas.recipe import Filters, TimeBase
from wamdata.clips import Clip, cut_clip, keep_spans
from wamdata.mapping import map_episode
from wamdata.windows import cut_windows, on_time_base, velocities, window_starts

BASE = TimeBase(chunk_s=0.4, video_fps=10, steps=4, chunks=2)  # 10 Hz rows, 9 rows a window


def clip(rows: int = 20, **changes) -> Clip:
    trajectory = map_episode(episode(rows, **changes), robot())
    return cut_clip(trajectory, 0, rows, prefix="toy_e0")


def test_every_row_that_leaves_a_whole_window_is_a_start() -> None:
    cut = clip(20)
    assert window_starts(cut, on_time_base(cut, robot(), BASE), BASE, stride=1) == list(range(20 - 9 + 1))


@pytest.mark.parametrize(("rows", "count"), [(8, 0), (9, 1), (10, 2)])
def test_a_window_needs_its_closing_row_and_no_more(rows: int, count: int) -> None:
    cut = clip(rows)
    assert len(window_starts(cut, on_time_base(cut, robot(), BASE), BASE, stride=1)) == count


def test_a_window_holds_states_commands_and_history_of_the_right_rows() -> None:
    cut = clip(20)
    rows = on_time_base(cut, robot(), BASE)
    window = next(cut_windows(cut, rows, [5], robot(), BASE))
    degrees = np.rad2deg
    assert degrees(window.state[:, 0]) == pytest.approx([5, 9], abs=1e-4)
    assert degrees(window.action[:, :, 0]) == pytest.approx(np.array([[7, 8, 9, 10], [11, 12, 13, 14]]), abs=1e-4)
    assert degrees(window.history[0, :, 0]) == pytest.approx([4, 3, 1, 0], abs=1e-4)  # 1, 2, 4, 8 rows before, clamped
    assert degrees(window.last_action[0, 0]) == pytest.approx(6, abs=1e-4)
    assert window.text == "wave" and window.id == "toy_e0_000000@000005x2"


def test_before_the_first_row_the_last_command_is_to_stand_still() -> None:
    cut = clip(20)
    window = next(cut_windows(cut, on_time_base(cut, robot(), BASE), [0], robot(), BASE))
    assert window.last_action[0] == pytest.approx(window.state[0])


def test_no_window_crosses_a_change_of_instruction() -> None:
    texts = (Text("wave", 0, 10**9), Text("bow", 10**9, 3 * 10**9))
    cut = clip(20, texts=texts)
    assert window_starts(cut, on_time_base(cut, robot(), BASE), BASE, stride=1) == [0, 1, 10, 11]


def test_no_clip_crosses_a_bad_row_or_a_gap() -> None:
    trajectory = map_episode(episode(40), robot())
    valid = trajectory.state_valid.copy()
    valid[10] = False
    t_ns = trajectory.t_ns.copy()
    t_ns[25:] += 2 * 10**9
    holed = replace(trajectory, state_valid=valid, t_ns=t_ns)
    assert keep_spans(holed, Filters(), max_clip_s=60) == [(0, 10), (11, 25), (25, 40)]


def test_long_spans_are_cut_and_scraps_left_out() -> None:
    trajectory = map_episode(episode(43), robot())
    assert keep_spans(trajectory, Filters(), max_clip_s=2) == [(0, 20), (20, 40)]


def test_another_rate_is_resampled_to_the_time_base() -> None:
    fast = TimeBase(chunk_s=0.4, video_fps=10, steps=8, chunks=2)  # 20 Hz on a 10 Hz robot
    cut = clip(20)
    rows = on_time_base(cut, robot(), fast)
    assert len(rows) == 39
    assert np.rad2deg(rows.state[:5, 0]) == pytest.approx([0, 0.5, 1, 1.5, 2], abs=1e-4)


def test_a_changed_robot_file_maps_the_clip_again_without_the_source() -> None:
    radians = [{"name": "arm", "unit": "rad", "from": "state", "columns": [1]}]
    changed = robot(state=radians, action=[])
    again = clip(20).mapped_by(changed)
    assert again.state.shape == (20, 1) and again.state[3, 0] == -3 and again.action.shape == (20, 0)
    assert clip(20).mapped_by(robot()).embodiment_sha256 == robot().digest()


def test_an_instruction_that_changes_and_comes_back_is_a_change() -> None:
    texts = (Text("wave", 0, 5 * 10**8), Text("bow", 5 * 10**8, 6 * 10**8), Text("wave", 6 * 10**8, 3 * 10**9))
    cut = clip(20, texts=texts)
    assert window_starts(cut, on_time_base(cut, robot(), BASE), BASE, stride=1) == [6, 7, 8, 9, 10, 11]


def test_a_small_hole_between_rows_is_no_equal_spacing() -> None:
    cut = clip(20)
    t_ns = cut.t_ns.copy()
    t_ns[10:] += 3 * 10**8  # three rows are missing: less than max_gap_s, so ingest keeps the clip whole
    rows = on_time_base(replace(cut, t_ns=t_ns), robot(), BASE)
    assert len(rows) == 23 and np.allclose(np.diff(rows.t_ns), 1e8)
    assert np.flatnonzero(~rows.valid).tolist() == [11]  # further than one and a half rows from any


def test_windows_without_a_frame_nearby_are_left_out() -> None:
    cut = clip(20)
    frames = np.arange(20, dtype=np.int64) * 10**8
    seen = replace(cut, pts_ns={"head": frames[frames != 10 * 10**8][frames[frames != 10 * 10**8] < 15 * 10**8]})
    whole = window_starts(cut, on_time_base(cut, robot(), BASE), BASE, stride=1)
    kept = window_starts(seen, on_time_base(cut, robot(), BASE), BASE, stride=1)
    assert whole == list(range(12)) and kept == list(range(8))  # 15 is 0.1 s after the last frame, 16 is too far


def test_velocities_are_backward_differences_a_second() -> None:
    state = np.array([[0, 5], [0.1, 5], [0.3, 4], [0.2, 4]], np.float32)
    assert velocities(state, 10) == pytest.approx(np.array([[0, 0], [1, 0], [2, -10], [-1, 0]]), abs=1e-5)
    assert velocities(state, 10).dtype == np.float32 and velocities(state[:0], 10).shape == (0, 2)
    assert np.array_equal(velocities(state[:1], 10), [[0, 0]])


def test_velocities_know_no_later_row_and_do_not_depend_on_the_rate_of_a_straight_line() -> None:
    state = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    changed = state.copy()
    changed[12:] = 0
    assert np.array_equal(velocities(state, 30)[:12], velocities(changed, 30)[:12])
    for hz in (10, 30, 50):
        line = (np.arange(40)[:, None] / hz * np.array([2.0, -0.5])).astype(np.float32)
        assert velocities(line, hz)[1:] == pytest.approx(np.tile([2.0, -0.5], (39, 1)), abs=1e-3)


def test_velocities_on_the_time_base_are_in_mapped_units() -> None:
    rows = on_time_base(clip(20), robot(), BASE)
    found = velocities(rows.state, BASE.action_hz)
    assert np.rad2deg(found[1:, 0]) == pytest.approx(np.full(19, 10), abs=1e-2)  # a degree a row at 10 Hz
