"""Scenario 11: logs without words are refused with the count and the way out; what is given is on record."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from arm_logs import robot_file, take, write_logs
from commands import refused, wam
from told import QUIET, checked, of_code

from wamdata.shards import read_manifest, stream_clips

EPISODES = 5


def blank(logs: Path) -> None:
    """Tasks of spaces, as the recorder wrote them."""


def no_tasks(logs: Path) -> None:
    """Nothing but a `task_index` of 0, whose table is gone."""
    (logs / "meta/tasks.jsonl").unlink()
    lines = [{"episode_index": n, "length": 60} for n in range(EPISODES)]
    (logs / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    takes = [take(n, 60) for n in range(EPISODES)]
    for one in takes:
        one.task = "  "
    return write_logs(tmp_path / "logs", takes)


@pytest.mark.parametrize("spoil", [blank, no_tasks])
def test_no_words_are_refused_with_the_count(
    spoil: Callable[[Path], None], logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    spoil(logs)
    robot = robot_file(tmp_path / "robot.yaml")
    told = refused("adapt", untouched(logs), "--robot", robot, "--out", tmp_path / "run", "--dry-run", *QUIET)
    assert "none of 5 episodes of logs can be used (5 blank_text)" in told
    assert 'no instruction. Give one with --task "what is done", or a table with `wam ingest --labels`' in told
    facts = checked(logs, "--robot", robot, "--no-pixels")
    assert (facts["usable"], facts["code"]) == (0, 1)
    assert [f["severity"] for f in of_code(facts, "blank_text")] == ["error"] * EPISODES


def test_what_was_given_is_on_record(logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    run, robot = tmp_path / "run", robot_file(tmp_path / "robot.yaml")
    words = ("--task", "tidy up", "--backbone", "dreamzero", "--dry-run")
    assert wam("adapt", untouched(logs), "--robot", robot, "--out", run, *words, *QUIET).returncode == 0
    assert "tidy up" in (run / "shards/recipe.yaml").read_text()
    clips = list(stream_clips(run / "shards", read_manifest(run / "shards")))
    assert len(clips) == EPISODES
    assert {(t.text, t.origin) for clip in clips for t in clip.meta.text if t.text.strip()} == {("tidy up", "--task")}


def test_a_table_gives_words_to_some_and_the_rest_is_left_out(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    table = tmp_path / "tasks.csv"
    table.write_text("episode,task\n" + "".join(f"episode_{n:06d},push it\n" for n in range(3)))
    with table.open("a") as file:
        file.write("episode_000003,\nepisode_000004,\n")
    out = tmp_path / "shards"
    robot = robot_file(tmp_path / "robot.yaml")
    ran = wam("ingest", untouched(logs), "--robot", robot, "--labels", table, "--out", out, *QUIET)
    assert "rejected 2 (blank_text): episode_000003, episode_000004" in ran.stdout, ran.stderr
    assert {c.text_at(int(c.t_ns[0])) for c in stream_clips(out, read_manifest(out))} == {"push it"}
