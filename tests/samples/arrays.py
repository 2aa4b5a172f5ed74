"""Plain numpy logs and raw Bridge, made with numpy, Pillow and PyAV; pickles by pickle, for they must stay shut."""

import pickle
from pathlib import Path

import numpy as np

from samples.droid import film
from samples.hdf5 import coded, ramp, smooth

READER = "arrays"


def picture_folder(folder: Path, pictures: np.ndarray, name: str = "{:06d}.jpg") -> None:
    folder.mkdir(parents=True)
    for number, content in enumerate(coded(pictures)):
        (folder / name.format(number)).write_bytes(content)


def folders(root: Path) -> Path:
    """A folder per episode, with times, a camera as pictures and one as a video."""
    place = root / "my_arm"
    for number in (1, 2, 10):
        episode, rows = place / f"episode_{number}", 10
        picture_folder(episode / "cam0", smooth(rows, number))
        film(episode / "front.mp4", smooth(rows, number + 1), fps=20)
        np.save(episode / "state.npy", ramp(rows, 7, number))
        np.save(episode / "action.npy", ramp(rows, 7, number + 1).astype(np.float32))
        np.save(episode / "timestamps.npy", 1_700_000_000.0 + np.arange(rows) * 0.05)
        (episode / "instruction.txt").write_text("push the block\n")
    return place


def members(root: Path) -> Path:
    """One `.npz` per episode, compressed, with pictures in it and no times."""
    place = root / "sim_runs"
    place.mkdir()
    for number in range(3):
        rows = 9 + number
        np.savez_compressed(
            place / f"run_{number}.npz",
            qpos=ramp(rows, 6, number), action=ramp(rows, 6, number + 1), image=smooth(rows, number, 24, 32),
            instruction=np.array("stack the cups"), seed=np.array(7),
        )  # fmt: skip
    return place


def bridge(root: Path) -> Path:
    """Raw Bridge: film and language, states and actions in pickles."""
    place = root / "widowx/toykitchen1/put_pot/00/2021-06-08_15-00-00/raw"
    for number in (0, 1):
        folder = place / f"traj_group0/traj{number}"
        picture_folder(folder / "images0", smooth(12, number), "im_{}.jpg")
        (folder / "lang.txt").write_text("put the pot in the sink\nconfidence: 1.0\n")
        for name in ("obs_dict", "policy_out"):
            (folder / f"{name}.pkl").write_bytes(pickle.dumps({"full_state": [[0.0] * 7] * 12}))
    return root / "widowx"


SAMPLES = {"folders": folders, "members": members, "bridge": bridge}
