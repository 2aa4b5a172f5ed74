"""The time base in the numbers of the reference: 24 steps, stride 3, 8 frames to a chunk."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from goldens import golden_json

from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.rules import reference_chunks
from adapt.backbones.dreamzero.timebase import PAPER, TimeBase, read, released
from schemas.errors import DataError, UsageError

CONFIG = golden_json("keys_14b")["full.config_json"]


def test_the_paper_has_chunks_of_1_6_seconds_at_5_frames_per_second() -> None:
    assert PAPER.action_hz == 15.0
    assert PAPER.window_s == 6.4
    assert (PAPER.frames_per_chunk, PAPER.stride, PAPER.window_frames, PAPER.window_steps) == (8, 3, 33, 96)


def test_the_released_scripts_mean_0_8_seconds_at_10_frames_per_second_on_a_robot_of_30_hz() -> None:
    base = released(30)
    assert (base.chunk_s, base.video_fps, base.action_hz) == (pytest.approx(0.8), 10.0, pytest.approx(30))


def test_on_droid_the_released_scripts_and_the_paper_agree() -> None:
    assert released(15) == PAPER


def test_frames_of_a_chunk_are_those_three_to_twenty_four_steps_after_its_first_row() -> None:
    steps = released(30).frame_steps
    assert steps[0] == 0
    for chunk, frames in ((0, range(1, 9)), (1, range(9, 17)), (3, range(25, 33))):
        assert released(30).frames_of(chunk) == frames
        assert steps[list(frames)].tolist() == [24 * chunk + i for i in (3, 6, 9, 12, 15, 18, 21, 24)]
    with pytest.raises(UsageError, match="chunk 4: the window has chunks 0..3"):
        PAPER.frames_of(4)


def test_times_are_seconds_from_the_anchor() -> None:
    assert PAPER.frame_times[:3].tolist() == pytest.approx([0, 0.2, 0.4])
    assert PAPER.frame_times[-1] == pytest.approx(6.4)
    assert PAPER.row_times[[0, 1, 24, 95]].tolist() == pytest.approx([0, 1 / 15, 1.6, 95 / 15])
    assert PAPER.state_times.tolist() == pytest.approx([0, 1.6, 3.2, 4.8])
    assert len(PAPER.row_times) == 96 and len(PAPER.frame_times) == 33


def test_times_at_the_robots_rate_are_the_rows_that_the_reference_takes() -> None:
    anchors, frames = reference_chunks(200, start=50, language_at=lambda row: "")
    assert anchors == (2, 26, 50, 74)
    base = released(30)
    assert np.rint(base.frame_times * 30 + anchors[0]).astype(int).tolist() == list(frames)
    assert np.rint(base.state_times * 30 + anchors[0]).astype(int).tolist() == list(anchors)


def test_windows_have_the_frames_of_the_model() -> None:
    config = preset("14b")
    assert PAPER.window_frames == config.window_frames
    assert (PAPER.steps, PAPER.chunks, PAPER.latents_per_chunk) == (24, config.chunks, config.latents_per_chunk)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_fps": 10.0}, "1.6 s at 10 frames/s are 16 frames, but 2 latents need 8. Give video_fps 5."),
        ({"latents_per_chunk": 1}, "8 frames, but 1 latents need 4"),
        ({"steps": 20}, "20 steps for 8 frames in a chunk. Give a multiple"),
        ({"chunks": 0}, "chunks is 0"),
        ({"chunk_s": float("nan")}, "chunk_s is nan"),
    ],
)
def test_a_time_base_that_contradicts_itself_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(PAPER, **change)
    with pytest.raises(UsageError, match="control rate 0 Hz"):
        released(0)


def test_a_public_checkpoint_gives_all_but_the_rate() -> None:
    with pytest.raises(UsageError, match="no rate for 'agibot' \\(fps map has: none\\). Give control_hz"):
        read({}, CONFIG, tag="agibot")
    assert read({}, CONFIG, control_hz=15) == PAPER
    assert read({}, CONFIG, control_hz=30) == released(30)


def test_the_rate_comes_from_the_fps_map_wherever_the_conf_has_it() -> None:
    conf = {"train_dataset": {"fps": {"yam": 30}}}
    assert read(conf, CONFIG, tag="yam") == released(30)
    with pytest.raises(UsageError, match="no rate for 'oxe_droid' \\(fps map has: yam\\)"):
        read(conf, CONFIG, tag="oxe_droid")
    with pytest.raises(UsageError, match="fps of 'yam' is 30, but control_hz 15 was given"):
        read(conf, CONFIG, tag="yam", control_hz=15)


def test_a_checkpoint_of_other_sizes_gives_another_time_base() -> None:
    other = _with(num_frames=17, action_horizon=48)
    other["action_head_cfg"]["config"]["diffusion_model_cfg"] = {"max_chunk_size": -1}
    assert read({}, other, control_hz=30) == TimeBase(chunk_s=1.6, video_fps=5.0, steps=48, chunks=2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "num_frames is None, wanted a number above zero"),
        ({"num_frames": 32}, "num_frames 32 with num_frame_per_block 2, wanted 1 \\+ a multiple of 8"),
        ({"num_frames": 17}, "max_chunk_size is 4 in the network, 2 by the action head"),
        ({"action_horizon": 32}, "num_action_per_block is 24 in the network, 32"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(config: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read({}, _with(**config) if config else {}, control_hz=30)


def _with(**sizes: int) -> dict:
    config = copy.deepcopy(CONFIG)
    config["action_head_cfg"]["config"].update(sizes)
    return config
