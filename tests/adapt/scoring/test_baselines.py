"""Baselines by hand on tiny arrays, and against the reference figures on real G1 episodes.

The golden numbers come from the parquet files of tests/data/g1_inspire_v21 alone; remake them with

    python -m pytest tests/adapt/test_baselines.py -k golden -vv

after replacing the expected values: pytest prints the new ones. A change of `stand_still` or `last_command` means that
windows are cut differently; of `mean`, that the hold differs; of the ridges alone, that features or penalty changed.
"""

from pathlib import Path

import numpy as np
import pytest

from adapt.scoring import baselines
from adapt.scoring.baselines import ActionWindows, action_windows, all_baselines, concatenate
from schemas.embodiment import Embodiment

G1 = Path(__file__).parents[2] / "data/g1_inspire_v21/data/chunk-000"
WITH_VIDEO = (1, 2, 4, 5, 7, 8, *range(10, 20))
G1_PARTS = (("left_arm", 0, 7), ("right_arm", 7, 14), ("left_hand", 14, 20), ("right_hand", 20, 26))


def robot_of(state: list[dict], action: list[dict]) -> Embodiment:
    content = {"schema": "wamkit/embodiment@1", "name": "tiny", "native_hz": 10, "state": state, "action": action}
    return Embodiment.model_validate(content)


def joints(name: str, first: int, stop: int, **more: str | None) -> dict:
    return {"name": name, "from": "x", "columns": list(range(first, stop))} | more


ARM = robot_of([joints("arm", 0, 2)], [joints("arm", 0, 2, relative_to="state.arm")])
# three state columns, two action columns: the second action column is a velocity, which no state column holds
BASE = robot_of(
    [joints("lift", 0, 1), joints("arm", 1, 3)],
    [joints("lift", 0, 1, relative_to="state.lift"), joints("drive", 0, 1, kind="velocity", unit="m/s")],
)


def counting_episode(rows: int = 8, *, name: str = "a", stride: int = 2) -> ActionWindows:
    """State column 0 counts rows, column 1 rests at 5; the action is the state of the next row."""
    state = np.stack([np.arange(rows, dtype=float), np.full(rows, 5.0)], axis=1)
    action = state + np.array([1.0, 0.0])
    return action_windows(state, action, np.ones(rows, bool), name, steps=2, stride=stride, lags=(1, 3))


def test_windows_lie_wholly_inside_the_episode():
    assert counting_episode(8).start.tolist() == [0, 2, 4, 6]
    assert counting_episode(7).start.tolist() == [0, 2, 4]
    assert len(counting_episode(1)) == 0


def test_history_is_clamped_at_the_first_row_and_newest_first():
    assert counting_episode().history[:, :, 0].tolist() == [[0, 0], [1, 0], [3, 1], [5, 3]]


def test_last_action_is_the_row_before_and_missing_at_the_first_row():
    last = counting_episode().last_action
    assert np.isnan(last[0]).all()
    assert last[1:, 0].tolist() == [2, 4, 6]


def test_last_action_is_missing_where_the_row_before_does_not_count():
    valid = np.array([True, False, True, True])
    windows = action_windows(np.zeros((4, 1)), np.ones((4, 1)), valid, "a", steps=2, stride=2)
    assert np.isnan(windows.last_action[1]).all()


def test_a_window_without_a_valid_step_is_left_out():
    valid = np.array([True, True, False, False, False, True])
    windows = action_windows(np.zeros((6, 1)), np.zeros((6, 1)), valid, "a", steps=2, stride=2)
    assert windows.start.tolist() == [0, 4]


def test_concatenate_keeps_order_and_names():
    windows = concatenate([counting_episode(4, name="a"), counting_episode(4, name="longer")])
    assert windows.episode.tolist() == ["a", "a", "longer", "longer"]


def test_windows_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        counting_episode().action[0] = 0.0


def test_stand_still_repeats_the_state():
    held = baselines.stand_still(counting_episode(), ARM)
    assert held[2].tolist() == [[4, 5], [4, 5]]


def test_stand_still_is_zero_for_a_velocity_and_finds_its_state_column():
    state = np.array([[7.0, 1.0, 2.0], [8.0, 1.0, 2.0]])
    windows = action_windows(state, np.full((2, 2), 9.0), np.ones(2, bool), "a", steps=2, stride=1)
    assert baselines.stand_still(windows, BASE)[0].tolist() == [[7, 0], [7, 0]]


def test_last_command_holds_the_state_where_there_was_none():
    said = baselines.last_command(counting_episode(), ARM)
    assert said[0].tolist() == [[0, 5], [0, 5]]
    assert said[1].tolist() == [[2, 5], [2, 5]]


def test_mean_motion_is_the_training_mean_at_each_step():
    train = counting_episode()
    assert np.allclose(baselines.mean_motion(train, train, ARM)[3], [[7, 5], [8, 5]])


def test_mean_motion_ignores_steps_that_do_not_count():
    valid = np.array([True, True, True, False])
    action = np.array([[1.0], [1.0], [3.0], [999.0]])
    robot = robot_of([joints("arm", 0, 1)], [joints("arm", 0, 1, relative_to="state.arm")])
    train = action_windows(np.zeros((4, 1)), action, valid, "a", steps=2, stride=2)
    assert baselines.mean_motion(train, train, robot)[0].tolist() == [[2.0], [1.0]]


@pytest.mark.parametrize("fit", [baselines.ridge, baselines.ridge_state])
def test_ridge_finds_a_linear_rule_despite_constant_columns(fit):
    rng = np.random.default_rng(0)
    episodes = []
    for name in "abcd":
        state = np.stack([rng.normal(size=60).cumsum(), np.full(60, 5.0)], axis=1)
        before = np.concatenate([state[:1], state[:-1]])
        action = state + 0.5 * (state - before)
        episodes.append(action_windows(state, action, np.ones(60, bool), name, steps=1, stride=1))
    train, test = concatenate(episodes[:3]), episodes[3]
    error = np.abs(fit(train, test, ARM) - test.action).mean()
    assert error < 0.01 * np.abs(test.action - test.state[:, None]).mean()


def test_ridge_on_state_does_not_see_the_last_command():
    train, test = counting_episode(), counting_episode()
    other = ActionWindows(**(vars(test) | {"last_action": test.last_action + 3}))
    assert np.array_equal(baselines.ridge_state(train, test, ARM), baselines.ridge_state(train, other, ARM))
    assert not np.array_equal(baselines.ridge(train, test, ARM), baselines.ridge(train, other, ARM))


@pytest.mark.parametrize("rows", [2, 3, 4, 8])
def test_tiny_training_sets_give_finite_predictions(rows):
    train = counting_episode(rows, stride=1)
    predictions = all_baselines(train, counting_episode(20), ARM)
    assert all(np.isfinite(p).all() for p in predictions.values())


def test_state_and_action_may_differ_in_width():
    rng = np.random.default_rng(1)
    state, action = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    windows = action_windows(state, action, np.ones(40, bool), "a", steps=4, stride=1)
    assert {p.shape for p in all_baselines(windows, windows, BASE).values()} == {(37, 4, 2)}


def test_steps_that_never_count_in_training_do_not_break_the_ridge():
    valid = np.array([True, False] * 10)
    action = np.where(valid[:, None], [2.0, 3.0], np.nan)
    train = action_windows(np.ones((20, 2)), action, valid, "a", steps=2, stride=2, lags=(1, 3))
    predictions = all_baselines(train, counting_episode(), ARM)
    assert all(np.isfinite(p).all() for p in predictions.values())


def test_the_order_of_training_windows_does_not_matter():
    train = concatenate([counting_episode(9, name=n, stride=1) for n in "abc"])
    order = np.random.default_rng(0).permutation(len(train))
    mixed = ActionWindows(**{name: values[order] for name, values in vars(train).items()})
    test = counting_episode(12, name="t")
    for name, prediction in all_baselines(train, test, ARM).items():
        assert np.allclose(prediction, all_baselines(mixed, test, ARM)[name], atol=1e-9), name


def g1_windows(episodes: tuple[int, ...], *, stride: int, first_row: int = 0, leave_out: int = 0) -> ActionWindows:
    """Windows of 24 steps from `first_row` on, the last `leave_out` rows unused."""
    from pyarrow import parquet

    parts = []
    for episode in episodes:
        table = parquet.read_table(G1 / f"episode_{episode:06d}.parquet")
        rows = slice(0, table.num_rows - leave_out)
        state, action = (np.stack(table[n].to_numpy())[rows] for n in ("observation.state", "action"))
        valid = np.ones(len(state), bool)
        windows = action_windows(state, action, valid, f"{episode:06d}", steps=24, stride=stride)
        parts.append(ActionWindows(**{n: v[windows.start >= first_row] for n, v in vars(windows).items()}))
    return concatenate(parts)


def g1_errors(train: ActionWindows, test: ActionWindows) -> dict[str, float]:
    state = [joints(*part) for part in G1_PARTS]
    robot = robot_of(state, [s | {"relative_to": f"state.{s['name']}"} for s in state])
    predictions = all_baselines(train, test, robot)
    return {name: round(float(np.abs(p - test.action).mean()), 4) for name, p in predictions.items()}


def test_golden_g1_windows_end_to_end():
    """What `wam adapt` judges on: windows one after another, training windows every 6 rows (0.2 s)."""
    test = g1_windows(WITH_VIDEO[12:], stride=24)
    assert len(test) == 58
    assert g1_errors(g1_windows(WITH_VIDEO[:12], stride=6), test) == {
        "stand_still": 0.0375,
        "last_command": 0.0247,
        "mean": 0.0372,
        "ridge": 0.0177,
        "ridge_state": 0.0232,
    }


def test_golden_g1_reference_figures():
    """The figures known for this data set (0.0391, 0.0250, 0.0390, 0.0166 to 0.0170, 0.0234).

    They hold for dense windows with a full history, rows 8 on, and not for windows end to end from row 0, which
    weigh the slow first second more. The reference `ridge_state` chose its penalty on the test episodes; ours not.
    """
    test = g1_windows(WITH_VIDEO[12:], stride=4, first_row=8, leave_out=1)
    train = g1_windows(WITH_VIDEO[:12], stride=4, first_row=8, leave_out=1)
    assert g1_errors(train, test) == {
        "stand_still": 0.0391,
        "last_command": 0.0250,
        "mean": 0.0389,
        "ridge": 0.0169,
        "ridge_state": 0.0236,
    }


def test_without_training_windows_only_what_needs_no_fit_is_left():
    windows = counting_episode()
    left = all_baselines(None, windows, ARM)
    assert set(left) == {"stand_still", "last_command"}
    assert np.array_equal(left["last_command"], all_baselines(windows, windows, ARM)["last_command"], equal_nan=True)
