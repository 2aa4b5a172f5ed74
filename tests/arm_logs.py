"""A toy arm's logs in LeRobot v2.1, written with pyarrow and PyAV alone: as many faults as a test asks for."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HZ = 20
HEIGHT, WIDTH = 48, 64
CAMERAS = ("front", "wrist")
JOINTS = ("pan", "lift", "elbow")


@dataclass
class Take:
    """One episode, to be changed by a test before it is written.

    Args:
        state, action: (T, D) radians, three columns unless told; commands lead by three rows.
        t_s: (T,) row times.
        pictures: per camera, (F, HEIGHT, WIDTH, 3) uint8, coded at `video_fps`.
    """

    state: np.ndarray
    action: np.ndarray
    t_s: np.ndarray
    pictures: dict[str, np.ndarray]
    task: str = "move the block"
    video_fps: float = HZ
    options: dict[str, str] = field(default_factory=lambda: {"crf": "18", "g": "20", "bf": "0", "sc_threshold": "0"})


def take(
    number: int, rows: int = 160, *, width: int = len(JOINTS), cameras: tuple[str, ...] = CAMERAS, hz: float = HZ
) -> Take:
    """A clean episode: joints on smooth paths, cameras on different scenes that show the arm move.

    Args:
        width: of state and command, two columns at least.
    """
    rng = np.random.default_rng(number)
    t = np.arange(rows + 3) / hz
    phase, speed = rng.uniform(0, 6.28, width), rng.uniform(0.6, 1.1, width)
    path = np.sin(t[:, None] * speed + phase) * np.resize([1.0, 0.6, 0.8], width)
    path += rng.normal(0, 1e-4, path.shape)  # encoder noise
    return Take(
        state=path[:rows].astype(np.float32),
        action=path[3:].astype(np.float32),
        t_s=np.arange(rows) / hz,
        pictures={camera: scene(at, path[:rows], rng) for at, camera in enumerate(cameras)},
        video_fps=hz,
    )


def scene(camera: int, path: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, HEIGHT, WIDTH, 3): a background of the camera's own, a block where the arm is, sensor noise."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    if camera == 0:  # brown table below, light wall above
        ground = np.where((y > 20)[..., None], [150, 105, 60], [200, 205, 200])
    else:  # seen from above: dark floor left, a green mat right
        ground = np.where((x > 40)[..., None], [70, 140, 80], [60 + y[0, 0], 45, 40]) + (y % 16)[..., None]
    pictures = np.repeat(ground[None].astype(np.float32), len(path), axis=0)
    for row, (a, b) in enumerate(path[:, :2]):
        top, left = int(20 + 14 * b), int(28 + 22 * a)
        pictures[row, max(top, 0) : top + 8, max(left, 0) : left + 8] = [30, 60, 200]
    noise = rng.normal(0, 3, (len(path), HEIGHT, WIDTH, 1))
    return (pictures + noise).clip(0, 255).astype(np.uint8)


def write_logs(
    root: Path,
    takes: list[Take],
    *,
    joints: tuple[str, ...] = JOINTS,
    command_joints: tuple[str, ...] | None = None,
    hz: float = HZ,
) -> Path:
    """The data set of these episodes.

    Args:
        joints: names of the state's columns, and of the command's unless `command_joints` says others.
        hz: that info.json declares.
    """
    state = {"dtype": "float32", "shape": [len(joints)], "names": list(joints)}
    named = command_joints or joints
    action = {"dtype": "float32", "shape": [len(named)], "names": list(named)}
    video = {"dtype": "video", "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
    tasks = list(dict.fromkeys(t.task for t in takes))
    info = {
        "codebase_version": "v2.1", "robot_type": "toy", "fps": hz, "chunks_size": 1000,
        "total_episodes": len(takes), "total_frames": sum(len(t.state) for t in takes), "total_tasks": len(tasks),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": state, "action": action,
            **{f"observation.images.{c}": video for c in takes[0].pictures},
            **{n: {"dtype": "int64", "shape": [1], "names": None} for n in ("episode_index", "frame_index", "index",
                                                                           "task_index")},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        },
    }  # fmt: skip
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text(
        "".join(json.dumps({"task_index": n, "task": t}) + "\n" for n, t in enumerate(tasks))
    )
    lines, total = [], 0
    for number, one in enumerate(takes):
        rows = len(one.state)
        lines.append(json.dumps({"episode_index": number, "tasks": [one.task], "length": rows}) + "\n")
        table = {
            "observation.state": pa.array(list(one.state), pa.list_(pa.float32())),
            "action": pa.array(list(one.action), pa.list_(pa.float32())),
            "timestamp": pa.array(one.t_s, pa.float32()),
            "frame_index": np.arange(rows), "episode_index": np.full(rows, number),
            "index": np.arange(total, total + rows), "task_index": np.full(rows, tasks.index(one.task)),
        }  # fmt: skip
        total += rows
        pq.write_table(pa.table(table), root / f"data/chunk-000/episode_{number:06d}.parquet")
        for camera, pictures in one.pictures.items():
            folder = root / f"videos/chunk-000/observation.images.{camera}"
            folder.mkdir(parents=True, exist_ok=True)
            write_video(folder / f"episode_{number:06d}.mp4", pictures, one.video_fps, one.options)
    (root / "meta/episodes.jsonl").write_text("".join(lines))
    return root


def write_video(path: Path, pictures: np.ndarray, fps: float, options: dict[str, str]) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=round(fps), options=options)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode())


def robot_file(path: Path, change: Callable[[dict], None] = lambda content: None) -> Path:
    """The toy arm's robot file."""
    content = {
        "schema": "wamkit/embodiment@1", "name": "toy", "native_hz": HZ, "clock": "row",
        "cameras": [{"role": "front", "from": "observation.images.front"},
                    {"role": "wrist", "from": "observation.images.wrist"}],
        "state": [{"name": "arm", "unit": "rad", "from": "observation.state", "joints": list(JOINTS)}],
        "action": [{"name": "arm", "like": "state.arm", "from": "action", "relative_to": "state.arm"}],
    }  # fmt: skip
    change(content)
    path.write_text(yaml.safe_dump(content))
    return path
