"""What a robot's file says of columns, held against the numbers of many episodes together.

A single episode moves too little to judge a column by; here the rows of up to EPISODES of them are looked at as one.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from schemas.embodiment import Component, Embodiment, with_columns
from schemas.episode import Finding, Float32, Trajectory
from wamdata.kinds import Evidence, component_kind

EPISODES = 64  # evenly spread over the source
ALIKE, STRANGE = 0.9, 0.6  # correlations with the column that it belongs to, and with its own
FACTOR = 5.0  # between a command's spread and its state's: degrees are 57 radians, ticks of 4096 a turn 652
NEAR_CONSTANT = 1e-3  # in mapped units
ANGLES = {"rad", "rad/s"}
TURNS = 2.0  # full turns that a joint in radians may reach


def check_pooled(trajectories: Sequence[Trajectory], where: str) -> list[Finding]:
    """Findings on the robot's file as a whole; none without trajectories."""
    if not trajectories:
        return []
    robot = trajectories[0].embodiment
    state = np.concatenate([t.state for t in trajectories])
    action = np.concatenate([t.action for t in trajectories])
    found = [*_units(robot, state, action, where), *_near_constant(robot, state, action, where)]
    hold = robot.hold_columns()
    for component, at in with_columns(robot.model_action):
        columns = list(range(at.start, at.stop))
        beside = [hold[c] for c in columns]
        if any(c < 0 for c in beside):
            continue
        kind = component_kind(
            [t.action[:, columns] for t in trajectories], [t.state[:, beside] for t in trajectories], robot.native_hz
        )
        found += _kind(component, kind, robot.native_hz, where)
        found += _order(component, robot, action[:, columns], state, beside, where)
    return found


def _kind(component: Component, kind: Evidence, hz: float, where: str) -> Iterator[Finding]:
    """What the commands are, against what the robot's file takes them for."""
    name = f"action.{component.name}"
    numbers = (("explained", kind.explained), ("rival", kind.rival), ("lag_ms", kind.lag / hz * 1e3))
    if kind.kind in ("step", "velocity") and component.relative_to:
        message = (
            f"{name} is already {'a velocity' if kind.kind == 'velocity' else 'relative'}: {kind.words}. "
            f"Relative to {component.relative_to} once more it would teach nonsense: leave `relative_to` out"
        )
        yield Finding("double_relative", "error", where, message, None, numbers)
    elif kind.kind == "target" and kind.lag and not kind.at_rest:
        message = f"{name} leads the state by {kind.lag / hz * 1e3:.0f} ms ({kind.lag} rows): {kind.words}"
        yield Finding("label_lag", "info", where, message, None, numbers)


def _order(
    component: Component, robot: Embodiment, action: Float32, state: Float32, beside: list[int], where: str
) -> Iterator[Finding]:
    """Commands that follow another column of the state than the one they are said to belong to."""
    together = _correlations(action, state)
    labels = [f"{c.name}.{label}" for c in robot.model_state for label in c.labels]
    odd = []
    for column, own in enumerate(beside):
        best = int(np.argmax(np.abs(together[column])))
        if best != own and abs(together[column, best]) > ALIKE and abs(together[column, own]) < STRANGE:
            odd.append((component.labels[column], labels[own], labels[best], float(together[column, best])))
    if odd:
        label, own, best, value = odd[0]
        message = (
            f"action.{component.name}: {len(odd)} of {component.width} columns follow another column of the state: "
            f"{label!r} goes with state.{best} (correlation {value:.2f}), not with state.{own}. Mend `columns`"
        )
        yield Finding("column_order", "error", where, message, None, (("columns", len(odd)),))


def _units(robot: Embodiment, state: Float32, action: Float32, where: str) -> Iterator[Finding]:
    """Columns whose size fits another unit than the declared one."""
    for what, values, components in (("state", state, robot.model_state), ("action", action, robot.model_action)):
        for component, at in with_columns(components):
            yield from _size(what, component, values[:, at], where)
    hold = robot.hold_columns()
    spread = [values.std(axis=0) for values in (action, state)]
    odd = [
        (column, own) for column, own in enumerate(hold)
        if own >= 0 and min(spread[0][column], spread[1][own]) > 0
        and not 1 / FACTOR < spread[0][column] / spread[1][own] < FACTOR
        and abs(_correlations(action[:, [column]], state[:, [own]])[0, 0]) > ALIKE
    ]  # fmt: skip
    if odd:
        column, own = odd[0]
        labels = [f"action.{c.name}.{label}" for c in robot.model_action for label in c.labels]
        ratio = float(spread[0][column] / spread[1][own])
        message = (
            f"{labels[column]} follows its state, {ratio:.3g} times as large{_known(ratio)} ({len(odd)} such columns). "
            "Mend `unit`"
        )
        yield Finding("unit_mismatch", "error", where, message, None, (("ratio", ratio),))


def _size(what: str, component: Component, columns: Float32, where: str) -> Iterator[Finding]:
    if component.to_si is not None or component.kind not in ("joint", "velocity") or not len(columns):
        return
    reach = float(np.nanmax(np.abs(columns))) if np.isfinite(columns).any() else 0.0
    name = f"{what}.{component.name}"
    numbers = (("reach", reach),)
    if set(component.units) == {"tick"}:
        message = f"{name} is in raw servo ticks, neither rad nor deg: give `to_si` if you know what a tick is worth"
        yield Finding("raw_ticks", "info", where, message, None, numbers)
    elif set(component.units) == {"rad"} and reach > TURNS * 2 * np.pi:
        whole = bool(np.all(columns == np.round(columns)))
        unit = "motor ticks: the values are whole numbers" if whole else "degrees"
        message = f"{name} reaches {reach:.4g} rad, {reach / (2 * np.pi):.1f} turns: it looks like {unit}. Mend `unit`"
        yield Finding("unit_suspect", "warning", where, message, None, numbers)
    elif set(component.units) == {"deg"} and 0 < reach < np.radians(5) and len(columns) > 100:
        message = f"{name} stays within {np.degrees(reach):.2g} degrees: it looks like radians. Mend `unit`"
        yield Finding("unit_suspect", "warning", where, message, None, numbers)


def _near_constant(robot: Embodiment, state: Float32, action: Float32, where: str) -> Iterator[Finding]:
    for what, values, components in (("state", state, robot.model_state), ("action", action, robot.model_action)):
        labels = [label for c in components for label in c.labels]
        low, high = np.quantile(values, [0.01, 0.99], axis=0) if values.size else (np.zeros(0), np.zeros(0))
        small = np.flatnonzero(high - low < NEAR_CONSTANT)
        if len(small):
            names = ", ".join(labels[i] for i in small[:4]) + (f" and {len(small) - 4} more" if len(small) > 4 else "")
            message = (
                f"{what} hardly moves in {len(small)} of {len(labels)} columns over all episodes ({names}): they carry "
                "noise. Give them `use: carry`, or leave them out"
            )
            yield Finding("near_constant", "info", where, message, None, (("columns", float(len(small))),))


def _correlations(a: Float32, b: Float32) -> np.ndarray:
    """(columns of a, columns of b) Pearson; 0 where a column does not move."""
    good = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    a, b = (x[good].astype(np.float64) - x[good].mean(axis=0) for x in (a, b))
    size = np.sqrt((a**2).sum(axis=0))[:, None] * np.sqrt((b**2).sum(axis=0))[None]
    return np.divide(a.T @ b, size, out=np.zeros(size.shape), where=size > 1e-12)


def _known(ratio: float) -> str:
    known = {180 / np.pi: "degrees beside radians", np.pi / 180: "radians beside degrees", 1e3: "mm beside m",
             1e-3: "m beside mm", 1e2: "cm or percent", 1e-2: "a fraction beside percent"}  # fmt: skip
    return next((f": {words}" for factor, words in known.items() if abs(ratio / factor - 1) < 0.2), "")
