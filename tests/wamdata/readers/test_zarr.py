"""Replay buffers of diffusion policy and UMI, of versions 2 and 3, whole, broken and hostile."""

import contextlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numcodecs.pickles
import numpy as np
import pytest
import samples.zarr as made
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import registry
from samples.hdf5 import ramp, smooth

from schemas.episode import Episode, Pictures
from schemas.errors import DataError
from wamdata.footage import frames
from wamdata.readers import detect_reader
from wamdata.readers.base import UNKNOWN_HZ
from wamdata.readers.zarr import buffer as buffers
from wamdata.readers.zarr import members, reader
from wamdata.source import Source


def episodes(place: Path) -> list[Episode]:
    return [reader.read(ref) for ref in reader.list_episodes(Source.at(place)).episodes]


def codes(episode: Episode) -> set[str]:
    return {f.code for f in episode.findings}


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def small(place: Path, ends: tuple[int, ...] = (4, 10), rows: int = 10, **arrays: Any) -> Path:
    data = made.group_of(place, ends)
    for name, values in ({"state": ramp(rows, 3), "action": ramp(rows, 2, 1)} | arrays).items():
        data.create_array(name, data=values)
    return place


def test_pusht_is_read_as_its_writer_wrote_it(tmp_path: Path) -> None:
    found = episodes(made.pusht(tmp_path))
    assert [e.key for e in found] == [f"pusht_cchi_v7_replay__episode_{i}" for i in range(3)]
    assert sorted(found[0].streams) == ["action", "keypoint", "n_contacts", "state"]
    whole = np.concatenate([e.streams["action"].values for e in found])
    assert np.array_equal(whole, ramp(26, 2, 2).astype(np.float32))
    assert found[0].streams["keypoint"].values.shape == (9, 18)
    pictures = np.concatenate([frames(e.videos["img"], range(e.rows[1])) for e in found])
    assert np.array_equal(pictures, smooth(26, 1, 32, 32))


def test_rows_are_counted_for_no_store_holds_a_clock(tmp_path: Path) -> None:
    episode = episodes(made.pusht(tmp_path))[1]
    assert episode.counted_hz == UNKNOWN_HZ
    assert episode.streams["state"].t_ns.tolist() == [i * 10**8 for i in range(6)]
    listing = reader.list_episodes(Source.at(tmp_path / "pusht_cchi_v7_replay.zarr"))
    assert [f.code for f in listing.findings] == ["no_clock"]


def test_umi_is_read_inside_its_zip(tmp_path: Path) -> None:
    file = made.umi(tmp_path)
    found = episodes(file)
    assert [e.session for e in found] == ["dataset"] * 3
    assert "no_actions" in codes(found[0]) and found[0].streams["robot0_demo_start_pose"].values.shape == (9, 6)
    pictures = np.concatenate([frames(e.videos["camera0_rgb"], range(e.rows[1])) for e in found])
    apart = np.abs(pictures.astype(int) - smooth(26, 2, 32, 32))
    assert apart.mean() < 2  # level 99 of JPEG-XL is near lossless
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_jpegxl_is_registered_by_the_reader_itself(tmp_path: Path) -> None:
    """zarr 3 finds codecs of a version 2 store in numcodecs, which knows none of imagecodecs by itself."""
    assert zarr.__version__ >= "3"
    file = made.umi(tmp_path)
    known = registry.codec_registry.pop("imagecodecs_jpegxl")
    try:
        with pytest.raises(ValueError, match="imagecodecs_jpegxl"):
            zarr.open_group(zarr.storage.ZipStore(file, mode="r"), mode="r")["data/camera0_rgb"]
        buffers._opened.cache_clear()
        assert frames(episodes(file)[0].videos["camera0_rgb"], [0]).any()
    finally:
        registry.codec_registry["imagecodecs_jpegxl"] = known


def test_a_folder_of_stores_of_both_versions(tmp_path: Path) -> None:
    found = episodes(made.plain(tmp_path))
    assert [e.session for e in found] == ["day0"] * 3 + ["day1"] * 3
    assert found[0].streams["qpos"].columns == tuple(f"joint_{i}" for i in range(7))
    assert found[3].streams["qpos"].columns == tuple(f"joint_{i}" for i in range(7))
    for number, first in enumerate((0, 3)):
        pictures = np.concatenate([frames(e.videos["front_image"], range(e.rows[1])) for e in found[first : first + 3]])
        assert np.array_equal(pictures, smooth(26, number, 24, 32))


def test_words_hold_for_the_rows_that_say_them(tmp_path: Path) -> None:
    found = episodes(made.plain(tmp_path))
    spans = [(t.text, t.start_ns // 10**8, t.stop_ns // 10**8) for t in found[0].texts]
    assert spans == [("open the drawer", 0, 4), ("close it", 4, 9)]
    assert [(t.text, t.origin, t.stop_ns // 10**8) for t in found[4].texts] == [("tidy up", "@task", 6)]


def test_words_per_episode(tmp_path: Path) -> None:
    place = small(tmp_path / "x.zarr")
    zarr.open_group(place)["meta"].create_array("language", data=np.array(["push", "pull"], "U9"))
    assert [[t.text for t in e.texts] for e in episodes(place)] == [["push"], ["pull"]]


def test_words_that_are_no_characters_are_none(tmp_path: Path) -> None:
    place = small(tmp_path / "x.zarr", language=np.array(["push"] * 10, "U4"))
    change(place / "data/language/.zarray", compressor=None)
    (place / "data/language/0").write_bytes(np.full((10, 4), 0xFFFFFFFF, np.uint32).tobytes())
    found = episodes(place)[0]
    assert found.texts == () and "blank_text" in codes(found)


def test_a_chunk_of_many_frames_is_decoded_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = episodes(made.pusht(tmp_path))[2]
    video = episode.videos["img"]
    assert isinstance(video, Pictures)
    decoded: list[slice] = []
    plain = buffers.Rows.__getitem__
    monkeypatch.setattr(buffers.Rows, "__getitem__", lambda self, at: decoded.append(at) or plain(self, at))
    for at in range(11):
        video.load(at, at + 1)
    assert decoded == [slice(14, 21), slice(21, 28)]


def test_a_camera_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    video = episodes(made.umi(tmp_path))[1].videos["camera0_rgb"]
    assert isinstance(video, Pictures)
    again = pickle.loads(pickle.dumps(video.load))
    assert np.array_equal(again(0, 6), video.load(0, 6))


@pytest.mark.parametrize("scale", [1, 255])
def test_float_pictures_of_either_range_look_the_same(tmp_path: Path, scale: int) -> None:
    pictures = smooth(10, 3, 24, 32)
    place = small(tmp_path / "x.zarr", top_image=pictures.astype(np.float32) / 255 * scale)
    assert np.array_equal(frames(episodes(place)[1].videos["top_image"], [0, 5]), pictures[[4, 9]])


def test_what_is_no_stream_is_told(tmp_path: Path) -> None:
    cloud, depth = np.zeros((10, 256, 3), np.float32), np.ones((10, 40, 40), np.float32)
    found = episodes(small(tmp_path / "x.zarr", point_cloud=cloud, depth=depth, short=ramp(3, 2)))[1]
    assert set(found.streams) == {"state", "action"} and not found.videos
    messages = {f.code: f.message for f in found.findings}
    assert "depth (depth is not read yet)" in messages["unread_arrays"]
    assert "point_cloud (768 numbers a row" in messages["unread_arrays"]
    assert "short" in messages["count_mismatch"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_episodes_cover_every_row_once(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    ends = tuple(np.cumsum(lengths).tolist())
    place = small(tmp_path_factory.mktemp("x") / "x.zarr", ends, ends[-1])
    found = episodes(place)
    assert [e.rows[1] for e in found] == lengths
    whole = np.concatenate([e.streams["state"].values for e in found])
    assert np.array_equal(whole, ramp(ends[-1], 3).astype(np.float32))


@pytest.mark.parametrize(
    ("ends", "kept", "words"),
    [
        ((4, 8), [(0, 4), (4, 8)], "the last 2 of 10 rows belong to no episode"),
        ((4, 12), [(0, 4)], "1 of 2 episodes end behind the last of 10 rows"),
        ((4, 4, 10), [(0, 4), (4, 10)], "does not rise at 1: 1 left out"),
        ((6, 3, 10), [(0, 6), (6, 10)], "does not rise at 1: 1 left out"),
        ((-3, 5, 10), [(0, 5), (5, 10)], "does not rise at 0: 1 left out"),
    ],
)
def test_ends_that_do_not_fit_are_told_and_the_rest_is_read(
    tmp_path: Path, ends: tuple[int, ...], kept: list[tuple[int, int]], words: str
) -> None:
    listing = reader.list_episodes(Source.at(small(tmp_path / "x.zarr", ends)))
    assert [(r.place["first"], r.place["stop"]) for r in listing.episodes] == kept
    assert words in listing.findings[0].message


@pytest.mark.parametrize("allowed", [True, False])
def test_a_codec_that_unpickles_is_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """A store names its codecs itself, zarr looks at the first alone, and numcodecs unpickled until 0.16."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    place = small(tmp_path / "x.zarr", task=ramp(10, 1))
    mark = tmp_path / "opened"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    codecs = [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}]
    file = place / "data/task/.zarray"
    change(file, shape=[10], chunks=[10], dtype="|O", filters=codecs, compressor=None, fill_value="")
    (place / "data/task/0").write_bytes(pickle.dumps(Evil()))
    if allowed:  # or this test would show nothing
        monkeypatch.setattr(buffers, "CODECS", buffers.CODECS | {"pickle"})
        with contextlib.suppress(DataError):
            episodes(place)
        assert mark.exists()
        return
    found = episodes(place)[0]
    assert not mark.exists() and set(found.streams) == {"action", "state"}
    message = next(f.message for f in found.findings if f.code == "unread_arrays")
    assert "task (coded by pickle, which is not read)" in message


def test_pictures_that_were_not_copied_are_a_finding(tmp_path: Path) -> None:
    place = made.pusht(tmp_path)
    (place / "data/img/2.0.0.0").unlink()
    found = episodes(place)
    assert [set(e.videos) for e in found] == [{"img"}, set(), set()]
    message = next(f.message for f in found[1].findings if f.code == "missing_pictures")
    assert "img: 1 of 2 chunks of its pictures are not there" in message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shape": [10**12, 3], "chunks": [10**11, 3]}, "larger than 1 GB"),
        ({"shape": [10**9, 400], "chunks": [4, 400]}, "GB"),
        ({"dtype": "|O", "filters": [{"id": "vlen-bytes"}]}, "state"),
        ({"shape": "many"}, "damaged"),
    ],
)
def test_an_absurd_array_is_refused_or_left_out(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    place = small(tmp_path / "x.zarr")
    change(place / "data/state/.zarray", **fields)
    if "GB" not in words or words.startswith("larger"):
        assert set(episodes(place)[0].streams) == {"action"}
        assert words in str(episodes(place)[0].findings)
        return
    shutil.rmtree(place / "data/action")
    zarr.open_group(place)["meta/episode_ends"][:] = [5, 10**9]
    listing = reader.list_episodes(Source.at(place))
    with pytest.raises(DataError, match="rows"):
        reader.read(listing.episodes[1])


@pytest.mark.parametrize(
    ("name", "words"),
    [("meta/episode_ends/.zarray", "episode_ends"), ("meta/episode_ends/0", "episode_ends")],
)
def test_broken_ends_are_refused_in_one_line(tmp_path: Path, name: str, words: str) -> None:
    place = small(tmp_path / "x.zarr")
    (place / name).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=words) as caught:
        reader.list_episodes(Source.at(place))
    assert "\n" not in str(caught.value)


def test_a_broken_store_among_others_is_a_finding(tmp_path: Path) -> None:
    place = made.plain(tmp_path)
    (place / "day0.zarr/meta/episode_ends/.zarray").write_text("{")
    listing = reader.list_episodes(Source.at(place))
    assert {r.place["store"] for r in listing.episodes} == {"day1.zarr"}
    assert [f.code for f in listing.findings] == ["unreadable", "no_clock"]


def test_names_that_lead_out_of_a_zip_lead_nowhere(tmp_path: Path) -> None:
    file = made.umi(tmp_path)
    (tmp_path / "secret").mkdir()
    with zipfile.ZipFile(file, "a") as zipped:
        for name in ("../secret/.zarray", "data/../../secret/.zarray", "data/..", "/etc/.zarray"):
            zipped.writestr(name, "{}")
    assert len(episodes(file)) == 3
    assert sorted(p.name for p in tmp_path.rglob("*")) == [file.name, "secret"]


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_OBJECT_BYTES", 1_000_000)
    file = made.umi(tmp_path)
    with zipfile.ZipFile(file) as zipped:
        content = {n: zipped.read(n) for n in zipped.namelist()}
    content["data/robot0_eef_pos/0.0"] = bytes(50_000_000)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in content.items():
            zipped.writestr(name, data)
    assert file.stat().st_size < 200_000
    with pytest.raises(DataError, match=r"one object of 0\.1 GB"):
        episodes(file)


def test_a_zip_cut_short_is_refused(tmp_path: Path) -> None:
    file = made.umi(tmp_path)
    file.write_bytes(file.read_bytes()[:-200])
    assert detect_reader(Source.at(file)).NAME == "zarr"
    with pytest.raises(DataError, match="not a whole zip file"):
        reader.list_episodes(Source.at(file))


def test_a_zip_of_something_else_is_not_ours(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as zipped:
        zipped.writestr("a.txt", "hello")
    assert not reader.detect(Source.at(tmp_path)) and not reader.detect(Source.at(tmp_path / "photos.zip"))


def test_a_remote_folder_is_fetched_chunk_by_chunk(tmp_path: Path) -> None:
    import fsspec

    place = made.pusht(tmp_path)
    remote = fsspec.filesystem("memory")
    remote.put(str(place), "/bucket/pusht.zarr", recursive=True)
    source = Source("memory://bucket/pusht.zarr", cache=str(tmp_path / "cache"))
    listing = reader.list_episodes(source)
    episode = reader.read(listing.episodes[0])
    assert np.array_equal(frames(episode.videos["img"], [0, 8]), smooth(26, 1, 32, 32)[[0, 8]])
    fetched = {p.name for p in (tmp_path / "cache").rglob("img/*") if not p.name.startswith(".")}
    assert "0.0.0.0" in fetched and len(fetched) <= 3


def test_a_chunk_that_declares_less_than_nothing_is_refused(tmp_path: Path) -> None:
    place = made.SAMPLES["plain"](tmp_path)
    chunk = next(p for p in sorted(place.rglob("data/qpos/*")) if p.name[0].isdigit())
    content = bytearray(chunk.read_bytes())
    content[4:8] = b"\xf0\xff\xff\xff"  # blosc's size of what is packed
    chunk.write_bytes(content)
    source = Source.at(place)
    with pytest.raises(DataError, match="qpos"):
        for ref in reader.list_episodes(source).episodes:
            reader.read(ref)
