"""Loss and held-out error of a run so far; free of torch and pydantic, so that `wam show` is quick."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from schemas.errors import DataError

CURVES = "curves.json"
SERIES = ("loss", "val_error", "raw_val_error", "average_val_error")


@dataclass(frozen=True)
class Point:
    step: int
    value: float


@dataclass(frozen=True)
class Curves:
    """Rewritten with every checkpoint.

    Args:
        val_error: held-out error of the better weights at each look, which may be kept; of the raw and of the averaged
            ones: raw_val_error, average_val_error.
        best_kind: which of them were kept, from step `best_step`.
        looks_since_best: at the held-out part.
    """

    loss: tuple[Point, ...] = ()
    val_error: tuple[Point, ...] = ()
    raw_val_error: tuple[Point, ...] = ()
    average_val_error: tuple[Point, ...] = ()
    best_step: int = 0
    best_kind: str = "average"
    best_error: float | None = None
    looks_since_best: int = 0
    seconds: float = 0.0

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def read_json(cls, path: Path) -> Self:
        """Raises DataError if the file is missing or damaged."""
        try:
            fields = json.loads(path.read_bytes())
            points = {name: tuple(Point(**p) for p in fields.pop(name)) for name in SERIES}
            return cls(**points, **fields)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error!r}). Delete the train folder and run again.") from None


@dataclass(frozen=True)
class Trained:
    """What a finished training says of itself; the report's `Training` has the same fields."""

    steps: int
    chosen_step: int
    seconds: float
    trainable_parameters: int
    total_parameters: int
    windows: int
    video_windows: int
    epochs: float
    loss: tuple[Point, ...]
    val_error: tuple[Point, ...]
    raw_val_error: tuple[Point, ...] = ()
    average_val_error: tuple[Point, ...] = ()
    chosen: str = "average"
    stopped: str = ""
    rung: str = ""
    budget: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def thinned(points: tuple[Point, ...], most: int = 400) -> tuple[Point, ...]:
    """At most `most` points, each the mean of its neighbours, for plots."""
    size = max(1, -(-len(points) // most))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return tuple(Point(g[-1].step, sum(p.value for p in g) / len(g)) for g in groups)
