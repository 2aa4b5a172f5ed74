"""Raw DROID recordings: clocks, cameras by kind, words, and recordings of which something lacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import samples.droid as made
from samples.hdf5 import ramp, smooth

from schemas.episode import Episode
from schemas.errors import DataError, UsageError
from wamdata.footage import frames
from wamdata.readers import detect_reader
from wamdata.readers.droid import reader
from wamdata.source import Source

MS = 10**6


def only(place: Path) -> Episode:
    (ref,) = reader.list_episodes(Source.at(place)).episodes
    return reader.read(ref)


def recording(root: Path, change: Callable[[Any], None] = lambda h5: None, **metadata: Any) -> Path:
    """One recording, changed; a field of the metadata that is None is taken out."""
    folder = made.recording(root / "LAB/success/2023-07-07/one")
    with h5py.File(folder / "trajectory.h5", "a") as h5:
        change(h5)
    file = next(folder.glob("metadata_*.json"))
    content = json.loads(file.read_text()) | metadata
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return root


def codes(episode: Episode) -> dict[str, str]:
    return {f.code: f.message for f in episode.findings}


def replaced(h5: Any, path: str, values: Any) -> None:
    del h5[path]
    h5[path] = values


def test_rows_are_at_the_times_of_the_robots_state(tmp_path: Path) -> None:
    episode = only(recording(tmp_path))
    state = episode.streams["observation/robot_state/joint_positions"]
    assert state.t_ns.tolist() == [(made.START_MS + 67 * i) * MS for i in range(12)]
    assert np.array_equal(state.values, ramp(12, 7).astype(np.float32))
    assert np.array_equal(episode.streams["action/joint_position"].values, ramp(12, 7, 1).astype(np.float32))
    assert episode.counted_hz == 0 and episode.session == "LAB-2023-07-07"
    assert not any("timestamp" in n or "extrinsics" in n or n.startswith("action/robot_state") for n in episode.streams)


def test_cameras_are_named_by_kind_and_counted_as_the_metadata_have_them(tmp_path: Path) -> None:
    """The serials of ext1 and ext2 are in the other order than their numbers."""
    episode = only(recording(tmp_path))
    wanted = {"wrist": 0, "varied_1": 2, "varied_2": 1}
    assert {n: v.path.stem for n, v in episode.videos.items()} == {n: made.SERIALS[i] for n, i in wanted.items()}
    apart = frames(episode.videos["varied_1"], [3])[0].astype(int) - smooth(12, 6)[3]
    assert np.abs(apart).mean() < 12


def test_frames_have_the_cameras_own_times(tmp_path: Path) -> None:
    episode = only(recording(tmp_path))
    state_ns = episode.streams["action/joint_position"].t_ns
    assert (episode.videos["wrist"].t_ns - state_ns == -40 * MS).all()
    assert (episode.videos["varied_2"].t_ns - state_ns == -39 * MS).all()


def test_cameras_are_named_by_the_metadata_where_the_rows_do_not_say(tmp_path: Path) -> None:
    episode = only(recording(tmp_path, lambda h5: h5.pop("observation/camera_type") and None))
    assert {n: v.path.stem for n, v in episode.videos.items()} == {
        "wrist": made.SERIALS[0], "varied_1": made.SERIALS[2], "varied_2": made.SERIALS[1],
    }  # fmt: skip


def test_two_cameras_of_the_hand_keep_their_serials(tmp_path: Path) -> None:
    def both(h5: Any) -> None:
        replaced(h5, f"observation/camera_type/{made.SERIALS[1]}", np.zeros(12, int))

    assert set(only(recording(tmp_path, both)).videos) == {
        f"wrist_{made.SERIALS[0]}", f"wrist_{made.SERIALS[1]}", "varied_1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (np.full(12, made.START_MS), "time does not increase at row 1"),
        (np.arange(5) + made.START_MS, "5 times for 12 rows"),
        (made.START_MS + 9000 + np.arange(12) * 67, "its clock is 9.0 s off"),
        (np.r_[np.nan, made.START_MS + np.arange(11) * 67.0], "the time is nan at row 0"),
    ],
)
def test_a_camera_without_a_clock_of_use_gets_the_rows_times(tmp_path: Path, times: np.ndarray, words: str) -> None:
    path = f"observation/timestamp/cameras/{made.SERIALS[0]}_estimated_capture"
    episode = only(recording(tmp_path, lambda h5: replaced(h5, path, times)))
    assert np.array_equal(episode.videos["wrist"].t_ns, episode.streams["action/joint_position"].t_ns)
    assert words in codes(episode)["camera_clock"]


@pytest.mark.parametrize(("unit", "factor"), [("ns", 10**6), ("us", 1000), ("s", 0.001)])
def test_the_unit_of_the_clock_is_taken_by_its_size(tmp_path: Path, unit: str, factor: float) -> None:
    path = "observation/timestamp/robot_state/read_start"
    episode = only(recording(tmp_path, lambda h5: replaced(h5, path, h5[path][:] * factor)))
    steps = np.diff(episode.streams["action/joint_position"].t_ns)
    assert np.abs(steps - 67 * MS).max() < 1000
    assert f"taken as {unit}" in codes(episode)["clock_unit"]


def test_without_a_clock_rows_are_counted(tmp_path: Path) -> None:
    episode = only(recording(tmp_path, lambda h5: h5.pop("observation/timestamp") and None))
    assert episode.counted_hz == 15 and "15 Hz" in codes(episode)["no_clock"]


def test_time_that_stands_still_is_refused(tmp_path: Path) -> None:
    path = "observation/timestamp/robot_state/read_start"
    place = recording(tmp_path, lambda h5: replaced(h5, path, np.full(12, made.START_MS)))
    with pytest.raises(DataError, match="time does not increase at row 1"):
        only(place)


def test_words_are_the_written_ones_and_then_the_operators(tmp_path: Path) -> None:
    lab = made.raw(tmp_path)
    failure, success = (reader.read(r) for r in reader.list_episodes(Source.at(lab)).episodes)
    said = [(t.text, t.origin) for t in success.texts]
    assert said == [
        ("put the cup in the bowl", "annotation"),
        ("move the cup", "annotation"),
        ("Move object into or out of container", "current_task"),
    ]
    assert [t.origin for t in failure.texts] == ["current_task"]
    assert (success.outcome, failure.outcome) == ("success", "failure")


def test_the_outcome_is_taken_from_the_path_where_nothing_else_says_it(tmp_path: Path) -> None:
    assert only(recording(tmp_path, success=None)).outcome == "success"


def test_a_missing_and_a_broken_video_are_findings(tmp_path: Path) -> None:
    place = recording(tmp_path)
    films = next(place.rglob("MP4"))
    (films / f"{made.SERIALS[0]}.mp4").unlink()
    (films / f"{made.SERIALS[1]}.mp4").write_bytes(b"broken")
    made.film(films / f"{made.SERIALS[2]}.mp4", smooth(10, 6))
    episode = only(place)
    assert set(episode.videos) == {"varied_1"} and len(episode.videos["varied_1"].t_ns) == 10
    assert codes(episode)["missing_video"].startswith("wrist: ")
    assert codes(episode)["corrupt_video"].startswith("varied_2: ")
    assert codes(episode)["frame_count"].startswith("varied_1: 10 frames for 12 rows")


def test_svo_files_alone_ask_for_the_zed_sdk(tmp_path: Path) -> None:
    place = recording(tmp_path)
    films = next(place.rglob("MP4"))
    for film in films.iterdir():
        film.unlink()
    (films.parent / "SVO").mkdir()
    (films.parent / "SVO/18026681.svo").write_bytes(b"svo")
    episode = only(place)
    assert not episode.videos and "ZED SDK" in codes(episode)["svo_only"] and "missing_video" not in codes(episode)


def test_idle_rows_are_told(tmp_path: Path) -> None:
    assert "in 25% of the rows" in codes(only(recording(tmp_path)))["operator_idle"]


def test_broken_metadata_are_a_finding_and_the_path_speaks(tmp_path: Path) -> None:
    place = recording(tmp_path)
    next(place.rglob("metadata_*.json")).write_text("[1")
    listing = reader.list_episodes(Source.at(place))
    assert [f.code for f in listing.findings] == ["bad_metadata"]
    episode = reader.read(listing.episodes[0])
    assert (episode.outcome, episode.session) == ("success", "2023-07-07")
    assert "blank_text" in codes(episode)


def test_a_recording_without_rows_is_told(tmp_path: Path) -> None:
    lab = made.raw(tmp_path)
    next(lab.glob("failure/**/trajectory.h5")).unlink()
    listing = reader.list_episodes(Source.at(lab))
    assert len(listing.episodes) == 1 and listing.findings[0].code == "missing_rows"


def test_a_single_file_asks_for_its_folder(tmp_path: Path) -> None:
    file = Source.at(next(recording(tmp_path).rglob("trajectory.h5")))
    assert detect_reader(file).NAME == "droid"
    with pytest.raises(UsageError, match="Give the folder"):
        reader.list_episodes(file)
