"""Scenario 10: data in GEAR's layout is adapted, and the same command again does nothing."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import av
from commands import wam
from robots import tree_hash
from told import QUIET, words

from schemas.embodiment import load_embodiment
from schemas.stats import Statistics
from schemas.yaml_io import read_yaml
from wamdata.shards import read_clip, read_manifest


def test_a_second_run_repeats_nothing(gear_logs: Path, gear_run: Path, untouched: Callable[[Path], Path]) -> None:
    untouched(gear_logs)
    before = tree_hash(gear_run)
    told = words(wam("adapt", gear_logs, "--out", gear_run, "--recipe", gear_run.with_name("small.yaml"), *QUIET))
    assert "offline only" in told and tree_hash(gear_run) == before
    log = (gear_run / "train/log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in log if "step" in line]
    assert steps == sorted(set(steps)), "a step was trained twice"


def test_slices_are_components_and_statistics_are_of_this_robot(
    gear_logs: Path, gear_run: Path, untouched: Callable[[Path], Path]
) -> None:
    untouched(gear_logs)
    robot = load_embodiment(str(gear_run / "shards.robot.yaml"))
    assert [(c.name, c.width) for c in robot.state] == [("reach", 2), ("bend", 1)]
    assert [c.relative_to for c in robot.action] == ["state.reach", "state.bend"]
    statistics = read_yaml(gear_run / "adapter/export/statistics.json", Statistics)
    assert statistics.embodiment_sha256 == robot.digest()


def test_videos_were_copied_packet_by_packet(
    gear_logs: Path, gear_run: Path, untouched: Callable[[Path], Path]
) -> None:
    untouched(gear_logs)
    manifest = read_manifest(gear_run / "shards")
    key = next(s.key for s in manifest.samples if s.episode == "episode_000001")
    copied = read_clip(gear_run / "shards", manifest, key).videos["wrist"]
    source = gear_logs / "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
    assert packets(io.BytesIO(copied)) == packets(io.BytesIO(source.read_bytes()))


def packets(file: io.BytesIO) -> list[bytes]:
    with av.open(file) as container:
        return [bytes(p) for p in container.demux(video=0) if p.size]
