"""AgiBot World recordings: frames and rows, sparse commands, and halves that were not downloaded."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import samples.agibot as made
from samples.droid import film
from samples.hdf5 import ramp, smooth

from schemas.episode import Episode
from schemas.errors import DataError, UsageError
from wamdata.readers import detect_reader
from wamdata.readers.agibot import reader
from wamdata.source import Source

ROWS = "proprio_stats/327/648642/proprio_stats.h5"


def read(place: Path) -> dict[str, Episode]:
    return {r.key: reader.read(r) for r in reader.list_episodes(Source.at(place)).episodes}


def replaced(place: Path, **values: Any) -> dict[str, Episode]:
    """The sample's episodes with datasets of the first one replaced; `__` stands for `/`."""
    with h5py.File(place / ROWS, "a") as h5:
        for name, content in values.items():
            path = name.replace("__", "/")
            if path in h5:
                del h5[path]
            if content is not None:
                h5[path] = content
    return read(place)


def codes(episode: Episode) -> dict[str, str]:
    return {f.code: f.message for f in episode.findings}


def test_rows_have_the_time_stamps_and_frames_those_of_the_rows(tmp_path: Path) -> None:
    episode = read(made.world(tmp_path))["327__648642"]
    state = episode.streams["state/joint/position"]
    assert state.t_ns.tolist() == [made.START_NS + 33_333_333 * i for i in range(10)]
    assert np.array_equal(state.values, ramp(10, 14).astype(np.float32))
    assert episode.streams["state/end/position"].values.shape == (10, 6)
    assert set(episode.videos) == set(made.CAMERAS)
    assert all(np.array_equal(v.t_ns, state.t_ns) for v in episode.videos.values())
    assert episode.counted_hz == 0 and episode.findings == ()


def test_each_step_has_its_words_at_its_frames(tmp_path: Path) -> None:
    episode = read(made.world(tmp_path))["327__648642"]
    t_ns = episode.streams["state/joint/position"].t_ns
    task, pick, place = episode.texts
    assert (task.level, task.text) == ("task", "Pickup items in the supermarket")
    assert (pick.level, pick.text, pick.start_ns, pick.stop_ns) == (
        "subtask", "Pick up the cucumber.", t_ns[0], t_ns[5],
    )  # fmt: skip
    assert (place.start_ns, place.stop_ns) == (t_ns[5], t_ns[9] + 33_333_333) == (task.start_ns + 5 * 33_333_333,
                                                                                  task.stop_ns)  # fmt: skip


def test_commands_hold_the_rows_at_which_they_were_sent(tmp_path: Path) -> None:
    episode = read(made.world(tmp_path))["327__648649"]
    sent = episode.streams["action/joint/position"]
    assert np.array_equal(sent.t_ns, episode.streams["state/joint/position"].t_ns[2:])
    assert np.array_equal(sent.values, ramp(10, 14, 2).astype(np.float32)[2:])
    assert len(episode.streams["action/effector/position"].t_ns) == 10
    assert codes(episode)["sparse_actions"].startswith("action/end/orientation, action/end/position")


def test_commands_that_are_shorter_lie_at_their_index(tmp_path: Path) -> None:
    values = {"action__joint__position": ramp(4, 14, 9), "action__joint__index": np.array([1, 2, 5, 9])}
    episode = replaced(made.world(tmp_path), **values)["327__648642"]
    sent = episode.streams["action/joint/position"]
    assert np.array_equal(sent.t_ns, episode.streams["state/joint/position"].t_ns[[1, 2, 5, 9]])
    assert np.array_equal(sent.values, ramp(4, 14, 9).astype(np.float32))


@pytest.mark.parametrize(
    ("values", "rows", "code"),
    [
        ({"action__joint__index": np.zeros(0, int)}, 10, "silent_actions"),
        ({"action__joint__index": np.array([3, 2, 50])}, 10, ""),
        ({"action__joint__index": None}, 10, ""),
        ({"action__joint__position": ramp(40, 14)}, 0, "count_mismatch"),
        ({"action__joint__position": ramp(7, 14)}, 0, "count_mismatch"),
    ],
)
def test_commands_whose_rows_cannot_be_told_are_kept_whole_or_left_out(
    tmp_path: Path, values: dict[str, Any], rows: int, code: str
) -> None:
    episode = replaced(made.world(tmp_path), **values)["327__648642"]
    found = episode.streams.get("action/joint/position")
    assert (0 if found is None else len(found.t_ns)) == rows
    assert not code or "action/joint/position" in codes(episode)[code]


def test_rows_alone_are_an_episode_without_cameras(tmp_path: Path) -> None:
    episode = read(made.world(tmp_path))["327__648649"]
    assert not episode.videos and "observations" in codes(episode)["missing_video"]


def test_videos_alone_are_film(tmp_path: Path) -> None:
    episode = read(made.world(tmp_path))["327__648650"]
    assert not episode.streams and list(episode.videos) == ["head_color"]
    assert "proprio_stats" in codes(episode)["missing_rows"] and len(episode.texts) == 3
    assert episode.videos["head_color"].t_ns[0] == 0 and episode.rows == (0, 10)


def test_frames_and_rows_that_differ_in_number_are_told(tmp_path: Path) -> None:
    place = made.world(tmp_path)
    film(place / "observations/327/648642/videos/head_color.mp4", smooth(8), fps=30)
    episode = read(place)["327__648642"]
    assert len(episode.videos["head_color"].t_ns) == 8
    assert codes(episode)["frame_count"].startswith("head_color: 8 frames for 10 rows")


@pytest.mark.parametrize("missing", [True, False])
def test_rows_without_times_of_use(tmp_path: Path, missing: bool) -> None:
    stamps = None if missing else np.arange(10)
    episode = replaced(made.world(tmp_path), timestamp=stamps)["327__648642"]
    assert episode.counted_hz == 30 and "30 Hz" in codes(episode)["no_clock"]


def test_time_that_falls_back_is_refused(tmp_path: Path) -> None:
    stamps = made.START_NS + np.r_[np.arange(9), 3] * 33_333_333
    with pytest.raises(DataError, match="time does not increase at row 9"):
        replaced(made.world(tmp_path), timestamp=stamps)


def test_broken_words_are_a_finding(tmp_path: Path) -> None:
    place = made.world(tmp_path)
    (place / "task_info/task_327.json").write_text('{"episode_id": 3}')
    listing = reader.list_episodes(Source.at(place))
    assert [f.code for f in listing.findings] == ["bad_metadata"]
    assert "blank_text" in codes(reader.read(listing.episodes[0]))


@pytest.mark.parametrize("step", [{"start_frame": 50, "end_frame": 60}, {"start_frame": 5, "end_frame": 2}, {}, "no"])
def test_a_step_at_no_frames_says_nothing(tmp_path: Path, step: Any) -> None:
    place = made.world(tmp_path)
    step = step | {"action_text": "Wave."} if isinstance(step, dict) else step
    entry = {"episode_id": 648642, "task_name": "Greet", "label_info": {"action_config": [step]}}
    (place / "task_info/task_327.json").write_text(json.dumps([entry]))
    assert [t.text for t in read(place)["327__648642"].texts] == ["Greet"]


def test_depth_and_calibrations_are_left_alone(tmp_path: Path) -> None:
    place = made.world(tmp_path)
    for name in ("observations/327/648642/videos/head_depth.mp4", "parameters/327/648642/camera/head_intrinsic.json"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"x")
    assert set(read(place)["327__648642"].videos) == set(made.CAMERAS)


def test_episodes_that_are_not_here_and_tar_files_are_told(tmp_path: Path) -> None:
    place = made.world(tmp_path)
    (place / "observations/327/648651-648700.tar").write_bytes(b"tar")
    for file in (place / "observations/327/648650").rglob("*.mp4"):
        file.unlink()
    findings = {f.code: f.message for f in reader.list_episodes(Source.at(place)).findings}
    assert "1 of 3 episodes" in findings["missing_episodes"] and "tar -xf" in findings["not_unpacked"]


def test_tar_files_alone_are_refused(tmp_path: Path) -> None:
    for name in ("task_info/task_327.json", "observations/327/648642-648700.tar"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("[]")
    assert detect_reader(Source.at(tmp_path)).NAME == "agibot"
    with pytest.raises(UsageError, match="1 tar files and no recording"):
        reader.list_episodes(Source.at(tmp_path))
