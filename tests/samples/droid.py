"""Raw DROID recordings: rows by h5py in the layout of droid-dataset/droid, videos by PyAV."""

import json
from pathlib import Path

import av
import h5py
import numpy as np
from av.video.frame import VideoFrame

from samples.hdf5 import ramp, smooth

READER = "droid"
START_MS = 1_688_750_000_000
SERIALS = ("18026681", "22008760", "24400334")  # wrist, then the two outside


def film(path: Path, pictures: np.ndarray, fps: int = 15) -> None:
    """Pictures as a small H.264 file without frames out of order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        track = file.add_stream("libx264", rate=fps, options={"bf": "0", "threads": "1"})
        track.height, track.width, track.pix_fmt = *pictures.shape[1:3], "yuv420p"
        for picture in pictures:
            file.mux(track.encode(VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(track.encode())


def rows_file(path: Path, rows: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as h5:
        state, stamps = h5.create_group("observation/robot_state"), h5.create_group("observation/timestamp")
        for name, width in (("cartesian_position", 6), ("joint_positions", 7)):
            state[name] = ramp(rows, width, seed)
            h5[f"action/{name.removesuffix('s')}"] = ramp(rows, width, seed + 1)
        state["gripper_position"], h5["action/gripper_position"] = np.zeros(rows), np.ones(rows)
        h5["action/robot_state/joint_positions"] = ramp(rows, 7, seed)
        h5["observation/controller_info/movement_enabled"] = np.arange(rows) >= rows // 4
        ms = START_MS + np.arange(rows) * 67 + seed
        stamps["robot_state/read_start"], stamps["robot_state/read_end"] = ms, ms + 1
        for number, serial in enumerate(SERIALS):
            h5[f"observation/camera_type/{serial}"] = np.full(rows, min(number, 1))
            h5[f"observation/camera_extrinsics/{serial}_left"] = ramp(rows, 6)
            stamps[f"cameras/{serial}_estimated_capture"] = ms - 40 + number
            stamps[f"cameras/{serial}_frame_received"] = ms + number


def recording(folder: Path, rows: int = 12, seed: int = 0, outcome: str = "success") -> Path:
    """One recording, its stereo videos left out of the make."""
    rows_file(folder / "trajectory.h5", rows, seed)
    uuid = f"LAB+0d4edc83+2023-07-07-10h-0{seed}m-36s"
    metadata = {
        "uuid": uuid, "lab": "LAB", "user_id": "0d4edc83", "building": "B", "date": "2023-07-07", "success":
        outcome == "success", "current_task": "Move object into or out of container", "trajectory_length": rows,
        "wrist_cam_serial": SERIALS[0], "ext1_cam_serial": SERIALS[2], "ext2_cam_serial": SERIALS[1],
    }  # fmt: skip
    (folder / f"metadata_{uuid}.json").write_text(json.dumps(metadata))
    for number, serial in enumerate(SERIALS):
        film(folder / f"recordings/MP4/{serial}.mp4", smooth(rows, seed + 3 * number))
    film(folder / f"recordings/MP4/{SERIALS[0]}-stereo.mp4", smooth(rows, seed, 48, 128))
    return folder


def raw(root: Path) -> Path:
    """One lab: a success with written instructions and a failure without."""
    lab = root / "LAB"
    recording(lab / "success/2023-07-07/Fri_Jul__7_10:09:36_2023", seed=0)
    recording(lab / "failure/2023-07-07/Fri_Jul__7_11:00:00_2023", rows=9, seed=1, outcome="failure")
    said = {"language_instruction1": "put the cup in the bowl", "language_instruction2": "move the cup"}
    written = {"LAB+0d4edc83+2023-07-07-10h-00m-36s": said}
    (lab / "aggregated-annotations-030724.json").write_text(json.dumps(written))
    return lab


SAMPLES = {"raw": raw}
