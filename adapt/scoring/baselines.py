"""Action predictions that cost nothing, so that a model's error has something to be compared with.

Every baseline answers the same question as the model, absolute actions (N, K, A) for N windows, and is fitted on
training windows alone. They differ in what they see: standing still and `ridge_state` see what the model sees;
`last_command` and `ridge` also see the command before the window, which already says where the operator is going.
Does not score them (see `scoring`) and does not know about clips or shards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.embodiment import Embodiment
from schemas.episode import freeze
from wamdata.windows import HISTORY_LAGS

Float = NDArray[np.floating]

LAGS = HISTORY_LAGS  # the model's own, so that `ridge_state` knows what it knows
FOLDS = 6
PENALTIES = 10.0 ** np.arange(-4, 4.5, 0.5)  # per window, on standardised features; the last is nearly a plain mean
STILL_STD = 1e-4  # rad, m or fraction: a feature that varies less in training is noise, and extrapolates badly


@dataclass(frozen=True)
class ActionWindows:
    """N windows of K steps on the model's time base.

    Args:
        state: (N, S) at the window's first row.
        history: (N, L, S) state at earlier rows, newest first.
        last_action: (N, A) the command one row before the window; NaN where there is none.
        action: (N, K, A) absolute commands; anything where not valid.
        valid: (N, K) bool, the steps that count.
        episode: (N,) str, start: (N,) int row; together the window's identity.
    """

    state: Float
    history: Float
    last_action: Float
    action: Float
    valid: NDArray[np.bool_]
    episode: NDArray[np.str_]
    start: NDArray[np.int64]

    def __post_init__(self) -> None:
        count, steps, width = self.action.shape
        assert self.state.ndim == 2 and len(self.state) == count
        assert self.history.shape == (count, self.history.shape[1], self.state.shape[1])
        assert self.last_action.shape == (count, width) and self.valid.shape == (count, steps)
        assert self.episode.shape == self.start.shape == (count,)
        assert self.valid.dtype == np.bool_
        freeze(*vars(self).values())

    def __len__(self) -> int:
        return len(self.start)


def action_windows(
    state: Float,
    action: Float,
    valid: NDArray[np.bool_],
    episode: str,
    *,
    steps: int,
    stride: int,
    lags: Sequence[int] = LAGS,
) -> ActionWindows:
    """Windows of one episode: `steps` rows every `stride` rows, all rows inside the episode.

    Args:
        state: (T, S), action: (T, A), valid: (T,) whether the row's action counts.
        lags: how many rows back the history looks; clamped at the episode's first row.

    Returns:
        Windows with at least one valid step; none for an episode shorter than `steps`.
    """
    start = np.arange(0, len(state) - steps + 1, stride)
    start = start[[bool(valid[s : s + steps].any()) for s in start]] if len(start) else start
    rows = start[:, None] + np.arange(steps)
    past = np.maximum(start[:, None] - np.asarray(lags, dtype=np.int64), 0)
    before = np.maximum(start - 1, 0)
    has_last = (start > 0) & valid[before]
    return ActionWindows(
        state=state[start],
        history=state[past],
        last_action=np.where(has_last[:, None], action[before], np.nan),
        action=action[rows],
        valid=valid[rows],
        episode=np.full(len(start), episode),
        start=start,
    )


def concatenate(parts: Sequence[ActionWindows]) -> ActionWindows:
    """The windows of several episodes as one."""
    names = ActionWindows.__dataclass_fields__
    return ActionWindows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def hold(windows: ActionWindows, robot: Embodiment) -> Float:
    """(N, A) the action that means standing still: the present state, or zero for a velocity."""
    columns = np.asarray(robot.hold_columns(), dtype=np.int64)
    padded = np.concatenate([windows.state.astype(np.float64), np.zeros((len(windows), 1))], axis=1)
    return padded[:, columns]  # -1 picks the zero column


def stand_still(windows: ActionWindows, robot: Embodiment) -> Float:
    """Hold the present state for the whole window."""
    return _repeat(hold(windows, robot), windows)


def last_command(windows: ActionWindows, robot: Embodiment) -> Float:
    """Repeat the command before the window; hold the state where there is none."""
    return _repeat(_last_or_hold(windows, robot), windows)


def mean_motion(train: ActionWindows, windows: ActionWindows, robot: Embodiment) -> Float:
    """Hold plus the training mean of (action - hold) at each step; a step never valid in training adds nothing."""
    count = train.valid.sum(0)[:, None]
    motion = np.where(train.valid[..., None], train.action - hold(train, robot)[:, None], 0.0).sum(0)
    return hold(windows, robot)[:, None] + motion / np.maximum(count, 1)


def ridge(train: ActionWindows, windows: ActionWindows, robot: Embodiment) -> Float:
    """Linear prediction of a(t+h) - a(t-1) from the state, its differences and a(t-1) - hold."""

    def features(w: ActionWindows) -> Float:
        return np.concatenate([_state_features(w), _last_or_hold(w, robot) - hold(w, robot)], axis=1)

    return _fit_and_predict(train, windows, features, lambda w: _last_or_hold(w, robot))


def ridge_state(train: ActionWindows, windows: ActionWindows, robot: Embodiment) -> Float:
    """Linear prediction of a(t+h) - hold from the state and its differences: no command is seen."""
    return _fit_and_predict(train, windows, _state_features, lambda w: hold(w, robot))


def all_baselines(train: ActionWindows | None, windows: ActionWindows, robot: Embodiment) -> dict[str, Float]:
    """Every baseline's prediction (N, K, A) by name; those that need fitting see `train` only.

    Args:
        train: None or no window leaves out what must be fitted.
    """
    free = {"stand_still": stand_still(windows, robot), "last_command": last_command(windows, robot)}
    if train is None or not len(train):
        return free
    return free | {
        "mean": mean_motion(train, windows, robot),
        "ridge": ridge(train, windows, robot),
        "ridge_state": ridge_state(train, windows, robot),
    }


def _repeat(action: Float, windows: ActionWindows) -> Float:
    return np.repeat(action[:, None], windows.action.shape[1], axis=1)


def _last_or_hold(windows: ActionWindows, robot: Embodiment) -> Float:
    return np.where(np.isnan(windows.last_action), hold(windows, robot), windows.last_action)


def _state_features(windows: ActionWindows) -> Float:
    """(N, (L + 1) S): the state and how it differed at each lag."""
    change = windows.history.astype(np.float64) - windows.state[:, None]
    return np.concatenate([windows.state, change.reshape(len(windows), -1)], axis=1)


def _fit_and_predict(
    train: ActionWindows,
    windows: ActionWindows,
    features: Callable[[ActionWindows], Float],
    origin: Callable[[ActionWindows], Float],
) -> Float:
    """Ridge from `features` to (action - origin) with the penalty that cross-validates best in training."""
    x, y = features(train), train.action - origin(train)[:, None]
    penalty = _choose_penalty(x, y, train.valid, _folds(train))
    motion = _predict(x, y, train.valid, features(windows), penalty[None])[0]
    return origin(windows)[:, None] + motion


def _folds(train: ActionWindows) -> NDArray[np.int64]:
    """(N,) fold of each window: whole episodes, or two halves in time when there is only one episode."""
    names, number = np.unique(train.episode, return_inverse=True)
    if len(names) > 1:
        return number % FOLDS
    return (train.start > np.median(train.start)).astype(np.int64)


def _choose_penalty(x: Float, y: Float, valid: NDArray[np.bool_], fold: NDArray[np.int64]) -> np.floating:
    """The penalty with the least absolute error on left-out folds; the largest where nothing can be left out."""
    names = np.unique(fold)
    if len(names) < 2:
        return PENALTIES[-1]
    error = np.zeros(len(PENALTIES))
    for name in names:
        out = fold == name
        predicted = _predict(x[~out], y[~out], valid[~out], x[out], PENALTIES)
        error += [np.abs(y[out] - p)[valid[out]].sum() for p in predicted]
    return PENALTIES[int(np.argmin(error))]


def _predict(x: Float, y: Float, valid: NDArray[np.bool_], x_new: Float, penalties: Float) -> Float:
    """(P, M, K, A) ridge predictions for each penalty; steps with the same valid rows share one decomposition."""
    result = np.zeros((len(penalties), len(x_new), *y.shape[1:]))
    patterns, which = np.unique(valid, axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        steps = np.flatnonzero(which == number)
        if rows.any():
            target = y[rows][:, steps]
            answer = _ridge(x[rows], target.reshape(len(target), -1), x_new, penalties)
            result[:, :, steps] = answer.reshape(len(penalties), len(x_new), len(steps), -1)
    return result


def _ridge(x: Float, y: Float, x_new: Float, penalties: Float) -> Float:
    """(P, M, D) ridge on standardised features with a free intercept; a constant feature gets no weight."""
    center, std = x.mean(0), x.std(0)
    scale = np.where(std > STILL_STD, 1.0 / np.maximum(std, STILL_STD), 0.0)
    z, z_new = (x - center) * scale, (x_new - center) * scale
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    projected = vectors.T @ (z.T @ (y - y.mean(0)) / len(z))
    basis = z_new @ vectors
    return np.stack([(basis / (values.clip(min=0) + penalty)) @ projected for penalty in penalties]) + y.mean(0)
