"""Scenario 18: short episodes among long ones, one of ten frames."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from arm_logs import robot_file, take, write_logs
from commands import wam
from told import QUIET, small_recipe, words

from adapt.clips import Clips
from schemas.recipe import TimeBase
from wamdata.windows import on_time_base, window_starts

BASE = {"chunk_s": 0.8, "video_fps": 10}


@pytest.fixture
def planned(tmp_path: Path, untouched: Callable[[Path], Path]) -> tuple[Path, tuple]:
    takes = [take(n, 120) for n in range(5)] + [take(5, 10), take(6, 20), take(7, 20)]
    logs = untouched(write_logs(tmp_path / "logs", takes))
    recipe = small_recipe(tmp_path / "small.yaml")
    options = ("--robot", robot_file(tmp_path / "robot.yaml"), "--out", tmp_path / "run", "--recipe", recipe)
    return tmp_path / "run", (logs, *options, "--dry-run", "--split-by", "order")


def test_short_episodes_are_counted_and_listed(planned: tuple[Path, tuple]) -> None:
    _, command = planned
    told = words(wam("adapt", *command, *QUIET))
    assert "rejected 1 (too_short): episode_000005" in told and "lasts 0.45 s (at least 0.5 s)" in told
    facts = json.loads(wam("adapt", *command, *QUIET, "--json").stdout)
    assert sum(facts["episodes"].values()) == 7 and facts["train_windows"] > 0


def test_every_window_has_all_of_its_chunks(planned: tuple[Path, tuple]) -> None:
    run, command = planned
    assert wam("adapt", *command, *QUIET).returncode == 0
    base = TimeBase(**BASE)
    clips = Clips.open(run / "shards")
    counted = {}
    for clip in clips.stream():
        rows = on_time_base(clip, clips.embodiment, base)
        starts = window_starts(clip, rows, base, stride=12)
        counted[len(clip.t_ns)] = len(starts)
        assert all(start + base.chunks * base.steps < len(rows) for start in starts)
    assert counted[20] == 0 and counted[120] > 0
