"""How predicted motion is like recorded motion, where a mean error does not tell: size, direction, events, smoothness.

A displacement is a command minus the command that means standing still: the present state, or zero for a velocity.
Every measure is a ratio of sums over windows, so that one bootstrap gives all their intervals. What cannot be
measured says why, and is never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.scoring.baselines import ActionWindows, Float, hold, last_command
from adapt.scoring.bootstrap import measure_ratios
from schemas.embodiment import Embodiment
from schemas.report import Measure, Motion

STILL = 1e-6  # mean motion below this is no motion
MOVES = 0.2  # of the usual displacement: less is noise, whose direction says nothing
TOLERANCE_S = 0.2  # between a recorded and a predicted gripper event
LEAST_RANGE = 1e-3  # a gripper column that is used less than this neither opens nor closes
STILL_SHARE = 0.25  # of a chunk, at its start: how long a recording rests before a movement has an onset
GRIPPERS = ("gripper", "hand")

Parts = tuple[Float, Float, str]  # numerator (N,), denominator (N,), why there is no value where the latter is all zero


@dataclass(frozen=True)
class Scene:
    """The recorded side, computed once for all methods."""

    windows: ActionWindows
    still: Float  # (N, 1, A)
    wanted: Float  # (N, K, A) recorded displacement, zero where not valid
    robot: Embodiment
    units: tuple[str, ...]  # of each column
    action_hz: float

    @classmethod
    def of(cls, windows: ActionWindows, robot: Embodiment, action_hz: float) -> "Scene":
        still = hold(windows, robot)[:, None]
        units = tuple(u for c in robot.model_action for u in c.mapped_units)
        return cls(windows, still, _masked(windows.action - still, windows), robot, units, action_hz)

    def moved(self, predicted: Float) -> Float:
        """(N, K, A) predicted displacement, zero where not valid."""
        return _masked(predicted - self.still, self.windows)

    def scale(self, recorded: Float, columns: slice) -> Float:
        """(A,) what columns of `recorded` (M, A) are multiplied by so that units do not matter; 0 where a unit rests.

        One over the root mean square of all columns of the unit, not of each column: a joint at rest only trembles,
        and must not count as much as one that moves.
        """
        units = np.array(self.units[columns])
        scale = np.zeros(len(units))
        for unit in set(self.units[columns]):
            spread = float(np.sqrt(np.square(recorded[:, units == unit]).mean()))
            scale[units == unit] = 1 / spread if spread > STILL else 0.0
        return scale


def score_motion(
    windows: ActionWindows, predictions: Mapping[str, Float], robot: Embodiment, *, action_hz: float
) -> dict[str, Motion]:
    """The six measures of each prediction (N, K, A), over all action columns."""
    scene = Scene.of(windows, robot, action_hz)
    everything = slice(0, windows.action.shape[2])
    parts: list[Parts] = []
    whole = {name: p for name, p in predictions.items() if _is_finite(p, windows)}
    for predicted in whole.values():
        share, delay = onset_parts(scene, predicted)
        parts += [
            amplitude_parts(scene, predicted, everything),
            cosine_parts(scene, predicted, everything),
            gripper_parts(scene, predicted, gripper_columns(robot)),
            jerk_parts(scene, predicted, everything),
            share,
            delay,
        ]
    found = measure_ratios(parts, windows.episode, windows.start)
    broken = (Measure.missing("not finite"),) * 6
    measured = {name: found[6 * i : 6 * i + 6] for i, name in enumerate(whole)}
    return {name: Motion(**_named(measured.get(name, broken))) for name in predictions}


def component_motion(
    windows: ActionWindows, predicted: Float, robot: Embodiment, columns: list[slice], *, action_hz: float
) -> tuple[tuple[Measure, Measure], ...]:
    """(cosine, gripper F1) of each group of action columns."""
    if not _is_finite(predicted, windows):
        return ((Measure.missing("not finite"),) * 2,) * len(columns)
    scene, grips = Scene.of(windows, robot, action_hz), gripper_columns(robot)
    parts: list[Parts] = []
    for at in columns:
        mine = tuple(c for c in grips if at.start <= c < at.stop)
        parts += [cosine_parts(scene, predicted, at), gripper_parts(scene, predicted, mine)]
    found = measure_ratios(parts, windows.episode, windows.start)
    return tuple(zip(found[::2], found[1::2], strict=True))


def amplitude_parts(scene: Scene, predicted: Float, columns: slice) -> Parts:
    """sum |predicted displacement| / sum |recorded displacement|, over valid steps and columns; units cancel."""
    moved, wanted = np.abs(scene.moved(predicted)), np.abs(scene.wanted)
    above, below = moved[..., columns].mean(2).sum(1), wanted[..., columns].mean(2).sum(1)
    return above, below if below.mean() >= STILL else np.zeros_like(below), "nothing moves in the recording"


def cosine_parts(scene: Scene, predicted: Float, columns: slice) -> Parts:
    """Mean cosine between predicted and recorded displacement, over windows in which the recording moves.

    A window's displacement is the mean over its valid steps, in units of the recorded displacements (`Scene.scale`); a
    window moves if its recorded one, so scaled, has a root mean square over columns of at least `MOVES`. A prediction
    that does not move has cosine 0.
    """
    count = np.maximum(scene.windows.valid.sum(1), 1)[:, None]
    want, got = scene.wanted[..., columns].sum(1) / count, scene.moved(predicted)[..., columns].sum(1) / count
    scale = scene.scale(want, columns)
    want, got = want * scale, got * scale
    moves = np.sqrt(np.square(want).sum(1) / max((scale > 0).sum(), 1)) >= MOVES
    norm = np.linalg.norm(want, axis=1) * np.linalg.norm(got, axis=1)
    cosine = (want * got).sum(1) / np.maximum(norm, 1e-300)
    return np.where(moves, cosine, 0.0), moves.astype(float), "no held-out window moves"


def gripper_parts(scene: Scene, predicted: Float, columns: tuple[int, ...]) -> Parts:
    """F1 of open and close events: 2 hits / (recorded events + predicted events), pooled over columns and windows.

    A column is open above the middle of its recorded range and closed below it, with a tenth of the range on either
    side in which it stays what it was; it starts as the last command before the chunk left it. A predicted event hits
    a recorded one of its direction, each at most once, in the same window at most `TOLERANCE_S` away.
    """
    windows, zero = scene.windows, np.zeros(len(scene.windows))
    if not columns:
        return zero, zero, "no gripper"
    before = last_command(windows, scene.robot)[:, :1]
    tolerance = max(1, round(TOLERANCE_S * scene.action_hz))
    hits, events, recorded = zero.copy(), zero.copy(), 0
    for column in columns:
        known = windows.action[..., column][windows.valid]
        low, high = float(known.min()), float(known.max())
        if high - low < LEAST_RANGE:
            continue
        for i in range(len(windows)):
            steps = windows.valid[i]
            first = before[i, 0, column]
            truth = _events(np.append(first, windows.action[i, steps, column]), low, high)
            guess = _events(np.append(first, predicted[i, steps, column]), low, high)
            hits[i] += _matched(truth, guess, tolerance)
            events[i] += len(truth) + len(guess)
            recorded += len(truth)
    return 2 * hits, events if recorded else zero, "no gripper opens or closes in the recording"


def jerk_parts(scene: Scene, predicted: Float, columns: slice) -> Parts:
    """sum |third difference| of the prediction over that of the recording, where four steps in a row are valid."""
    windows, zero = scene.windows, np.zeros(len(scene.windows))
    if windows.action.shape[1] < 4:
        return zero, zero, "a chunk has fewer than four steps"
    whole = np.lib.stride_tricks.sliding_window_view(windows.valid, 4, axis=1).all(-1)[..., None]
    above, below = (
        np.where(whole, np.abs(np.diff(a[..., columns], 3, axis=1)), 0.0).mean(2).sum(1)
        for a in (predicted, windows.action)
    )
    return above, below if below.mean() >= STILL else zero, "the recording has no jerk"


def onset_parts(scene: Scene, predicted: Float) -> tuple[Parts, Parts]:
    """(share of onsets detected, mean delay of those in seconds).

    A step has begun to move when its command differs from the chunk's first by at least `MOVES` of what is usual (root
    mean square over columns, in units of the recorded differences). A window has an onset if the recording moves, but
    not before `STILL_SHARE` of the chunk; it is detected if the prediction moves in the chunk at all, and the delay is
    the time between both, negative if it comes early.
    """
    windows = scene.windows
    rows, begin = np.arange(len(windows)), windows.valid.argmax(1)
    recorded = _masked(windows.action - windows.action[rows, begin][:, None], windows)
    guessed = _masked(predicted - predicted[rows, begin][:, None], windows)
    scale = scene.scale(recorded[windows.valid], slice(0, len(scene.units)))

    def first(motion: Float) -> NDArray[np.int64]:
        """(N,) the first step that moves, or K."""
        moves = np.sqrt(np.square(motion * scale).sum(2) / max((scale > 0).sum(), 1)) >= MOVES
        return np.where(moves.any(1), moves.argmax(1), moves.shape[1])

    steps = windows.action.shape[1]
    truth, guess = first(recorded), first(guessed)
    onset = (truth < steps) & (truth >= max(1, round(STILL_SHARE * steps)))
    hit = onset & (guess < steps)
    delay = np.where(hit, (guess - truth) / scene.action_hz, 0.0)
    none = "no held-out window rests and then moves"
    late = none if not onset.any() else "no onset was detected"
    return (hit.astype(float), onset.astype(float), none), (delay, hit.astype(float), late)


def gripper_columns(robot: Embodiment) -> tuple[int, ...]:
    """Action columns of grippers and hands."""
    kinds = [c.kind for c in robot.model_action for _ in range(c.width)]
    return tuple(i for i, kind in enumerate(kinds) if kind in GRIPPERS)


def _events(values: Float, low: float, high: float) -> list[tuple[int, int]]:
    """(step, +1 or -1) at which a column passes from one side of the middle to the other."""
    middle, margin = (low + high) / 2, 0.1 * (high - low)
    side = 1 if values[0] > middle else -1
    found = []
    for step, value in enumerate(values[1:]):
        if side * (value - middle) < -margin:
            side = -side
            found.append((step, side))
    return found


def _matched(truth: list[tuple[int, int]], guess: list[tuple[int, int]], tolerance: int) -> int:
    """How many recorded events have a predicted one of their own, in order of time."""
    left, hits = list(guess), 0
    for step, side in truth:
        near = [g for g in left if g[1] == side and abs(g[0] - step) <= tolerance]
        if near:
            left.remove(min(near, key=lambda g: abs(g[0] - step)))
            hits += 1
    return hits


def _is_finite(predicted: Float, windows: ActionWindows) -> bool:
    return bool(np.isfinite(predicted[windows.valid]).all())


def _masked(values: Float, windows: ActionWindows) -> Float:
    return np.where(windows.valid[..., None], values, 0.0)


def _named(measures: tuple[Measure, ...]) -> dict[str, Measure]:
    names = ("amplitude", "cosine", "gripper_f1", "jerk", "onset_share", "onset_delay_s")
    return dict(zip(names, measures, strict=True))
