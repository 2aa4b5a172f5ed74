"""Columns that never change: nothing can be learned of them, and normalising them would blow up noise."""

import numpy as np

from schemas.episode import Finding, Trajectory
from schemas.recipe import Filters

STILL = 1e-6  # range, in mapped units, below which a column counts as constant


def check(trajectory: Trajectory, limits: Filters) -> list[Finding]:
    found = []
    for what, values, components in (
        ("state", trajectory.state, trajectory.embodiment.model_state),
        ("action", trajectory.action, trajectory.embodiment.model_action),
    ):
        labels = [label for c in components for label in c.labels]
        still = np.flatnonzero(np.ptp(values, axis=0) <= STILL) if len(values) else []
        if len(still):
            names = ", ".join(labels[i] for i in still[:4]) + (f" and {len(still) - 4} more" if len(still) > 4 else "")
            message = f"{what} never changes in {len(still)} of {len(labels)} columns: {names}"
            found.append(Finding("constant", "info", trajectory.episode.key, message))
    return found
