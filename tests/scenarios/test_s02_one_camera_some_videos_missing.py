"""Scenario 2: a real Unitree G1 with one AV1 camera, of which some videos are missing."""

import json
from collections.abc import Callable
from pathlib import Path

from commands import wam
from told import QUIET, words


def test_a_dry_run_names_the_episode_without_video_and_keeps_the_rest(
    g1: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    logs, run = untouched(g1), tmp_path / "run"
    told = words(wam("adapt", logs, "--robot", "g1_inspire", "--out", run, "--dry-run", *QUIET))
    assert "16 episodes x" in told
    assert "rejected 1 (missing_video): episode_000003" in told and "training windows" in told
    manifest = json.loads((run / "shards/manifest.json").read_text())
    assert [(r["episode"], r["reason"]) for r in manifest["rejects"]] == [("episode_000003", "missing_video")]
    seen = words(wam("robot", "preview", run / "shards", "--out", tmp_path / "view"))
    assert "The video shows the camera view from the robot's head. The robot pick up the yellow bottle" in seen
    assert "mosaic: whole" in seen and "wrist" not in seen
    assert not list(run.rglob("*.robot.yaml")), "a named robot needs no second file"
