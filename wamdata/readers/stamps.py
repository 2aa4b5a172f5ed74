"""Time stamps whose unit nobody wrote down: taken by their size since 1970, else by their steps."""

import numpy as np

from schemas.episode import Int64
from schemas.errors import DataError

TICKS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
SINCE_1970_S = (1e9, 4e9)  # 2001 to 2096: what a clock of today says
LONGEST_STEP_S = 60.0
_STEPS = (("s", 1.0), ("ms", 1e3), ("us", 1e6))  # the longest step of a log of 1 Hz and more


def unit_of(stamps: np.ndarray) -> str | None:
    """`s`, `ms`, `us` or `ns`; None where the numbers only count rows, or are fewer than two and small."""
    steps = np.diff(stamps.astype(np.float64))
    step = float(np.median(steps)) if len(steps) else 0.0
    for unit, ticks in TICKS.items():
        in_s = ticks / 1e9
        if len(stamps) and SINCE_1970_S[0] <= stamps[0] * in_s < SINCE_1970_S[1] and step * in_s <= LONGEST_STEP_S:
            return unit
    if not len(steps) or (steps == 1).all():
        return None
    return next((unit for unit, longest in _STEPS if step <= longest), "ns")


def to_ns(stamps: np.ndarray, unit: str, where: str) -> Int64:
    """(N,) ns of (N,) time stamps; whole numbers are kept to the last digit.

    Raises:
        DataError: they are not finite, not within int64, or do not increase.
    """
    if not np.isfinite(stamps).all():
        row = int(np.argmin(np.isfinite(stamps)))
        raise DataError(f"{where}: the time is {stamps[row]} at row {row}. Mend it or drop the episode.")
    if len(stamps) and float(np.abs(stamps).max()) * TICKS[unit] >= 2**63:
        raise DataError(
            f"{where}: a time of {stamps.max():g} {unit} is beyond all clocks. Mend it or drop the episode."
        )
    if stamps.dtype.kind in "iu":
        t_ns = stamps.astype(np.int64) * TICKS[unit]
    else:
        t_ns = np.round(stamps.astype(np.float64) * TICKS[unit]).astype(np.int64)
    if (np.diff(t_ns) <= 0).any():
        row = int(np.argmax(np.diff(t_ns) <= 0)) + 1
        raise DataError(f"{where}: time does not increase at row {row}. Mend the time stamps or drop the episode.")
    return t_ns
