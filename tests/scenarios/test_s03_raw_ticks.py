"""Scenario 3: a bimanual arm in raw ticks, labels that are the next state, no `task_index`, strays among the files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arm_logs import robot_file, take, write_logs
from commands import wam
from told import checked, of_code, words

NAMES = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in ("pan", "lift", "elbow"))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    takes = [take(n, 100, width=6) for n in range(4)]
    for one in takes:
        one.state = np.round(2048 + 600 * one.state).astype(np.float32)
        one.action = np.concatenate([one.state[1:], one.state[-1:]])
    takes[2].video_fps = 19
    source = write_logs(tmp_path / "logs", takes, joints=NAMES)
    for file in source.rglob("*.parquet"):
        pq.write_table(pq.read_table(file).drop(["task_index"]), file)
    (source / "meta/tasks.jsonl").unlink()
    pq.write_table(pa.table({"loss": [1.0]}), source / "data/chunk-000/episode_000099.parquet")
    return source


def test_labels_units_clocks_and_strays_are_told_apart(logs: Path, untouched: Callable[[Path], Path]) -> None:
    facts = checked(untouched(logs))
    assert (facts["episodes"], facts["usable"]) == (4, 4)
    echoes = of_code(facts, "echo_label")
    assert len(echoes) == 8 and "equals the state one row later" in echoes[0]["message"]
    assert {e["severity"] for e in echoes} == {"warning"}
    assert {f["message"].split()[0] for f in of_code(facts, "raw_ticks")} == {
        "state.left_arm", "state.right_arm", "action.left_arm", "action.right_arm"
    }  # fmt: skip
    drifts = of_code(facts, "clock_drift")
    assert {d["where"] for d in drifts} == {"episode_000002"} and "+261 ms at the end" in drifts[0]["message"]
    (stray,) = of_code(facts, "stray_file")
    assert "data/chunk-000/episode_000099.parquet" in stray["message"]
    assert not of_code(facts, "blank_text")


def test_a_robot_file_that_says_radians_is_contradicted(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    def right(content: dict) -> None:
        content["state"][0]["joints"] = list(NAMES)

    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "robot.yaml", right), "--no-pixels")
    assert "looks like motor ticks: the values are whole numbers" in of_code(facts, "unit_suspect")[0]["message"]


def test_the_draft_says_where_the_instructions_were_found(logs: Path, untouched: Callable[[Path], Path]) -> None:
    told = words(wam("robot", "draft", untouched(logs)))
    assert "4 of 4 episodes looked at have one, from meta/episodes" in told
    assert told.count("whole numbers, servo ticks") == 4
