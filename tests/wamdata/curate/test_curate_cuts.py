"""Cuts lie where films were cut; motion, glitches and repeated frames are none."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from films import Picture, black, scene, write
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.curate import CurateRules
from wamdata.curate.curation import Film, curate
from wamdata.curate.cuts import CutFinder
from wamdata.curate.samples import Sampler
from wamdata.source import Source


def cuts_of(pictures: Iterable[Picture], fps: float = 30) -> list[int]:
    sampler, finder = Sampler(), CutFinder()
    for at, picture in enumerate(pictures):
        finder.see(at, picture, sampler.see(at, round(at / fps * 1e9), picture))
    return finder.finish()


def film_of(path: Path, **rules: float) -> Film:
    return curate(Source.at(path), CurateRules(**rules)).films[0]


@settings(max_examples=6, deadline=None)
@given(lengths=st.lists(st.integers(8, 40), min_size=2, max_size=4), seed=st.integers(0, 10**6))
def test_every_hard_cut_is_found_at_its_frame(lengths: list[int], seed: int) -> None:
    found = cuts_of(chain.from_iterable(scene(seed + n, length) for n, length in enumerate(lengths)))
    assert found == list(np.cumsum(lengths)[:-1])


def test_cuts_of_a_coded_film_lie_between_its_shots(tmp_path: Path) -> None:
    path = write(tmp_path / "film.mp4", chain(scene(1, 70), scene(2, 64), scene(3, 75)))
    shots = film_of(path).shots
    assert [(s.first, s.stop) for s in shots] == [(0, 70), (70, 134), (134, 209)]
    assert [s.start_s for s in shots] == pytest.approx([0, 70 / 30, 134 / 30], abs=1e-4)
    assert shots[-1].stop_s == pytest.approx(209 / 30, abs=1e-3)


def test_a_variable_frame_rate_moves_no_cut(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).choice([1 / 60, 1 / 30, 1 / 12], 200)
    times_s = [0.0, *np.cumsum(steps).tolist()]
    path = write(tmp_path / "phone.mp4", chain(scene(4, 90), scene(5, 111)), times_s=times_s)
    shots = film_of(path).shots
    assert [s.first for s in shots] == [0, 90]
    assert shots[1].start_s == pytest.approx(times_s[90], abs=1e-3)


@pytest.mark.parametrize("pan", [0.5, 3.0, 12.0])
def test_a_pan_is_no_cut(pan: float) -> None:
    assert cuts_of(scene(6, 60, pan=pan)) == []


def test_a_torn_frame_and_a_flash_are_no_cuts() -> None:
    pictures = list(scene(7, 80))
    pictures[30] = pictures[30].copy()
    pictures[30][90:] = next(scene(8, 1))[90:]
    pictures[50] = pictures[51] = np.full_like(pictures[50], 255)
    assert cuts_of(pictures) == []


def test_frames_shown_three_times_make_no_cut_of_motion_and_hide_none() -> None:
    assert cuts_of(p for p in scene(9, 25, pan=60.0) for _ in range(3)) == []
    pictures = chain(scene(9, 25, pan=6.0), scene(10, 25, pan=6.0))
    assert cuts_of(p for p in pictures for _ in range(3)) == [75]


def test_still_scenes_are_cut_apart() -> None:
    still = [*[next(scene(11, 1))] * 40, *[next(scene(12, 1))] * 40]
    assert cuts_of(still) == [40]


def test_a_fade_through_black_is_cut_inside_the_black() -> None:
    levels = np.concatenate([np.ones(40), np.linspace(1, 0, 60), np.zeros(8), np.linspace(0, 1, 60), np.ones(40)])
    grey = (p.mean(axis=2, keepdims=True).repeat(3, axis=2) for p in chain(scene(13, 104), scene(14, 104)))
    found = cuts_of((p * level).astype(np.uint8) for p, level in zip(grey, levels, strict=True))
    assert len(found) == 1 and 100 <= found[0] < 108


def test_longer_black_is_a_span_of_its_own(tmp_path: Path) -> None:
    shots = film_of(write(tmp_path / "film.mp4", chain(scene(15, 90), black(30), scene(16, 90)))).shots
    assert [s.reason for s in shots] == ["", "black", ""]
    assert shots[1].first == pytest.approx(90, abs=6) and shots[1].stop == pytest.approx(120, abs=6)
    assert shots[1].words == f"black for {shots[1].seconds:.1f} s"


def test_the_real_cameras_of_a_robot_are_kept_whole(droid_video: Path) -> None:
    films = curate(Source.at(droid_video), CurateRules()).films
    assert [(f.key, len(f.shots), len(f.kept)) for f in films] == [
        ("exterior_image_1_left", 1, 1),
        ("exterior_image_2_left", 1, 1),
        ("wrist_image_left", 1, 1),  # it holds torn frames
    ]
    wrist, stand = films[2].shots[0].scores, films[0].shots[0].scores
    assert wrist and stand and wrist.camera_motion > 5 > 1 > stand.camera_motion
