"""What holds for every reader on every sample. A new reader adds its samples to SAMPLES and is tested by itself."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schemas.episode import Episode, Video
from wamdata.footage import frames
from wamdata.readers import READERS, detect_reader
from wamdata.readers.base import EpisodeRef, Listing, Reader
from wamdata.source import Source
from wamdata.video import probe

SAMPLES = {"g1": "lerobot", "lerobot_v3": "lerobot", "droid_video": "video"}

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


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> tuple[Source, Reader, Listing]:
    source = Source.at(request.getfixturevalue(request.param))
    reader = detect_reader(source)
    assert SAMPLES[request.param] == reader.NAME
    return source, reader, reader.list_episodes(source)


@pytest.fixture(scope="module")
def episodes(sample: tuple[Source, Reader, Listing]) -> list[tuple[EpisodeRef, Episode]]:
    _, reader, listing = sample
    return [(ref, reader.read(ref)) for ref in listing.episodes[:4]]


def tree_sha256(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode() + path.read_bytes())
    return digest.hexdigest()


def test_every_reader_has_a_sample() -> None:
    assert {reader.NAME for reader in READERS} == set(SAMPLES.values())


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


def test_reading_uses_no_ffmpeg_of_the_system(sample: tuple[Source, Reader, Listing]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, str(sample[0])], capture_output=True, text=True, check=True)
    libraries, heavy = json.loads(done.stdout)
    assert libraries and all("site-packages" in path for path in libraries)
    assert heavy == []
    assert done.stderr == ""
