"""LeRobot: a real v2.1 set with a missing video; v3.0 sets by lerobot's own writer, one with pictures in parquet."""

from pathlib import Path

from synthetic import write_lerobot_v3

READER = "lerobot"


def real_v21(root: Path) -> Path:
    return Path(__file__).parents[1] / "data/g1_inspire_v21"


def written_v30(root: Path) -> Path:
    return write_lerobot_v3(root / "synthetic_arm", episodes=4, seconds=2.0)


def written_v30_images(root: Path) -> Path:
    return write_lerobot_v3(root / "synthetic_arm", episodes=3, seconds=1.0, pictures="image", height=48, width=64)


SAMPLES = {"v21": real_v21, "v30": written_v30, "v30_images": written_v30_images}
