import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DataError
from wamdata.align import distance_ns, nearest, resample, uniform_grid

T = np.array([0, 10, 20, 40], np.int64)


def test_nearest_gives_a_tie_to_the_earlier_sample() -> None:
    assert nearest(T, np.array([-5, 5, 6, 30, 31, 99], np.int64)).tolist() == [0, 0, 1, 2, 3, 3]


def test_distance_is_to_the_nearest_sample() -> None:
    assert distance_ns(T, np.array([-5, 12, 30], np.int64)).tolist() == [5, 2, 10]


def test_a_sample_on_the_grid_is_taken_as_it_is() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert np.array_equal(resample(T, values, T), values)


def test_between_samples_joints_follow_the_straight_line() -> None:
    values = np.array([[0.0], [1.0], [2.0], [6.0]], np.float32)
    assert resample(T, values, np.array([5, 25, 30], np.int64))[:, 0].tolist() == [0.5, 3.0, 4.0]


def test_a_discrete_signal_keeps_its_latest_value() -> None:
    values = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    grid = np.array([0, 9, 10, 39, 40, 99], np.int64)
    assert resample(T, values, grid, rule="previous")[:, 0].tolist() == [0, 0, 1, 2, 3, 3]


def test_quaternions_take_the_shorter_arc_and_stay_of_unit_length() -> None:
    half = np.sqrt(0.5)
    values = np.array([[0, 0, 0, 1], [0, 0, -half, -half]], np.float32)  # the second is +90 degrees about z, negated
    mid = resample(np.array([0, 10], np.int64), values, np.array([5], np.int64), rule="slerp_xyzw")[0]
    assert mid == pytest.approx([0, 0, np.sin(np.pi / 8), np.cos(np.pi / 8)], abs=1e-6)


@given(st.floats(1, 240), st.integers(0, 10**10), st.integers(0, 10**10))
def test_a_uniform_grid_does_not_drift(hz: float, start: int, span: int) -> None:
    grid = uniform_grid(start, start + span, hz)
    assert grid[0] == start and grid[-1] <= start + span + 1
    expected = start + np.arange(len(grid)) * 1e9 / hz
    assert np.abs(grid - expected).max() <= 1


def test_streams_that_do_not_overlap_are_refused() -> None:
    with pytest.raises(DataError, match="do not overlap"):
        uniform_grid(10, 5, 30)


def test_angles_go_the_shorter_way_round() -> None:
    t_ns = np.array([0, 10], np.int64)
    values = np.array([[3.0, -3.0, 0.5], [-3.0, 3.0, 0.7]], np.float32)
    middle = resample(t_ns, values, np.array([5], np.int64), rule="wrapped")[0]
    assert np.allclose(np.abs(middle[:2]), np.pi, atol=1e-6) and np.isclose(middle[2], 0.6)
    quarter = resample(t_ns, values, np.array([2], np.int64), rule="wrapped")[0]
    step = 0.2 * (2 * np.pi - 6)
    assert np.allclose(quarter[:2], [3.0 + step, -3.0 - step], atol=1e-6)


def test_rotation_vectors_turn_as_their_quaternions_do() -> None:
    rng = np.random.default_rng(0)
    axis = rng.normal(size=(2, 3))
    vectors = (axis / np.linalg.norm(axis, axis=1, keepdims=True) * np.array([[3.0], [3.1]])).astype(np.float32)
    t_ns, grid = np.array([0, 8], np.int64), np.array([0, 3, 8], np.int64)
    turned = resample(t_ns, vectors, grid, rule="slerp_axis_angle")
    assert np.array_equal(turned[[0, 2]], vectors)  # on a sample, the sample
    angles = [np.linalg.norm(v) for v in vectors]
    xyzw = np.array(
        [[*(v / a * np.sin(a / 2)), np.cos(a / 2)] for v, a in zip(vectors, angles, strict=True)], np.float32
    )
    between = resample(t_ns, xyzw, grid, rule="slerp_xyzw")[1]
    angle = np.linalg.norm(turned[1])
    mine = np.array([*(turned[1] / angle * np.sin(angle / 2)), np.cos(angle / 2)])
    assert np.allclose(mine, between, atol=1e-5) or np.allclose(mine, -between, atol=1e-5)


def test_a_rotation_vector_near_zero_is_no_nan() -> None:
    t_ns = np.array([0, 2], np.int64)
    still = np.zeros((2, 3), np.float32)
    assert np.array_equal(resample(t_ns, still, np.array([1], np.int64), rule="slerp_axis_angle"), still[:1])
