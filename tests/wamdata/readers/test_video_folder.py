"""Folders of plain video files, and the choice of a reader."""

import json
import shutil
from pathlib import Path

import pytest

from schemas.errors import DataError, UsageError
from wamdata.readers import detect_reader, lerobot, video
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
    with pytest.raises(UsageError, match=r"no robot log or video found in .* \(looked for LeRobot meta/info\.json"):
        detect_reader(Source.at(tmp_path))


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file or folder"):
        detect_reader(Source.at(tmp_path / "nowhere"))


def test_an_unknown_reader_lists_the_known_ones(droid_video: Path) -> None:
    with pytest.raises(UsageError, match=r"no reader 'hdf5'\. Known: auto, lerobot, video\."):
        detect_reader(Source.at(droid_video), "hdf5")


def test_an_info_json_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text("{fps: 30}")
    with pytest.raises(DataError, match=r"meta/info\.json: not JSON"):
        detect_reader(Source.at(tmp_path))
