"""Scores and verdicts on arrays that can be checked by eye."""

import json
import math

import numpy as np
import pytest

from adapt.baselines import ActionWindows, Float, last_command, stand_still
from adapt.scoring import copy_last, psnr, score_actions, score_video, unit_columns, verdict
from schemas.embodiment import Embodiment
from schemas.errors import DataError
from schemas.report import ActionScore

ROBOT = Embodiment.model_validate(
    {
        "schema": "wamkit/embodiment@1",
        "name": "tiny",
        "native_hz": 10,
        "state": [{"name": "arm", "from": "s", "columns": [0]}],
        "action": [
            {"name": "arm", "from": "a", "columns": [0], "relative_to": "state.arm"},
            {"name": "drive", "from": "a", "columns": [1, 2], "kind": "velocity", "unit": ["m/s", "rad/s"]},
        ],
    }
)


def moving(episodes: int = 3, per_episode: int = 4) -> ActionWindows:
    """Windows of two steps: the state is 0, every recorded command is 1, the last command was 0.75."""
    count = episodes * per_episode
    return ActionWindows(
        state=np.zeros((count, 1)),
        history=np.zeros((count, 1, 1)),
        last_action=np.full((count, 3), 0.75),
        action=np.ones((count, 2, 3)),
        valid=np.ones((count, 2), bool),
        episode=np.repeat([f"e{i}" for i in range(episodes)], per_episode),
        start=np.tile(np.arange(per_episode) * 2, episodes),
    )


def score(model: Float | float, windows: ActionWindows | None = None, **others: Float | float) -> ActionScore:
    windows = moving() if windows is None else windows
    predictions = {"model": model, "stand_still": stand_still(windows, ROBOT)} | others
    return score_actions(windows, {n: np.broadcast_to(p, windows.action.shape) for n, p in predictions.items()}, ROBOT)


def noisy(mean: float, spread: float) -> Float:
    """Predictions whose error scatters from window to window."""
    return mean + spread * np.random.default_rng(0).normal(size=(12, 1, 1))


def test_error_is_the_mean_over_windows_steps_and_columns():
    model = np.ones((12, 2, 3))
    model[:, 1, 0] = 0.4  # arm is 0.6 off in the second step
    result = score(model)
    assert math.isclose(result.error["model"], 0.1)
    assert np.allclose(result.step_error["model"], [0.0, 0.2])
    assert math.isclose(result.components[0].error["model"], 0.3)
    assert result.components[1].column_error["model"] == (0.0,)


def test_a_component_with_two_units_is_scored_unit_by_unit():
    assert [(p.name, p.unit, p.columns) for p in unit_columns(ROBOT)] == [
        ("arm", "rad", slice(0, 1)),
        ("drive", "m/s", slice(1, 2)),
        ("drive", "rad/s", slice(2, 3)),
    ]


def test_steps_that_do_not_count_change_nothing():
    windows = moving()
    valid = windows.valid.copy()
    valid[:, 1] = False
    action = windows.action.copy()
    action[:, 1] = np.nan
    masked = ActionWindows(**(vars(windows) | {"valid": valid, "action": action}))
    result = score(0.5, masked)
    assert result.error == {"model": 0.5, "stand_still": 1.0}
    assert result.paired["stand_still"].difference == -0.5
    assert math.isnan(result.step_error["model"][1])


def test_amplitude_ratio_is_predicted_over_recorded_motion():
    assert score(0.5).amplitude_ratio == 0.5
    assert score(0.0).amplitude_ratio == 0.0
    assert score(-2.0).amplitude_ratio == 2.0


def test_amplitude_ratio_is_one_where_nothing_should_move_and_nothing_does():
    windows = moving()
    at_rest = ActionWindows(**(vars(windows) | {"action": np.zeros((12, 2, 3))}))
    assert score(0.0, at_rest).amplitude_ratio == 1.0


def test_paired_difference_equals_the_difference_of_the_errors():
    result = score(noisy(0.8, 0.3), mean=0.4)
    for name, paired in result.paired.items():
        assert math.isclose(paired.difference, result.error["model"] - result.error[name])
        assert paired.low <= paired.difference <= paired.high


def test_share_better_counts_windows_strictly_better():
    model = np.ones((12, 2, 3))
    model[:3] = 0.0  # as good as standing still
    assert score(model).paired["stand_still"].share_better == 0.75


def test_the_interval_is_wider_when_episodes_differ_than_when_windows_do():
    by_episode = np.repeat([0.9, 0.5, 0.1], 4)[:, None, None]
    by_window = np.tile([0.9, 0.7, 0.3, 0.1], 3)[:, None, None]
    episodes, windows = (score(m).paired["stand_still"] for m in (by_episode, by_window))
    assert math.isclose(episodes.difference, windows.difference)
    assert episodes.high - episodes.low > 1.3 * (windows.high - windows.low)


def test_the_bootstrap_is_deterministic():
    assert score(noisy(0.7, 0.4)) == score(noisy(0.7, 0.4))


def test_the_order_of_windows_does_not_matter():
    windows, model = moving(), np.broadcast_to(noisy(0.7, 0.4), (12, 2, 3))
    order = np.random.default_rng(1).permutation(12)
    mixed = ActionWindows(**{name: values[order] for name, values in vars(windows).items()})
    one, other = score(model, windows), score(model[order], mixed)
    assert math.isclose(one.error["model"], other.error["model"])
    for name, paired in one.paired.items():
        assert np.allclose(list(paired.model_dump().values()), list(other.paired[name].model_dump().values()))


def test_a_recorded_command_that_is_not_finite_names_episode_and_row():
    windows = moving()
    action = windows.action.copy()
    action[5, 1, 2] = np.nan
    with pytest.raises(DataError, match="episode e1: action column 2 is not finite at row 3"):
        score(1.0, ActionWindows(**(vars(windows) | {"action": action})))


def test_no_window_is_an_error():
    windows = moving()
    with pytest.raises(DataError, match="no held-out window"):
        score(1.0, ActionWindows(**{name: values[:0] for name, values in vars(windows).items()}))


def test_better_than_standing_still_passes_and_says_by_how_much():
    result, reason = verdict(score(0.75, mean=0.25, ridge=0.9), has_base=False, episodes=3)
    assert result == "OFFLINE PASS"
    assert reason == (
        "error 0.250 against 1.00 for standing still (-75 %) on 12 windows of 3 held-out episodes; "
        "also beats mean motion 0.750; does not beat ridge 0.100"
    )


def test_exactly_standing_still_fails():
    result, reason = verdict(score(0.0), has_base=False, episodes=3)
    assert result == "FAIL"
    assert "not better than standing still" in reason


def test_worse_than_standing_still_fails():
    assert verdict(score(-0.5), has_base=False, episodes=3)[0] == "FAIL"


def test_better_by_chance_only_fails_and_says_so():
    result, reason = verdict(score(noisy(0.05, 1.0)), has_base=False, episodes=3)
    assert result == "FAIL"
    assert "not clearly better than standing still: the 95 % interval" in reason


def test_a_copy_of_the_last_command_is_told_that_it_does_not_beat_it():
    windows = moving()
    copied = last_command(windows, ROBOT)
    result, reason = verdict(score(copied, last_command=copied), has_base=False, episodes=3)
    assert result == "OFFLINE PASS"  # 0.75 is nearer to 1 than 0 is; copying is told, not gated
    assert "does not beat last command 0.250" in reason
    assert "also beats" not in reason


def test_beating_every_other_baseline_does_not_help_against_standing_still():
    windows = moving()
    wrong_way = ActionWindows(**(vars(windows) | {"last_action": np.full((12, 3), -0.75)}))
    copied = last_command(wrong_way, ROBOT)
    result, reason = verdict(score(copied * 0.9, last_command=copied, mean=-2.0), has_base=False, episodes=3)
    assert result == "FAIL"
    assert "also beats mean motion 3.00 and last command 1.75" in reason


def test_an_un_adapted_base_must_be_beaten_too():
    assert verdict(score(0.75, base=0.5), has_base=True, episodes=3)[0] == "OFFLINE PASS"
    result, reason = verdict(score(0.75, base=0.9), has_base=True, episodes=3)
    assert result == "FAIL"
    assert "not better than the un-adapted base 0.100" in reason


def test_variants_of_the_model_do_not_gate():
    assert verdict(score(0.75, cameras_shuffled=1.0), has_base=False, episodes=3)[0] == "OFFLINE PASS"


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_one_broken_number_fails(broken):
    model = np.ones((12, 2, 3))
    model[7, 1, 2] = broken
    result, reason = verdict(score(model), has_base=False, episodes=3)
    assert result == "FAIL"
    assert "not finite" in reason


def test_a_broken_base_is_no_base_to_have_beaten():
    result, reason = verdict(score(1.0, base=np.nan), has_base=True, episodes=3)
    assert result == "FAIL"
    assert "the un-adapted base predicted numbers that are not finite" in reason


def test_barely_moving_is_warned_of():
    result, reason = verdict(score(0.1), has_base=False, episodes=3)
    assert result == "OFFLINE PASS"
    assert "barely moves, 10 % of the recorded motion" in reason


def test_a_component_that_is_no_better_than_standing_still_is_named():
    model = np.ones((12, 2, 3))
    model[..., 0] = -0.5
    result, reason = verdict(score(model), has_base=False, episodes=3)
    assert result == "OFFLINE PASS"
    assert "no better than standing still on arm" in reason


def test_one_held_out_episode_is_called_little():
    windows = moving(episodes=1)
    assert (
        "of 1 held-out episode; one episode says little" in verdict(score(0.9, windows), has_base=False, episodes=1)[1]
    )


def test_no_actions_no_verdict():
    assert verdict(None, has_base=False, episodes=3) == (
        "NO ACTION VERDICT",
        "video only: teaches tasks and looks, is no controller",
    )


def test_a_score_is_json():
    result = score(noisy(0.8, 0.3), mean=0.4)
    assert ActionScore.model_validate(json.loads(json.dumps(result.as_dict()))) == result


def frames(*levels: int) -> np.ndarray:
    """(1, F, 2, 2, 3) frames of one grey level each."""
    return np.broadcast_to(np.array(levels, np.uint8)[None, :, None, None, None], (1, len(levels), 2, 2, 3))


def test_psnr_by_hand():
    assert np.allclose(psnr(frames(0, 100), frames(255, 110)), [[0.0, 20 * math.log10(25.5)]])


def test_psnr_of_equal_frames_is_capped():
    assert psnr(frames(7), frames(7)).tolist() == [[100.0]]


def test_psnr_is_finite_and_the_same_whichever_frame_is_the_truth():
    assert np.array_equal(psnr(frames(3), frames(200)), psnr(frames(200), frames(3)))


def test_video_is_scored_per_frame():
    truth = frames(100, 120)
    predicted = {"model": truth, "copy_last": copy_last(frames(90)[:, 0], 2)}
    result = score_video(truth, predicted, frame_s=(0.2, 0.4))
    assert result.windows == 1
    assert result.frame_psnr["model"] == (100.0, 100.0)
    assert result.frame_psnr["copy_last"][0] > result.frame_psnr["copy_last"][1]
    assert math.isclose(result.psnr["copy_last"], sum(result.frame_psnr["copy_last"]) / 2)


def test_surely_but_hardly_better_than_standing_still_is_no_pass():
    result, reason = verdict(score(0.02), has_base=False, episodes=3)
    assert result == "FAIL"
    assert "only 2.0 % better than standing still (5 % is wanted)" in reason
    assert verdict(score(0.06), has_base=False, episodes=3)[0] == "OFFLINE PASS"
