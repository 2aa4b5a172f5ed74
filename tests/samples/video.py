"""Real video without actions: three DROID cameras; and folders of numbered pictures with captions."""

from pathlib import Path

from PIL import Image

READER = "video"
PANCAKE = "1\n00:00:00,000 --> 00:00:00,400\nPour the batter.\n\n2\n00:00:00,400 --> 00:00:01,000\nFlip it.\n"


def droid(root: Path) -> Path:
    return Path(__file__).parents[1] / "data/droid_video"


def pictures(root: Path) -> Path:
    """Two takes of ten pictures, one with time stamps for names, written by Pillow."""
    for take, (names, suffix) in enumerate(
        (([f"frame_{i:04d}" for i in range(10)], ".jpg"), ([str(10**18 + i * 33_333_333) for i in range(10)], ".png"))
    ):
        folder = root / "films" / f"take_{take}"
        folder.mkdir(parents=True)
        for at, name in enumerate(names):
            Image.new("RGB", (64, 48), (20 * at, 90 * take, 40)).save((folder / name).with_suffix(suffix))
    (root / "films/take_0.srt").write_text(PANCAKE)
    return root / "films"


SAMPLES = {"droid": droid, "pictures": pictures}
