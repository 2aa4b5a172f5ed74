"""What is measured of shots, and which of them are dropped, with which words."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from films import HEIGHT, WIDTH, Picture, blurred, scene, smaller, write

from schemas.curate import CurateRules
from wamdata.curate.curation import Film, Shot, curate
from wamdata.curate.samples import Sampler
from wamdata.curate.spans import Span, spans_of
from wamdata.source import Source


def film_of(path: Path, **rules: float) -> Film:
    return curate(Source.at(path), CurateRules(**rules)).films[0]


def only_shot(path: Path, **rules: float) -> Shot:
    (shot,) = film_of(path, **rules).shots
    return shot


def barred(pictures: Iterator[Picture], box: tuple[int, int, int, int], size: tuple[int, int]) -> Iterator[Picture]:
    x, y, width, height = box
    for picture in pictures:
        whole = np.zeros((size[1], size[0], 3), np.uint8)
        whole[y : y + height, x : x + width] = np.resize(
            np.kron(picture, np.ones((4, 4, 1), np.uint8)), (720, 1280, 3)
        )[:height, :width]
        yield whole


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((640, 360), (0, 44, 640, 272)),
        ((640, 360), (218, 0, 204, 360)),
        ((1280, 720), (51, 97, 1178, 519)),
        ((320, 180), (0, 23, 320, 134)),
    ],
)
def test_black_bars_are_found_to_the_pixel(
    size: tuple[int, int], box: tuple[int, int, int, int], tmp_path: Path
) -> None:
    shot = only_shot(write(tmp_path / "film.mp4", barred(scene(1, 70, pan=0.2), box, size)))
    assert shot.scores and shot.scores.crop == box
    assert shot.reason == ""


def test_a_film_without_bars_has_none(tmp_path: Path) -> None:
    shot = only_shot(write(tmp_path / "film.mp4", scene(2, 70)))
    assert shot.scores and shot.scores.crop is None


def test_the_more_a_film_is_blurred_the_less_sharp_it_is(tmp_path: Path) -> None:
    found = [
        only_shot(write(tmp_path / f"{sigma}.mp4", blurred(scene(3, 70), sigma))) for sigma in (0.1, 1.0, 2.0, 6.0)
    ]
    sharpness = [shot.scores.sharpness for shot in found if shot.scores]
    assert sharpness == sorted(sharpness, reverse=True)
    assert [shot.reason for shot in found] == ["", "", "", "blurred"]
    assert found[3].words == f"blurred: sharpness {sharpness[3]:.3f} (wanted 0.015)"


def test_a_long_rest_is_cut_out_and_a_short_one_is_not(tmp_path: Path) -> None:
    moving = list(scene(4, 90, pan=0))
    pictures = [*moving, *[moving[-1]] * 180, *moving[::-1], *[moving[0]] * 60]
    rng = np.random.default_rng(0)
    noisy = [np.clip(p + rng.normal(0, 4, p.shape), 0, 255).astype(np.uint8) for p in pictures]
    shots = film_of(write(tmp_path / "film.mp4", noisy)).shots
    assert [s.reason for s in shots] == ["", "static", ""]
    assert shots[1].start_s == pytest.approx(3.0, abs=0.3) and shots[1].stop_s == pytest.approx(9.0, abs=0.3)
    assert shots[1].words == f"nothing moves for {shots[1].seconds:.1f} s (allowed 5 s)"
    assert [s.reason for s in film_of(tmp_path / "film.mp4", static_s=0).shots] == [""]


def test_motion_too_slow_to_see_from_frame_to_frame_is_no_rest() -> None:
    early, late = next(scene(5, 1)).astype(float), next(scene(6, 1)).astype(float)
    sampler, t_ns = Sampler(), np.arange(300) * 33_333_333
    for at, share in enumerate(np.linspace(0, 0.15, 300)):
        sampler.see(at, int(t_ns[at]), (early + share * (late - early)).round().astype(np.uint8))
    samples = sampler.samples()
    assert np.abs(np.diff(samples.blocks, axis=0)).max() < CurateRules().static_level
    assert spans_of(samples, [], t_ns, CurateRules()) == [Span(0, 300)]


def test_a_copy_of_other_size_quality_rate_and_beginning_is_found(tmp_path: Path) -> None:
    pictures = list(scene(6, 150, pan=0.4))
    write(tmp_path / "a.mp4", pictures)
    write(tmp_path / "b.mp4", smaller(pictures[23::2], 2), fps=15, crf=34)
    films = curate(Source.at(tmp_path), CurateRules(min_height=80)).films
    assert [f.shots[0].reason for f in films] == ["", "duplicate"]
    assert films[1].shots[0].words == "a copy of a, shot 1 (0.0 s to 5.0 s)"
    assert all(f.kept for f in curate(Source.at(tmp_path), CurateRules(min_height=80, duplicates=False)).films)


def test_another_take_of_the_same_scene_is_no_copy(tmp_path: Path) -> None:
    forth = list(scene(7, 150, pan=0))
    write(tmp_path / "a.mp4", forth)
    write(tmp_path / "b.mp4", forth[::-1])
    write(tmp_path / "c.mp4", scene(8, 150, pan=0))
    assert all(f.kept for f in curate(Source.at(tmp_path), CurateRules()).films)


def test_real_episodes_of_one_scene_are_no_copies(g1: Path) -> None:
    films = curate(Source.at(g1), CurateRules()).films
    assert len(films) > 10
    assert {s.reason for f in films for s in f.shots} == {""}


@pytest.mark.parametrize(
    ("picture", "reason", "words"),
    [
        (np.full((HEIGHT, WIDTH, 3), 120, np.uint8), "blank", "of one single colour"),
        (np.full((HEIGHT, WIDTH, 3), 120, np.uint8)[:100], "small", "320x100 pixels (wanted 128x128)"),
    ],
)
def test_flat_and_small_films_are_dropped(picture: Picture, reason: str, words: str, tmp_path: Path) -> None:
    shot = only_shot(write(tmp_path / "film.mp4", [picture] * 75))
    assert (shot.reason, shot.words) == (reason, words)


def test_short_blown_out_and_shaky_shots_are_dropped(tmp_path: Path) -> None:
    bright = (255 - (255 - p) // 20 for p in scene(9, 75))
    path = write(tmp_path / "film.mp4", chain(scene(10, 45), bright, scene(11, 75, pan=9.0)))
    shots = film_of(path, max_camera_motion=20).shots
    assert [s.reason for s in shots] == ["short", "blown_out", "shaky"]
    assert shots[0].words == "1.5 s long (wanted 2 s)"


def test_a_turned_film_is_measured_as_it_is_shown() -> None:
    from schemas.episode import Video
    from wamdata.curate.small import shown_size, small_size

    video = Video(Path("film.mov"), np.arange(3), 0, "h264", 1920, 1080, 90)
    assert shown_size(video) == (1080, 1920)
    assert small_size(video) == (320, 180)
