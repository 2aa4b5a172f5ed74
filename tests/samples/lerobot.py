"""LeRobot: a real v2.1 set with a missing video, and a v3.0 set by lerobot's own writer."""

from pathlib import Path

from synthetic import write_lerobot_v3

READER = "lerobot"


def real_v21(root: Path) -> Path:
    return Path(__file__).parents[1] / "data/g1_inspire_v21"


def written_v30(root: Path) -> Path:
    return write_lerobot_v3(root / "synthetic_arm", episodes=4, seconds=2.0)


SAMPLES = {"v21": real_v21, "v30": written_v30}
