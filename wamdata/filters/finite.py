"""NaN and infinity in the columns a model would see."""

import numpy as np

from schemas.episode import Finding, Trajectory
from schemas.recipe import Filters


def check(trajectory: Trajectory, limits: Filters) -> list[Finding]:
    bad = int((~(trajectory.state_valid & trajectory.action_valid)).sum())
    if bad <= limits.max_nan_rows:
        return []
    first = int(np.argmin(trajectory.state_valid & trajectory.action_valid))
    severity = "error" if bad == len(trajectory.t_ns) else "warning"
    message = f"{bad} of {len(trajectory.t_ns)} rows are NaN, infinite or missing, the first at row {first}: cut out"
    return [Finding("bad_rows", severity, trajectory.episode.key, message)]
