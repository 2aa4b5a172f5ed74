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
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Float32

Float64 = NDArray[np.float64]
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
    return column_kinds([np.reshape(a, (-1, 1)) for a in commands], [np.reshape(s, (-1, 1)) for s in states], hz)[0]


def column_kinds(commands: Sequence[Float32], states: Sequence[Float32], hz: float) -> list[Evidence]:
    """As `column_kind`, of columns side by side.

    Args:
        commands, states: (T, D) of each episode.
    """
    width = commands[0].shape[1] if len(commands) else 0
    pairs = [_pair(a, s) for a, s in zip(commands, states, strict=True) if len(a) > 3]
    if not pairs:
        return [Evidence("still", 0.0, 0.0, 0)] * width
    counted = np.maximum(sum(p.counts for p in pairs), 1)
    spread = np.sqrt(sum(p.a.var(axis=0) * p.counts for p in pairs) / counted)
    copies = {lag: np.all([(p.off(lag) <= SAME) | ~p.counts for p in pairs], axis=0) for lag in (0, 1)}
    longest = min(MAX_LAG, min(len(p.a) for p in pairs) // 3)
    targets = np.stack([_as_target(pairs, lag) for lag in range(longest + 1)])
    steps, factors = (np.stack(x) for x in zip(*(_as_step(pairs, lag) for lag in range(longest + 1)), strict=True))
    found = []
    for d in range(width):
        if spread[d] < 1e-6:
            found.append(Evidence("still", 0.0, 0.0, 0))
        elif copies[0][d] or copies[1][d]:
            found.append(Evidence("copy", 1.0, 0.0, 0 if copies[0][d] else 1))
        else:
            found.append(_judged(targets[:, d], steps[:, d], factors[:, d], hz))
    return found


def _judged(targets: Float64, steps: Float64, factors: Float64, hz: float) -> Evidence:
    """The better of two explanations, each by lag."""
    at, by = len(targets) - 1 - int(np.argmax(targets[::-1])), len(steps) - 1 - int(np.argmax(steps[::-1]))
    target, step, factor = float(targets[at]), float(steps[by]), float(factors[by])
    if max(target, step) < SURE:
        return Evidence("unclear", target, step, at)
    if target >= step:
        return Evidence("target", target, step, at)
    is_velocity = abs(factor / hz - 1) < FACTOR_TOLERANCE
    return Evidence("velocity" if is_velocity else "step", step, target, by, factor)


def component_kind(commands: Sequence[Float32], states: Sequence[Float32], hz: float) -> Evidence:
    """What a component of several columns is: that of most of its moving columns, with their median shares.

    Args:
        commands, states: (T, D) of each episode.
    """
    found = column_kinds(commands, states, hz)
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


class _Pair(NamedTuple):
    """Commands and state of an episode, (T, D), and (D,) whether a column counts: all of its values are finite."""

    a: Float64
    s: Float64
    counts: NDArray[np.bool_]

    def off(self, lag: int) -> Float64:
        """(D,) the largest difference of a command from the state `lag` rows later."""
        return np.abs(self.a[: len(self.a) - lag] - self.s[lag:]).max(axis=0)


def _pair(commands: Float32, states: Float32) -> _Pair:
    a, s = (np.asarray(x, np.float64) for x in (commands, states))
    counts = np.isfinite(a).all(axis=0) & np.isfinite(s).all(axis=0)
    return _Pair(np.where(counts, a, 0.0), np.where(counts, s, 0.0), counts)


def _as_target(pairs: list[_Pair], lag: int) -> Float64:
    """(D,) share of the commands' variance that the state `lag` rows later explains, as it stands."""
    left = sum(((p.a[: len(p.a) - lag] - p.s[lag:]) ** 2).sum(axis=0) for p in pairs)
    whole = sum(p.a[: len(p.a) - lag].var(axis=0) * (len(p.a) - lag) for p in pairs)
    return np.where(whole > 0, 1 - left / np.where(whole > 0, whole, 1.0), 0.0)


def _as_step(pairs: list[_Pair], lag: int) -> tuple[Float64, Float64]:
    """(D,) share of the commands' power that the state's steps explain, and (D,) the factor, by least squares."""
    moved = [(p.a[: len(p.a) - lag - 1], np.diff(p.s[lag:], axis=0)) for p in pairs]
    cross = sum((a * d).sum(axis=0) for a, d in moved)
    steps, power = sum((d * d).sum(axis=0) for _, d in moved), sum((a * a).sum(axis=0) for a, _ in moved)
    some = (steps > 0) & (power > 0) & (cross > 0)
    steps, power = np.where(some, steps, 1.0), np.where(some, power, 1.0)
    return np.where(some, cross**2 / (steps * power), 0.0), np.where(some, cross / steps, 0.0)
