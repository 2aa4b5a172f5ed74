"""Real video without actions: three DROID cameras."""

from pathlib import Path

READER = "video"


def droid(root: Path) -> Path:
    return Path(__file__).parents[1] / "data/droid_video"


SAMPLES = {"droid": droid}
