"""What holds for every reader on every sample; a new reader needs a module in `tests/samples` and no line here."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from samples import Sample, all_samples

from schemas.episode import Episode, Video
from schemas.errors import DataError, UsageError
from wamdata.footage import frames
from wamdata.readers import READERS, detect_reader
from wamdata.readers.base import EpisodeRef, Listing, Reader
from wamdata.source import Source
from wamdata.video import probe

# Reads and decodes in a fresh process, then prints the FFmpeg libraries that are mapped and what was imported.
PROBE = """
import json, sys
from pathlib import Path
from schemas.episode import Video
from wamdata.readers import detect_reader
from wamdata.footage import frames
from wamdata.source import Source
from wamdata.video import read_frames
source = Source.at(sys.argv[1])
reader = detect_reader(source)
episode = reader.read(reader.list_episodes(source).episodes[0])
for video in episode.videos.values():
    frames(video, [0])
    if isinstance(video, Video):
        read_frames(video.path, [video.first_frame], backend="decord")
mapped = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
libraries = sorted(p for p in mapped if Path(p).name.startswith(("libav", "libsw")))
print(json.dumps([libraries, sorted({"torch", "lerobot", "torchcodec", "pandas"} & set(sys.modules))]))
"""


@pytest.fixture(scope="module", params=all_samples(), ids=lambda s: s.name)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Reader, Listing]:
    wanted: Sample = request.param
    source = Source.at(wanted.make(tmp_path_factory.mktemp(wanted.name)))
    reader = detect_reader(source)
    assert wanted.reader == reader.NAME
    return source, reader, reader.list_episodes(source)


@pytest.fixture(scope="module")
def episodes(sample: tuple[Source, Reader, Listing]) -> list[tuple[EpisodeRef, Episode]]:
    _, reader, listing = sample
    return [(ref, reader.read(ref)) for ref in listing.episodes[:4]]


def tree_sha256(root: Path) -> str:
    digest = hashlib.sha256()
    for path in [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode() + path.read_bytes())
    return digest.hexdigest()


def test_every_reader_has_a_sample() -> None:
    assert {reader.NAME for reader in READERS} == {sample.reader for sample in all_samples()}


def test_keys_are_unique_and_can_name_a_sample(sample: tuple[Source, Reader, Listing]) -> None:
    keys = [ref.key for ref in sample[2].episodes]
    assert keys and len(set(keys)) == len(keys)
    assert not any(c in key for key in keys for c in "./\\ ")


def test_places_are_plain_values_that_can_be_sent(sample: tuple[Source, Reader, Listing]) -> None:
    for ref in sample[2].episodes:
        assert json.loads(json.dumps(ref.place)) == ref.place


def test_listing_twice_gives_the_same(sample: tuple[Source, Reader, Listing]) -> None:
    source, reader, listing = sample
    assert reader.list_episodes(source) == listing
    assert listing.reader == reader.NAME and "licence" in listing.hints


def test_an_episode_says_where_it_is_from(
    sample: tuple[Source, Reader, Listing], episodes: list[tuple[EpisodeRef, Episode]]
) -> None:
    _, reader, _ = sample
    for ref, episode in episodes:
        assert (episode.key, episode.source) == (ref.key, str(ref.source))
        assert episode.reader == f"{reader.NAME}@{reader.VERSION}"
        assert len(episode.source_sha256) == 64 and episode.session and episode.licence
        assert ref.rows in (0, episode.rows[1] - episode.rows[0])


def test_episodes_differ_in_content(episodes: list[tuple[EpisodeRef, Episode]]) -> None:
    assert len({episode.source_sha256 for _, episode in episodes}) == len(episodes)


def test_reading_twice_gives_the_same(
    sample: tuple[Source, Reader, Listing], episodes: list[tuple[EpisodeRef, Episode]]
) -> None:
    _, reader, _ = sample
    ref, episode = episodes[0]
    again = reader.read(ref)
    assert (again.source_sha256, again.texts, again.findings) == (
        episode.source_sha256, episode.texts, episode.findings,
    )  # fmt: skip
    for name, stream in episode.streams.items():
        assert np.array_equal(again.streams[name].values, stream.values)


def test_streams_and_videos_are_read_only_and_rise_in_time(episodes: list[tuple[EpisodeRef, Episode]]) -> None:
    for _, episode in episodes:
        assert episode.streams or episode.videos
        for name, stream in episode.streams.items():
            assert stream.name == name and not stream.values.flags.writeable
        for video in episode.videos.values():
            assert video.t_ns.dtype == np.int64 and (np.diff(video.t_ns) > 0).all() and not video.t_ns.flags.writeable


def test_a_videos_frames_are_in_its_file(episodes: list[tuple[EpisodeRef, Episode]]) -> None:
    for _, episode in episodes:
        for video in episode.videos.values():
            if isinstance(video, Video):
                assert video.first_frame + len(video.t_ns) <= probe(video.path).num_frames
            last = frames(video, [len(video.t_ns) - 1])
            assert last.shape == (1, video.height, video.width, 3)


def test_texts_cover_spans_of_the_episode(episodes: list[tuple[EpisodeRef, Episode]]) -> None:
    for _, episode in episodes:
        for text in episode.texts:
            assert text.text.strip() == text.text != "" and text.start_ns < text.stop_ns


def test_the_source_is_left_as_it_was(sample: tuple[Source, Reader, Listing]) -> None:
    source, reader, _ = sample
    before = tree_sha256(Path(source.url))
    for ref in reader.list_episodes(source).episodes:
        reader.read(ref)
    assert tree_sha256(Path(source.url)) == before


def test_where_a_source_lies_changes_nothing_it_says(
    sample: tuple[Source, Reader, Listing], episodes: list[tuple[EpisodeRef, Episode]], tmp_path: Path
) -> None:
    source, reader, listing = sample
    here = Path(source.url)
    copy = Path((shutil.copytree if here.is_dir() else shutil.copy2)(here, tmp_path / here.name))
    moved = Source.at(copy)
    again = reader.list_episodes(moved)
    assert [ref.key for ref in again.episodes] == [ref.key for ref in listing.episodes]
    plain = [source.without_place(f.message) for f in listing.findings]
    assert [moved.without_place(f.message) for f in again.findings] == plain
    episode = reader.read(again.episodes[0])
    assert (episode.source_sha256, episode.session) == (episodes[0][1].source_sha256, episodes[0][1].session)


def test_a_broken_source_is_refused_in_one_line(sample: tuple[Source, Reader, Listing], tmp_path: Path) -> None:
    """Each file cut in half, emptied, or overwritten in its middle: a reason in one line, or an episode, no crash."""
    source, reader, _ = sample
    here = Path(source.url)
    names = list(source.files())
    for number, name in enumerate(names[:: max(1, len(names) // 6)]):
        for how in ("half", "empty", "noise"):
            folder = tmp_path / f"{number}_{how}"
            folder.mkdir()
            copy = Path((shutil.copytree if here.is_dir() else shutil.copy2)(here, folder / here.name))
            file = copy / name if here.is_dir() else copy
            content = bytearray(file.read_bytes())
            middle = len(content) // 2
            if how == "half":
                del content[middle:]
            elif how == "empty":
                content.clear()
            else:
                content[middle : middle + 64] = bytes(range(200, 200 + min(56, len(content) - middle)))
            file.write_bytes(content)
            try:
                for ref in reader.list_episodes(Source.at(copy)).episodes[:3]:
                    reader.read(ref)
            except (DataError, UsageError) as error:
                assert "\n" not in str(error) and len(str(error)) < 600, error
            finally:
                shutil.rmtree(folder)


def test_reading_uses_no_ffmpeg_of_the_system(sample: tuple[Source, Reader, Listing]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, str(sample[0])], capture_output=True, text=True, check=True)
    libraries, heavy = json.loads(done.stdout)
    assert all("site-packages" in path for path in libraries)
    assert heavy == []
    assert done.stderr == ""
