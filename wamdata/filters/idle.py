"""Spans in which nothing moves: before the operator begins and after the task is done. They teach standing still."""

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Finding, Trajectory
from schemas.recipe import Filters

WITHIN_S = 0.5  # time over which something must have moved
SHARE = 0.03  # of a column's range: encoder noise of the G1's arms stays below
LEAST = 0.01  # range, in mapped units, below which a column is noise and decides nothing
LONG_S = 3.0  # shortest idle span that is told


def check(trajectory: Trajectory, limits: Filters) -> list[Finding]:
    still = is_still(trajectory)
    found = []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], still, [False]]).astype(np.int8)))
    start_ns = int(trajectory.t_ns[0]) if len(still) else 0
    for first, stop in edges.reshape(-1, 2):
        begin, end = ((int(trajectory.t_ns[row]) - start_ns) / 1e9 for row in (first, stop - 1))
        if end - begin < LONG_S:
            continue
        place = "from its start on" if first == 0 else "up to its end" if stop == len(still) else "in its middle"
        message = f"nothing moves for {end - begin:.1f} s {place} ({begin:.1f} s to {end:.1f} s): keep it from training"
        numbers = (("idle_s", end - begin),)
        found.append(
            Finding("idle", "info", trajectory.episode.key, message, (begin, end), numbers, _fix(first, stop, still))
        )
    return found


def is_still(trajectory: Trajectory) -> NDArray[np.bool_]:
    """(T,) whether neither state nor command moves around a row; all false without columns that ever move."""
    both = np.concatenate([trajectory.state, trajectory.action], axis=1)
    finite = np.isfinite(both).all(axis=0) if len(both) else np.zeros(both.shape[1], bool)
    reach = np.ptp(both, axis=0) if len(both) else np.zeros(both.shape[1])
    used = finite & (reach > LEAST)
    rows = round(WITHIN_S * trajectory.embodiment.native_hz)
    if not used.any() or len(both) <= rows or rows < 1:
        return np.zeros(len(both), bool)
    moved = (np.abs(both[rows:, used] - both[:-rows, used]) > SHARE * reach[used]).any(axis=1)
    busy = np.zeros(len(both), bool)
    for shift in range(rows + 1):  # a row is busy if it lies inside any stretch in which something moved
        busy[shift : len(moved) + shift] |= moved
    return ~busy


def _fix(first: int, stop: int, still: NDArray[np.bool_]) -> str:
    """Ends are taken out; a rest in the middle belongs to the task."""
    return "none" if first == 0 or stop == len(still) else ""
