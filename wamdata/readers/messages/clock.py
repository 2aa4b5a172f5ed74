"""Which clock a topic is given: the stamps in its messages where they can be trusted, else when they were recorded.

Stamps come from the sensor and do not jitter with the network, but they can be zero, of a simulation, or jump.
"""

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Finding, Int64

HOUR_NS = 3_600_000_000_000
STEP_BACK_NS = 1_000_000_000  # messages overtake each other by less; a clock that was set steps further
APART_NS = 100_000_000


@dataclass
class Track:
    """When a topic's messages were recorded, and what time they give themselves (0: none)."""

    log_ns: array = field(default_factory=lambda: array("q"))
    stamp_ns: array = field(default_factory=lambda: array("q"))

    def add(self, log_ns: int, stamp_ns: int) -> int:
        """Takes a message's times; its number."""
        self.log_ns.append(log_ns)
        self.stamp_ns.append(stamp_ns)
        return len(self.log_ns) - 1


def settle(track: Track, topic: str, span: tuple[int, int]) -> tuple[Int64, list[Finding]]:
    """Time of each message of a topic on the clock it is given, in the order they were read.

    Args:
        span: first and last time at which anything was recorded.
    """
    log, stamps = np.array(track.log_ns, np.int64), np.array(track.stamp_ns, np.int64)
    if not stamps.any():
        return log, []
    why = _distrust(stamps[np.argsort(log, kind="stable")], span)
    if why:
        message = f"topic {topic}: {why}, so its clock is when messages were recorded"
        return log, [Finding("clock_of_recorder", "warning", topic, message)]
    apart_ms = float(np.median(np.abs(stamps - log))) / 1e6
    if apart_ms * 1e6 > APART_NS:
        message = (
            f"topic {topic}: its clock is the stamps in its messages, "
            f"{apart_ms:.0f} ms apart in the median from when they were recorded"
        )
        return stamps, [Finding("clock_apart", "info", topic, message)]
    return stamps, []


def in_order(t_ns: Int64, where: str) -> tuple[NDArray[np.intp], list[Finding]]:
    """Which messages to take, in time; of those with the same time the first."""
    order = np.argsort(t_ns, kind="stable")
    fresh = np.diff(t_ns[order], prepend=np.iinfo(np.int64).min) != 0
    if len(order):
        fresh[0] = True
    lost = int((~fresh).sum())
    if not lost:
        return order, []
    message = f"topic {where}: {lost} of {len(order)} messages have the time of one before them: left out"
    return order[fresh], [Finding("duplicate_times", "warning", where, message)]


def _distrust(stamps: Int64, span: tuple[int, int]) -> str:
    """Why stamps, in the order they were recorded, are no clock; "" if they are one."""
    zero = int((stamps == 0).sum())
    if zero:
        return f"{zero} of {len(stamps)} stamps are zero"
    outside = int(((stamps < span[0] - HOUR_NS) | (stamps > span[1] + HOUR_NS)).sum())
    if outside:
        return f"{outside} of {len(stamps)} stamps are over an hour outside of the recording (a simulation's clock?)"
    back = int((np.diff(stamps) < -STEP_BACK_NS).sum())
    if back:
        return f"stamps step back {back} times by over a second"
    same = int((np.diff(stamps) == 0).sum())
    return f"{same} of {len(stamps)} stamps repeat the one before" if same > len(stamps) // 2 else ""
