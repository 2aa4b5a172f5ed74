"""State that leaps from one row to the next: a lost encoder, two takes in one file, an angle that wraps."""

import numpy as np

from schemas.embodiment import Component, with_columns
from schemas.episode import Finding, Trajectory
from schemas.recipe import Filters

TIMES = 10.0  # the 99th percentile of a column's own steps; 7 was the most on 20 clean episodes of the G1
SHARE = 0.15  # of the column's range, at least
MIN_ROWS = 50  # fewer have no percentile worth the name
TURN = 2 * np.pi
TOLD = 3
GRADUAL = ("joint", "pose")  # grippers and fingers snap, velocities and discrete signals leap by nature


def check(trajectory: Trajectory, limits: Filters) -> list[Finding]:
    if len(trajectory.t_ns) < MIN_ROWS:
        return []
    found = []
    for component, at in with_columns(trajectory.embodiment.model_state):
        columns = trajectory.state[:, at]
        if component.kind in GRADUAL and np.isfinite(columns).all():
            found += _of_component(trajectory, component, columns)
    return found


def _of_component(trajectory: Trajectory, component: Component, columns: np.ndarray) -> list[Finding]:
    steps = np.diff(columns, axis=0)
    usual = np.quantile(np.abs(steps), 0.99, axis=0)
    leaps = (np.abs(steps) > TIMES * usual) & (np.abs(steps) > SHARE * np.ptp(columns, axis=0)) & (np.abs(steps) > 1e-3)
    if not leaps.any():
        return []
    key = trajectory.episode.key
    wraps = leaps & (np.abs(np.abs(steps) - TURN) < 0.05 * TURN)
    if wraps.any() and set(component.mapped_units) & {"rad", "euler_xyz", "axis_angle"}:
        row, column = np.argwhere(wraps)[0]
        message = (
            f"state.{component.labels[column]} leaps by a full turn at row {row + 1}, {int(wraps.sum())} times in all: "
            "its angle wraps. Unwrap it in the log, or use a rotation format without a seam"
        )
        return [Finding("angle_wrap", "warning", key, message, None, (("wraps", float(wraps.sum())),))]
    rows = np.flatnonzero(leaps.any(axis=1)) + 1
    row, column = rows[0], int(np.argmax(leaps[rows[0] - 1]))
    size = float(np.abs(steps[row - 1, column]))
    at_s = (trajectory.t_ns[rows] - trajectory.t_ns[0]) / 1e9
    more = f", and at {len(rows) - 1} rows more" if len(rows) > 1 else ""
    message = (
        f"state.{component.labels[column]} leaps by {size:.3g} {component.mapped_units[column]} at row {row} "
        f"({at_s[0]:.2f} s), {size / max(float(usual[column]), 1e-9):.0f} times its usual step{more}: no robot moves so"
    )
    return [
        Finding(
            "jump", "warning", key, message if n == 0 else f"state.{component.name} leaps at {t:.2f} s",
            (max(t - 0.5, 0.0), t + 0.5), (("leap", size),), "none",
        )
        for n, t in enumerate(float(t) for t in at_s[:TOLD])
    ]  # fmt: skip
