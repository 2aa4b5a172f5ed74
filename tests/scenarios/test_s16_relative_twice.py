"""Scenario 16: commands that are steps already, declared as targets to be made relative."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arm_logs import robot_file, take, write_logs
from commands import refused, wam
from told import QUIET, checked, of_code, words


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    takes = [take(n, 100) for n in range(4)]
    for one in takes:
        one.action = np.diff(one.state, axis=0, append=one.state[-1:])
    return write_logs(tmp_path / "logs", takes)


def test_it_is_an_error_with_the_evidence_that_says_so(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "robot.yaml"), "--no-pixels", "--strict")
    (found,) = of_code(facts, "double_relative")
    assert (facts["code"], found["severity"]) == (1, "error")
    assert (
        "action.arm is already relative: explains 100% of it as 1 x the state's next step, 0% as a target"
        in (found["message"])
    )
    assert found["numbers"]["explained"] > 0.99 and found["numbers"]["rival"] < 0.1
    draft = words(wam("robot", "draft", logs))
    assert "sure: a step, not a target" in draft and "relative_to: state" not in draft


@pytest.mark.xfail(strict=True, reason="only `wam check` looks at it: plan and adapt believe the robot's file")
def test_a_plan_refuses_it(logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    robot, run = robot_file(tmp_path / "robot.yaml"), tmp_path / "run"
    words = ("--robot", robot, "--out", run, "--backbone", "dreamzero", "--dry-run")
    assert "already relative" in refused("adapt", untouched(logs), *words, *QUIET)


@pytest.mark.xfail(strict=True, reason="there is no --force")
def test_force_is_recorded(logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    robot, run = robot_file(tmp_path / "robot.yaml"), tmp_path / "run"
    words = ("--robot", robot, "--out", run, "--backbone", "dreamzero", "--dry-run", "--force")
    assert wam("adapt", untouched(logs), *words, *QUIET).returncode == 0
