"""Replay buffers as diffusion policy, UMI and a plain recorder write them, made with zarr and imagecodecs."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from imagecodecs.numcodecs import Jpegxl
from zarr.storage import ZipStore

from samples.hdf5 import ramp, smooth

READER = "zarr"
ENDS = (9, 15, 26)


def group_of(store: Any, ends: tuple[int, ...] = ENDS, *, version: int = 2) -> Any:
    root = zarr.create_group(store, zarr_format=version, overwrite=True)
    root.create_group("meta").create_array("episode_ends", data=np.array(ends, np.int64))
    return root.create_group("data")


def pusht(root: Path) -> Path:
    """PushT: pictures are float of 0 to 255, some frames to a chunk."""
    folder = root / "pusht_cchi_v7_replay.zarr"
    data, rows = group_of(folder), ENDS[-1]
    pictures = smooth(rows, 1, 32, 32).astype(np.float32)
    data.create_array("img", data=pictures, chunks=(7, 32, 32, 3))
    for name, width in (("state", 5), ("action", 2), ("n_contacts", 1)):
        data.create_array(name, data=ramp(rows, width, width).astype(np.float32), chunks=(7, width))
    data.create_array("keypoint", data=ramp(rows, 18).reshape(rows, 9, 2).astype(np.float32), chunks=(7, 9, 2))
    return folder


def umi(root: Path) -> Path:
    """UMI: one zip file, pictures in JPEG-XL, poses and no actions."""
    file, rows = root / "dataset.zarr.zip", ENDS[-1]
    with ZipStore(file, mode="w") as store:
        data = group_of(store)
        codec = Jpegxl(level=99, numthreads=1)
        pictures = data.create_array(
            "camera0_rgb", shape=(rows, 32, 32, 3), chunks=(1, 32, 32, 3), dtype="u1", compressors=codec
        )
        pictures[:] = smooth(rows, 2, 32, 32)
        for name, width in (("eef_pos", 3), ("eef_rot_axis_angle", 3), ("gripper_width", 1), ("demo_start_pose", 6)):
            data.create_array(f"robot0_{name}", data=ramp(rows, width, width).astype(np.float32))
    return file


def plain(root: Path) -> Path:
    """Two stores in one folder, of version 2 and 3, with planes of uint8 an instruction per row and one for all."""
    folder = root / "kitchen"
    for number, version in enumerate((2, 3)):
        data, rows = group_of(folder / f"day{number}.zarr", version=version), ENDS[-1]
        data.create_array("front_image", data=smooth(rows, number, 24, 32).transpose(0, 3, 1, 2), chunks=(4, 3, 24, 32))
        data.create_array("qpos", data=ramp(rows, 7, number), chunks=(10, 7))
        data["qpos"].attrs["columns"] = [f"joint_{i}" for i in range(7)]
        data.create_array("action", data=ramp(rows, 7, number + 1))
        if version == 2:
            data.create_array("language", data=np.array(["open the drawer"] * 4 + ["close it"] * (rows - 4), "U20"))
        else:  # the format has no settled type for text yet
            data.attrs["task"] = "tidy up"
    return folder


SAMPLES = {"pusht": pusht, "umi": umi, "plain": plain}
