from dataclasses import replace

import numpy as np
import pytest
from robots import episode, robot

from schemas.episode import Stream, Text
from schemas.errors import DataError, UsageError
from wamdata.mapping import map_episode


def test_degrees_become_radians_and_the_gripper_the_fraction_open() -> None:
    mapped = map_episode(episode(), robot())
    assert mapped.state[3] == pytest.approx([np.deg2rad(3), np.deg2rad(-3), 3 / 20], abs=1e-6)
    assert mapped.action[3, 0] - mapped.state[3, 0] == pytest.approx(np.deg2rad(2), abs=1e-6)


def test_a_gripper_that_closes_upwards_is_still_open_at_one() -> None:
    gripper = {
        "name": "gripper",
        "kind": "gripper",
        "unit": "tick",
        "open": 0,
        "closed": 10,
        "from": "state",
        "columns": [2],
    }
    mapped = map_episode(episode(), robot(state=[gripper], action=[]))
    assert mapped.state[0, 0] == 1 and mapped.state[-1, 0] == pytest.approx(0.05)


def test_a_row_clock_is_taken_over_unchanged() -> None:
    logged = episode()
    assert np.array_equal(map_episode(logged, robot()).t_ns, logged.streams["state"].t_ns)


def test_streams_of_other_rates_meet_on_a_uniform_clock() -> None:
    slow = episode(rows=10, hz=5.0).streams["action"]
    logged = episode()
    mixed = replace(logged, streams={"state": logged.streams["state"], "action": slow})
    mapped = map_episode(mixed, robot(clock="header.stamp"))
    assert len(mapped.t_ns) == 19 and mapped.action_valid.all()
    assert mapped.action[1, 0] == pytest.approx(np.deg2rad(2.5), abs=1e-6)  # half way between its two samples


def test_joints_are_found_by_name_in_any_order() -> None:
    state = [{"name": "arm", "unit": "deg", "from": "state", "joints": ["tilt", "pan"]}]
    mapped = map_episode(episode(), robot(state=state, action=[]))
    assert mapped.state[3] == pytest.approx(np.deg2rad([-3, 3]), abs=1e-6)


def test_rows_that_are_not_finite_are_marked_and_hold_no_nan() -> None:
    logged = episode()
    values = logged.streams["state"].values.copy()
    values[4, 1] = np.nan
    logged = replace(logged, streams=logged.streams | {"state": Stream("state", logged.streams["state"].t_ns, values)})
    mapped = map_episode(logged, robot())
    assert np.flatnonzero(~mapped.state_valid).tolist() == [4]
    assert np.isfinite(mapped.state).all()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"from": "states", "columns": "0:2"}, "reads stream 'states', the log has 'state', 'action'"),
        ({"from": "state", "columns": "2:4"}, "needs column 3 of 'state', which has 3"),
        ({"from": "state", "joints": ["pan", "roll"]}, "needs joint 'roll'"),
        (
            {"from": "state", "columns": "0:2", "joints": ["tilt", "pan"]},
            "column 0 of 'state' is 'tilt', the log says 'pan'",
        ),
    ],
)
def test_a_component_that_the_log_does_not_have_is_named(state: dict, message: str) -> None:
    arm = {"name": "arm", "unit": "deg"} | state
    with pytest.raises(DataError) as error:
        map_episode(episode(), robot(state=[arm], action=[]))
    assert message in str(error.value) and "memory e0" in str(error.value)


def test_a_wrong_rate_in_the_robot_file_is_refused() -> None:
    with pytest.raises(DataError, match=r"rows come at 10\.00 Hz but toy says native_hz: 30"):
        map_episode(episode(), robot(native_hz=30))


def test_a_bad_sample_does_not_bleed_into_its_neighbours() -> None:
    logged = episode()
    values = np.full((20, 3), 10.0, np.float32)
    values[10] = np.nan
    state = Stream("state", logged.streams["state"].t_ns, values)
    logged = replace(logged, streams=logged.streams | {"state": state})
    mapped = map_episode(logged, robot(clock="header.stamp", native_hz=8))
    assert np.allclose(np.rad2deg(mapped.state[:, 0]), 10.0, atol=1e-4)
    assert (~mapped.state_valid).sum() == 1


def test_rows_without_times_run_at_the_robots_rate() -> None:
    counted = replace(episode(rows=20, hz=4.0), counted_hz=4.0, texts=(Text("go", 0, 5 * 10**9),))
    with pytest.raises(DataError, match="rows come at 4.00 Hz"):
        map_episode(replace(counted, counted_hz=0.0), robot())
    mapped = map_episode(counted, robot())
    assert np.array_equal(mapped.t_ns, episode(rows=20).streams["state"].t_ns)
    assert mapped.episode.texts[0].stop_ns == 2 * 10**9 and mapped.episode.counted_hz == 10


def test_commands_may_be_the_states_of_later_rows() -> None:
    arm = {"name": "arm", "like": "state.arm", "from": "state", "ahead": 2}
    mapped = map_episode(episode(rows=10), robot(action=[arm]))
    assert np.array_equal(mapped.action[:8], mapped.state[2:, :2])
    assert mapped.action_valid.tolist() == [True] * 8 + [False] * 2
    with pytest.raises(DataError, match="arm reads 2 rows ahead, there are 2"):
        map_episode(episode(rows=2), robot(action=[arm]))
    with pytest.raises(UsageError, match=r"`ahead` is for actions"):
        robot(state=[{"name": "arm", "unit": "deg", "from": "state", "columns": "0:2", "ahead": 1}], action=[])
