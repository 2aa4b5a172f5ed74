"""Many rates onto one clock.

A stream is carried to a grid by a rule that fits its kind: straight lines for joints, grippers and
velocities, the shorter great circle for quaternions, the latest value for discrete signals. A sample that
already lies on the grid time is taken as it is, so a stream on its own clock comes back unchanged.
"""

from typing import Literal

import numpy as np

from schemas.episode import Float32, Int64
from schemas.errors import DataError

Rule = Literal["linear", "slerp_xyzw", "previous"]


def nearest(t_ns: Int64, grid_ns: Int64) -> Int64:
    """Index of the sample nearest to each grid time; a tie goes to the earlier sample."""
    right = np.searchsorted(t_ns, grid_ns).clip(1, max(len(t_ns) - 1, 1))
    left = right - 1
    if len(t_ns) == 1:
        return np.zeros(len(grid_ns), np.int64)
    return np.where(grid_ns - t_ns[left] <= t_ns[right] - grid_ns, left, right)


def distance_ns(t_ns: Int64, grid_ns: Int64) -> Int64:
    """How far each grid time is from its nearest sample."""
    return np.abs(t_ns[nearest(t_ns, grid_ns)] - grid_ns)


def uniform_grid(start_ns: int, stop_ns: int, hz: float) -> Int64:
    """Times at `hz` from `start_ns` up to and including `stop_ns`; rounded per index, so it does not drift."""
    if stop_ns < start_ns:
        raise DataError(f"streams do not overlap: one starts {(start_ns - stop_ns) / 1e9:.3f} s after another ends.")
    count = int((stop_ns - start_ns) * hz / 1e9 + 1e-6) + 1
    return start_ns + np.round(np.arange(count) * (1e9 / hz)).astype(np.int64)


def resample(t_ns: Int64, values: Float32, grid_ns: Int64, *, rule: Rule = "linear") -> Float32:
    """`values` (N, D) at the grid times (M, D); outside the stream's span its end values are held."""
    if len(t_ns) == 0:
        raise DataError("a stream holds no sample at all. Drop the episode.")
    right = np.searchsorted(t_ns, grid_ns, side="right").clip(1, len(t_ns) - 1) if len(t_ns) > 1 else None
    if right is None:
        return np.repeat(values, len(grid_ns), axis=0)
    left = right - 1
    if rule == "previous":
        return values[np.where(grid_ns >= t_ns[right], right, left)]
    span = (t_ns[right] - t_ns[left]).astype(np.float64)
    part = ((grid_ns - t_ns[left]) / span).clip(0, 1)[:, None]
    a, b = values[left].astype(np.float64), values[right].astype(np.float64)
    mixed = _slerp(a, b, part) if rule == "slerp_xyzw" else a + part * (b - a)
    exact = np.where(part == 0, a, np.where(part == 1, b, mixed))
    return exact.astype(np.float32)


def _slerp(a: np.ndarray, b: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Spherical interpolation of unit quaternions along the shorter arc."""
    dot = (a * b).sum(-1, keepdims=True)
    b = np.where(dot < 0, -b, b)
    angle = np.arccos(np.abs(dot).clip(0, 1))
    sine = np.sin(angle)
    near = sine < 1e-6
    safe = np.where(near, 1.0, sine)
    mixed = np.where(near, a + part * (b - a), (np.sin((1 - part) * angle) * a + np.sin(part * angle) * b) / safe)
    return mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)
