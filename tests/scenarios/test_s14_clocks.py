"""Scenario 14: lost frames, a wrong rate, and times summed up in float32: only the first two are faults."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from arm_logs import HZ, robot_file, take, write_logs
from told import checked, of_code, worse_than_info

ROWS = 200


def test_exactly_the_episodes_that_drift_are_named(tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    takes = [take(n, ROWS) for n in range(5)]
    keep = np.sort(np.random.default_rng(0).permutation(ROWS)[: ROWS - 6])  # 3 % lost
    takes[1].pictures = {camera: pictures[keep] for camera, pictures in takes[1].pictures.items()}
    takes[2].video_fps = 19
    takes[3].t_s = np.cumsum(np.full(ROWS, 1 / HZ, np.float32), dtype=np.float32) - np.float32(1 / HZ)
    logs = untouched(write_logs(tmp_path / "logs", takes))
    plan = tmp_path / "fixes.csv"
    facts = checked(logs, "--robot", robot_file(tmp_path / "robot.yaml"), "--fix-plan", plan)
    assert {where for _, where in worse_than_info(facts)} == {"episode_000001", "episode_000002"}
    drifts = {f["where"]: f["message"] for f in of_code(facts, "clock_drift")}
    assert "-300 ms at the end (194 frames" in drifts["episode_000001"]
    assert "+524 ms at the end (200 frames at 19.000/s" in drifts["episode_000002"]
    proposed = {row["episode"]: (row["use"], float(row["start_s"] or 0)) for row in csv.DictReader(plan.open())}
    assert proposed["episode_000000"] == proposed["episode_000003"] == proposed["episode_000004"] == ("", 0.0)
    use, start = proposed["episode_000001"]
    assert use == "video" and 1.0 < start < 2.5, "where the drift exceeds one frame, if it grows evenly"
