"""Numbers as the report and its comparison write them."""

import math

from schemas.report import Measure, Paired


def short(value: float) -> str:
    """Three significant digits, or words."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= abs(value) < 1000 else f"{value:.3g}"


def fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "not finite"


def interval(paired: Paired, digits: int) -> str:
    if not (math.isfinite(paired.low) and math.isfinite(paired.high)):
        return "not finite"
    return f"{paired.low:+.{digits}f} to {paired.high:+.{digits}f}".replace("-", "−")


def decimals(value: float) -> int:
    """Decimals that give `value` three significant digits."""
    return min(max(2 - math.floor(math.log10(value)), 0), 8) if 0 < value < math.inf else 3


def change(error: float, still: float) -> str:
    """`error` against standing still in percent; a dash where standing still is exact."""
    if not (still > 0 and math.isfinite(error)):
        return "–"
    percent = round((error / still - 1) * 100)
    return f"{percent:+d} %".replace("-", "−") if percent else "±0 %"


def order(error: float) -> float:
    return error if math.isfinite(error) else math.inf


def count(value: int) -> str:
    """12 400, or 13.2 million."""
    return f"{value / 1e6:.3g} million" if value >= 1_000_000 else f"{value:,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def measured(measure: Measure, digits: int = 2) -> str:
    """The value, or a dash; the reason is told beside it."""
    return "–" if measure.value is None else f"{measure.value:.{digits}f}".replace("-", "−")


def measured_interval(measure: Measure, digits: int = 2) -> str:
    if measure.low is None or measure.high is None:
        return ""
    return f"{measure.low:.{digits}f} to {measure.high:.{digits}f}".replace("-", "−")
