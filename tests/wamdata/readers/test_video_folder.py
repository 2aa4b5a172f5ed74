"""Folders of plain video files, and the choice of a reader."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import video as samples_of_video

from schemas.errors import DataError, UsageError
from wamdata.footage import frames
from wamdata.readers import detect_reader
from wamdata.readers.lerobot import reader as lerobot
from wamdata.readers.video import reader as video
from wamdata.source import Source
from wamdata.video_cut import cut_packets


@pytest.fixture
def folder(tmp_path: Path, droid_video: Path) -> Path:
    """Two short clips, one in a subfolder."""
    root = tmp_path / "films"
    (root / "day 1").mkdir(parents=True)
    clip, _ = cut_packets(droid_video / "wrist_image_left.mp4", 0, 30)
    (root / "a.mp4").write_bytes(clip)
    (root / "day 1/b.v2.MP4").write_bytes(clip)
    return root


def test_every_file_is_an_episode_with_one_camera(folder: Path) -> None:
    listing = video.list_episodes(Source.at(folder))
    assert [(ref.key, ref.rows) for ref in listing.episodes] == [("a", 0), ("day_1__b_v2", 0)]
    episode = video.read(listing.episodes[1])
    assert episode.streams == {} and episode.texts == () and list(episode.videos) == ["video"]
    assert (episode.session, episode.rows) == ("day 1/b.v2", (0, 30))
    assert episode.videos["video"].t_ns[:2].tolist() == [0, 66666667]


def test_a_single_file_is_a_source_too(folder: Path) -> None:
    (ref,) = video.list_episodes(Source.at(folder / "a.mp4")).episodes
    assert ref.key == "a" and video.read(ref).videos["video"].path == folder / "a.mp4"


def test_names_that_would_collide_stay_apart_and_stable(folder: Path) -> None:
    shutil.copyfile(folder / "a.mp4", folder / "a.mov")
    keys = [ref.key for ref in video.list_episodes(Source.at(folder)).episodes]
    assert len(set(keys)) == 3 and keys == [ref.key for ref in video.list_episodes(Source.at(folder)).episodes]
    assert not any("." in key or "/" in key for key in keys)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".txt", "\ufeffPour the\n milk. \n"),
        (".json", json.dumps({"caption": "Pour the milk."})),
        (".json", json.dumps({"task": "Pour the milk.", "id": 3})),
    ],
)
def test_a_caption_beside_the_file_is_its_text(folder: Path, suffix: str, content: str) -> None:
    (folder / "a").with_suffix(suffix).write_text(content)
    listing = video.list_episodes(Source.at(folder))
    assert listing.findings == ()
    (text,) = video.read(listing.episodes[0]).texts
    assert (text.text, text.start_ns, text.stop_ns) == ("Pour the milk.", 0, 2_000_000_000)


@pytest.mark.parametrize(
    ("suffix", "content", "code"),
    [(".txt", " \n", "blank_text"), (".json", "{}", "blank_text"), (".json", "{", "bad_caption")],
)
def test_a_caption_that_says_nothing_is_a_finding(folder: Path, suffix: str, content: str, code: str) -> None:
    (folder / "a").with_suffix(suffix).write_text(content)
    episode = video.read(video.list_episodes(Source.at(folder)).episodes[0])
    assert episode.texts == () and [f.code for f in episode.findings] == [code]


def test_a_broken_file_is_listed_and_fails_to_read(folder: Path) -> None:
    (folder / "a.mp4").write_bytes((folder / "a.mp4").read_bytes()[:3000])
    ref = video.list_episodes(Source.at(folder)).episodes[0]
    with pytest.raises(DataError, match=r"a\.mp4: not a readable video"):
        video.read(ref)


def test_a_pointer_says_git_lfs_pull(folder: Path) -> None:
    (folder / "a.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"a\.mp4: a Git-LFS pointer.*git lfs pull"):
        video.read(video.list_episodes(Source.at(folder)).episodes[0])


def test_stray_files_are_counted(folder: Path) -> None:
    for name in ("x.pdf", "y.pdf", ".DS_Store", "._a.mp4"):
        (folder / name).write_bytes(b"x")
    assert [f.message for f in video.list_episodes(Source.at(folder)).findings] == [
        "2 x file that is no video, left alone: x.pdf, y.pdf",
        "2 x operating-system file, left alone: .DS_Store, ._a.mp4",
    ]


def test_the_reader_is_found_by_content(g1: Path, droid_video: Path) -> None:
    assert detect_reader(Source.at(g1)) is lerobot
    assert detect_reader(Source.at(droid_video)) is video
    assert detect_reader(Source.at(droid_video / "wrist_image_left.mp4")) is video
    assert detect_reader(Source.at(g1), "video") is video


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no robot log or video found in .* \(looked for lerobot, "):
        detect_reader(Source.at(tmp_path))


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file or folder"):
        detect_reader(Source.at(tmp_path / "nowhere"))


def test_an_unknown_reader_lists_the_known_ones(droid_video: Path) -> None:
    with pytest.raises(UsageError, match=r"no reader 'tapes'\. Known: auto, lerobot, .*video, or the dotted path"):
        detect_reader(Source.at(droid_video), "tapes")


def test_a_module_of_your_own_reads_what_no_reader_knows(
    tmp_path: Path, droid_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tapes.py").write_text("from wamdata.readers.video.reader import *\nNAME, VERSION = 'my_tapes', 7\n")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/tapes.py").write_text("from my_tapes import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert detect_reader(Source.at(droid_video), "lab.tapes").VERSION == 7
    with pytest.raises(UsageError, match=r"reader 'lab\.films': No module named 'lab\.films'\. Put its folder on"):
        detect_reader(Source.at(droid_video), "lab.films")
    (tmp_path / "lab/half.py").write_text("NAME = 'half'\n")
    with pytest.raises(UsageError, match=r"lacks VERSION, detect, list_episodes, read; the contract is in"):
        detect_reader(Source.at(droid_video), "lab.half")


def test_an_info_json_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text("{fps: 30}")
    with pytest.raises(DataError, match=r"meta/info\.json: not JSON"):
        detect_reader(Source.at(tmp_path))


# --- captions ----------------------------------------------------------------------------------------------------


def texts_of(folder: Path, place: int = 0) -> list[tuple[str, str, float, float]]:
    episode = video.read(video.list_episodes(Source.at(folder)).episodes[place])
    assert episode.findings == ()
    return [(t.text, t.level, t.start_ns / 1e9, t.stop_ns / 1e9) for t in episode.texts]


SUBTITLES = {
    ".srt": "1\n00:00:00,000 --> 00:00:00,800\nReach.\n\n2\n00:00:00,800 --> 00:00:09,000\n<i>Grasp\nit.</i>\n",
    ".vtt": "WEBVTT\n\n00:00.000 --> 00:00.800\nReach.\n\n00:00.800 --> 00:09.000\n<i>Grasp\nit.</i>\n",
    ".json": json.dumps(
        {"captions": [{"start": 0, "end": 0.8, "text": "Reach."}, {"start": 0.8, "end": 9, "caption": "Grasp it."}]}
    ),
}


@pytest.mark.parametrize("suffix", SUBTITLES)
def test_captions_with_spans_are_subtasks_inside_the_film(folder: Path, suffix: str) -> None:
    (folder / "a").with_suffix(suffix).write_text(SUBTITLES[suffix])
    assert texts_of(folder) == [("Reach.", "subtask", 0.0, 0.8), ("Grasp it.", "subtask", 0.8, 2.0)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": "Pour."}\n{"file_name": "c.mp4", "text": "No."}\n'),
        ("metadata.csv", "file_name,text\na.mp4,Pour.\nc.mp4,No.\n"),
    ],
)
def test_a_table_of_captions_names_its_films(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert texts_of(folder) == [("Pour.", "task", 0.0, 2.0)] and texts_of(folder, 1) == []


# --- folders of pictures -----------------------------------------------------------------------------------------


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    return samples_of_video.pictures(tmp_path)


def test_numbered_pictures_are_one_film(takes: Path) -> None:
    listing = video.list_episodes(Source.at(takes))
    assert [(ref.key, ref.rows) for ref in listing.episodes] == [("take_0", 10), ("take_1", 10)]
    assert [f.code for f in listing.findings] == ["no_clock"]
    counted, timed = (video.read(ref) for ref in listing.episodes)
    assert (counted.counted_hz, counted.videos["video"].codec) == (10.0, "mjpeg")
    assert (timed.counted_hz, timed.videos["video"].codec) == (0.0, "png")
    assert timed.videos["video"].t_ns[:2].tolist() == [0, 33_333_333]
    assert frames(timed.videos["video"], [0, 9])[:, 0, 0, 0].tolist() == [0, 180]
    assert [t.text for t in counted.texts] == ["Pour the batter.", "Flip it."]


def test_a_missing_picture_leaves_its_time_open(takes: Path) -> None:
    (takes / "take_0/frame_0004.jpg").unlink()
    episode = video.read(video.list_episodes(Source.at(takes)).episodes[0])
    assert [f.message for f in episode.findings] == [
        "1 pictures are missing between take_0/frame_0000.jpg and take_0/frame_0009.jpg"
    ]
    assert np.diff(episode.videos["video"].t_ns).tolist() == [10**8] * 3 + [2 * 10**8] + [10**8] * 4


def test_pictures_of_different_sizes_are_refused_by_name(takes: Path) -> None:
    Image.new("RGB", (10, 10)).save(takes / "take_0/frame_0003.jpg")
    episode = video.read(video.list_episodes(Source.at(takes)).episodes[0])
    with pytest.raises(DataError, match=r"frame_0003\.jpg: 10x10 mjpeg among pictures of 64x48 mjpeg"):
        frames(episode.videos["video"], [3])


def test_a_few_pictures_in_a_readme_are_no_film(tmp_path: Path) -> None:
    for at in range(3):
        Image.new("RGB", (10, 10)).save(tmp_path / f"figure_{at}.png")
    assert not video.detect(Source.at(tmp_path))
