"""The unit of a column, from its values and its name: state and commands each by themselves."""

from dataclasses import dataclass, replace

import numpy as np

from schemas.episode import Float32

TURN = 2 * np.pi + 0.3
LENGTH = 3.0  # metres that an arm may reach


@dataclass(frozen=True)
class Unit:
    """A guess.

    Args:
        unit: as embodiment files name it.
        sure: `sure`, `likely` or `unsure`.
        question: what a person has to answer, "" where nothing.
    """

    unit: str
    sure: str
    reason: str
    question: str = ""


def unit_of(values: Float32, part: str, kind: str, names: tuple[str, ...] = ()) -> Unit:
    """The unit of some columns of one part.

    Args:
        values: (T, D).
        kind: as in embodiment files.
        names: of the columns, where the log has them.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Unit("rad", "unsure", "no finite value", "which unit?")
    low, high = float(finite.min()), float(finite.max())
    largest, seen = max(abs(low), abs(high)), f"values {low:.3g} to {high:.3g}"
    whole = bool((finite == np.round(finite)).all()) and high - low > 20
    if kind in ("hand", "gripper"):
        found = _of_hand(low, high, largest, seen, whole)
        return replace(found, question="does 1 mean open?") if kind == "hand" and found.unit == "fraction" else found
    if part == "base":
        return Unit("m/s", "unsure", seen, "metres per second for every column? angular ones are rad/s")
    if kind == "pose":
        return _of_length(largest, seen)
    if largest <= TURN:
        return Unit("rad", "sure" if largest > 0.2 else "likely", f"{seen}: fits radians")
    if whole or largest > 361:
        return Unit("tick", "likely" if whole else "unsure", f"{seen}: {'whole numbers, ' * whole}servo ticks",
                    "give `to_si: {scale: ..., offset: ...}` if you know what a tick is worth")  # fmt: skip
    if largest <= 100.5 and any(n.endswith(".pos") for n in names):
        return Unit("normalized", "likely", f"{seen}, named `.pos`: LeRobot's -100..100 of each joint's range",
                    "write `unit: deg` if it was recorded with use_degrees")  # fmt: skip
    if largest <= 100.5 and max(abs(low + 100), abs(high - 100)) < 8:
        return Unit("normalized", "likely", f"{seen}: ends at 100 on both sides, LeRobot's -100..100",
                    "write `unit: deg` if these are degrees")  # fmt: skip
    return Unit("deg", "likely", f"{seen}: fits degrees, too large for radians")


def _of_hand(low: float, high: float, largest: float, seen: str, whole: bool) -> Unit:
    if low >= -0.06 and high <= 1.06:
        if high <= 0.15 and high > 0.01:
            return Unit("m", "likely", f"{seen}: a width in metres")
        return Unit("fraction", "sure" if high > 0.5 else "likely", f"{seen}: a fraction")
    if whole and largest > 120:
        return Unit("tick", "likely", f"{seen}: whole numbers, servo ticks")
    if low >= -6 and high <= 106 and largest > 20:
        return Unit("percent", "likely", f"{seen}: 0 to 100")
    if largest <= TURN:
        return Unit("rad", "likely", f"{seen}: fits the radians of a finger's joint")
    return Unit("tick", "unsure", f"{seen}: too large for radians")


def _of_length(largest: float, seen: str) -> Unit:
    if largest <= LENGTH:
        return Unit("m", "likely", f"{seen}: fits metres")
    if largest <= LENGTH * 1000:
        return Unit("mm", "likely", f"{seen}: too large for metres, fits millimetres")
    return Unit("tick", "unsure", f"{seen}: no length of a robot", "which unit?")
