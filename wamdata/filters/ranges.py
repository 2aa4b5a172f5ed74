"""Values outside the limits that the robot's file declares: another unit, another zero, or a broken sensor."""

import numpy as np

from schemas.embodiment import Component, with_columns
from schemas.episode import Finding, Trajectory
from schemas.recipe import Filters

SLACK = 0.02  # of a limit's range: encoders overshoot their stops a little


def check(trajectory: Trajectory, limits: Filters) -> list[Finding]:
    found = []
    for what, values, components in (
        ("state", trajectory.state, trajectory.embodiment.model_state),
        ("action", trajectory.action, trajectory.embodiment.model_action),
    ):
        for component, at in with_columns(components):
            found += _of_component(trajectory.episode.key, what, component, values[:, at])
    return found


def _of_component(key: str, what: str, component: Component, columns: np.ndarray) -> list[Finding]:
    bounds = declared(component)
    if bounds is None or not len(columns):
        return []
    slack = SLACK * (bounds[:, 1] - bounds[:, 0])
    outside = (columns < bounds[:, 0] - slack) | (columns > bounds[:, 1] + slack)
    if not outside.any():
        return []
    column = int(np.argmax(outside.sum(axis=0)))
    low, high, unit = *bounds[column], component.mapped_units[column]
    lowest, highest = float(np.nanmin(columns[:, column])), float(np.nanmax(columns[:, column]))
    share = float(outside[:, column].mean())
    message = (
        f"{what}.{component.labels[column]} runs from {lowest:.3g} to {highest:.3g} {unit}, its limits are "
        f"{low:.3g} to {high:.3g} ({share:.0%} of the rows lie outside). Look at its unit, sign and zero"
    )
    return [Finding("outside_limits", "warning", key, message, None, (("share", share),))]


def declared(component: Component) -> np.ndarray | None:
    """(D, 2) limits in mapped units; None where the robot's file has none. A gripper's are 0 and 1."""
    if component.open is not None:
        return np.tile([0.0, 1.0], (component.width, 1))
    if not isinstance(component.limits, tuple):
        return None
    return np.array(component.limits, np.float64)
