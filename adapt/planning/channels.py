"""Whether a robot's columns fit the channels of DreamZero's base; columns are never cut off."""

import numpy as np

from adapt.clips import Clips
from schemas.errors import UsageError
from wamdata.filters.constant import STILL

TOLD = 6  # names in a message


def check_channels(clips: Clips) -> None:
    """Nothing where state and command fit.

    Raises:
        UsageError: there are more columns than channels; says which of them never change.
    """
    from adapt.backbones.dreamzero.slots import ACTION_CHANNELS, STATE_CHANNELS

    robot = clips.embodiment
    for what, components, channels in (
        ("action", robot.model_action, ACTION_CHANNELS),
        ("state", robot.model_state, STATE_CHANNELS),
    ):
        labels = [f"{c.name}.{label}" for c in components for label in c.labels]
        if len(labels) > channels:
            still = [labels[column] for column in _still(clips, what)]
            more = f" and {len(still) - TOLD} more" if len(still) > TOLD else ""
            first = f"these never change: {', '.join(still[:TOLD])}{more}" if still else "all of them move"
            raise UsageError(
                f"{what}: {len(labels)} > {channels}: the robot has {len(labels)} columns, the base {channels} "
                f"channels. Put {len(labels) - channels} or more into components with `use: carry` ({first})."
            )


def _still(clips: Clips, what: str) -> list[int]:
    """Columns of state or action that have one value in all clips."""
    low, high = np.inf, -np.inf
    for clip in clips.stream():
        values = clip.action if what == "action" else clip.state
        low, high = np.minimum(low, np.nanmin(values, axis=0)), np.maximum(high, np.nanmax(values, axis=0))
    return [int(column) for column in np.flatnonzero(high - low <= STILL)]
