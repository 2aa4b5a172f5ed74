import colorsys
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UsageError
from wamdata.augment import Augmentation, Draw, apply, cut_out, draw, jitter

LEVEL = 1 / 255
PLAIN = Draw(crop=1.0)
RANDOM = np.random.default_rng(0)
FRAMES = RANDOM.integers(0, 256, (3, 24, 40, 3), dtype=np.uint8)

GOLDEN_WORDS = (("hue", "contrast", "brightness", "saturation"), 7)
GOLDEN = (0.384212, 0.897613, 0.791654, 1.019409, 0.662902, -0.078891)


def pixel(*rgb: float) -> np.ndarray:
    """A frame of one colour."""
    return np.tile(np.array(rgb, np.float32)[:, None, None], (1, 2, 2))


def only(name: str, value: float) -> Draw:
    return replace(PLAIN, order=(name,), **{name: value})


def test_copy_0_is_the_centre_without_colours_or_phase() -> None:
    plain = draw(Augmentation(), 3, "w", 0, stride=9)
    assert plain == Draw(crop=0.95)
    assert cut_out(plain, 176, 320) == (4, 8, 167, 304)


def test_evaluation_frames_equal_those_of_the_models_own_rule() -> None:
    import torch

    from adapt.backbones.dreamzero.rules import crop_and_resize

    for shape, size in (((3, 180, 320, 3), (176, 320)), ((2, 120, 160, 3), (44, 80)), ((2, 33, 51, 3), (33, 51))):
        frames = RANDOM.integers(0, 256, shape, dtype=np.uint8)
        want = crop_and_resize(torch.from_numpy(frames), size).numpy().astype(int)
        difference = np.abs(apply(Draw(0.95), frames, size=size) - want)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # where cutting off meets a whole number


def test_nothing_asked_for_changes_nothing() -> None:
    nothing = Augmentation(crop=1, brightness=0, contrast=0, saturation=0, hue=0, phase=False)
    for copy in range(4):
        assert np.array_equal(apply(draw(nothing, 0, "w", copy, stride=5), FRAMES), FRAMES)
        assert draw(nothing, 0, "w", copy, stride=5).phase == 0


def test_a_frame_of_one_colour_keeps_it_through_crop_and_resize() -> None:
    for value in range(256):
        frame = np.full((1, 21, 34, 3), value, np.uint8)
        assert (apply(Draw(0.95, corner=(0.9, 0.1)), frame) == value).all()


def test_resizing_draws_straight_lines_between_the_middles_of_pixels() -> None:
    frame = np.zeros((1, 1, 4, 3), np.uint8)
    frame[0, 0, :, :] = np.array([0, 100, 200, 40])[:, None]
    doubled = apply(PLAIN, frame, size=(1, 8))[0, 0, :, 0]
    assert doubled.tolist() == [0, 25, 75, 125, 175, 160, 80, 40]
    halved = apply(PLAIN, frame, size=(1, 2))[0, 0, :, 0]  # weights 3, 3, 1 of 7 and 1, 3, 3 of 7, by the triangle
    assert halved.tolist() == [(3 * 0 + 3 * 100 + 200) // 7, (100 + 3 * 200 + 3 * 40) // 7]


@pytest.mark.parametrize(
    ("drawn", "before", "after"),
    [
        (only("brightness", 1.3), (0.5, 0.1, 0.9), (0.65, 0.13, 1.0)),
        (only("brightness", 0.7), (0.5, 0.1, 0.9), (0.35, 0.07, 0.63)),
        (only("saturation", 0.5), (1.0, 0.0, 0.0), (0.5 + 0.5 * 0.2989, 0.5 * 0.2989, 0.5 * 0.2989)),
        (only("saturation", 1.5), (0.0, 1.0, 0.0), (0.0, 1.0, 0.0)),  # clamped at both ends
        (only("contrast", 0.6), (0.2, 0.2, 0.2), (0.6 * 0.2 + 0.4 * 0.2 * 0.9999,) * 3),
        (only("hue", 1 / 3), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
        (only("hue", -1 / 3), (0.8, 0.2, 0.2), (0.2, 0.2, 0.8)),
        (only("hue", 0.08), (0.4, 0.4, 0.4), (0.4, 0.4, 0.4)),
    ],
)
def test_colours_by_hand(drawn: Draw, before: tuple, after: tuple) -> None:
    assert jitter(drawn, pixel(*before))[:, 0, 0] == pytest.approx(after, abs=1e-6)


def test_contrast_is_about_the_mean_gray_of_each_frame_alone() -> None:
    frame = np.stack([np.array([[0.0, 1.0]], np.float32)] * 3)
    assert jitter(only("contrast", 0.6), frame)[0, 0] == pytest.approx([0.2, 0.8], abs=1e-4)
    bright = np.full((1, 4, 4, 3), 240, np.uint8)
    pair = np.concatenate([bright, np.zeros_like(bright)])
    assert np.array_equal(apply(only("contrast", 0.6), pair)[:1], apply(only("contrast", 0.6), bright))


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(-0.5, 0.5))
def test_hue_turns_as_in_colorsys(rgb: tuple[int, int, int], turn: float) -> None:
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in rgb))
    want = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    assert jitter(only("hue", turn), pixel(*(c / 255 for c in rgb)))[:, 0, 0] == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("copy", range(1, 13))
def test_jitter_equals_torchvisions_to_a_level(copy: int) -> None:
    import torch
    import torchvision.transforms.v2.functional as functional

    drawn = replace(draw(Augmentation(), 0, "w", copy), crop=1.0)
    video = torch.from_numpy(FRAMES).permute(0, 3, 1, 2) / 255
    for name in drawn.order:
        video = getattr(functional, f"adjust_{name}")(video, getattr(drawn, name))
    got = apply(drawn, FRAMES) / 255
    assert np.abs(got - video.permute(0, 2, 3, 1).numpy()).max() <= LEVEL + 1e-6
    planes = np.ascontiguousarray(FRAMES.transpose(0, 3, 1, 2), np.float32) / 255
    assert np.abs(np.stack([jitter(drawn, f) for f in planes]) - video.numpy()).max() <= 1e-5


def test_the_steps_follow_the_drawn_order() -> None:
    draws = [draw(Augmentation(), 0, "w", copy) for copy in range(1, 200)]
    assert len({d.order for d in draws}) == 24
    one = replace(draws[0], order=("contrast", "brightness"), contrast=0.6, brightness=1.3)
    other = replace(one, order=("brightness", "contrast"))
    assert not np.array_equal(apply(one, FRAMES), apply(other, FRAMES))


def test_a_draw_depends_on_seed_window_and_copy_alone() -> None:
    one = draw(Augmentation(), 0, "w", 1, stride=8)
    assert one == draw(Augmentation(), 0, "w", 1, stride=8)
    others = [draw(Augmentation(), *which, stride=8) for which in ((1, "w", 1), (0, "v", 1), (0, "w", 2))]
    assert len({one, *others}) == 4


def test_draws_fill_their_ranges_and_stay_inside() -> None:
    draws = [draw(Augmentation(), 0, f"w{i}", 1, stride=4) for i in range(2000)]
    for name, middle, strength in (
        ("brightness", 1, 0.3),
        ("contrast", 1, 0.4),
        ("saturation", 1, 0.5),
        ("hue", 0, 0.08),
    ):
        values = np.array([getattr(d, name) for d in draws])
        assert np.abs(values - middle).max() <= strength
        assert values.mean() == pytest.approx(middle, abs=strength / 10)
        assert values.std() == pytest.approx(strength / np.sqrt(3), rel=0.05)
    assert {d.phase for d in draws} == {0, 1, 2, 3}
    places = {cut_out(d, 40, 60)[:2] for d in draws}
    assert places == {(top, left) for top in range(3) for left in range(4)}  # 38 of 40 rows, 57 of 60 columns


def test_one_crop_holds_for_all_frames_and_for_views_of_the_same_size() -> None:
    drawn = replace(draw(Augmentation(), 0, "w", 5), order=())
    alone = np.concatenate([apply(drawn, FRAMES[i : i + 1]) for i in range(3)])
    assert np.array_equal(apply(drawn, FRAMES), alone)
    top, left, height, width = cut_out(drawn, 24, 40)
    assert (height, width) == (22, 38) and 0 <= top <= 2 and 0 <= left <= 2
    assert np.array_equal(apply(drawn, FRAMES, size=(22, 38)), FRAMES[:, top : top + 22, left : left + 38])


def test_a_draw_is_recorded_in_plain_values() -> None:
    drawn = draw(Augmentation(), 0, "w", 1, stride=8)
    record = json.loads(json.dumps(drawn.as_dict()))
    assert record == drawn.as_dict()
    assert Draw(**record | {"corner": tuple(record["corner"]), "order": tuple(record["order"])}) == drawn


def test_draws_do_not_change_from_release_to_release() -> None:
    """Golden: caches are named by them. Made with `draw(Augmentation(), 0, "toy@000000x4", 1, stride=8)`."""
    drawn = draw(Augmentation(), 0, "toy@000000x4", 1, stride=8)
    assert (drawn.order, drawn.phase) == GOLDEN_WORDS
    assert (*drawn.corner, drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue) == pytest.approx(
        GOLDEN, abs=1e-5
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"crop": 0}, r"augment.crop is 0, wanted a share above 0, up to 1"),
        ({"hue": 0.6}, r"augment.hue is 0.6, wanted 0 to 0.5"),
        ({"contrast": -0.1}, r"augment.contrast is -0.1, wanted 0 to 1"),
    ],
)
def test_strengths_that_cannot_be_are_one_line(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Augmentation(**values)


def test_a_crop_to_nothing_is_a_message() -> None:
    with pytest.raises(UsageError, match="keeps no pixel of 4x9"):
        apply(Draw(0.2), np.zeros((1, 4, 9, 3), np.uint8))
