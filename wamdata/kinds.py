"""What a command column is, judged from the state column beside it: a target, a step, a velocity, or a copy.

    target      a[t] is where the state will be some rows later: a[t] = s[t + lag]
    step        a[t] is how far the state moves: a[t] = c * (s[t + lag + 1] - s[t + lag]), whatever c is
    velocity    the same with c near the rate of the rows: units per second
    copy        a[t] = s[t] or s[t + 1] to the last digit: no command was logged

Each hypothesis gets the share of the command's variance that it explains, over all rows of all episodes at its best
lag. Columns that hardly move decide nothing; of a component that rests as a whole, it is a target if commands lie where
the state is. Does not know rotations: a column of a quaternion is judged like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schemas.episode import Float32

Kind = Literal["target", "step", "velocity", "copy", "unclear", "still"]

MAX_LAG = 15  # rows; half a second at 30 Hz, more than any tele-operation seen lags
SURE = 0.5  # of the variance
FACTOR_TOLERANCE = 0.25  # of c, to be called a velocity or a plain step
NEAR = 0.8  # of the way from zero to where the state rests
SAME = 1e-6


@dataclass(frozen=True)
class Evidence:
    """What the numbers say of one column.

    Args:
        explained: share of the command's variance by the best hypothesis, and by the other one, in `rival`.
        lag: rows by which the command leads the state.
        factor: c of a step: 1 for one in the state's own units.
        at_rest: told from where it rests; `explained` is then how near commands are to the state, 1 at the same place.
    """

    kind: Kind
    explained: float
    rival: float
    lag: int
    factor: float = 1.0
    at_rest: bool = False

    @property
    def words(self) -> str:
        share, other = f"{max(self.explained, 0):.0%}", f"{max(self.rival, 0):.0%}"
        match self.kind:
            case "target" if self.at_rest:
                return f"hardly moves, and the command lies where it is ({share} of the way from zero)"
            case "target":
                return f"explains {share} of it as where the state is {self.lag} rows later, {other} as a step"
            case "step" | "velocity":
                return f"explains {share} of it as {self.factor:.3g} x the state's next step, {other} as a target"
            case "copy":
                return f"equals the state {'one row later' if self.lag else 'at the same row'}: no command was logged"
            case "still":
                return "hardly moves: nothing to tell it by"
            case _:
                return f"explains {share} as a target, {other} as a step: neither"


def column_kind(commands: Sequence[Float32], states: Sequence[Float32], hz: float) -> Evidence:
    """What one column of commands is.

    Args:
        commands, states: (T,) of each episode, row by row.
        hz: rate of the rows.
    """
    pairs = [(np.asarray(a, np.float64), np.asarray(s, np.float64)) for a, s in zip(commands, states, strict=True)]
    pairs = [(a, s) for a, s in pairs if len(a) > 3 and np.isfinite(a).all() and np.isfinite(s).all()]
    spread = float(np.sqrt(np.mean([a.var() for a, _ in pairs]))) if pairs else 0.0
    if spread < 1e-6:
        return Evidence("still", 0.0, 0.0, 0)
    for lag in (0, 1):
        if all(np.abs(a[: len(a) - lag] - s[lag:]).max() <= SAME for a, s in pairs):
            return Evidence("copy", 1.0, 0.0, lag)
    longest = min(MAX_LAG, min(len(a) for a, _ in pairs) // 3)
    target, target_lag = max((_as_target(pairs, lag), lag) for lag in range(longest + 1))
    step, step_lag, factor = max(_as_step(pairs, lag) for lag in range(longest + 1))
    if max(target, step) < SURE:
        return Evidence("unclear", target, step, target_lag)
    if target >= step:
        return Evidence("target", target, step, target_lag)
    is_velocity = abs(factor / hz - 1) < FACTOR_TOLERANCE
    return Evidence("velocity" if is_velocity else "step", step, target, step_lag, factor)


def component_kind(commands: Sequence[Float32], states: Sequence[Float32], hz: float) -> Evidence:
    """What a component of several columns is: that of most of its moving columns, with their median shares.

    Args:
        commands, states: (T, D) of each episode.
    """
    found = [
        column_kind([a[:, d] for a in commands], [s[:, d] for s in states], hz) for d in range(commands[0].shape[1])
    ]
    moving = [e for e in found if e.kind not in ("still", "unclear")]
    if 2 * len(moving) < len(found):
        near = _nearness(commands, states)
        unclear = next((e for e in found if e.kind == "unclear"), Evidence("still", 0.0, 0.0, 0))
        return Evidence("target", near, 0.0, 0, at_rest=True) if near >= NEAR else unclear
    kinds = [e.kind for e in moving]
    most = max(dict.fromkeys(kinds), key=kinds.count)
    alike = [e for e in moving if e.kind == most]
    middle = [float(np.median([getattr(e, name) for e in alike])) for name in ("explained", "rival", "lag", "factor")]
    return Evidence(most, middle[0], middle[1], round(middle[2]), middle[3])


def _nearness(commands: Sequence[Float32], states: Sequence[Float32]) -> float:
    """1 where commands rest where the state does, 0 where they are as far away as zero is, over all columns."""
    where_a, where_s = np.concatenate(commands).mean(0), np.concatenate(states).mean(0)
    far = float(np.abs(where_s).mean())
    return 1 - float(np.abs(where_a - where_s).mean()) / far if far > 0 else 0.0


def _as_target(pairs: list[tuple[np.ndarray, np.ndarray]], lag: int) -> float:
    """Share of the commands' variance that the state `lag` rows later explains, as it stands."""
    left = sum(float(((a[: len(a) - lag] - s[lag:]) ** 2).sum()) for a, s in pairs)
    whole = sum(float(((a[: len(a) - lag] - a[: len(a) - lag].mean()) ** 2).sum()) for a, _ in pairs)
    return 1 - left / whole if whole > 0 else 0.0


def _as_step(pairs: list[tuple[np.ndarray, np.ndarray]], lag: int) -> tuple[float, int, float]:
    """(share of the commands' power that the state's steps explain, lag, factor), by least squares through zero."""
    moved = [(a[: len(a) - lag - 1], np.diff(s[lag:])) for a, s in pairs]
    cross = sum(float(a @ d) for a, d in moved)
    steps, power = sum(float(d @ d) for _, d in moved), sum(float(a @ a) for a, _ in moved)
    if steps <= 0 or power <= 0 or cross <= 0:
        return 0.0, lag, 0.0
    return cross**2 / (steps * power), lag, cross / steps
