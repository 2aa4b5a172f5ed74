"""Copies of a recording are told by their packets, other recordings of the same scene are not taken for it."""

from pathlib import Path

import pytest

from wamdata.video_cut import cut_packets
from wamdata.video_same import is_same_recording, key_packets

EPISODES = "g1_inspire_v21/videos/chunk-000/observation.images.cam_high/episode_{:06d}.mp4"


@pytest.fixture(scope="module")
def data() -> Path:
    return Path(__file__).resolve().parents[1] / "data"


def test_a_cut_out_of_a_recording_is_the_recording(data: Path) -> None:
    path = data / EPISODES.format(10)
    whole = key_packets(path.read_bytes())
    for first, stop in ((0, 40), (33, 90)):
        cut = key_packets(cut_packets(path, first, stop)[0])
        assert cut < whole and is_same_recording(cut, whole) and is_same_recording(whole, cut)


def test_two_takes_of_one_task_are_two_recordings(data: Path) -> None:
    takes = [key_packets((data / EPISODES.format(n)).read_bytes()) for n in (1, 10, 13)]
    assert all(len(t) > 1 for t in takes)
    assert not any(is_same_recording(a, b) for i, a in enumerate(takes) for b in takes[i + 1 :])
    cameras = [key_packets(p.read_bytes()) for p in sorted((data / "droid_video").glob("*.mp4"))]
    assert len(cameras) == 3 and not is_same_recording(cameras[0], cameras[1])


def test_single_equal_pictures_prove_nothing() -> None:
    black, a, b = b"black", frozenset({b"black", b"1", b"2"}), frozenset({b"black", b"3", b"4"})
    assert not is_same_recording(a, b) and is_same_recording(frozenset({black}), a)
    assert not is_same_recording(frozenset(), a) and not is_same_recording(frozenset({black, b"5"}), a)
