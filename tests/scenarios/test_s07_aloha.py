"""Scenario 7: a folder of ALOHA's HDF5 files is ingested with an instruction, killed, and ingested again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import wam
from robots import tree_hash
from samples import hdf5
from told import QUIET, words

from schemas.embodiment import Embodiment
from schemas.yaml_io import read_yaml
from wamdata.shards import read_manifest, stream_clips

TASK = "hand the cube over"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return hdf5.aloha(tmp_path)


def ingest(logs: Path, out: Path) -> str:
    return words(wam("ingest", logs, "--out", out, "--task", TASK, "--yes", *QUIET))


def test_three_cameras_grippers_and_words_for_each_episode(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    out = tmp_path / "shards"
    assert "3 of 3 episodes" in ingest(untouched(logs), out)
    manifest = read_manifest(out)
    robot = manifest.embodiment
    assert len(robot.model_cameras) == 3
    assert [(c.name, c.width) for c in robot.model_action] == [
        ("left_arm", 6), ("left_gripper", 1), ("right_arm", 6), ("right_gripper", 1)
    ]  # fmt: skip
    assert {c.kind for c in robot.model_action if "gripper" in c.name} == {"gripper"}
    for clip in stream_clips(out, manifest):
        assert clip.text_at(int(clip.t_ns[0])) == TASK and clip.meta.text[0].origin == "--task"
    assert read_yaml(out.with_name("shards.robot.yaml"), Embodiment).action_width == 14


def test_a_second_run_changes_nothing(logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    untouched(logs)
    first = ingest(logs, tmp_path / "shards")
    before = tree_hash(tmp_path / "shards")
    assert ingest(logs, tmp_path / "shards") == first and tree_hash(tmp_path / "shards") == before


def test_what_a_killed_run_left_is_not_taken_for_complete(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    untouched(logs)
    out = tmp_path / "shards"
    ingest(logs, out)
    before = tree_hash(out)
    (out / "manifest.json").unlink()
    next((out / "parts").iterdir()).unlink()
    tar = next(out.glob("part-*.tar"))
    tar.write_bytes(tar.read_bytes()[:5000])
    refused = wam("show", out)
    assert refused.returncode == 2 and "3 of 3" not in refused.stdout
    ingest(logs, out)
    assert tree_hash(out) == before
