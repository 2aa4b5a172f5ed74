"""Scenario 12: a clone without Git-LFS files, a truncated table, and what operating systems leave behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
from arm_logs import robot_file, take, write_logs
from commands import wam
from told import checked, of_code

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    source = write_logs(tmp_path / "logs", [take(n, 60) for n in range(4)])
    (source / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (source / "data/chunk-000/._episode_000000.parquet").write_bytes(b"\0\5\x16\7")
    return source


def test_pointers_are_counted_with_the_command_that_helps(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    for video in logs.rglob("*.mp4"):
        video.write_text(POINTER)
    rows = logs / "data/chunk-000/episode_000003.parquet"
    rows.write_bytes(rows.read_bytes()[:900])
    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "robot.yaml"))
    assert (facts["usable"], facts["code"]) == (0, 1)
    pointers = of_code(facts, "lfs_pointer")
    assert "6 videos are Git-LFS pointers. Run `git lfs install && git lfs pull`" in pointers[0]["message"]
    (cut,) = of_code(facts, "unreadable")
    assert cut["where"] == "episode_000003" and "not readable as parquet" in cut["message"]
    (junk,) = of_code(facts, "stray_file")
    assert ".DS_Store" in junk["message"] and "._episode_000000.parquet" in junk["message"]
    printed = wam("check", logs, "--robot", tmp_path / "robot.yaml", "--quiet")
    assert printed.returncode == 1 and "6 videos are Git-LFS pointers" in " ".join(printed.stdout.split())
    assert "Traceback" not in printed.stdout + printed.stderr


def test_a_clone_of_nothing_but_pointers_says_so(logs: Path, untouched: Callable[[Path], Path]) -> None:
    for file in (*logs.rglob("*.mp4"), *logs.rglob("episode_*.parquet")):
        file.write_text(POINTER)
    facts = checked(untouched(logs))
    assert facts["code"] == 1 and len(of_code(facts, "unreadable")) == 4
    assert "4 of 4 data files are Git-LFS pointers" in of_code(facts, "lfs_pointer")[0]["message"]


def test_junk_alone_is_no_fault(logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "robot.yaml"), "--strict")
    assert (facts["usable"], facts["clean"], facts["code"]) == (4, 4, 0)
