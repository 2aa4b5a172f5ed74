"""Windows cut from clips at load time, on the recipe's time base in seconds.

A window starts at row a of the clip's rows on the time base and holds C chunks of K steps: state at each
chunk's start (row a + cK), commands at rows a + cK ... a + cK + K - 1, and frames from the start of the first
chunk to the end of the last one, that end included (33 frames at DreamZero's 4 chunks of 8; dreamzero.md 4.2).
Every window is whole: none crosses the clip's end, an invalid row, a row that feeds no loss (`use`), or a change of
instruction, and clips that are too short give none and are counted (`wam plan` lists them).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.embodiment import Embodiment
from schemas.episode import Float32, Int64, Window, freeze
from schemas.recipe import TimeBase
from wamdata.align import distance_ns, nearest, uniform_grid
from wamdata.clips import Clip
from wamdata.footage import mended
from wamdata.mapping import resample_component
from wamdata.use import IMITATED, at_times, clip_feeds
from wamdata.video import read_frames

HISTORY_LAGS = (1, 2, 4, 8)  # rows; libraries.md: differences over these made a ridge fall from 0.0364 to 0.0234
HOLE_ROWS = 1.5  # neighbours further apart than this many periods have a hole between them
SAME_RATE = 0.02  # a native rate this close to the time base's is taken as it is


@dataclass(frozen=True)
class Rows:
    """A clip on the time base: (T,) times, (T, S) state, (T, A) commands, (T,) validity.

    `feeds_video` and `feeds_action`, (T,) bool, are what `use` allows, whether or not the row is valid.
    """

    t_ns: Int64
    state: Float32
    action: Float32
    valid: np.ndarray
    feeds_video: np.ndarray
    feeds_action: np.ndarray

    def __post_init__(self) -> None:
        freeze(self.t_ns, self.state, self.action, self.valid, self.feeds_video, self.feeds_action)

    def __len__(self) -> int:
        return len(self.t_ns)

    @property
    def usable(self) -> np.ndarray:
        """(T,) bool: rows that a window may hold."""
        return self.valid & self.feeds_video

    @property
    def action_counts(self) -> np.ndarray:
        """(T,) bool: rows whose action is learnt, measured by statistics and judged."""
        return self.valid & self.feeds_action


def on_time_base(
    clip: Clip, embodiment: Embodiment, time_base: TimeBase, *, imitated: frozenset[str] = IMITATED
) -> Rows:
    """The clip's rows at the time base's rate; unchanged when the robot already runs at it.

    Args:
        imitated: controls whose actions may be learnt, names in `CONTROL_CODES`.
    """
    feeds = clip_feeds(clip, imitated=imitated)
    period_ns = 1e9 / time_base.action_hz
    same_rate = abs(embodiment.native_hz / time_base.action_hz - 1) <= SAME_RATE
    if not embodiment.is_action_free and same_rate and np.diff(clip.t_ns).max(initial=0) < HOLE_ROWS * period_ns:
        return Rows(clip.t_ns, clip.state, clip.action, clip.valid, *feeds)
    grid = uniform_grid(int(clip.t_ns[0]), int(clip.t_ns[-1]), time_base.action_hz)
    on_grid = at_times(feeds, clip.t_ns, grid)
    return Rows(
        t_ns=grid,
        state=_resampled(clip.t_ns, clip.state, embodiment.model_state, grid),
        action=_resampled(clip.t_ns, clip.action, embodiment.model_action, grid),
        valid=clip.valid[nearest(clip.t_ns, grid)]
        & (distance_ns(clip.t_ns, grid) < HOLE_ROWS * 1e9 / min(embodiment.native_hz, time_base.action_hz)),
        feeds_video=on_grid.video,
        feeds_action=on_grid.action,
    )


def window_starts(clip: Clip, rows: Rows, time_base: TimeBase, *, stride: int) -> list[int]:
    """Rows at which a whole window starts, every `stride` rows."""
    return _whole(clip, rows, time_base, range(0, len(rows) - time_base.window_rows + 1, stride))


def judged_starts(
    clip: Clip, rows: Rows, time_base: TimeBase, *, video_alone: bool = False
) -> tuple[list[int], list[int]]:
    """Starts and numbers of chunks of the windows whose last chunk is to be predicted from the ones before.

    One for every chunk of the clip that is whole and, where the robot has actions, holds a row whose action counts;
    with as much past as there is, up to the time base's chunks.

    Args:
        video_alone: actions are not looked at, though the robot may have some.
    """
    starts, chunks = [], []
    counts = rows.usable if video_alone or not rows.action.shape[1] else rows.action_counts
    for anchor in range(0, len(rows) - time_base.steps + 1, time_base.steps):
        stop = anchor + time_base.steps
        past = min(anchor // time_base.steps, time_base.chunks - 1)
        for context in range(past, -1, -1) if counts[anchor:stop].any() else ():
            start = anchor - context * time_base.steps
            whole = rows.usable[start:stop].all() and has_frames(clip, rows, start, context + 1, time_base)
            if whole and has_one_text(clip, rows, start, stop):
                starts.append(start)
                chunks.append(context + 1)
                break
    return starts, chunks


def _whole(clip: Clip, rows: Rows, time_base: TimeBase, starts: Sequence[int]) -> list[int]:
    """Those of `starts` at which a whole window starts."""
    need = time_base.window_rows
    bad = np.concatenate([[0], np.cumsum(~rows.usable)])
    return [
        a
        for a in starts
        if 0 <= a <= len(rows) - need
        and bad[a + need] == bad[a]
        and has_one_text(clip, rows, a, a + need)
        and has_frames(clip, rows, a, time_base.chunks, time_base)
    ]


def has_one_text(clip: Clip, rows: Rows, start: int, stop: int) -> bool:
    """Whether one instruction holds over rows [start, stop)."""
    first, last = int(rows.t_ns[start]), int(rows.t_ns[stop - 1])
    changes = {t for text in clip.meta.text for t in (text.start_ns, text.stop_ns) if first < t <= last}
    return len({clip.text_at(t) for t in (first, *changes)}) == 1


def has_frames(clip: Clip, rows: Rows, start: int, chunks: int, time_base: TimeBase) -> bool:
    """Whether every camera has a frame near each of the window's frame times."""
    times = _frame_times(rows, start, chunks, time_base)
    allowed_ns = 1e9 / time_base.video_fps
    return all(distance_ns(pts, times).max() <= allowed_ns for pts in clip.pts_ns.values())


def cut_windows(
    clip: Clip,
    rows: Rows,
    starts: Sequence[int],
    embodiment: Embodiment,
    time_base: TimeBase,
    *,
    view_size: tuple[int, int] | None = None,
    chunks: Sequence[int] | None = None,
) -> Iterator[Window]:
    """Windows at `starts`, decoding each needed frame of the clip once.

    Args:
        view_size: (height, width) of the decoded views; None keeps the source's.
        chunks: chunks per window where they are fewer than the time base's, as in inference with a short past.
    """
    counts = chunks or [time_base.chunks] * len(starts)
    times = [_frame_times(rows, a, count, time_base) for a, count in zip(starts, counts, strict=True)]
    pixels, places = _decode(clip, embodiment, times, view_size)
    for at, (a, count) in enumerate(zip(starts, counts, strict=True)):
        frames = {camera: pixels[camera][places[camera][at]] for camera in pixels}
        yield window_at(clip, rows, a, embodiment, time_base, count, frames)


def window_at(
    clip: Clip,
    rows: Rows,
    a: int,
    embodiment: Embodiment,
    time_base: TimeBase,
    count: int,
    frames: dict[str, np.ndarray] | None = None,
) -> Window:
    """The window of `count` chunks that starts at row `a`; without `frames` nothing is decoded and it holds none."""
    anchors = a + np.arange(count) * time_base.steps
    steps = anchors[:, None] + np.arange(time_base.steps)
    lags = np.maximum(anchors[:, None] - np.array(HISTORY_LAGS), 0)
    return Window(
        clip_key=clip.key,
        start=a,
        frames=frames or {},
        state=rows.state[anchors],
        history=rows.state[lags],
        last_action=last_commands(rows, anchors, embodiment),
        action=rows.action[np.minimum(steps, len(rows) - 1)],
        action_valid=(steps < len(rows)) & rows.action_counts[np.minimum(steps, len(rows) - 1)],
        text=clip.text_at(int(rows.t_ns[a])),
    )


def last_commands(rows: Rows, anchors: np.ndarray, embodiment: Embodiment) -> Float32:
    """The command before each anchor; before the first row nothing was commanded, so standing still stands in."""
    hold = np.array(embodiment.hold_columns(), np.int64)
    commands = rows.action[np.maximum(anchors - 1, 0)].copy()
    first = anchors == 0
    if first.any() and len(hold):
        still = (
            np.where(hold >= 0, rows.state[0][np.maximum(hold, 0)], 0.0) if rows.state.shape[1] else np.zeros(len(hold))
        )
        commands[first] = still
    return commands


def velocities(state: Float32, hz: float) -> Float32:
    """(T, S) rates of change per second of (T, S) state rows at `hz`, in each column's own unit a second.

    The backward difference, which is all that a policy knows at its present row; zero in the first row. Radians give
    rad/s, metres m/s, a gripper's fraction 1/s. A row beside a hole differs from what was filled in there: leave out
    rows that are not valid. Does not know rotations: columns of a quaternion give no angular velocity.
    """
    change = np.diff(state.astype(np.float64), axis=0, prepend=state[:1])
    return (change * hz).astype(np.float32)


def _frame_times(rows: Rows, a: int, chunks: int, time_base: TimeBase) -> Int64:
    """Times of a window's frames; between rows by the straight line, past the last row by the row period."""
    at = a + np.arange(chunks * time_base.frames_per_chunk + 1) * time_base.steps / time_base.frames_per_chunk
    period = (rows.t_ns[-1] - rows.t_ns[0]) / max(len(rows) - 1, 1)
    inside = np.interp(at, np.arange(len(rows)), (rows.t_ns - rows.t_ns[0]).astype(np.float64))
    beyond = np.maximum(at - (len(rows) - 1), 0) * period
    return rows.t_ns[0] + np.round(inside + beyond).astype(np.int64)


def _decode(
    clip: Clip, embodiment: Embodiment, times: Sequence[Int64], view_size: tuple[int, int] | None
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
    """Per camera: the distinct frames that the windows need, and per window the places of its frames among them."""
    pixels: dict[str, np.ndarray] = {}
    places: dict[str, list[np.ndarray]] = {}
    for camera in embodiment.model_cameras:
        meta, pts = clip.meta.cameras[camera.key], clip.pts_ns[camera.key]
        chosen = [nearest(pts, t) for t in times]
        needed = np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
        shown = read_frames(
            clip.videos[camera.key],
            meta.first_frame + needed,
            size=view_size,
            rotate=(meta.rotate + camera.rotate) % 360,
        )
        pixels[camera.key] = mended(shown, camera)
        places[camera.key] = [np.searchsorted(needed, frames) for frames in chosen]
    return pixels, places


def _resampled(t_ns: Int64, values: Float32, components: tuple, grid: Int64) -> Float32:
    parts, start = [np.zeros((len(grid), 0), np.float32)], 0
    for component in components:
        parts.append(resample_component(component, t_ns, values[:, start : start + component.width], grid))
        start += component.width
    return np.concatenate(parts, axis=1)
