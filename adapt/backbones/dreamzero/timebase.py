"""The time base: how long a chunk lasts and how fast the video runs, in seconds, whatever the robot's rate.

The reference counts in rows: 24 control steps to a chunk, a video frame every third. What that means in seconds depends
on the robot: 1.6 s at 5 frames/s on DROID's 15 Hz, 0.8 s at 10 frames/s on a robot of 30 Hz. The paper states 1.6 s
for both its robots. A base model knows motion at the speed it was trained on, so a robot of another rate is resampled
to the base's seconds, not to its rows.

Times are relative to the anchor, the first chunk's first row: frame 0 is at 0, and the frames of chunk c are those
after its first row up to and with the next chunk's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DataError, UsageError

FRAMES_PER_LATENT = 4  # the video VAE's stride in time
STRIDE = 3  # rows from one video frame to the next in the released scripts


@dataclass(frozen=True)
class TimeBase:
    """A window of `chunks` chunks, `chunk_s` seconds and `steps` control steps each, and video of `video_fps`.

    Raises:
        UsageError: a chunk's frames are not 4 for each of its `latents_per_chunk` latents, or do not fall on steps.
    """

    chunk_s: float
    video_fps: float
    steps: int = 24
    chunks: int = 4
    latents_per_chunk: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UsageError(f"time base: {name} is {value}. Give a number above zero.")
        frames = self.chunk_s * self.video_fps
        wanted = FRAMES_PER_LATENT * self.latents_per_chunk
        if abs(frames - wanted) > 1e-6 * wanted:
            raise UsageError(
                f"time base: {self.chunk_s:g} s at {self.video_fps:g} frames/s are {frames:g} frames, but "
                f"{self.latents_per_chunk} latents need {wanted}. Give video_fps {wanted / self.chunk_s:g}."
            )
        if self.steps % wanted:
            raise UsageError(f"time base: {self.steps} steps for {wanted} frames in a chunk. Give a multiple.")

    @property
    def action_hz(self) -> float:
        return self.steps / self.chunk_s

    @property
    def frames_per_chunk(self) -> int:
        return FRAMES_PER_LATENT * self.latents_per_chunk

    @property
    def stride(self) -> int:
        """Steps from one video frame to the next."""
        return self.steps // self.frames_per_chunk

    @property
    def window_frames(self) -> int:
        """Video frames of a window: frame 0, and those of every chunk."""
        return self.chunks * self.frames_per_chunk + 1

    @property
    def window_steps(self) -> int:
        """Action rows of a window; the last frame is one step after the last of them."""
        return self.chunks * self.steps

    @property
    def window_s(self) -> float:
        return self.chunks * self.chunk_s

    @property
    def frame_steps(self) -> NDArray[np.int64]:
        """(window_frames,) step at which each frame is taken, 0 at the anchor."""
        return np.arange(self.window_frames) * self.stride

    @property
    def frame_times(self) -> NDArray[np.float64]:
        """(window_frames,) seconds after the anchor."""
        return self.frame_steps / self.action_hz

    @property
    def row_times(self) -> NDArray[np.float64]:
        """(window_steps,) seconds after the anchor of the action rows."""
        return np.arange(self.window_steps) / self.action_hz

    @property
    def state_times(self) -> NDArray[np.float64]:
        """(chunks,) seconds after the anchor of the states: each chunk's first row."""
        return np.arange(self.chunks) * self.chunk_s

    def frames_of(self, chunk: int) -> range:
        """Frames of a chunk, counted in the window: 1..8 for the first; frame 0 belongs to none."""
        if not 0 <= chunk < self.chunks:
            raise UsageError(f"chunk {chunk}: the window has chunks 0..{self.chunks - 1}.")
        return range(chunk * self.frames_per_chunk + 1, (chunk + 1) * self.frames_per_chunk + 1)


# The paper's, for AgiBot and DROID alike: a step lasts 1/15 s.
PAPER = TimeBase(chunk_s=1.6, video_fps=5.0)


def released(control_hz: float) -> TimeBase:
    """What the released scripts do on a robot of this rate: 24 rows to a chunk, every third with a frame."""
    if not control_hz > 0:
        raise UsageError(f"control rate {control_hz} Hz: give one above zero.")
    return TimeBase(chunk_s=24 / control_hz, video_fps=control_hz / STRIDE)


def read(
    conf: Mapping[str, Any], config_json: Mapping[str, Any], *, tag: str | None = None, control_hz: float | None = None
) -> TimeBase:
    """The time base of a checkpoint, from its `conf.yaml` and `config.json` as loaded.

    Args:
        tag: the embodiment whose rate is looked up in the conf's `fps` map.
        control_hz: the rate of the rows it was trained on; the files of the public checkpoints mostly do not say.

    Raises:
        DataError: config.json lacks a size, or the sizes contradict each other.
        UsageError: nothing gives the rate, or what the conf says differs from `control_hz`.
    """
    head = config_json.get("action_head_cfg", {}).get("config", {})
    network = head.get("diffusion_model_cfg", {})
    sizes = {name: _size(head, name) for name in ("num_frames", "num_frame_per_block", "action_horizon")}
    frames, latents, steps = sizes.values()
    if (frames - 1) % (FRAMES_PER_LATENT * latents) or frames < 2:
        raise DataError(
            f"config.json: num_frames {frames} with num_frame_per_block {latents}, wanted 1 + a multiple of "
            f"{FRAMES_PER_LATENT * latents}. The checkpoint cannot be of this model."
        )
    chunks = (frames - 1) // (FRAMES_PER_LATENT * latents)
    known = {"max_chunk_size": chunks, "num_action_per_block": steps, "num_frame_per_block": latents}
    for name, wanted in known.items():
        no_limit = (-1,) if name == "max_chunk_size" else ()  # to the chunks that the network looks back on
        if network.get(name, wanted) not in (wanted, *no_limit):
            raise DataError(
                f"config.json: {name} is {network[name]} in the network, {wanted} by the action head's sizes. "
                "Give the checkpoint's own file."
            )
    hz = _rate(conf, tag, control_hz)
    if steps % (FRAMES_PER_LATENT * latents):
        raise DataError(f"config.json: action_horizon {steps} is no multiple of {FRAMES_PER_LATENT * latents} frames.")
    chunk_s = steps / hz
    return TimeBase(chunk_s, FRAMES_PER_LATENT * latents / chunk_s, steps, chunks, latents)


def _size(head: Mapping[str, Any], name: str) -> int:
    value = head.get(name)
    if not isinstance(value, int) or value <= 0:
        raise DataError(
            f"config.json: action_head_cfg.config.{name} is {value!r}, wanted a number above zero. "
            "Give the config.json of a DreamZero checkpoint."
        )
    return value


def _rate(conf: Mapping[str, Any], tag: str | None, control_hz: float | None) -> float:
    found = fps_maps(conf)
    stated = next((_hz(fps[tag], tag) for fps in found if tag in fps), None)
    if stated is None and control_hz is None:
        known = ", ".join(sorted({name for fps in found for name in fps})) or "none"
        raise UsageError(f"conf.yaml: no rate for {tag or 'the robot'!r} (fps map has: {known}). Give control_hz.")
    if stated is not None and control_hz is not None and stated != control_hz:
        raise UsageError(f"conf.yaml: fps of {tag!r} is {stated:g}, but control_hz {control_hz:g} was given. Give one.")
    return float(stated if control_hz is None else control_hz)


def _hz(value: Any, tag: str | None) -> float:
    try:
        hz = float(value)
    except (TypeError, ValueError):
        hz = 0.0
    if not hz > 0:
        raise DataError(f"conf.yaml: fps of {tag!r} is {value!r}, wanted a number above zero. Mend the file.")
    return hz


def fps_maps(conf: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every mapping named `fps` in the conf, which holds a copy for each data set."""
    maps: list[Mapping[str, Any]] = []
    for name, value in conf.items():
        if isinstance(value, Mapping):
            maps += [value] if name == "fps" else fps_maps(value)
    return maps
