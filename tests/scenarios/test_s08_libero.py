"""Scenario 8: LIBERO's HDF5: end-effector steps for commands, pictures upside down."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from arm_logs import robot_file, take
from commands import wam
from told import QUIET, checked, of_code, words

ROWS = 120


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libero") / "libero_10"
    folder.mkdir()
    for scene in ("KITCHEN_SCENE1_open_the_drawer", "KITCHEN_SCENE2_close_the_drawer"):
        with h5py.File(folder / f"{scene}_demo.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
            data.attrs["macros_image_convention"] = "opengl"
            for number in range(2):
                demonstration(data.create_group(f"demo_{number}"), number)
    return folder


def demonstration(group: h5py.Group, number: int) -> None:
    seen = take(number, ROWS, width=6)
    pose = seen.state.astype(np.float64)
    closes = np.where(np.arange(ROWS) > ROWS // 2, 1.0, -1.0)
    opening = 0.03 - 0.01 * np.convolve(closes, np.ones(6) / 6)[:ROWS]
    steps = np.diff(pose, axis=0, append=pose[-1:]) / 0.05
    group["actions"] = np.concatenate([steps, closes[:, None]], axis=1)
    group["obs/ee_states"], group["obs/joint_states"] = pose, take(number + 50, ROWS, width=7).state
    group["obs/gripper_states"] = np.stack([opening, -opening], axis=1)
    group["obs/agentview_rgb"] = seen.pictures["front"][:, ::-1]
    group["obs/eye_in_hand_rgb"] = seen.pictures["wrist"][:, ::-1]


def by_pose(content: dict) -> None:
    pose = list(range(6))
    content["cameras"] = [{"role": "exterior", "from": "obs/agentview_rgb"}]
    content["state"] = [{"name": "arm", "unit": "rad", "from": "obs/ee_states", "columns": pose}]
    content["action"] = [{"name": "arm", "like": "state.arm", "from": "actions", "columns": pose,
                          "relative_to": "state.arm"}]  # fmt: skip


def test_steps_are_known_from_the_data_and_never_made_relative(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "robot.yaml", by_pose), "--strict")
    (relative,) = of_code(facts, "double_relative")
    assert facts["code"] == 1 and "as 20 x the state's next step" in relative["message"]
    assert "relative_to: state" not in words(wam("robot", "draft", logs))


def test_upside_down_is_suspected_with_both_ways_to_turn_it(logs: Path, untouched: Callable[[Path], Path]) -> None:
    (turned,) = of_code(checked(untouched(logs)), "upside_down")
    assert "`flip: vertical`" in turned["message"] and "`rotate: 180`" in turned["message"]


def test_layout_and_prompt_tell_the_same_two_views(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    ran = wam("ingest", untouched(logs), "--out", tmp_path / "shards", "--yes", *QUIET)
    assert "4 of 4 episodes" in words(ran)
    facts = json.loads(wam("robot", "preview", tmp_path / "shards", "--out", tmp_path / "view", "--json").stdout)
    assert facts["style"] == "stack" and "two views: The top view shows" in facts["prompt"]
    assert "the exterior camera and the bottom view shows the camera view from the robot's wrist" in facts["prompt"]
