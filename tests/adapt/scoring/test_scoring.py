"""Scores and verdicts on arrays that can be checked by eye."""

import json
import math

import numpy as np
import pytest

from adapt.scoring import copy_last, psnr, score_actions, score_video, ssim, unit_columns, verdict
from adapt.scoring.baselines import ActionWindows, Float, last_command, stand_still
from adapt.scoring.motion import gripper_columns, score_motion
from adapt.scoring.video import lpips_network
from schemas.embodiment import Embodiment
from schemas.errors import DataError
from schemas.report import ActionScore, Motion

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


def motion(model: Float | float, windows: ActionWindows | None = None, robot: Embodiment = ROBOT) -> Motion:
    windows = moving() if windows is None else windows
    predicted = np.broadcast_to(model, windows.action.shape)
    return score_motion(windows, {"model": predicted}, robot, action_hz=10)["model"]


def test_direction_is_the_cosine_whatever_the_size_of_the_step():
    assert motion(0.01).cosine.value == pytest.approx(1)
    assert motion(-5.0).cosine.value == pytest.approx(-1)
    assert motion(0.0).cosine.value == 0  # standing still points nowhere
    sideways = np.ones((12, 2, 3))
    sideways[..., 2] = -1
    assert motion(sideways).cosine.value == pytest.approx(1 / 3)


def test_direction_does_not_depend_on_units():
    windows, model = moving(), np.broadcast_to([1.0, 0.2, -0.3], (12, 2, 3))
    big = np.array([1000.0, 1.0, 1.0])
    scaled = ActionWindows(**(vars(windows) | {"action": windows.action * big, "last_action": windows.last_action}))
    assert motion(model * big, scaled).cosine.value == pytest.approx(motion(model).cosine.value)


def test_what_rests_has_no_direction_amplitude_jerk_or_onset_and_says_why():
    at_rest = ActionWindows(**(vars(moving()) | {"action": np.zeros((12, 2, 3))}))
    found = motion(1.0, at_rest)
    assert (found.cosine.value, found.cosine.reason) == (None, "no held-out window moves")
    assert (found.amplitude.value, found.amplitude.reason) == (None, "nothing moves in the recording")
    assert found.jerk.reason == "a chunk has fewer than four steps"
    assert found.onset_share.reason == "no held-out window rests and then moves"
    assert found.gripper_f1.reason == "no gripper"


def test_a_broken_prediction_has_no_motion_rather_than_a_wrong_one():
    found = motion(np.nan)
    assert {m.reason for m in (found.cosine, found.amplitude, found.jerk, found.onset_delay_s)} == {"not finite"}
    assert score(np.nan).components[0].cosine.reason == "not finite"


def test_motion_has_intervals_about_its_value():
    model = np.ones((12, 2, 3)) + 0.8 * np.random.default_rng(0).normal(size=(12, 1, 3))
    for measure in (motion(model).amplitude, motion(model).cosine):
        assert measure.low < measure.value < measure.high


GRIPPER = Embodiment.model_validate(
    {
        "schema": "wamkit/embodiment@1",
        "name": "gripping",
        "native_hz": 10,
        "state": [{"name": "arm", "from": "s", "columns": [0]}],
        "action": [
            {"name": "arm", "from": "a", "columns": [0], "relative_to": "state.arm"},
            {
                "name": "grip",
                "kind": "gripper",
                "unit": "fraction",
                "from": "a",
                "columns": [1],
                "open": 1,
                "closed": 0,
            },
        ],
    }
)


def track(*columns: list[float], last: float = 0.0, count: int = 2) -> ActionWindows:
    """The same window `count` times, from the columns of its action; one step is 0.1 s."""
    action = np.repeat(np.stack([np.array(c, float) for c in columns], -1)[None], count, 0)
    return ActionWindows(
        state=np.zeros((count, 1)),
        history=np.zeros((count, 1, 1)),
        last_action=np.full((count, len(columns)), last),
        action=action,
        valid=np.ones(action.shape[:2], bool),
        episode=np.array(["e"] * count),
        start=np.arange(count) * len(columns[0]),
    )


REST, CLOSING = [0.0] * 8, [0, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("guess", "f1"),
    [
        (CLOSING, 1.0),
        ([0, 1, 1, 1, 1, 1, 0, 0], 1.0),  # 0.2 s early
        ([1, 1, 1, 1, 1, 1, 0, 0], 0.5),  # 0.3 s early: one of two events is hit
        (REST, 0.0),
        ([0, 0, 0, 1, 1, 1, 1, 1], 2 / 3),
        ([0, 0, 0, 0.55, 0.45, 0.55, 0, 0], 0.0),  # trembles about the middle: no event
    ],
)
def test_gripper_events_are_matched_in_time_and_kind(guess, f1):
    windows = track(REST, CLOSING)
    predicted = track(REST, guess).action
    assert motion(predicted, windows, GRIPPER).gripper_f1.value == pytest.approx(f1)


def test_a_gripper_that_the_recording_never_moves_is_not_measured():
    assert gripper_columns(GRIPPER) == (1,)
    found = motion(track(REST, CLOSING).action, track(REST, REST), GRIPPER).gripper_f1
    assert (found.value, found.reason) == (None, "no gripper opens or closes in the recording")


def test_the_first_event_counts_from_the_command_before_the_chunk():
    opened = track(REST, [1.0] * 8, last=0.0)
    both = ActionWindows(**(vars(opened) | {"action": np.stack([opened.action[0], np.zeros((8, 2))])}))
    assert motion(both.action, both, GRIPPER).gripper_f1.value == 1.0
    assert motion(np.zeros((2, 8, 2)), both, GRIPPER).gripper_f1.value == 0.0


def test_onsets_are_found_late_early_or_not_at_all():
    moving_at_4 = track([0, 0, 0, 0, 1, 1, 1, 1], REST)
    late = motion(track([0, 0, 0, 0, 0, 0, 1, 1], REST).action, moving_at_4, GRIPPER)
    assert (late.onset_share.value, late.onset_delay_s.value) == (1.0, pytest.approx(0.2))
    never = motion(track(REST, REST).action, moving_at_4, GRIPPER)
    assert never.onset_share.value == 0.0 and never.onset_delay_s.value is None
    early = motion(track([0, 0, 1, 1, 1, 1, 1, 1], REST).action, moving_at_4, GRIPPER)
    assert early.onset_delay_s.value == pytest.approx(-0.2)


def test_jerk_is_the_third_difference_over_the_recordings():
    cubic = np.arange(8.0) ** 3
    windows = track(cubic.tolist(), REST)
    assert motion(windows.action, windows, GRIPPER).jerk.value == pytest.approx(1)
    assert motion(windows.action * 3, windows, GRIPPER).jerk.value == pytest.approx(3)
    line = track(np.arange(8.0).tolist(), REST)
    assert motion(line.action, windows, GRIPPER).jerk.value == pytest.approx(0, abs=1e-9)


def test_errors_by_context_add_up_to_the_error():
    windows, past = moving(), np.tile([0, 1, 2, 2], 3)
    predictions = {"model": np.broadcast_to(noisy(0.7, 0.4), windows.action.shape)}
    predictions["stand_still"] = stand_still(windows, ROBOT)
    found = score_actions(windows, predictions, ROBOT, past=past, action_hz=10)
    assert [(c.past, c.windows) for c in found.context] == [(0, 3), (1, 3), (2, 6)]
    total = sum(c.error["model"] * c.windows for c in found.context)
    assert total / 12 == pytest.approx(found.error["model"])


def grey(image: np.ndarray) -> np.ndarray:
    """(1, 1, H, W, 3) of a grey picture (H, W)."""
    return np.repeat(image.astype(np.uint8)[None, None, ..., None], 3, -1)


def test_ssim_of_flat_pictures_by_hand():
    """Without variance only the means count: (2 * 100 * 150 + C1) / (100^2 + 150^2 + C1), C1 = 6.5025."""
    one, other = grey(np.full((12, 13), 100)), grey(np.full((12, 13), 150))
    assert ssim(one, other)[0, 0] == pytest.approx((30000 + 6.5025) / (32500 + 6.5025), abs=1e-9)
    assert ssim(one, one)[0, 0] == pytest.approx(1)


def test_ssim_of_a_negative_by_hand():
    """x and -x about the same mean under one window: the covariance is minus the variance."""
    rng = np.random.default_rng(0)
    x = np.clip(128 + 30 * rng.normal(size=(11, 11)), 0, 255).round()
    at = np.arange(11) - 5
    w = np.exp(-(at**2) / 4.5)
    w = np.outer(w, w) / np.outer(w, w).sum()
    y = 255 - x
    mx, my = (w * x).sum(), (w * y).sum()
    var = (w * x * x).sum() - mx**2
    c1, c2 = 2.55**2, 7.65**2
    wanted = (2 * mx * my + c1) * (-2 * var + c2) / ((mx**2 + my**2 + c1) * (2 * var + c2))
    assert ssim(grey(x), grey(y))[0, 0] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.slow  # importing torchmetrics takes longer than everything else here
def test_ssim_equals_torchmetrics_inside_its_reflected_border():
    import torch
    import torchmetrics.functional.image as metrics

    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (2, 3, 40, 33, 3), dtype=np.uint8)
    y = np.clip(x.astype(int) + rng.integers(-40, 40, x.shape), 0, 255).astype(np.uint8)
    luma = [torch.from_numpy(v.reshape(-1, *v.shape[2:]) @ np.array([0.299, 0.587, 0.114]))[:, None] for v in (x, y)]
    settings = {"data_range": 255.0, "reduction": "none", "return_full_image": True}
    _, whole = metrics.structural_similarity_index_measure(*luma, **settings)
    wanted = whole[:, 0, 5:-5, 5:-5].mean((1, 2))
    np.testing.assert_allclose(ssim(x, y).ravel(), wanted.numpy(), atol=1e-6)


def test_pictures_below_the_window_are_not_measured_and_it_is_said():
    truth = frames(100, 120)
    found = score_video(truth, {"model": truth}, frame_s=(0.2, 0.4), perceptual=True)
    assert found.ssim == {} and "smaller than its window" in found.unmeasured["ssim"]
    assert found.lpips == {} and "lpips" in found.unmeasured


def test_lpips_is_not_measured_where_its_weights_are_not_and_nothing_is_fetched(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    found = lpips_network()
    assert isinstance(found, str) and "not" in found
    assert not any(tmp_path.rglob("*"))


@pytest.mark.slow
def test_lpips_is_zero_for_equal_pictures_and_grows_with_noise():
    import lpips as package

    from adapt.scoring.video import lpips

    network = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()  # its trunk untrained: no download
    rng = np.random.default_rng(0)
    truth = rng.integers(60, 190, (2, 9, 64, 64, 3), dtype=np.uint8)
    little, much = (np.clip(truth + rng.normal(0, s, truth.shape), 0, 255).astype(np.uint8) for s in (5, 60))
    assert lpips(network, truth, truth) == pytest.approx(0, abs=1e-6)
    assert 0 < lpips(network, truth, little) < lpips(network, truth, much)
