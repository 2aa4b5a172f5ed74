"""How far predicted actions are from recorded ones: mean absolute errors, in physical units.

Numbers over all columns mix units where a robot has several; the per-component scores do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from adapt.scoring.baselines import ActionWindows, Float, hold
from adapt.scoring.bootstrap import paired
from adapt.scoring.motion import STILL, component_motion, score_motion
from schemas.embodiment import Embodiment
from schemas.errors import DataError
from schemas.report import ActionScore, ComponentScore, ContextScore, Measure, Paired

DETAILED = ("model", "stand_still")  # whose step errors are kept for each number of past chunks


@dataclass(frozen=True)
class UnitColumns:
    """Neighbouring action columns of one component that share a unit: the smallest thing with one error."""

    name: str
    unit: str
    labels: tuple[str, ...]
    columns: slice


def unit_columns(robot: Embodiment) -> tuple[UnitColumns, ...]:
    """The action's columns by component; one with several units (a base: m/s, rad/s) gives one entry per unit."""
    found: list[UnitColumns] = []
    start = 0
    for component in robot.model_action:
        at = 0
        for unit, run in groupby(component.mapped_units):
            width = len(list(run))
            columns = slice(start + at, start + at + width)
            found.append(UnitColumns(component.name, unit, component.labels[at : at + width], columns))
            at += width
        start += component.width
    return tuple(found)


def score_actions(
    windows: ActionWindows,
    predictions: Mapping[str, Float],
    robot: Embodiment,
    *,
    past: NDArray[np.int64] | None = None,
    action_hz: float = 1.0,
) -> ActionScore:
    """Errors of every prediction (N, K, A) against the recorded commands; `model` and `stand_still` must be there.

    Args:
        past: (N,) whole chunks of context that each window had; None leaves out errors by context.
        action_hz: for what is measured in seconds.

    Raises:
        DataError: there is no window, or a recorded command that counts is not finite.
    """
    assert {"model", "stand_still"} <= predictions.keys(), sorted(predictions)
    _refuse_broken(windows)
    mask = windows.valid[..., None]
    still = hold(windows, robot)[:, None]
    error = {name: _masked(np.abs(p - windows.action), mask) for name, p in predictions.items()}
    moved = _masked(np.abs(predictions["model"] - still), mask)
    wanted = _masked(np.abs(windows.action - still), mask)
    weight = windows.valid.sum()
    columns = {name: e.sum((0, 1)) / weight for name, e in error.items()}
    parts = unit_columns(robot)
    alike = component_motion(windows, predictions["model"], robot, [p.columns for p in parts], action_hz=action_hz)
    return ActionScore(
        windows=len(windows),
        steps=windows.action.shape[1],
        error={name: float(c.mean()) for name, c in columns.items()},
        step_error={name: _per_step(e, windows.valid) for name, e in error.items()},
        components=tuple(
            _component(part, columns, moved, wanted, *measures) for part, measures in zip(parts, alike, strict=True)
        ),
        paired=paired_differences(windows, error),
        amplitude_ratio=_ratio(moved, wanted),
        motion=score_motion(windows, predictions, robot, action_hz=action_hz),
        context=() if past is None else _by_context(windows, error, past),
    )


def paired_differences(windows: ActionWindows, error: Mapping[str, Float]) -> dict[str, Paired]:
    """Model minus each other, on the same windows, with a two-level bootstrap interval.

    Args:
        error: absolute errors (N, K, A) by name, zero where not valid.
    """
    total = window_totals(error)
    others = [name for name in total if name != "model"]
    stacked = np.stack([total[name] for name in others], axis=1)
    found = paired(total["model"], stacked, windows.valid.sum(1), windows.episode, windows.start)
    return dict(zip(others, found, strict=True))


def window_totals(error: Mapping[str, Float]) -> dict[str, Float]:
    """(N,) error of each window: mean over columns, summed over its valid steps."""
    return {name: e.mean(2).sum(1) for name, e in error.items()}


def window_errors(windows: ActionWindows, predictions: Mapping[str, Float]) -> dict[str, Float]:
    """`window_totals` of predictions (N, K, A)."""
    mask = windows.valid[..., None]
    return window_totals({name: _masked(np.abs(p - windows.action), mask) for name, p in predictions.items()})


def mean_error(windows: ActionWindows, predicted: Float) -> float:
    """Mean absolute error over windows, valid steps and columns."""
    return float(window_errors(windows, {"one": predicted})["one"].sum() / windows.valid.sum())


def _refuse_broken(windows: ActionWindows) -> None:
    if len(windows) == 0:
        raise DataError("no held-out window with actions. Hold out longer episodes or shorten chunk_s.")
    broken = windows.valid[..., None] & ~np.isfinite(windows.action)
    if broken.any():
        n, k, a = (int(i[0]) for i in np.nonzero(broken))
        raise DataError(
            f"episode {windows.episode[n]}: action column {a} is not finite at row {windows.start[n] + k} "
            f"but counts as valid. Mark the row invalid or drop the episode."
        )


def _by_context(
    windows: ActionWindows, error: Mapping[str, Float], past: NDArray[np.int64]
) -> tuple[ContextScore, ...]:
    found = []
    for number in np.unique(past):
        mine = past == number
        weight = windows.valid[mine].sum()
        found.append(
            ContextScore(
                past=int(number),
                windows=int(mine.sum()),
                error={name: float((e[mine].sum((0, 1)) / weight).mean()) for name, e in error.items()},
                step_error={n: _per_step(error[n][mine], windows.valid[mine]) for n in DETAILED},
            )
        )
    return tuple(found)


def _masked(values: Float, mask: NDArray[np.bool_]) -> Float:
    return np.where(mask, values, 0.0)


def _per_step(error: Float, valid: NDArray[np.bool_]) -> tuple[float, ...]:
    """Error at each step; NaN at a step that never counts."""
    count = valid.sum(0)
    mean = error.mean(2).sum(0) / np.maximum(count, 1)
    return tuple(np.where(count > 0, mean, np.nan).tolist())


def _component(
    part: UnitColumns, columns: Mapping[str, Float], moved: Float, wanted: Float, cosine: Measure, gripper: Measure
) -> ComponentScore:
    at = part.columns
    return ComponentScore(
        name=part.name,
        unit=part.unit,
        labels=part.labels,
        error={name: float(c[at].mean()) for name, c in columns.items()},
        column_error={name: tuple(c[at].tolist()) for name, c in columns.items()},
        amplitude_ratio=_ratio(moved[..., at], wanted[..., at]),
        cosine=cosine,
        gripper_f1=gripper,
    )


def _ratio(moved: Float, wanted: Float) -> float:
    """Predicted motion over recorded motion; 1 where neither moves."""
    model, truth = float(moved.mean()), float(wanted.mean())
    return 1.0 if model < STILL and truth < STILL else model / max(truth, STILL)
