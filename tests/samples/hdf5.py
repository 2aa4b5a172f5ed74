"""HDF5 logs as the recorders of robomimic, LIBERO, ALOHA, mobile ALOHA and RoboMIND lay them out, made with h5py."""

import io
import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

READER = "hdf5"
HEIGHT, WIDTH = 48, 64


def smooth(count: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(count, height, width, 3) uint8, different in each frame and episode."""
    y, x, t = np.meshgrid(np.arange(height), np.arange(width), np.arange(count), indexing="ij")
    shades = [100 + 60 * np.sin((x + 5 * t + 9 * seed) / 20), 90 + 50 * np.cos(y / 15), 60 + 3.0 * t]
    return np.stack(shades, -1).transpose(2, 0, 1, 3).astype(np.uint8)


def coded(pictures: np.ndarray, kind: str = "JPEG") -> list[bytes]:
    found = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
        found.append(file.getvalue())
    return found


def padded(rows: list[bytes]) -> np.ndarray:
    """(T, longest) uint8 with zeros behind each picture, as ACT's recorder writes them."""
    content = np.zeros((len(rows), max(map(len, rows)) + 7), np.uint8)
    for at, row in enumerate(rows):
        content[at, : len(row)] = np.frombuffer(row, np.uint8)
    return content


def ramp(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return (np.arange(rows)[:, None] * 0.02 + np.arange(width) * 0.1 + seed * 0.01).astype(np.float64)


def robomimic(root: Path, demos: int = 12) -> Path:
    file = root / "lift_ph.hdf5"
    args = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20, "robots": ["Panda"]}}
    with h5py.File(file, "w") as h5:
        data = h5.create_group("data")
        data.attrs["env_args"], data.attrs["total"] = json.dumps(args), sum(5 + d for d in range(demos))
        for d in range(demos):
            rows, demo = 5 + d, data.create_group(f"demo_{d}")
            demo.attrs["num_samples"], demo.attrs["model_file"] = rows, "<mujoco/>"
            demo["actions"], demo["states"] = ramp(rows, 7, d), ramp(rows, 32, d)
            demo["rewards"] = (np.arange(rows) == rows - 1).astype(np.float64)
            demo["dones"] = (np.arange(rows) == rows - 1).astype(np.int64)
            for group in ("obs", "next_obs"):
                demo[f"{group}/robot0_eef_pos"] = ramp(rows, 3, d)
                demo[f"{group}/robot0_gripper_qpos"] = ramp(rows, 2, d).astype(np.float32)
                demo[f"{group}/agentview_image"] = smooth(rows, d)
        h5["mask/train"] = np.array([f"demo_{d}".encode() for d in range(demos - 2)])
        h5["mask/valid"] = np.array([f"demo_{d}".encode() for d in range(demos - 2, demos)])
    return file


def libero(root: Path) -> Path:
    """Two tasks; the second without attributes, as replayed sets are."""
    folder = root / "libero_90"
    folder.mkdir()
    scenes = ("KITCHEN_SCENE1_open_the_top_drawer_of_the_cabinet", "LIVING_ROOM_SCENE5_put_the_red_mug_on_the_plate")
    for number, scene in enumerate(scenes):
        with h5py.File(folder / f"{scene}_demo.hdf5", "w") as h5:
            data = h5.create_group("data")
            if number == 0:
                data.attrs["problem_info"] = json.dumps({"language_instruction": ["open the top drawer"]})
                data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
                data.attrs["macros_image_convention"] = "opengl"
            for d in range(2):
                demo, rows, seed = data.create_group(f"demo_{d}"), 8 + d, 10 * number + d
                demo["actions"], demo["states"] = ramp(rows, 7, seed), ramp(rows, 47, seed)
                demo["robot_states"] = ramp(rows, 9, seed)
                demo["rewards"] = demo["dones"] = (np.arange(rows) == rows - 1).astype(np.uint8)
                for name, width in (("ee_states", 6), ("gripper_states", 2), ("joint_states", 7)):
                    demo[f"obs/{name}"] = ramp(rows, width, seed)
                for name in ("agentview_rgb", "eye_in_hand_rgb"):
                    demo[f"obs/{name}"] = smooth(rows, seed, 128, 128)[:, ::-1]
    return folder


def act_file(
    path: Path, seed: int, *, rows: int = 30, jpeg: bool = True, cameras: tuple[str, ...], base: bool = False
) -> None:
    with h5py.File(path, "w", rdcc_nbytes=1024**2 * 2) as h5:
        h5.attrs["sim"], h5.attrs["compress"] = False, jpeg
        h5["observations/qpos"], h5["observations/qvel"] = ramp(rows, 14, seed), ramp(rows, 14, seed) * 0
        h5["observations/effort"], h5["action"] = ramp(rows, 14, seed) * 2, ramp(rows, 14, seed + 1)
        if base:
            h5["base_action"] = ramp(rows, 2, seed)
        lengths = []
        for at, camera in enumerate(cameras):
            pictures = smooth(rows, seed + 3 * at)
            lengths.append([len(p) for p in coded(pictures)])
            h5[f"observations/images/{camera}"] = padded(coded(pictures)) if jpeg else pictures
        if jpeg:
            h5["compress_len"] = np.array(lengths, np.float64)


def aloha(root: Path) -> Path:
    folder = root / "transfer_cube"
    folder.mkdir()
    for number in (0, 2, 10):
        act_file(folder / f"episode_{number}.hdf5", number, cameras=("cam_high", "cam_low", "cam_left_wrist"))
    return folder


def aloha_raw(root: Path) -> Path:
    folder = root / "sim_cube"
    folder.mkdir()
    for number in range(2):
        act_file(folder / f"episode_{number}.hdf5", number, rows=12, jpeg=False, cameras=("top",))
    return folder


def mobile_aloha(root: Path) -> Path:
    folder = root / "wipe_wine"
    folder.mkdir()
    for number in range(2):
        act_file(folder / f"episode_{number}.hdf5", number, cameras=("cam_high", "cam_left_wrist"), base=True)
    return folder


def robomind(root: Path) -> Path:
    """One recording per folder: JPEG of variable length, and raw bytes of 480 x 640."""
    folder = root / "h5_franka_3rgb"
    for number, outcome in enumerate(("success_episodes", "failure_episodes")):
        place = folder / f"bread_on_table/{outcome}/1023_10164{number}/data"
        place.mkdir(parents=True)
        with h5py.File(place / "trajectory.hdf5", "w") as h5:
            rows = 5 + number
            h5["master/joint_position"], h5["puppet/joint_position"] = ramp(rows, 8, number), ramp(rows, 8, number + 1)
            h5["puppet/end_effector"] = ramp(rows, 6, number)
            h5["language_raw"] = np.array([b"put the bread on the table"])
            for kind in ("rgb_images/camera_left", "depth_images/camera_left"):
                column = h5.create_dataset(f"observations/{kind}", (rows,), dtype=h5py.vlen_dtype(np.uint8))
                for at, row in enumerate(coded(smooth(rows, number), "JPEG" if kind.startswith("rgb") else "PNG")):
                    column[at] = np.frombuffer(row, np.uint8)
            flat = smooth(rows, number, 480, 640).reshape(rows, -1)
            h5.create_dataset(
                "observations/rgb_images/camera_top", data=flat, compression="gzip", chunks=(1, flat.shape[1])
            )
    return folder


SAMPLES = {
    "robomimic": robomimic,
    "libero": libero,
    "aloha": aloha,
    "aloha_raw": aloha_raw,
    "mobile_aloha": mobile_aloha,
    "robomind": robomind,
}
