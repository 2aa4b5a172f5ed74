"""AgiBot World recordings in the layout that its card documents: rows by h5py, videos by PyAV."""

import json
from pathlib import Path

import h5py
import numpy as np

from samples.droid import film
from samples.hdf5 import ramp, smooth

READER = "agibot"
START_NS = 1_725_000_000_000_000_000
CAMERAS = ("head_color", "hand_left_color", "hand_right_color")


def rows_file(path: Path, rows: int, seed: int = 0, sent: slice = slice(None)) -> None:
    """Rows of one recording.

    Args:
        sent: rows at which the arms were commanded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    empty, every = np.zeros(0, np.float32), np.arange(rows)
    with h5py.File(path, "w") as h5:
        h5["timestamp"] = START_NS + every * 33_333_333
        for side in ("state", "action"):
            h5[f"{side}/joint/position"] = ramp(rows, 14, seed + (side == "action"))
            h5[f"{side}/effector/position"] = ramp(rows, 2, seed) * 60 + 35
            h5[f"{side}/end/position"] = ramp(rows, 6, seed).reshape(rows, 2, 3)
            h5[f"{side}/end/orientation"] = np.tile(np.array([0.0, 0, 0, 1]), (rows, 2, 1))
            h5[f"{side}/joint/velocity"] = empty
        h5["action/joint/index"] = h5["action/end/index"] = every[sent]
        h5["action/effector/index"] = every


def world(root: Path) -> Path:
    """One task of three recordings: whole, rows alone, videos alone."""
    folder = root / "agibot_world"
    (folder / "task_info").mkdir(parents=True)
    steps = [
        {"start_frame": 0, "end_frame": 5, "action_text": "Pick up the cucumber.", "skill": "Pick"},
        {"start_frame": 5, "end_frame": 10, "action_text": "Place it into the bag.", "skill": "Place"},
    ]
    entries = [
        {"episode_id": number, "task_name": "Pickup items in the supermarket", "label_info": {"action_config": steps},
         "init_scene_text": "A fruit stand."}
        for number in (648642, 648649, 648650)
    ]  # fmt: skip
    (folder / "task_info/task_327.json").write_text(json.dumps(entries))
    for seed, number in enumerate((648642, 648649)):
        rows_file(folder / f"proprio_stats/327/{number}/proprio_stats.h5", 10, seed, slice(2 * seed, None))
    for seed, number in enumerate((648642, 648650)):
        for at, camera in enumerate(CAMERAS[: 3 - 2 * seed]):
            pictures = smooth(10, seed + 3 * at)
            film(folder / f"observations/327/{number}/videos/{camera}.mp4", pictures, fps=30)
    return folder


SAMPLES = {"world": world}
