"""Labels that copy the state: a policy could win by copying, and would do nothing on a robot."""

import numpy as np

from schemas.embodiment import with_columns
from schemas.episode import Finding, Trajectory
from schemas.recipe import Filters

SAME = 1e-6  # largest difference, in mapped units, that still counts as a copy


def check(trajectory: Trajectory, limits: Filters) -> list[Finding]:
    hold = trajectory.embodiment.hold_columns()
    found = []
    for component, at in with_columns(trajectory.embodiment.model_action):
        columns = range(at.start, at.stop)
        if component.ahead or any(hold[c] < 0 for c in columns) or len(trajectory.t_ns) < 2:
            continue
        action = trajectory.action[:, list(columns)]
        state = trajectory.state[:, [hold[c] for c in columns]]
        if not np.ptp(action, axis=0).any():
            continue
        for shift, what in ((0, "at the same row"), (1, "one row later")):
            pairs = action[: len(action) - shift], state[shift:]
            if np.abs(pairs[0] - pairs[1]).max() <= SAME:
                message = (
                    f"action.{component.name} equals the state {what}: the label is an echo, not a command, and a "
                    "policy can win by copying"
                )
                found.append(Finding("echo_label", "warning" if shift else "error", trajectory.episode.key, message))
    return found
