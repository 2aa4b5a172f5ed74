"""LeRobot v2.1 (real) and v3.0 (written by lerobot, which is also the oracle), and every defect seen in the wild."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from schemas.episode import Episode, Finding, Pictures
from schemas.errors import DataError
from wamdata.footage import frames
from wamdata.readers.lerobot import reader as lerobot
from wamdata.readers.lerobot.meta import column_names, declared_size
from wamdata.source import Source
from wamdata.video import read_frames

CAMERA = "observation.images.cam_high"
VIDEO = f"videos/chunk-000/{CAMERA}/episode_{{:06d}}.mp4"
ROWS = "data/chunk-000/episode_{:06d}.parquet"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def two(tmp_path: Path, g1: Path) -> Path:
    """Episodes 1 and 2 of the G1, to be damaged."""
    root = tmp_path / "g1"
    (root / "meta").mkdir(parents=True)
    for name in ("meta/tasks.jsonl", "LICENSE", *(t.format(i) for t in (VIDEO, ROWS) for i in (1, 2))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(g1 / name, root / name)
    lines = (g1 / "meta/episodes.jsonl").read_text().splitlines()[:2]
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    info = json.loads((g1 / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_episodes": 2, "total_frames": 393 + 343}))
    return root


def change_info(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def change_rows(root: Path, episode: int, change: Callable[[pa.Table], pa.Table]) -> None:
    path = root / ROWS.format(episode)
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def read_one(root: Path, place: int = 0) -> Episode:
    return lerobot.read(lerobot.list_episodes(Source.at(root)).episodes[place])


def the(code: str, findings: tuple[Finding, ...]) -> Finding:
    (found,) = [f for f in findings if f.code == code]
    return found


# --- as logged ---------------------------------------------------------------------------------------------------


def test_g1_rows_are_the_parquet_rows(g1: Path) -> None:
    episode = read_one(g1, 7)
    table = pq.ParquetFile(g1 / ROWS.format(10)).read()
    assert episode.key == "episode_000010" and set(episode.streams) == {"observation.state", "action"}
    for name, stream in episode.streams.items():
        assert np.array_equal(stream.values, np.array(table[name].to_pylist(), np.float32))
        assert stream.columns[0] == "kLeftShoulderPitch" and len(stream.columns) == 26
    seconds = table["timestamp"].to_numpy().astype(np.float64)
    assert np.array_equal(episode.streams["action"].t_ns, np.round(seconds * 1e9).astype(np.int64))


def test_g1_frames_lie_on_the_clock_of_the_rows(g1: Path) -> None:
    episode = read_one(g1, 7)
    video = episode.videos[CAMERA]
    assert (video.codec, video.width, video.height, video.first_frame) == ("av1", 640, 480, 0)
    assert np.abs(video.t_ns - episode.streams["action"].t_ns).max() < 1000
    assert episode.findings == ()


def test_g1_says_its_task_licence_robot_and_rate(g1: Path) -> None:
    listing = lerobot.list_episodes(Source.at(g1))
    assert listing.hints == {"robot_type": "Unitree_G1_Inspire", "fps": "30", "licence": "MIT", "version": "v2.1"}
    assert len(listing.episodes) == 17 and listing.findings == ()
    episode = lerobot.read(listing.episodes[0])
    (text,) = episode.texts
    assert text.text == "Pick up the yellow bottle on the table." and text.start_ns == 0
    assert text.stop_ns > episode.streams["action"].t_ns[-1]
    assert episode.licence == "MIT" and episode.session == episode.key


def test_a_video_of_another_size_than_declared_is_taken_at_its_word(g1: Path) -> None:
    episode = read_one(g1)
    assert (episode.videos[CAMERA].width, episode.videos[CAMERA].height) == (192, 144)
    finding = the("size_mismatch", episode.findings)
    assert finding.severity == "info" and "is 192x144, info.json declares 640x480" in finding.message


# --- v3.0 against lerobot ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle(lerobot_v3: Path) -> list[dict[str, Any]]:
    """Each episode as lerobot reads it: the first row with all rows and frames that follow it, (N, ...) arrays."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    names = ("observation.state", "action", "observation.images.front", "observation.images.wrist")
    longest = {name: [i / 20 for i in range(124)] for name in names}
    data = LeRobotDataset("local/synthetic_arm", root=lerobot_v3, video_backend="pyav", delta_timestamps=longest)
    seconds = data.hf_dataset.with_format("numpy")["timestamp"][:]
    spans = zip(data.meta.episodes["dataset_from_index"], data.meta.episodes["dataset_to_index"], strict=True)
    return [
        {k: v.numpy() if hasattr(v, "numpy") else v for k, v in data[int(a)].items()} | {"timestamp": seconds[a:b]}
        for a, b in spans
    ]


def test_v3_equals_lerobot_row_for_row_and_frame_for_frame(lerobot_v3: Path, oracle: list[dict[str, Any]]) -> None:
    refs = lerobot.list_episodes(Source.at(lerobot_v3)).episodes
    assert len(refs) == len(oracle)
    for ref, theirs in zip(refs, oracle, strict=True):
        episode = lerobot.read(ref)
        assert episode.findings == ()
        for name, stream in episode.streams.items():
            assert np.array_equal(stream.values, theirs[name][: ref.rows])
        seconds = np.asarray(theirs["timestamp"], np.float64)
        assert np.array_equal(episode.streams["action"].t_ns, np.round(seconds * 1e9).astype(np.int64))
        assert [t.text for t in episode.texts] == [theirs["task"]]
        for camera, video in episode.videos.items():
            assert np.abs(video.t_ns - episode.streams["action"].t_ns).max() < 1000
            ours = read_frames(video.path, video.first_frame + np.arange(len(video.t_ns)))
            pixels = np.round(theirs[camera][: ref.rows] * 255).astype(np.uint8).transpose(0, 2, 3, 1)
            assert np.array_equal(ours, pixels), (ref.key, camera)


def test_v3_says_what_it_is(lerobot_v3: Path) -> None:
    listing = lerobot.list_episodes(Source.at(lerobot_v3))
    assert listing.hints == {"robot_type": "synthetic_arm", "fps": "20", "licence": "unknown", "version": "v3.0"}
    assert listing.findings == ()
    assert [ref.rows for ref in listing.episodes] == [120, 121, 122, 123, 124]
    assert read_one(lerobot_v3).streams["action"].columns[-1] == "gripper"


def change_v3_episodes(source: Path, target: Path, change: Callable[[list[dict]], None]) -> Path:
    shutil.copytree(source, target)
    path = target / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.ParquetFile(path).read()
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return target


def test_v3_with_ends_at_the_last_frame_loses_no_frame(lerobot_v3: Path, tmp_path: Path) -> None:
    def one_frame_short(rows: list[dict]) -> None:
        for row in rows:
            for key in row:
                if key.endswith("/to_timestamp"):
                    row[key] -= 1 / 20

    root = change_v3_episodes(lerobot_v3, tmp_path / "v3", one_frame_short)
    for ref in lerobot.list_episodes(Source.at(root)).episodes:
        episode = lerobot.read(ref)
        assert {len(v.t_ns) for v in episode.videos.values()} == {ref.rows}


def test_v3_frames_are_never_taken_from_the_next_episode(lerobot_v3: Path, tmp_path: Path) -> None:
    def starts_early(rows: list[dict]) -> None:
        rows[1]["videos/observation.images.front/from_timestamp"] -= 3 / 20

    root = change_v3_episodes(lerobot_v3, tmp_path / "v3", starts_early)
    episode = read_one(root)
    assert len(episode.videos["observation.images.front"].t_ns) == 117
    assert "117 frames for 120 rows" in the("frame_count", episode.findings).message


def test_v3_episode_beyond_the_end_of_its_video_lacks_that_camera(lerobot_v3: Path, tmp_path: Path) -> None:
    def far_away(rows: list[dict]) -> None:
        rows[4]["videos/observation.images.front/from_timestamp"] = 900.0
        rows[4]["videos/observation.images.front/to_timestamp"] = 906.0

    episode = read_one(change_v3_episodes(lerobot_v3, tmp_path / "v3", far_away), 4)
    assert list(episode.videos) == ["observation.images.wrist"]
    assert "holds no frames of 900.000 s to 906.000 s" in the("corrupt_video", episode.findings).message


def test_v3_rows_of_an_episode_that_is_not_there_are_asked_for(lerobot_v3: Path, tmp_path: Path) -> None:
    def renumber(rows: list[dict]) -> None:
        rows[2]["episode_index"] = 77

    root = change_v3_episodes(lerobot_v3, tmp_path / "v3", renumber)
    with pytest.raises(DataError, match=r"file-000\.parquet: holds no rows of episode_000077"):
        read_one(root, 4)


@pytest.fixture
def one_group(lerobot_v3: Path, tmp_path: Path) -> Path:
    """The v3 set with the rows of all episodes in a single row group, as older writers leave them."""
    root = tmp_path / "v3"
    shutil.copytree(lerobot_v3, root)
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.ParquetFile(path).read(), path)
    return root


def test_v3_episodes_in_one_row_group_are_told_apart(lerobot_v3: Path, one_group: Path) -> None:
    assert pq.ParquetFile(lerobot_v3 / "data/chunk-000/file-000.parquet").num_row_groups == 5
    for place in range(5):
        assert read_one(one_group, place).source_sha256 == read_one(lerobot_v3, place).source_sha256


def test_v3_rows_that_do_not_stand_together_are_refused(one_group: Path) -> None:
    path = one_group / "data/chunk-000/file-000.parquet"
    table = pq.ParquetFile(path).read()
    pq.write_table(pa.concat_tables([table.slice(300, 310), table.slice(0, 300)]), path)
    with pytest.raises(DataError, match="the rows of episode 2 do not stand together"):
        read_one(one_group, 2)


def test_v3_task_text_may_stand_in_a_plain_column(lerobot_v3: Path, tmp_path: Path) -> None:
    root = tmp_path / "v3"
    shutil.copytree(lerobot_v3, root)
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["Wave.", "Point."]}), root / "meta/tasks.parquet")
    assert [read_one(root, i).texts[0].text for i in (0, 1)] == ["Wave.", "Point."]


# --- videos that are not there ------------------------------------------------------------------------------------


def test_a_missing_video_is_a_finding_and_the_rows_are_kept(g1: Path) -> None:
    episode = read_one(g1, 2)
    assert episode.key == "episode_000003" and episode.videos == {}
    assert len(episode.streams["action"].t_ns) == 459
    finding = the("missing_video", episode.findings)
    assert finding.where == "episode_000003" and "episode_000003.mp4 is missing" in finding.message
    assert CAMERA in finding.message


def test_a_video_pointer_says_git_lfs_pull(two: Path) -> None:
    (two / VIDEO.format(1)).write_bytes(POINTER)
    finding = the("lfs_pointer", read_one(two).findings)
    assert "episode_000001.mp4 is a Git-LFS pointer" in finding.message and "git lfs pull" in finding.message


def test_a_truncated_video_is_a_finding(two: Path) -> None:
    path = two / VIDEO.format(1)
    path.write_bytes(path.read_bytes()[:20_000])
    episode = read_one(two)
    assert episode.videos == {}
    assert "episode_000001.mp4: not a readable video" in the("corrupt_video", episode.findings).message


def test_other_frame_counts_and_rates_than_declared_are_findings(two: Path) -> None:
    change_rows(two, 1, lambda table: table.slice(0, 300))
    change_info(two, lambda info: info.update(fps=15))
    episode = read_one(two)
    assert "393 frames for 300 rows" in the("frame_count", episode.findings).message
    messages = [f.message for f in episode.findings if f.code == "fps_mismatch"]
    assert any("rows run at 30.000 Hz, info.json declares 15" in m for m in messages)
    assert any("runs at 30.000 frames/s, info.json declares 15" in m for m in messages)
    assert "300 rows, the list of episodes says 393" in the("count_mismatch", episode.findings).message


def test_a_folder_named_video_is_accepted(two: Path) -> None:
    (two / "videos").rename(two / "video")
    assert "the folder is `video/`" in the("folder_name", lerobot.list_episodes(Source.at(two)).findings).message
    assert CAMERA in read_one(two).videos


def test_a_camera_declared_without_files_is_missing(two: Path) -> None:
    change_info(two, lambda info: info["features"].update({"observation.images.ego": {"dtype": "video"}}))
    episode = read_one(two)
    assert list(episode.videos) == [CAMERA]
    assert the("missing_video", episode.findings).message.startswith("observation.images.ego: ")


# --- rows --------------------------------------------------------------------------------------------------------


def test_a_truncated_parquet_names_the_file(two: Path) -> None:
    path = two / ROWS.format(1)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"episode_000001\.parquet: not readable as parquet .*Copy it again"):
        read_one(two)


def test_a_missing_parquet_is_counted_in_the_listing_and_fails_to_read(two: Path) -> None:
    (two / ROWS.format(2)).unlink()
    finding = the("missing_data", lerobot.list_episodes(Source.at(two)).findings)
    assert "1 of 2 episodes have no rows: data/chunk-000/episode_000002.parquet" in finding.message
    with pytest.raises(DataError, match=r"episode_000002\.parquet: missing"):
        read_one(two, 1)


def test_a_parquet_pointer_says_git_lfs_pull(two: Path) -> None:
    (two / ROWS.format(1)).write_bytes(POINTER)
    assert (
        "1 of 2 data files are Git-LFS pointers"
        in the("lfs_pointer", lerobot.list_episodes(Source.at(two)).findings).message
    )
    with pytest.raises(DataError, match=r"episode_000001\.parquet: a Git-LFS pointer.*git lfs pull"):
        read_one(two)


def test_rows_without_timestamps_are_counted(two: Path) -> None:
    change_rows(two, 1, lambda table: table.drop_columns(["timestamp"]))
    episode = read_one(two)
    assert episode.streams["action"].t_ns[:3].tolist() == [0, 33333333, 66666667]
    assert "times are frame_index / 30" in the("no_timestamp", episode.findings).message
    change_rows(two, 1, lambda table: table.drop_columns(["frame_index"]))
    assert "times are row / 30" in the("no_timestamp", read_one(two).findings).message


def test_time_that_stands_still_names_the_row(two: Path) -> None:
    def stall(table: pa.Table) -> pa.Table:
        seconds = table["timestamp"].to_numpy().copy()
        seconds[40] = seconds[39]
        return table.set_column(table.schema.get_field_index("timestamp"), "timestamp", pa.array(seconds))

    change_rows(two, 1, stall)
    with pytest.raises(DataError, match=r"timestamp goes from 1\.3000 s to 1\.3000 s at row 40"):
        read_one(two)


def test_the_clock_starts_where_the_log_starts(two: Path) -> None:
    def late(table: pa.Table) -> pa.Table:
        seconds = table["timestamp"].to_numpy() + np.float32(1 / 30)
        return table.set_column(table.schema.get_field_index("timestamp"), "timestamp", pa.array(seconds))

    change_rows(two, 1, late)
    episode = read_one(two)
    assert abs(int(episode.streams["action"].t_ns[0]) - 33_333_333) < 10
    assert episode.videos[CAMERA].t_ns[0] == 0


def test_columns_of_numbers_become_streams_and_counters_do_not(two: Path) -> None:
    def more(table: pa.Table) -> pa.Table:
        rows = table.num_rows
        grid = pa.array([[[1.0, 2.0], [3.0, 4.0]]] * rows)
        for name, column in (
            ("next.reward", pa.array(np.zeros(rows))),
            ("action.mode", pa.array([3] * rows)),
            ("keys", pa.array([[1, 2]] * rows)),
            ("lap_index", pa.array([7] * rows)),
            ("grid", grid),
            ("ragged", pa.array([[1.0]] + [[1.0, 2.0]] * (rows - 1))),
            ("word", pa.array(["a"] * rows)),
        ):
            table = table.append_column(name, column)
        return table

    change_rows(two, 1, more)
    episode = read_one(two)
    widths = {name: stream.values.shape[1] for name, stream in episode.streams.items()}
    assert widths == {
        "observation.state": 26, "action": 26, "next.reward": 1, "action.mode": 1, "keys": 2, "grid": 4,
    }  # fmt: skip
    assert episode.streams["grid"].values[0].tolist() == [1, 2, 3, 4]
    assert "'ragged'" in the("ragged_column", episode.findings).message


def coded(colour: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (colour, 40, 200)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "codec"), [("PNG", "png"), ("JPEG", "mjpeg")])
def test_pictures_inside_parquet_keep_their_bytes(two: Path, kind: str, codec: str) -> None:
    cells = [{"bytes": coded(row % 250, kind), "path": None} for row in range(393)]
    change_rows(two, 1, lambda table: table.append_column("observation.images.side", pa.array(cells)))
    episode = read_one(two)
    side = episode.videos["observation.images.side"]
    assert isinstance(side, Pictures) and (side.codec, side.width, side.height) == (codec, 32, 24)
    assert side.load(7, 9) == [cells[7]["bytes"], cells[8]["bytes"]]
    assert np.array_equal(side.t_ns, episode.streams["action"].t_ns)
    assert abs(frames(side, [200])[0, 5, 5, 0].astype(int) - 200) < 4


def test_pictures_of_an_episode_in_a_shared_file_are_its_own(lerobot_v3: Path, tmp_path: Path) -> None:
    root = tmp_path / "v3"
    shutil.copytree(lerobot_v3, root)
    (data,) = (root / "data").rglob("*.parquet")
    table = pq.ParquetFile(data).read()
    index = table["episode_index"].to_pylist()
    cells = pa.array([{"bytes": coded(40 * e), "path": None} for e in index])
    pq.write_table(table.append_column("side", cells), data, row_group_size=50)
    for place in range(5):
        side = read_one(root, place).videos["side"]
        last = len(side.t_ns) - 1
        assert frames(side, [0, last])[:, 0, 0, 0].tolist() == [40 * place] * 2


def test_pictures_beside_the_parquet_are_found_by_their_path(two: Path) -> None:
    folder = two / "images/observation.images.side/episode_000001"
    folder.mkdir(parents=True)
    (folder / "frame_000000.png").write_bytes(coded(9))
    cells = [{"bytes": None, "path": "/rec/set/images/observation.images.side/episode_000001/frame_000000.png"}]
    change_rows(two, 1, lambda table: table.append_column("observation.images.side", pa.array(cells * 393)))
    assert frames(read_one(two).videos["observation.images.side"], [5])[0, 0, 0, 0] == 9


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ({"bytes": None, "path": "../../etc/passwd"}, "has no picture in row 0"),
        ({"bytes": b"GIF89a", "path": None}, "neither JPEG nor PNG (starts with 47494638)"),
    ],
)
def test_pictures_that_cannot_be_shown_are_a_finding(two: Path, cell: dict[str, Any], says: str) -> None:
    change_rows(two, 1, lambda table: table.append_column("side", pa.array([cell] * 393)))
    episode = read_one(two)
    assert says in the("corrupt_video", episode.findings).message and "side" not in episode.videos
    change_info(two, lambda info: info["features"].update({"top": {"dtype": "image"}}))
    found = [f.message for f in read_one(two).findings if f.code == "missing_video"]
    assert found and "top: info.json declares pictures" in found[0]


# --- half-converted sets -----------------------------------------------------------------------------------------


def test_a_v2_list_beside_a_v3_file_of_rows_finds_each_episode(two: Path) -> None:
    before = [read_one(two, place).source_sha256 for place in (0, 1)]
    tables = [pq.ParquetFile(two / ROWS.format(i)).read() for i in (1, 2)]
    for index in (1, 2):
        (two / ROWS.format(index)).unlink()
    pq.write_table(pa.concat_tables(tables), two / "data/chunk-000/file-000.parquet")
    change_info(two, lambda info: info.update(data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"))
    listing = lerobot.list_episodes(Source.at(two))
    assert "2 of 2 episodes lie elsewhere" in the("mixed_layout", listing.findings).message
    assert [lerobot.read(ref).source_sha256 for ref in listing.episodes] == before
    assert len(lerobot.read(listing.episodes[0]).videos) == 1


def test_a_v3_list_beside_files_of_v2_finds_each_episode(lerobot_v3: Path, tmp_path: Path) -> None:
    root = tmp_path / "v3"
    shutil.copytree(lerobot_v3, root)
    (data,) = (root / "data").rglob("*.parquet")
    table = pq.ParquetFile(data).read()
    index = np.array(table["episode_index"].to_pylist())
    for episode in range(5):
        rows = np.flatnonzero(index == episode)
        pq.write_table(table.slice(rows[0], len(rows)), data.with_name(f"episode_{episode:06d}.parquet"))
    data.unlink()
    listing = lerobot.list_episodes(Source.at(root))
    assert "5 of 5 episodes lie elsewhere" in the("mixed_layout", listing.findings).message
    for place, ref in enumerate(listing.episodes):
        assert lerobot.read(ref).source_sha256 == read_one(lerobot_v3, place).source_sha256


# --- language columns (v3.1) -------------------------------------------------------------------------------------


def said(content: str, style: str | None, at: float | None = None, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content, "style": style, "timestamp": at, "camera": None, "tool_calls": None}


def with_language(table: pa.Table, persistent: list[dict], events: dict[int, list[dict]]) -> pa.Table:
    fields = ("role", "content", "style")
    entry = pa.struct([*((n, pa.string()) for n in fields), ("timestamp", pa.float32()), ("camera", pa.string()),
                       ("tool_calls", pa.string())])  # fmt: skip
    rows = table.num_rows
    table = table.append_column("language_persistent", pa.array([persistent] * rows, pa.list_(entry)))
    return table.append_column("language_events", pa.array([events.get(r, []) for r in range(rows)], pa.list_(entry)))


def test_subtasks_hold_until_the_next_one_beside_the_task(two: Path) -> None:
    persistent = [said("reach", "subtask", 0.0), said("grasp", "subtask", 4.0), said("go on", "plan", 0.0)]
    change_rows(two, 1, lambda table: with_language(table, persistent, {300: [said("lift", "subtask")]}))
    episode = read_one(two)
    spans = [(t.text, t.level, round(t.start_ns / 1e9, 2), round(t.stop_ns / 1e9, 2)) for t in episode.texts]
    start, end = round(episode.streams["action"].t_ns[0] / 1e9, 2), spans[0][3]
    assert spans[0][:2] == ("Pick up the yellow bottle on the table.", "task")
    assert spans[1:] == [
        ("reach", "subtask", start, 4.0), ("grasp", "subtask", 4.0, 10.0), ("lift", "subtask", 10.0, end),
    ]  # fmt: skip
    assert "1 plan" in the("language_left_out", episode.findings).message


def test_a_task_in_the_language_columns_stands_for_the_lists(two: Path) -> None:
    persistent = [said("Fetch the bottle.", "task", 0.0), said("Yes.", None, 0.0, role="assistant")]
    change_rows(two, 1, lambda table: with_language(table, persistent, {}))
    (text,) = read_one(two).texts
    assert (text.text, text.origin) == ("Fetch the bottle.", "language_persistent")


def test_a_wrong_number_of_names_leaves_the_columns_unnamed(two: Path) -> None:
    change_info(two, lambda info: info["features"]["action"].update(names=["a", "b"]))
    episode = read_one(two)
    assert episode.streams["action"].columns == ()
    assert "2 names for the 26 columns of 'action'" in the("column_names", episode.findings).message


@pytest.mark.parametrize(
    ("names", "flat"),
    [
        (["x", "y"], ["x", "y"]),
        ([["x", "y"]], ["x", "y"]),
        ({"motors": ["x", "y"]}, ["x", "y"]),
        ({"left": ["x"], "right": ["y"]}, ["x", "y"]),
        ({"left": ["x"], "right": ["x"]}, ["left.x", "right.x"]),
        ({"y": 1, "x": 0}, ["x", "y"]),
        (None, []),
        ("x", ["x"]),
        ([], []),
    ],
)
def test_names_come_flat_from_every_shape_seen(names: Any, flat: list[str]) -> None:
    assert column_names(names) == flat


@pytest.mark.parametrize(
    "feature",
    [
        {"shape": [240, 320, 3], "names": ["height", "width", "channel"]},
        {"shape": [3, 240, 320], "names": ["channels", "height", "width"]},
        {"shape": [3, 240, 320], "names": None},
        {"shape": [240, 320, 3]},
        {"shape": [9, 9, 9], "info": {"video.height": 240, "video.width": 320}},
    ],
)
def test_a_declared_size_is_found_whichever_way_round(feature: dict[str, Any]) -> None:
    assert declared_size(feature) == (240, 320)


# --- instructions ------------------------------------------------------------------------------------------------


def write_tasks(root: Path, *texts: str) -> None:
    lines = [json.dumps({"task_index": i, "task": text}) for i, text in enumerate(texts)]
    (root / "meta/tasks.jsonl").write_text("\n".join(lines))


def set_tasks(table: pa.Table, indices: list[int]) -> pa.Table:
    return table.set_column(table.schema.get_field_index("task_index"), "task_index", pa.array(indices))


def test_a_blank_instruction_is_no_text(two: Path) -> None:
    write_tasks(two, "  \n")
    episode = read_one(two)
    assert episode.texts == ()
    assert "blank" in the("blank_text", episode.findings).message


def test_an_instruction_that_changes_comes_as_spans(two: Path) -> None:
    write_tasks(two, "Reach.", "Grasp.")
    change_rows(two, 1, lambda table: set_tasks(table, [0] * 90 + [1] * 303))
    episode = read_one(two)
    times = episode.streams["action"].t_ns
    assert [(t.text, t.start_ns) for t in episode.texts] == [("Reach.", 0), ("Grasp.", times[90])]
    assert episode.texts[0].stop_ns == times[90] and episode.texts[1].stop_ns > times[-1]


def test_without_a_list_of_tasks_the_list_of_episodes_is_asked(two: Path) -> None:
    (two / "meta/tasks.jsonl").unlink()
    (text,) = read_one(two).texts
    assert text.text == "Pick up the yellow bottle on the table." and text.origin == "meta/episodes"


def test_a_task_index_outside_the_list_falls_back_too(two: Path) -> None:
    change_rows(two, 1, lambda table: set_tasks(table, [9] * 393))
    assert read_one(two).texts[0].origin == "meta/episodes"


# --- identity ----------------------------------------------------------------------------------------------------


def test_a_copied_episode_has_the_same_hash_under_another_number(two: Path) -> None:
    def renumbered(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index("episode_index"), "episode_index", pa.array([2] * 393))

    shutil.copyfile(two / ROWS.format(1), two / ROWS.format(2))
    change_rows(two, 2, renumbered)
    assert read_one(two, 0).source_sha256 == read_one(two, 1).source_sha256
    change_rows(two, 2, lambda table: table.slice(0, 392))
    assert read_one(two, 0).source_sha256 != read_one(two, 1).source_sha256


# --- the listing --------------------------------------------------------------------------------------------------


def test_stray_files_are_counted_by_kind(two: Path) -> None:
    (two / ".DS_Store").write_bytes(b"x")
    (two / "data/._episode_000001.parquet").write_bytes(b"x")
    for name in ("a", "b", "c", "d"):
        pq.write_table(pa.table({name: [1]}), two / f"data/{name}.parquet")
    (two / "videos/old.mp4").write_bytes(b"x")
    (two / "notes.docx").write_bytes(b"x")
    strays = [f.message for f in lerobot.list_episodes(Source.at(two)).findings if f.code == "stray_file"]
    assert strays == [
        "1 x file of no episode, left alone: notes.docx",
        "2 x operating-system file, left alone: .DS_Store, data/._episode_000001.parquet",
        "4 x parquet file of no episode, left alone: data/a.parquet, data/b.parquet, data/c.parquet and 1 more",
        "1 x video of no episode, left alone: videos/old.mp4",
    ]


def test_totals_that_disagree_are_findings(two: Path) -> None:
    change_info(two, lambda info: info.update(total_episodes=100))
    message = the("count_mismatch", lerobot.list_episodes(Source.at(two)).findings).message
    assert message == "total_episodes is 100, the list of episodes gives 2; the list is taken"


def test_a_version_that_does_not_fit_the_files_is_a_finding(two: Path) -> None:
    change_info(two, lambda info: info.update(codebase_version="v3.0"))
    message = the("version_mismatch", lerobot.list_episodes(Source.at(two)).findings).message
    assert message == "codebase_version is v3.0, the files lie as in v2; the files are taken"


def test_v2_0_reads_like_v2_1(two: Path) -> None:
    change_info(two, lambda info: info.update(codebase_version="v2.0"))
    assert lerobot.list_episodes(Source.at(two)).findings == ()
    assert len(read_one(two).streams) == 2


@pytest.mark.parametrize("name", ["meta/info.json", "meta/episodes.jsonl"])
def test_a_metadata_pointer_says_git_lfs_pull(two: Path, name: str) -> None:
    (two / name).write_bytes(POINTER)
    with pytest.raises(DataError, match=rf"{name}: a Git-LFS pointer.*git lfs pull"):
        lerobot.list_episodes(Source.at(two))


def test_a_list_of_episodes_that_is_not_json_names_the_line(two: Path) -> None:
    (two / "meta/episodes.jsonl").write_text('{"episode_index": 1, "length": 393}\n{"episode_ind')
    with pytest.raises(DataError, match=r"meta/episodes\.jsonl: not JSON .*line 2"):
        lerobot.list_episodes(Source.at(two))


def test_an_episode_without_a_length_is_refused(two: Path) -> None:
    (two / "meta/episodes.jsonl").write_text('{"episode_index": 1}\n')
    with pytest.raises(DataError, match="an episode lacks or garbles 'length'"):
        lerobot.list_episodes(Source.at(two))


@pytest.mark.parametrize("fps", [None, 0, "30"])
def test_a_set_without_a_rate_is_refused(two: Path, fps: object) -> None:
    change_info(two, lambda info: info.update(fps=fps))
    with pytest.raises(DataError, match=r"info\.json: fps is .*Write the recording's rate there"):
        lerobot.list_episodes(Source.at(two))


@pytest.mark.parametrize(
    ("name", "content", "licence"),
    [
        ("LICENSE", "MIT License\n\nCopyright (c) 2025", "MIT"),
        ("LICENSE.txt", "                     Apache License\n               Version 2.0, January 2004", "Apache-2.0"),
        ("LICENSE", "Creative Commons Attribution 4.0 International", "CC-BY-4.0"),
        ("LICENSE", "Creative Commons Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0"),
        ("README.md", "---\nlicense: apache-2.0\ntask_categories:\n- robotics\n---\n# A set", "Apache-2.0"),
        ("README.md", "---\nlicense: other\n---\n", "other"),
        ("README.md", "# license: mit", "unknown"),
        ("README.md", "---\nlicense: [\n---\n", "unknown"),
    ],
)
def test_a_licence_is_read_from_the_file_or_the_readme(two: Path, name: str, content: str, licence: str) -> None:
    (two / "LICENSE").unlink()
    (two / name).write_text(content)
    assert lerobot.list_episodes(Source.at(two)).hints["licence"] == licence
    assert read_one(two).licence == licence


@pytest.mark.parametrize(
    ("victim", "holds"), [("timestamp", "list"), ("task_index", "struct"), ("frame_index", "list")]
)
def test_a_column_of_numbers_that_holds_something_else_is_refused(
    g1: Path, tmp_path: Path, victim: str, holds: str
) -> None:
    logs = Path(shutil.copytree(g1, tmp_path / "logs"))
    path = logs / "data/chunk-000/episode_000002.parquet"
    table = pq.ParquetFile(path).read()
    rows = table.num_rows
    odd = pa.array([[1.0, 2.0]] * rows) if holds == "list" else pa.array([{"bytes": b"x"}] * rows)
    names = [n for n in table.column_names if n != "timestamp"] if victim == "frame_index" else table.column_names
    table = table.select(names)
    pq.write_table(table.set_column(table.column_names.index(victim), victim, odd), path)
    ref = next(r for r in lerobot.list_episodes(Source.at(logs)).episodes if r.key == "episode_000002")
    with pytest.raises(
        DataError, match=r"episode_000002\.parquet: episode_000002 is not readable \(a column of numbers"
    ):
        lerobot.read(ref)


def test_words_that_are_no_text_are_refused(lerobot_v3: Path, tmp_path: Path) -> None:
    logs = Path(shutil.copytree(lerobot_v3, tmp_path / "logs"))
    path = logs / "meta/tasks.parquet"
    table = pq.ParquetFile(path).read()
    at = table.column_names.index("task" if "task" in table.column_names else "__index_level_0__")
    words = pa.array([b"\xff\xfe broken"] * table.num_rows, pa.binary())
    broken = pa.Array.from_buffers(pa.string(), len(words), words.buffers())
    table = table.set_column(at, table.column_names[at], broken).replace_schema_metadata(None)
    pq.write_table(table, path)
    with pytest.raises(DataError, match=r"tasks\.parquet: not readable as parquet"):
        for ref in lerobot.list_episodes(Source.at(logs)).episodes:
            lerobot.read(ref)
