"""Which end of a gripper is open, from numbers alone.

A hand that holds something stops short of its command: the end at which the state stays away from where it was sent is
the closed one. Where nothing is held, episodes mostly begin with an open hand; and a width in metres is open where it
is large. Without any of these the ends are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.episode import Float32

NEAR = 0.25  # of the range: counts as an end
SHORT = 0.08  # of the range, by which a holding hand stops short of its command
REST = 0.02  # of the range, by which a free one may miss it
ENDS = 0.6  # share of rows near an end, from which on a column looks like a gripper's


@dataclass(frozen=True)
class Ends:
    """Values at which the gripper is open and closed.

    Args:
        is_sure: False where a person has to look.
    """

    open: float
    closed: float
    reason: str
    is_sure: bool


def find_ends(states: Sequence[Float32], commands: Sequence[Float32] | None, unit: str) -> Ends | None:
    """The ends of a gripper's column; None where it does not move.

    Args:
        states: (T,) of each episode; commands: (T,) beside them, or None where there are none.
    """
    whole = np.concatenate([*states, *(commands or [])])
    whole = whole[np.isfinite(whole)]
    if not len(whole):
        return None
    low, high = (float(v) for v in np.quantile(whole, [0.005, 0.995]))
    if high - low < 1e-6:
        return None
    low, high = _round_ends(low, high)
    if commands is not None:
        short = [_falls_short(states, commands, end, high - low) for end in (low, high)]
        if max(short) > SHORT and min(short) < REST:
            closed = low if short[0] > short[1] else high
            return Ends(
                low + high - closed, closed, f"it stops {max(short):.0%} short of {closed:g} where it holds", True
            )
    if unit in ("m", "mm", "cm"):
        return Ends(high, low, "a width: large is open", True)
    starts = np.array([float(s[0]) for s in states if len(s)])
    near_high = float((starts > high - NEAR * (high - low)).mean()) if len(starts) else 0.5
    near_low = float((starts < low + NEAR * (high - low)).mean()) if len(starts) else 0.5
    is_high = near_high >= near_low
    share = max(near_high, near_low)
    words = f"{share:.0%} of the episodes begin at {high if is_high else low:g}, and hands mostly begin open"
    return Ends(high if is_high else low, low if is_high else high, words, False)


def looks_like_one(values: Float32) -> bool:
    """Whether a column spends its time at two ends, as a gripper does."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if high - low < 1e-3:
        return False
    part = (finite - low) / (high - low)
    at_low, at_high = float((part < 0.1).mean()), float((part > 0.9).mean())
    return at_low + at_high > ENDS and min(at_low, at_high) > 0.05


def _falls_short(states: Sequence[Float32], commands: Sequence[Float32], end: float, reach: float) -> float:
    """Share of the range by which a resting state misses commands at an end; 0 if it never rests there."""
    missed = []
    for state, command in zip(states, commands, strict=True):
        if len(state) != len(command) or len(state) < 4:
            continue
        rests = np.abs(np.gradient(state.astype(np.float64))) < 0.005 * reach
        sent = np.abs(command - end) < 0.1 * reach
        there = rests & sent & (np.abs(state - end) < 0.8 * reach)
        missed += list(np.abs(state - command)[there] / reach)
    return float(np.median(missed)) if len(missed) > 5 else 0.0


def _round_ends(low: float, high: float) -> tuple[float, float]:
    """0..1 and 0..100 where values come near those; as seen elsewhere."""
    for scale in (1.0, 100.0):
        if abs(low) < 0.05 * scale and abs(high - scale) < 0.05 * scale:
            return 0.0, scale
    return round(low, 4), round(high, 4)
