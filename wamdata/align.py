"""Many rates onto one clock.

A stream is carried to a grid by a rule that fits its kind: straight lines for joints, grippers and velocities, the
shorter way round for angles that wrap, the shorter great circle for quaternions and rotation vectors, the latest value
for discrete signals. A sample that already lies on the grid time is taken as it is, so a stream on its own clock comes
back unchanged.
"""

from typing import Literal

import numpy as np

from schemas.episode import Float32, Int64
from schemas.errors import DataError

Rule = Literal["linear", "wrapped", "slerp_xyzw", "slerp_axis_angle", "previous"]


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
    mixed = _MIXES[rule](a, b, part)
    exact = np.where(part == 0, a, np.where(part == 1, b, mixed))
    return exact.astype(np.float32)


def _linear(a: np.ndarray, b: np.ndarray, part: np.ndarray) -> np.ndarray:
    return a + part * (b - a)


def _wrapped(a: np.ndarray, b: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Angles in radians along the shorter way round, within (-pi, pi] of where they started."""
    return np.pi - (np.pi - (a + part * (np.pi - (np.pi - (b - a)) % (2 * np.pi)))) % (2 * np.pi)


def _slerp_axis_angle(a: np.ndarray, b: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Rotation vectors (N, 3), whose length is the angle in radians, along the shorter great circle."""
    return _to_axis_angle(_slerp(_to_xyzw(a), _to_xyzw(b), part))


def _to_xyzw(vectors: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    small = angle < 1e-9
    axis = vectors / np.where(small, 1.0, angle)
    return np.concatenate([np.where(small, vectors / 2, axis * np.sin(angle / 2)), np.cos(angle / 2)], axis=-1)


def _to_axis_angle(xyzw: np.ndarray) -> np.ndarray:
    xyzw = np.where(xyzw[..., 3:] < 0, -xyzw, xyzw)
    sine = np.linalg.norm(xyzw[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, xyzw[..., 3:])
    small = sine < 1e-9
    return np.where(small, 2 * xyzw[..., :3], xyzw[..., :3] / np.where(small, 1.0, sine) * angle)


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


_MIXES = {"linear": _linear, "wrapped": _wrapped, "slerp_xyzw": _slerp, "slerp_axis_angle": _slerp_axis_angle}
