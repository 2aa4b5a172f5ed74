"""Scenario 9: a mobile base at 10 Hz with one camera: 26 columns of state, commands that are two velocities."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arm_logs import take, write_logs
from commands import wam
from told import QUIET, small_recipe, words

from wamdata.shards import read_manifest

HZ = 10
STATE = ("base_x", "base_y", *(f"arm_joint_{i}" for i in range(24)))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    takes = [take(n, 100, width=26, cameras=("front",), hz=HZ) for n in range(5)]
    for one in takes:
        one.action = np.diff(one.state[:, :2], axis=0, append=one.state[-1:, :2]) * HZ
    folder = tmp_path_factory.mktemp("base") / "logs"
    return write_logs(folder, takes, joints=STATE, command_joints=("base_vx", "base_vy"), hz=HZ)


@pytest.fixture(scope="module")
def shards(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("base") / "shards"
    assert wam("ingest", logs, "--out", out, "--yes", *QUIET).returncode == 0
    return out


def test_velocity_stays_absolute_and_stops_at_zero(logs: Path, shards: Path, untouched: Callable[[Path], Path]) -> None:
    untouched(logs)
    robot = read_manifest(shards).embodiment
    (base,) = robot.model_action
    assert (robot.state_width, base.width, base.kind, base.relative_to, base.is_velocity) == (
        26, 2, "velocity", None, True
    )  # fmt: skip
    assert "a velocity, not a target" in words(wam("robot", "draft", logs))


def test_a_plan_says_that_rows_are_resampled_and_how_long_a_chunk_lasts(
    logs: Path, shards: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    untouched(logs)
    told = words(wam("plan", shards, "--gpu", "80"))
    assert "the robot runs at 10 Hz, the model at 15 Hz: rows are resampled" in told
    assert "a chunk lasts 1.6 s" in told and "9 training windows" in told
    own = small_recipe(tmp_path / "own.yaml", time_base={"chunk_s": 2.4, "video_fps": 10 / 3})
    told = words(wam("plan", shards, "--gpu", "80", "--recipe", own))
    assert "a chunk lasts 2.4 s" in told and "resampled" not in told


def test_one_camera_has_a_layout_and_words_of_its_own(
    logs: Path, shards: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    untouched(logs)
    told = words(wam("robot", "preview", shards, "--out", tmp_path / "view"))
    assert "mosaic: whole" in told and "the robot logs at 10 Hz and is resampled" in told and "views" not in told
