"""One check each. A check looks at an episode as logged, or at its trajectory, and returns findings.

A finding of severity `error` rejects the episode in `wam ingest`; `wam check` shows all of them.
"""

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Finding, Trajectory
from schemas.recipe import Filters
from wamdata.filters import cameras, clocks, constant, duration, echo, finite, gaps, idle, jumps, ranges, text

RAW_CHECKS = (cameras.check, text.check, gaps.check, duration.check, clocks.check)
TRAJECTORY_CHECKS = (finite.check, echo.check, constant.check, jumps.check, ranges.check, idle.check)


def check_raw(episode: Episode, embodiment: Embodiment, limits: Filters) -> tuple[Finding, ...]:
    """Findings that only the raw episode can show; alignment would hide them."""
    return tuple(f for check in RAW_CHECKS for f in check(episode, embodiment, limits))


def check_trajectory(trajectory: Trajectory, limits: Filters) -> tuple[Finding, ...]:
    """Findings that need the robot's units and rate."""
    return tuple(f for check in TRAJECTORY_CHECKS for f in check(trajectory, limits))
