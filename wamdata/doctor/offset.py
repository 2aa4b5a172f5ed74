"""How late a camera is against the rows: the shift at which changes in the picture go with the joints' speed.

Both clocks may be right and the picture still late: exposure, coding and queues take their time before a frame gets
its stamp. Measured over several episodes together, with its spread over them; the drift is the shift in the second half
of each episode less that in the first. Decodes every frame of those episodes, small. A camera on which little of the
robot is seen, or a robot that moves at one speed, gives no answer rather than a wrong one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Finding, Footage, Int64, Trajectory
from wamdata.footage import frames

EPISODES, LONGEST_S = 12, 40.0  # looked at: of each at most so many seconds
HEIGHT, WIDTH = 60, 80
REACH_S, STEP_S = 0.5, 0.01  # shifts that are tried
SMOOTH_S = 1.5  # slower changes are taken out: light, and how fast the task is as a whole
WITHIN_S = 0.2  # over which pictures and joints are compared with themselves: single rows and frames are mostly noise
GREY = 12.0  # levels by which a pixel must change to count
REACH = 0.05  # in mapped units, of a column that counts
LEAST = 0.2  # correlation below which there is no answer
CLEAR = 0.1  # by which the best shift must beat those half a second away
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Offset:
    """A camera's measured shift.

    Args:
        late_ms: by how much a frame's stamp lies behind what it shows; negative where it lies before.
        drift_ms: shift in the second half of the episodes less that in the first.
        spread_ms, drift_spread_ms: their standard errors over episodes.
        correlation: at the best shift.
    """

    late_ms: float
    spread_ms: float
    drift_ms: float
    drift_spread_ms: float
    correlation: float
    episodes: int


def measure(trajectories: Sequence[Trajectory], camera: str) -> Offset | None:
    """The shift of a camera over some episodes; None where the pictures do not tell.

    Args:
        camera: name of the camera in the log.
    """
    seen = [t for t in trajectories if camera in t.episode.videos][:EPISODES]
    pairs = [p for t in seen if (p := _pair(t, camera)) is not None]
    if len(pairs) < 2:
        return None
    curves = np.stack([_correlations(*p) for p in pairs])
    late, height = _peak(curves.mean(axis=0))
    edges = max(curves.mean(axis=0)[[0, -1]])
    if height < LEAST or height - edges < CLEAR:
        return None
    halves = [np.stack([_correlations(*_part(p, half)) for p in pairs]) for half in (0, 1)]
    drift = _peak(halves[1].mean(axis=0))[0] - _peak(halves[0].mean(axis=0))[0]
    drifts = _left_out(halves[1]) - _left_out(halves[0])
    return Offset(late * 1e3, _error(_left_out(curves)) * 1e3, drift * 1e3, _error(drifts) * 1e3, height, len(pairs))


def finding(offset: Offset | None, camera: str, frame_ms: float, where: str) -> Finding:
    """What a measurement means: a lag of more than a frame, beyond its spread, is worth mending."""
    if offset is None:
        message = f"{camera}: its shift against the rows cannot be told: the picture changes little with the joints"
        return Finding("video_offset", "info", where, message)
    numbers = (("late_ms", offset.late_ms), ("spread_ms", offset.spread_ms), ("drift_ms", offset.drift_ms))
    words = (
        f"{camera}: frames are {abs(offset.late_ms):.0f} ms {'late' if offset.late_ms >= 0 else 'early'} "
        f"(± {offset.spread_ms:.0f} ms over {offset.episodes} episodes, correlation {offset.correlation:.2f}), "
        f"drift {offset.drift_ms:+.0f} ± {offset.drift_spread_ms:.0f} ms within an episode"
    )
    if abs(offset.late_ms) < frame_ms + 2 * offset.spread_ms:
        return Finding("video_offset", "info", where, words, None, numbers)
    message = f"{words}: more than a frame of {frame_ms:.0f} ms. Look at the camera's time stamps where it is recorded"
    return Finding("video_offset", "warning", where, message, None, numbers)


def _left_out(curves: Float64) -> Float64:
    """Peaks with one episode left out at a time (jackknife): one alone is too short to have a peak of its own."""
    return np.array([_peak(np.delete(curves, n, axis=0).mean(axis=0))[0] for n in range(len(curves))])


def _error(left_out: Float64) -> float:
    return float(np.sqrt((len(left_out) - 1) * left_out.var()))


Pair = tuple[Int64, Float64, Int64, Float64]  # times and changes of the picture, times and speeds of the joints


def _pair(trajectory: Trajectory, camera: str) -> Pair | None:
    """The two signals of an episode; None where it is too short, or nothing moves."""
    footage = trajectory.episode.videos[camera]
    stop = int(np.searchsorted(footage.t_ns, footage.t_ns[0] + round(LONGEST_S * 1e9)))
    shown, change = _changes(footage, stop)
    rows, moved = _speeds(trajectory)
    if min(len(shown), len(rows)) < 2 or min(shown[-1] - shown[0], rows[-1] - rows[0]) / 1e9 < 4 * REACH_S:
        return None
    return (shown, change, rows, moved) if moved.any() else None


def _changes(footage: Footage, stop: int) -> tuple[Int64, Float64]:
    """Share of pixels that change over WITHIN_S, and the middle of that time."""
    apart = _apart(footage.t_ns)
    pictures = np.concatenate(
        [frames(footage, range(at, min(at + 64, stop)), size=(HEIGHT, WIDTH)) for at in range(0, stop, 64)]
    ).astype(np.int16)
    moved = np.abs(pictures[apart:] - pictures[:-apart]).mean(axis=-1) > GREY
    return _middles(footage.t_ns[:stop], apart), moved.mean(axis=(1, 2))


def _speeds(trajectory: Trajectory) -> tuple[Int64, Float64]:
    """How far the joints move over WITHIN_S, in shares of their range, and the middle of that time."""
    apart = _apart(trajectory.t_ns)
    state = trajectory.state
    used = np.isfinite(state).all(axis=0) & (np.ptp(state, axis=0) > REACH)
    steps = np.abs(state[apart:, used] - state[:-apart, used]) / np.ptp(state[:, used], axis=0)
    return _middles(trajectory.t_ns, apart), steps.sum(axis=1).astype(np.float64)


def _apart(t_ns: Int64) -> int:
    return max(1, round(WITHIN_S * 1e9 / float(np.median(np.diff(t_ns))))) if len(t_ns) > 1 else 1


def _middles(t_ns: Int64, apart: int) -> Int64:
    return t_ns[:-apart] + (t_ns[apart:] - t_ns[:-apart]) // 2


def _correlations(shown: Int64, change: Float64, rows: Int64, moved: Float64) -> Float64:
    """Correlation of the two at each shift of `_shifts()`, on a common grid."""
    grid = np.arange(max(shown[0], rows[0]) / 1e9 + REACH_S, min(shown[-1], rows[-1]) / 1e9 - REACH_S, STEP_S)
    if len(grid) < 2:
        return np.zeros(len(_shifts()))
    seen = _detailed(np.interp(grid, shown / 1e9, change))
    result = []
    for shift in _shifts():
        speed = _detailed(np.interp(grid - shift, rows / 1e9, moved))
        size = np.sqrt((seen**2).sum() * (speed**2).sum())
        result.append(float((seen * speed).sum() / size) if size > 0 else 0.0)
    return np.array(result)


def _shifts() -> Float64:
    count = round(REACH_S / STEP_S)
    return np.arange(-count, count + 1) * STEP_S


def _detailed(values: Float64) -> Float64:
    """Without what is slower than SMOOTH_S, and with outliers held: a leap of light is one sample."""
    width = max(3, round(SMOOTH_S / STEP_S))
    kernel = np.ones(width) / width
    smooth = np.convolve(np.pad(values, width // 2, mode="edge"), kernel, mode="same")[width // 2 :][: len(values)]
    rest = values - smooth
    bound = 3 * rest.std()
    return rest.clip(-bound, bound)


def _peak(curve: Float64) -> tuple[float, float]:
    """(shift in s, height) of a curve's highest point, between samples by a parabola."""
    shifts = _shifts()
    at = int(np.argmax(curve))
    if not 0 < at < len(curve) - 1:
        return float(shifts[at]), float(curve[at])
    left, here, right = curve[at - 1 : at + 2]
    bend = left - 2 * here + right
    part = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(shifts[at] + part * STEP_S), float(here - 0.25 * (left - right) * part)


def _part(pair: Pair, half: int) -> Pair:
    shown, change, rows, moved = pair
    middle = (int(rows[0]) + int(rows[-1])) // 2
    keep_rows, keep_shown = (rows < middle, shown < middle) if half == 0 else (rows >= middle, shown >= middle)
    return shown[keep_shown], change[keep_shown], rows[keep_rows], moved[keep_rows]
