"""What flows between the readers and the shards: streams, videos, episodes, trajectories.

Frozen dataclasses of read-only numpy arrays, checked once when made. Times are int64 ns on the episode's own
clock, spans are half-open. A `Video` and `Pictures` are handles: they hold no pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.embodiment import Embodiment
from schemas.errors import DataError

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

CONTROL_CODES = {"human": 0, "policy": 1, "intervention": 2, "scripted": 3, "reset": 4}
Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing noticed about a source: what (`code`), how bad, where, and what to do (`message`).

    Args:
        span_s: the seconds of the episode that it is about, from its start; None for all of it.
        numbers: what was measured, by name with its unit: `drift_ms`.
        fix: the `use` that a label table would give the span to be rid of it; "" where no table helps.
    """

    code: str
    severity: Severity
    where: str
    message: str
    span_s: tuple[float, float] | None = None
    numbers: tuple[tuple[str, float], ...] = ()
    fix: Literal["", "video", "none", "drop"] = ""


@dataclass(frozen=True)
class Stream:
    """One low-dimensional signal as logged.

    Args:
        t_ns: (N,) int64, strictly increasing.
        values: (N, D) float32.
        columns: D names, or empty when the log has none.
    """

    name: str
    t_ns: Int64
    values: Float32
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.values.ndim == 2 and self.t_ns.shape == (len(self.values),), self.name
        assert self.values.dtype == np.float32 and self.t_ns.dtype == np.int64, self.name
        if self.columns and len(self.columns) != self.values.shape[1]:
            raise DataError(f"stream {self.name!r}: {len(self.columns)} names for {self.values.shape[1]} columns.")
        if len(self.t_ns) > 1 and not (np.diff(self.t_ns) > 0).all():
            row = int(np.argmax(np.diff(self.t_ns) <= 0)) + 1
            raise DataError(
                f"stream {self.name!r}: time does not increase at row {row}. Mend the time stamps or drop the episode."
            )
        freeze(self.t_ns, self.values)

    @property
    def rate_hz(self) -> float:
        """Median rate; 0 for fewer than two samples."""
        return 1e9 / float(np.median(np.diff(self.t_ns))) if len(self.t_ns) > 1 else 0.0


@dataclass(frozen=True)
class Video:
    """Frames of one camera inside a video file; no pixels.

    Args:
        path: the container, which may hold more frames than these.
        t_ns: (N,) time of each frame on the episode's clock.
        first_frame: index, in presentation order, of this episode's first frame in the container.
        rotation: degrees clockwise that a viewer must apply, from the container's metadata.
    """

    path: Path
    t_ns: Int64
    first_frame: int
    codec: str
    width: int
    height: int
    rotation: int = 0

    def __post_init__(self) -> None:
        freeze(self.t_ns)


Coded = bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Frames of one camera that a log keeps one by one, outside any video file; no pixels.

    Args:
        t_ns: (N,) time of each frame on the episode's clock.
        codec: `mjpeg` or `png`; a video codec whose packets follow each other (`h264`, `hevc`); or `raw`.
        load: frames [a, b) as coded bytes each, of `raw` as (height, width, 3) uint8 RGB. Called late and often.
        is_key: (N,) bool, whether decoding can start at the frame; None where it can at each.
        rotation: degrees clockwise that a viewer must apply.
    """

    t_ns: Int64
    codec: str
    width: int
    height: int
    load: Callable[[int, int], list[Coded]]
    is_key: NDArray[np.bool_] | None = None
    rotation: int = 0

    def __post_init__(self) -> None:
        assert self.is_key is None or self.is_key.shape == self.t_ns.shape
        freeze(self.t_ns)


Footage = Video | Pictures  # what a camera of an episode gave


@dataclass(frozen=True)
class Text:
    """An instruction and the span it holds for; `origin` says where it was found."""

    text: str
    start_ns: int
    stop_ns: int
    level: Literal["task", "subtask"] = "task"
    origin: str = "unknown"


@dataclass(frozen=True)
class UseSpan:
    """A span and the losses it may feed at most: ("video", "action"), ("video",) or ("none",)."""

    start_ns: int
    stop_ns: int
    losses: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """A word that a log holds at one time, such as `start`: by it a recording can be cut into episodes."""

    name: str
    t_ns: int
    value: str


@dataclass(frozen=True)
class Episode:
    """One recording as logged: streams at their own rates, raw names, lazy video.

    Args:
        events: in time, of any number of names.
        use: what curation says of spans; without any, all of it may be used.
        seams: times in ns, such as the cuts of a film, at which a clip ends and the next one begins.
        aliases: other names that the log has for it, such as where it lay when it was recorded.
        quality, operator: as a label table has them.
        counted_hz: the rate at which rows were counted because the log holds no times; 0 where it does. The robot's
            `native_hz` takes its place when the episode is mapped.
    """

    source: str
    key: str
    streams: dict[str, Stream]
    videos: dict[str, Footage]
    texts: tuple[Text, ...]
    session: str
    reader: str
    source_sha256: str
    rows: tuple[int, int] = (0, 0)
    outcome: Literal["success", "failure", "unknown"] = "unknown"
    licence: str = "unknown"
    findings: tuple[Finding, ...] = ()
    counted_hz: float = 0.0
    events: tuple[Event, ...] = ()
    use: tuple[UseSpan, ...] = ()
    seams: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()
    quality: str = "unknown"
    operator: str = "unknown"

    @property
    def clocks(self) -> list[Int64]:
        """Times of every stream and camera that holds any."""
        everything = (*self.streams.values(), *self.videos.values())
        return [each.t_ns for each in everything if len(each.t_ns)]

    @property
    def length_s(self) -> float:
        """Seconds from first to last time of the longest stream or camera."""
        return max(((int(t[-1]) - int(t[0])) / 1e9 for t in self.clocks), default=0.0)


@dataclass(frozen=True)
class Trajectory:
    """An episode on the embodiment's clock, in its order and units.

    Args:
        t_ns: (T,) the clock.
        state: (T, S) float32, action: (T, A) float32; SI units or declared otherwise.
        control: (T,) uint8, codes in `CONTROL_CODES`.
        state_valid, action_valid: (T,) bool, false where a stream had no sample near enough.
    """

    episode: Episode
    embodiment: Embodiment
    t_ns: Int64
    state: Float32
    action: Float32
    control: NDArray[np.uint8]
    state_valid: NDArray[np.bool_]
    action_valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        rows = len(self.t_ns)
        assert self.state.shape == (rows, self.embodiment.state_width)
        assert self.action.shape == (rows, self.embodiment.action_width)
        assert self.control.shape == self.state_valid.shape == self.action_valid.shape == (rows,)
        freeze(self.t_ns, self.state, self.action, self.control, self.state_valid, self.action_valid)


@dataclass(frozen=True)
class Window:
    """What a backbone trains on, cut from a clip on the recipe's time base.

    Args:
        clip_key, start: the window's id; `start` is a row of the clip on the time base.
        frames: per camera key, (F, H, W, 3) uint8 RGB.
        state: (C, S) state at the start of each of the C chunks.
        history: (C, L, S) state at earlier rows, newest first, lags in `HISTORY_LAGS`.
        last_action: (C, A) the command before each chunk.
        action: (C, K, A) absolute commands, K steps per chunk; width 0 for action-free video.
        action_valid: (C, K) bool.
        text: the instruction, "" where the log has none.
    """

    clip_key: str
    start: int
    frames: dict[str, NDArray[np.uint8]]
    state: Float32
    history: Float32
    last_action: Float32
    action: Float32
    action_valid: NDArray[np.bool_]
    text: str = ""
    extras: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return window_id(self.clip_key, self.start, len(self.state))


def window_id(clip_key: str, start: int, chunks: int) -> str:
    """The one name of a window; free of dots, so that it is a sample key too."""
    return f"{clip_key}@{start:06d}x{chunks}"


def freeze(*arrays: np.ndarray) -> None:
    """Make arrays read-only: what flows through the house is never changed in place."""
    for array in arrays:
        array.setflags(write=False)
