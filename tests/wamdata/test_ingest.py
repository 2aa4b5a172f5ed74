"""Ingest on real logs: what is kept, what is told, what a second run does."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from robots import tree_hash

from schemas.embodiment import BUILT_IN, load_embodiment
from schemas.errors import DataError, UsageError
from schemas.manifest import Manifest
from schemas.recipe import IngestRecipe, TimeBase
from wamdata.fingerprint import source_fingerprint
from wamdata.ingest import ingest
from wamdata.shards import check_key, read_clip, read_manifest, stream_clips, verify_shards
from wamdata.source import Source
from wamdata.windows import cut_windows, on_time_base, window_starts

BASE = TimeBase(chunk_s=0.8, video_fps=10)


def recipe(source: Path, **changes) -> IngestRecipe:
    return IngestRecipe(**{"sources": (str(source),), "robot": "g1_inspire"} | changes)


def few(g1: Path, target: Path, episodes: tuple[int, ...]) -> Path:
    """A copy of the G1 set with some episodes only."""
    shutil.copytree(g1, target)
    rows = [json.loads(line) for line in (target / "meta/episodes.jsonl").read_text().splitlines()]
    kept = [r for r in rows if r["episode_index"] in episodes]
    (target / "meta/episodes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    for file in (*target.rglob("episode_*.parquet"), *target.rglob("episode_*.mp4")):
        if int(file.stem.split("_")[1]) not in episodes:
            file.unlink()
    info = json.loads((target / "meta/info.json").read_text())
    info["total_episodes"], info["total_frames"] = len(kept), sum(r["length"] for r in kept)
    (target / "meta/info.json").write_text(json.dumps(info))
    return target


def test_every_episode_is_in_a_shard_or_counted_under_a_reason(g1_shards: Path) -> None:
    manifest = read_manifest(g1_shards)
    assert (manifest.source_episodes, manifest.episodes) == (17, 16)
    assert [(r.episode, r.reason) for r in manifest.rejects] == [("episode_000003", "missing_video")]
    verify_shards(g1_shards, manifest)


def test_only_chosen_episodes_are_ingested(g1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = few(g1, tmp_path / "logs", (1, 2, 3))
    manifest = ingest(recipe(source, where="cameras = 1 AND rows < 360"), tmp_path / "out", executor="local")
    assert {s.episode for s in manifest.samples} == {"episode_000002"} and manifest.source_episodes == 1
    assert "1 of 3 episodes chosen by" in next(f.message for f in manifest.findings if f.code == "where")
    with pytest.raises(UsageError, match="--where 'rows > 9999': holds for no episode"):
        ingest(recipe(source, where="rows > 9999"), tmp_path / "none", executor="local")


def test_a_recording_is_cut_into_episodes_and_counted_as_such(g1: Path, tmp_path: Path) -> None:
    """The G1's fingers are opened and closed in one episode: made up rule, real rows."""
    source = few(g1, tmp_path / "logs", (1, 2))
    robot = yaml.safe_load((BUILT_IN / "g1_inspire.yaml").read_text())
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(robot | {"episodes": {"split_on": "timestamp_third"}}))
    manifest_of = lambda: ingest(  # noqa: E731
        recipe(source, robot=str(tmp_path / "robot.yaml")), tmp_path / "out", executor="local"
    )
    with pytest.raises(DataError, match="`episodes` names stream 'timestamp_third', the log has"):
        manifest_of()
    for index in (1, 2):
        rows = source / f"data/chunk-000/episode_{index:06d}.parquet"
        table = pq.ParquetFile(rows).read()
        third = [[float(row // 120)] for row in range(table.num_rows)]
        pq.write_table(table.append_column("timestamp_third", pa.array(third)), rows)
    manifest = manifest_of()
    pieces = {s.episode: s.rows for s in manifest.samples}
    assert pieces["episode_000001-000"] == 120 and pieces["episode_000001-003"] == 393 - 360 and len(pieces) == 7
    assert (manifest.source_episodes, manifest.episodes) == (7, 7)
    assert len({s.split for s in manifest.samples if s.episode.startswith("episode_000001")}) == 1


def test_a_source_is_never_written_to(g1: Path, g1_shards: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 3))
    before = tree_hash(source)
    ingest(recipe(source), tmp_path / "out", executor="local")
    assert tree_hash(source) == before


def test_rows_and_packets_are_kept_as_logged(g1: Path, g1_shards: Path) -> None:
    manifest = read_manifest(g1_shards)
    key = next(s.key for s in manifest.samples if s.episode == "episode_000010")
    clip = read_clip(g1_shards, manifest, key)
    table = pq.read_table(g1 / "data/chunk-000/episode_000010.parquet")
    logged = np.array(table["observation.state"].to_pylist(), np.float32)
    assert np.array_equal(clip.streams["observation.state"].values, logged)
    assert np.array_equal(clip.state, logged)  # radians and fractions: mapping changes nothing here
    source = g1 / "videos/chunk-000/observation.images.cam_high/episode_000010.mp4"
    assert abs(len(clip.videos["head"]) - source.stat().st_size) < 20_000  # packets copied, not encoded again


def test_a_windows_frames_are_the_sources_frames(g1: Path, g1_shards: Path) -> None:
    import av

    robot, manifest = load_embodiment("g1_inspire"), read_manifest(g1_shards)
    key = next(s.key for s in manifest.samples if s.episode == "episode_000013")
    clip = read_clip(g1_shards, manifest, key)
    rows = on_time_base(clip, robot, BASE)
    start = window_starts(clip, rows, BASE, stride=50)[1]
    window = next(cut_windows(clip, rows, [start], robot, BASE))
    with av.open(str(g1 / "videos/chunk-000/observation.images.cam_high/episode_000013.mp4")) as container:
        frames = [
            f.to_ndarray(format="rgb24") for _, f in zip(range(start + 97), container.decode(video=0), strict=False)
        ]
    expected = np.stack([frames[start + 3 * i] for i in range(33)])
    assert window.frames["head"].shape == expected.shape
    difference = np.abs(window.frames["head"].astype(int) - expected.astype(int))
    assert difference.max() <= 2  # another colour conversion of the same decoded frame, at most


def test_a_second_run_repeats_nothing_and_gives_the_same_bytes(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 3, 4))
    first = ingest(recipe(source), tmp_path / "a", executor="local")
    seen: list = []
    again = ingest(recipe(source), tmp_path / "a", executor="local", on_progress=seen.append)
    other = ingest(recipe(source), tmp_path / "b", executor="local")
    assert first == again == other and not seen
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b")


def test_shards_do_not_depend_on_where_the_source_lies(g1: Path, tmp_path: Path) -> None:
    for place in ("here", "there"):
        source = few(g1, tmp_path / place / "logs", (1, 2, 3))
        ingest(recipe(source), tmp_path / place / "out", executor="local")
        (tmp_path / place / "out/recipe.yaml").unlink()  # the one file that says where
    assert tree_hash(tmp_path / "here/out") == tree_hash(tmp_path / "there/out")


def test_what_a_killed_run_left_is_finished_to_the_same_bytes(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 4, 5, 7, 8))
    one_each = recipe(source, episodes_per_part=1)
    ingest(one_each, tmp_path / "whole", executor="local")
    for parts in (1, 3, 5):
        ingest(one_each, tmp_path / "cut", executor="local")
        (tmp_path / "cut/manifest.json").unlink()
        for record in sorted((tmp_path / "cut/parts").iterdir())[parts:]:
            record.unlink()
        (tmp_path / "cut/part-000005-00.tar").rename(tmp_path / "cut/part-000005-00.tar.partial")
        ingest(one_each, tmp_path / "cut", executor="local")
        (tmp_path / "cut/part-000005-00.tar.partial").unlink(missing_ok=True)
        assert tree_hash(tmp_path / "cut") == tree_hash(tmp_path / "whole")


def test_a_killed_process_loses_nothing(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 4, 5, 7, 8, 11, 12))
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom schemas.recipe import IngestRecipe\n"
        "from wamdata.ingest import ingest\n"
        f"r = IngestRecipe(sources=({str(source)!r},), robot='g1_inspire', episodes_per_part=1)\n"
        "def stop(p):\n    if p.parts_done == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"ingest(r, Path({str(tmp_path / 'cut')!r}), executor='local', on_progress=stop)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "cut/manifest.json").exists()
    seen: list = []
    ingest(recipe(source, episodes_per_part=1), tmp_path / "cut", executor="local", on_progress=seen.append)
    ingest(recipe(source, episodes_per_part=1), tmp_path / "whole", executor="local")
    assert seen[0].parts_done == 3, "finished parts were done again"
    assert tree_hash(tmp_path / "cut") == tree_hash(tmp_path / "whole")


@pytest.mark.slow
def test_ray_and_this_process_write_the_same_bytes(g1: Path, g1_shards: Path, tmp_path: Path) -> None:
    ingest(recipe(g1), tmp_path / "ray", executor="ray")
    assert tree_hash(tmp_path / "ray") == tree_hash(g1_shards)


def test_another_recipe_or_a_changed_source_is_refused(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 3, 4))
    ingest(recipe(source), tmp_path / "out", executor="local")
    with pytest.raises(UsageError, match="the recipe .task: None is now 'wave'. changed"):
        ingest(recipe(source, task="wave"), tmp_path / "out", executor="local")
    with (source / "data/chunk-000/episode_000001.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match="the content of"):
        ingest(recipe(source), tmp_path / "out", executor="local")


def test_a_foreign_folder_is_not_written_into(g1: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt'"):
        ingest(recipe(g1), tmp_path, executor="local")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_second_ingest_on_the_same_output_is_refused(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 3))

    def start_another(progress) -> None:
        with pytest.raises(UsageError, match="another wam is writing here"):
            ingest(recipe(source), tmp_path / "out", executor="local")

    ingest(recipe(source), tmp_path / "out", executor="local", on_progress=start_another)


def test_when_nothing_is_usable_the_reason_is_given_and_nothing_is_left(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (3,))
    with pytest.raises(DataError, match="none of 1 episodes of logs can be used .1 missing_video"):
        ingest(recipe(source), tmp_path / "out", executor="local")
    assert not (tmp_path / "out").exists()


def test_broken_files_are_named_and_the_rest_is_kept(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 4, 5))
    rows = source / "data/chunk-000/episode_000001.parquet"
    rows.write_bytes(rows.read_bytes()[:5000])
    video = source / "videos/chunk-000/observation.images.cam_high/episode_000002.mp4"
    video.write_bytes(video.read_bytes()[:20_000])
    pointer = source / "videos/chunk-000/observation.images.cam_high/episode_000004.mp4"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    manifest = ingest(recipe(source), tmp_path / "out", executor="local")
    assert manifest.episodes == 1
    reasons = {r.episode: r.reason for r in manifest.rejects}
    assert reasons == {
        "episode_000001": "unreadable",
        "episode_000002": "corrupt_video",
        "episode_000004": "lfs_pointer",
    }


def test_blank_instructions_are_refused_unless_one_is_given(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2))
    (source / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "  "}\n')
    rows = [json.loads(line) | {"tasks": [""]} for line in (source / "meta/episodes.jsonl").read_text().splitlines()]
    (source / "meta/episodes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(DataError, match=r"none of 2 episodes .* can be used \(2 blank_text\).*--task"):
        ingest(recipe(source), tmp_path / "out", executor="local")
    manifest = ingest(recipe(source, task="pick it up"), tmp_path / "out", executor="local")
    clip = next(stream_clips(tmp_path / "out", manifest))
    assert clip.text_at(int(clip.t_ns[0])) == "pick it up" and clip.meta.text[0].origin == "--task"


def test_a_copied_episode_is_named_and_kept_in_one_part(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 4, 5, 7, 8))
    for pattern in ("data/chunk-000/episode_{}.parquet", "videos/chunk-000/observation.images.cam_high/episode_{}.mp4"):
        shutil.copyfile(source / pattern.format("000001"), source / pattern.format("000099"))
    with (source / "meta/episodes.jsonl").open("a") as file:
        file.write(
            json.dumps({"episode_index": 99, "tasks": ["Pick up the yellow bottle on the table."], "length": 393})
            + "\n"
        )
    manifest = ingest(recipe(source), tmp_path / "out", executor="local")
    split = {s.episode: s.split for s in manifest.samples}
    assert split["episode_000001"] == split["episode_000099"]
    assert any(f.code == "duplicate" and "episode_000099" in f.message for f in manifest.findings)


def test_a_fingerprint_tells_content_not_time(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1,))
    before = source_fingerprint(Source.at(source))
    os.utime(source / "meta/info.json", (0, 0))
    assert source_fingerprint(Source.at(source)) == before
    (source / "meta/info.json").write_text((source / "meta/info.json").read_text() + " ")
    assert source_fingerprint(Source.at(source)) != before


def test_plain_webdataset_and_datasets_read_the_shards(g1_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import webdataset

    # datasets imports torchcodec for every video column, which needs system FFmpeg libraries; we need none.
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", False)
    manifest: Manifest = read_manifest(g1_shards)
    urls = [str(g1_shards / s.name) for s in manifest.shards]
    keys = [s["__key__"] for s in webdataset.WebDataset(urls, shardshuffle=False).decode()]
    assert keys == [s.key for s in manifest.samples]
    table = datasets.load_dataset("webdataset", data_files=urls, split="train", streaming=True)
    table = table.cast_column("head.mp4", datasets.Video(decode=False))
    rows = list(table)
    assert len(rows) == 16 and rows[0]["json"]["embodiment"] == "g1_inspire"


def test_a_truncated_shard_is_named(g1_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(g1_shards, tmp_path / "shards")
    manifest = read_manifest(tmp_path / "shards")
    shard = tmp_path / "shards" / manifest.shards[0].name
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=manifest.shards[0].name):
        verify_shards(tmp_path / "shards", manifest)
    shard.write_bytes(content[:10_000])
    with pytest.raises(DataError, match="10000 bytes"):
        read_manifest(tmp_path / "shards")


@pytest.mark.parametrize("key", ["a.b", "", "a/b", "ä"])
def test_a_key_that_webdataset_would_split_is_refused(key: str) -> None:
    with pytest.raises(DataError, match="may hold only"):
        check_key(key)


def test_shards_are_not_written_into_their_source(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 3))
    with pytest.raises(UsageError, match="lies inside the source"):
        ingest(recipe(source), source / "shards", executor="local")
    assert not (source / "shards").exists()


def test_the_same_data_given_twice_is_refused(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2))
    twice = recipe(source).model_copy(update={"sources": (str(source), str(source))})
    with pytest.raises(UsageError, match="given twice"):
        ingest(twice, tmp_path / "out", executor="local")


def test_a_part_whose_shard_is_gone_is_made_again(g1: Path, tmp_path: Path) -> None:
    source = few(g1, tmp_path / "logs", (1, 2, 4))
    ingest(recipe(source, episodes_per_part=1), tmp_path / "out", executor="local")
    before = tree_hash(tmp_path / "out")
    (tmp_path / "out/manifest.json").unlink()
    (tmp_path / "out/part-000001-00.tar").unlink()
    ingest(recipe(source, episodes_per_part=1), tmp_path / "out", executor="local")
    assert tree_hash(tmp_path / "out") == before


def test_a_rotation_added_to_the_robots_file_turns_the_frames_at_load(g1_shards: Path) -> None:
    plain, manifest = load_embodiment("g1_inspire"), read_manifest(g1_shards)
    turned = plain.model_copy(update={"cameras": (plain.cameras[0].model_copy(update={"rotate": 180}),)})
    clip = read_clip(g1_shards, manifest, manifest.samples[0].key)
    rows = on_time_base(clip, plain, BASE)
    upright = next(cut_windows(clip, rows, [0], plain, BASE)).frames["head"]
    upside = next(cut_windows(clip, rows, [0], turned, BASE)).frames["head"]
    assert np.array_equal(upside, upright[:, ::-1, ::-1])
