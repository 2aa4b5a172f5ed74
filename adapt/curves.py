"""Loss and held-out error of a run so far; free of torch, so that `wam show` is quick."""

from schemas.record import Record
from schemas.report import CurvePoint

CURVES = "curves.json"


class Curves(Record):
    """Rewritten with every checkpoint."""

    loss: tuple[CurvePoint, ...] = ()
    val_error: tuple[CurvePoint, ...] = ()
    best_step: int = 0
    seconds: float = 0.0


def thinned(points: tuple[CurvePoint, ...], most: int = 400) -> tuple[CurvePoint, ...]:
    """At most `most` points, each the mean of its neighbours, for plots."""
    size = max(1, -(-len(points) // most))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return tuple(CurvePoint(step=g[-1].step, value=sum(p.value for p in g) / len(g)) for g in groups)
