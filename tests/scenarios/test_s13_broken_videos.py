"""Scenario 13: corrupt, cut, empty and copied videos among good ones."""

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from arm_logs import robot_file, take, write_logs
from commands import wam
from told import QUIET, checked, of_code, words

from wamdata.shards import read_manifest


def spoil_a_packet(video: Path, frame: int) -> None:
    with av.open(str(video)) as container:
        at = [p.pos for p in container.demux(video=0) if p.size][frame]
    content = bytearray(video.read_bytes())
    content[at : at + 4] = b"\xff\xff\xff\xff"
    video.write_bytes(content)


def without_frames(video: Path) -> None:
    with av.open(str(video), "w") as file:
        stream = file.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    takes = [take(n, 80) for n in range(7)]
    source = write_logs(tmp_path_factory.mktemp("broken") / "logs", [*takes, takes[0]])
    folder = source / "videos/chunk-000/observation.images.front"
    video = [folder / f"episode_{n:06d}.mp4" for n in range(8)]
    spoil_a_packet(video[1], 45)
    video[2].write_bytes(video[2].read_bytes()[:3000])
    without_frames(video[3])
    video[4].write_bytes(b"")
    return source


def test_each_fault_is_named_with_its_episode(logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    facts = checked(untouched(logs), "--robot", robot_file(tmp_path / "robot.yaml"), "--strict")
    assert (facts["episodes"], facts["usable"], facts["code"]) == (8, 4, 1)
    corrupt = {f["where"]: f["message"] for f in of_code(facts, "corrupt_video")}
    assert set(corrupt) == {f"episode_{n:06d}" for n in (1, 2, 3, 4)}
    assert "frame 45 of 80 is damaged, and 14 frames lean on it" in corrupt["episode_000001"]
    (copy,) = of_code(facts, "duplicate")
    assert (copy["where"], copy["message"]) == ("episode_000007", "holds what episode_000000 holds. Keep one of them")
    assert not of_code(facts, "black_frames") and not of_code(facts, "blank_frames")


def test_the_rest_is_ingested_and_no_frame_was_made_up(
    logs: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    robot, plan, out = robot_file(tmp_path / "robot.yaml"), tmp_path / "fixes.csv", tmp_path / "shards"
    assert wam("check", untouched(logs), "--robot", robot, "--fix-plan", plan, "--quiet").returncode == 0
    told = words(wam("ingest", logs, "--robot", robot, "--labels", plan, "--out", out, *QUIET))
    manifest = read_manifest(out)
    assert {r.episode for r in manifest.rejects} >= {f"episode_{n:06d}" for n in (1, 2, 3, 4)}
    assert {s.episode for s in manifest.samples} >= {f"episode_{n:06d}" for n in (0, 5, 6)}
    assert {s.rows for s in manifest.samples} == {80} and "rejected" in told
