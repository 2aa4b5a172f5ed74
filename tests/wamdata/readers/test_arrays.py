"""Plain numpy logs and raw Bridge: rows, clocks, cameras of three kinds, and files that are broken or pickled."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import samples.arrays as made
from samples.droid import film
from samples.hdf5 import ramp, smooth

from schemas.episode import Episode, Pictures
from schemas.errors import DataError, UsageError
from wamdata.footage import frames
from wamdata.readers import detect_reader
from wamdata.readers.arrays import reader
from wamdata.readers.base import UNKNOWN_HZ
from wamdata.readers.naming import keys_of, natural
from wamdata.readers.stamps import unit_of
from wamdata.source import Source


def read(place: Path) -> dict[str, Episode]:
    return {r.key: reader.read(r) for r in reader.list_episodes(Source.at(place)).episodes}


def only(place: Path) -> Episode:
    (episode,) = read(place).values()
    return episode


def codes(episode: Episode) -> dict[str, str]:
    return {f.code: f.message for f in episode.findings}


def folder(place: Path, **arrays: Any) -> Path:
    """One episode of 10 rows, with arrays added or replaced."""
    place.mkdir(parents=True, exist_ok=True)
    for name, values in ({"state": ramp(10, 3), "action": ramp(10, 2, 1)} | arrays).items():
        np.save(place / f"{name}.npy", values)
    return place


def test_folders_are_episodes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = read(made.folders(tmp_path))
    assert list(found) == ["episode_1", "episode_2", "episode_10"]
    episode = found["episode_10"]
    assert set(episode.streams) == {"state", "action"} and set(episode.videos) == {"cam0", "front"}
    assert np.array_equal(episode.streams["state"].values, ramp(10, 7, 10).astype(np.float32))
    assert [(t.text, t.origin) for t in episode.texts] == [("push the block", "instruction.txt")]
    assert episode.session == "episode_10" and episode.counted_hz == 0


def test_an_array_of_times_is_the_clock_of_rows_and_cameras(tmp_path: Path) -> None:
    episode = read(made.folders(tmp_path))["episode_1"]
    t_ns = episode.streams["state"].t_ns
    assert abs(int(t_ns[0]) - 1_700_000_000 * 10**9) < 1000 and np.abs(np.diff(t_ns) - 5 * 10**7).max() < 1000
    assert all(np.array_equal(v.t_ns, t_ns) for v in episode.videos.values())
    assert "times are those of timestamps, taken as s" in codes(episode)["clock_unit"]


@pytest.mark.parametrize(
    ("stamps", "unit"),
    [
        (np.arange(5) * 0.05, "s"), (np.arange(5) * 50, "ms"), (np.arange(5) * 50_000, "us"),
        (np.arange(5) * 50_000_000, "ns"), (2e12 + np.arange(5) * 33e6, "ns"), (np.arange(5), None),
        (1.7e9 + np.arange(5), "s"), (1.7e9 + np.arange(5) * 2.5, "s"), (1.7e12 + np.arange(5) * 50, "ms"),
        (1.7e15 + np.arange(5) * 5e4, "us"), (1_700_000_000_000_000_000 + np.arange(5), "ns"),
        (np.array([1.7e9]), "s"), (np.array([3.0]), None), (np.zeros(0), None),
    ],
)  # fmt: skip
def test_the_unit_of_times_is_taken_by_their_size(stamps: np.ndarray, unit: str | None) -> None:
    assert unit_of(stamps) == unit


def test_a_count_of_rows_is_no_clock(tmp_path: Path) -> None:
    episode = only(folder(tmp_path / "log", t=np.arange(10)))
    assert episode.counted_hz == UNKNOWN_HZ and "t" in episode.streams


@pytest.mark.parametrize(
    ("stamps", "words"),
    [
        (np.r_[np.arange(9) * 0.1, 0.3], "time does not increase at row 9"),
        (np.r_[np.arange(9) * 0.1, np.nan], "the time is nan at row 9"),
        (np.r_[np.arange(9) * 0.1, 1e300], "beyond all clocks"),
    ],
)
def test_times_that_are_none_are_refused(tmp_path: Path, stamps: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        only(folder(tmp_path / "log", time=stamps))
    assert "\n" not in str(caught.value)


def test_one_npz_is_one_episode(tmp_path: Path) -> None:
    found = read(made.members(tmp_path))
    assert list(found) == ["run_0", "run_1", "run_2"]
    assert [e.rows for e in found.values()] == [(0, 9), (0, 10), (0, 11)]
    assert np.array_equal(found["run_2"].streams["qpos"].values, ramp(11, 6, 2).astype(np.float32))
    assert [t.text for t in found["run_0"].texts] == ["stack the cups"]
    single = only(tmp_path / "sim_runs/run_1.npz")
    assert (single.key, single.source_sha256) == ("run_1", found["run_1"].source_sha256)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pictures_inside_an_npz_are_read_in_any_order(tmp_path: Path, save: Any, order: str) -> None:
    pictures = smooth(10, 4, 24, 32)
    save(tmp_path / "log.npz", image=np.asarray(pictures, order=order), action=ramp(10, 2))
    video = only(tmp_path).videos["image"]
    assert np.array_equal(frames(video, [7, 0, 9, 3]), pictures[[7, 0, 9, 3]])
    assert np.array_equal(frames(video, range(10)), pictures)


def test_pictures_inside_an_npz_are_decoded_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "log.npz", image=smooth(10, 4, 24, 32), action=ramp(10, 2))
    video = only(tmp_path).videos["image"]
    assert isinstance(video, Pictures)
    video.load(0, 1)
    moved: list[int] = []
    plain = zipfile.ZipExtFile.seek
    monkeypatch.setattr(
        zipfile.ZipExtFile, "seek", lambda self, to, *a: moved.append(to - self.tell()) or plain(self, to, *a)
    )
    for at in range(1, 10):
        video.load(at, at + 1)
    assert moved == [0] * 9


def test_pictures_in_an_npy_file(tmp_path: Path) -> None:
    pictures = smooth(10, 4, 24, 32)
    episode = only(folder(tmp_path / "log", front_image=pictures.astype(np.float32) / 255))
    assert np.array_equal(frames(episode.videos["front_image"], [9, 2]), pictures[[9, 2]])


def test_bridge_is_film_with_language_and_its_pickles_stay_shut(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "opened",)

    place = made.bridge(tmp_path)
    for file in place.rglob("*.pkl"):
        file.write_bytes(pickle.dumps(Evil()))
    found = list(read(place).values())
    assert not (tmp_path / "opened").exists()
    assert [e.streams for e in found] == [{}, {}] and len({e.session for e in found}) == 1
    assert [t.text for t in found[0].texts] == ["put the pot in the sink"]
    assert "obs_dict.pkl, policy_out.pkl" in codes(found[0])["pickled"] and "RLDS" in codes(found[0])["pickled"]
    apart = frames(found[1].videos["images0"], range(12)).astype(int) - smooth(12, 1)
    assert np.abs(apart).mean(axis=(1, 2, 3)).max() < 4  # im_10 comes after im_9


def test_object_arrays_are_not_opened(tmp_path: Path) -> None:
    out = np.array([{"actions": 1}], object)
    found = only(folder(tmp_path / "log", out=out))
    assert "is pickled" in codes(found)["unreadable"] and set(found.streams) == {"state", "action"}
    np.savez(tmp_path / "mixed.npz", out=out, qpos=ramp(10, 3))
    found = only(tmp_path / "mixed.npz")
    assert "out (pickled)" in codes(found)["unread_arrays"] and set(found.streams) == {"qpos"}


def test_pickles_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out.pkl").write_bytes(pickle.dumps([1]))
    assert detect_reader(Source.at(tmp_path)).NAME == "arrays"
    with pytest.raises(UsageError, match=r"out\.pkl is pickled, and nothing is unpickled"):
        reader.list_episodes(Source.at(tmp_path))


def test_one_file_per_frame_is_refused(tmp_path: Path) -> None:
    folder(tmp_path / "training", ep_start_end_ids=np.array([[0, 9]]))
    with pytest.raises(UsageError, match="CALVIN"):
        reader.list_episodes(Source.at(tmp_path))


def test_pictures_alone_are_the_video_readers(tmp_path: Path) -> None:
    made.picture_folder(tmp_path / "take/cam0", smooth(9))
    film(tmp_path / "take/front.mp4", smooth(9))
    assert detect_reader(Source.at(tmp_path)).NAME == "video"
    (tmp_path / "take/notes.npy").write_bytes(b"no numpy file")
    assert detect_reader(Source.at(tmp_path)).NAME == "video"


def test_many_videos_beside_one_array_are_the_video_readers(tmp_path: Path) -> None:
    for number in range(17):
        film(tmp_path / f"clips/{number}.mp4", smooth(3))
    folder(tmp_path)
    assert detect_reader(Source.at(tmp_path)).NAME == "video"


def test_a_skipped_picture_moves_no_other(tmp_path: Path) -> None:
    place = folder(tmp_path / "log")
    made.picture_folder(place / "cam0", smooth(10))
    (place / "cam0/000004.jpg").unlink()
    episode = only(place)
    assert (episode.videos["cam0"].t_ns // 10**8).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert codes(episode)["frame_count"].startswith("cam0: 9 frames for 10 rows")


def test_more_pictures_than_rows_are_cut(tmp_path: Path) -> None:
    place = folder(tmp_path / "log")
    made.picture_folder(place / "cam0", smooth(12))
    assert len(only(place).videos["cam0"].t_ns) == 10


@pytest.mark.parametrize(("rows", "code"), [(9, "count_mismatch"), (3, "not_per_row"), (40, "count_mismatch")])
def test_arrays_that_differ_in_length_are_told(tmp_path: Path, rows: int, code: str) -> None:
    episode = only(folder(tmp_path / "log", extra=ramp(rows, 2)))
    assert "extra" in codes(episode)[code]
    assert len(episode.streams["state"].t_ns) == (9 if rows == 9 else 10)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'shape': (1,)}", b"PK\x03\x04" * 9])
def test_a_broken_file_is_a_finding(tmp_path: Path, content: bytes) -> None:
    place = folder(tmp_path / "log")
    (place / "action.npy").write_bytes(content)
    episode = only(place)
    assert set(episode.streams) == {"state"} and "action.npy" in codes(episode)["unreadable"]
    (place / "state.npy").write_bytes(content)
    with pytest.raises(DataError, match="Copy it again") as caught:
        only(place)
    assert "\n" not in str(caught.value)


def header(path: Path, shape: str) -> None:
    """A `.npy` file that declares a shape and holds 8 bytes."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8))


@pytest.mark.parametrize("shape", ["(1000000000000, 7)", "(-4, 7)", "(10,)"])
def test_a_file_that_declares_more_than_it_holds_is_not_read(tmp_path: Path, shape: str) -> None:
    place = folder(tmp_path / "log")
    header(place / "state.npy", shape)
    assert set(only(place).streams) == {"action"}
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as file:
        file.write(place / "state.npy", "state.npy")
    with pytest.raises(DataError):
        only(tmp_path / "bomb.npz")


def test_text_that_is_none_is_a_finding(tmp_path: Path) -> None:
    place = folder(tmp_path / "log")
    (place / "lang.txt").write_bytes(b"\xff\xfe\xff")
    assert {"bad_caption", "blank_text"} <= set(codes(only(place)))


def test_keys_and_order_of_names() -> None:
    assert keys_of({"a/b": "a/b", "a.b": "a.b", "a_b": "a_b"})["a/b"] == "a__b"
    assert len(set(keys_of({"a.b": "a.b", "a_b": "a_b"}).values())) == 2
    assert sorted(["im_10", "im_9", "im_1"], key=natural) == ["im_1", "im_9", "im_10"]


def test_a_header_that_is_cut_inside_a_bracket_is_a_finding(tmp_path: Path) -> None:
    place = folder(tmp_path / "e0", state=np.zeros((5, 3)), action=np.zeros((5, 3)))
    file = next(place.rglob("state.npy"))
    content = file.read_bytes()
    file.write_bytes(content[:10] + content[10:128].replace(b"), }", b"    ") + content[128:])
    assert "unread_arrays" in codes(only(tmp_path)) or any("state" in f for f in codes(only(tmp_path)).values())
