"""Scenario 6: state and action differ in size and order, and the robot's file has the names of another robot."""

from collections.abc import Callable
from pathlib import Path

import pytest
from arm_logs import robot_file, take, write_logs
from commands import refused, wam
from told import checked, of_code, words


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    takes = [take(n, 100, width=6) for n in range(3)]
    for one in takes:
        one.action = one.action[:, [2, 1, 0]]
    return write_logs(tmp_path / "logs", takes, joints=tuple("abcdef"), command_joints=tuple("cba"))


def test_a_mismatch_is_told_by_name(logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "other.yaml"), "--no-pixels")
    assert (facts["usable"], facts["code"]) == (0, 1)
    message = of_code(facts, "unmappable")[0]["message"]
    assert "arm needs joint 'pan', 'observation.state' has 'a', 'b', 'c', 'd', 'e', 'f'" in message
    assert "Mend `joints` or give `columns`" in message


def test_columns_that_contradict_the_logs_names_are_refused(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    def by_place(content: dict) -> None:
        content["state"][0]["joints"], content["action"][0]["columns"] = list("abc"), [0, 1, 2]

    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "robot.yaml", by_place), "--no-pixels")
    assert facts["usable"] == 0
    assert "arm says column 0 of 'action' is 'a', the log says 'c'" in of_code(facts, "unmappable")[0]["message"]


def test_what_has_no_state_of_its_size_is_never_relative(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    draft = words(wam("robot", "draft", untouched(logs)))
    assert "no state component of the same name and width, so it is kept absolute" in draft
    assert "relative_to: state" not in draft

    def relative(content: dict) -> None:
        content["state"][0]["joints"] = list("abcdef")
        content["action"] = [{"name": "arm", "unit": "rad", "from": "action", "joints": list("abc"),
                              "relative_to": "state.arm"}]  # fmt: skip

    told = refused("check", logs, "--robot", robot_file(tmp_path / "robot.yaml", relative))
    assert "action.arm has 3 columns, state.arm has 6" in told


def test_an_explicit_mapping_by_name_goes_ahead(logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    def mapped(content: dict) -> None:
        content["state"][0]["joints"] = list("abc")

    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "robot.yaml", mapped), "--no-pixels")
    assert (facts["usable"], facts["code"]) == (3, 0)
    assert "explains 100% of it as where the state is 3 rows later" in of_code(facts, "label_lag")[0]["message"]
