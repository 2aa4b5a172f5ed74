"""Normalisation statistics: on the training split, on the recipe's time base, hashed."""

from typing import Literal

from schemas.record import Record


class Moments(Record):
    """Per-column statistics over rows."""

    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]


class Statistics(Record):
    """State, absolute action, and action relative to the state at the chunk's start (same definition as training).

    `relative_step` holds one `Moments` per step of the chunk: far steps move more than near ones.
    """

    schema_id: Literal["wamkit/statistics@1"] = "wamkit/statistics@1"
    embodiment_sha256: str
    action_hz: float
    state: Moments
    action: Moments
    relative: Moments
    relative_step: tuple[Moments, ...]
