"""A second robot, made up: a LeRobot v3.0 set written by lerobot itself, so that the oracle is not our own reader.

`synthetic_arm` has six joints and a gripper, and two cameras that look at coloured squares which follow the joints.
The action is where the state will be LEAD frames later: commands lead, as on a real robot. Everything follows from
the seed; only x264 decides the bytes of the videos.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROBOT = "synthetic_arm"
CAMERAS = ("observation.images.front", "observation.images.wrist")
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_pitch", "wrist_roll", "wrist_yaw", "gripper")
TASKS = ("Put the red square into the corner.", "Push the blue square to the left.")
LEAD = 5
SQUARE = 16


def write_lerobot_v3(
    root: Path,
    *,
    episodes: int = 5,
    seconds: float = 6.0,
    fps: int = 20,
    height: int = 96,
    width: int = 128,
    seed: int = 0,
    is_telling: bool = False,
    pictures: str = "video",
) -> Path:
    """Write the set to `root`, which must not exist yet, and return it. Imports lerobot: takes 10 s and more.

    Args:
        is_telling: logs in which the joints rest and only the instruction says where the first joints are pushed, and
            only a lamp before one of the cameras where the last ones are: who looks at neither cannot know.
        pictures: `video`, or `image` for PNG files inside the parquet files.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    vector = {"dtype": "float32", "shape": (len(JOINTS),), "names": list(JOINTS)}
    picture = {"dtype": pictures, "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    writer = LeRobotDataset.create(
        repo_id=f"local/{ROBOT}",
        fps=fps,
        root=root,
        robot_type=ROBOT,
        features={"observation.state": vector, "action": vector} | dict.fromkeys(CAMERAS, picture),
        vcodec="h264",
        streaming_encoding=pictures == "video",
        encoder_queue_maxsize=round(seconds * fps) + episodes,  # lerobot drops frames when this queue is full
        encoder_threads=1,
        video_backend="pyav",
    )
    for episode in range(episodes):
        rows = round(seconds * fps) + episode
        state, action = trajectory(rows, fps=fps, seed=seed + episode)
        if is_telling:
            state, action = _told(rows, episode, seed=seed)
        for row in range(rows):
            frame = {"observation.state": state[row], "action": action[row], "task": TASKS[episode % len(TASKS)]}
            frame |= {camera: _picture(camera, state[row], row, height, width) for camera in CAMERAS}
            if is_telling:
                frame |= {camera: _lamp(camera, episode, height, width) for camera in CAMERAS}
            writer.add_frame(frame)
        writer.save_episode()
    writer.finalize()
    return root


def trajectory(frames: int, *, fps: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(frames, 7) state and action: slow sines of seeded speed and phase, the gripper between 0 and 100."""
    rng = np.random.default_rng(seed)
    t_s = np.arange(frames + LEAD)[:, None] / fps
    hz, phase = rng.uniform(0.1, 0.4, len(JOINTS)), rng.uniform(0, 2 * np.pi, len(JOINTS))
    path = np.sin(2 * np.pi * hz * t_s + phase)
    path[:, -1] = 50 + 50 * path[:, -1]
    path = path.astype(np.float32)
    return path[:-LEAD], path[LEAD:]


def _told(rows: int, episode: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(rows, 7) joints at rest, in every episode alike, and commands that push them as its words and lamp say."""
    state = np.random.default_rng(seed + episode).normal(0, 0.003, (rows, len(JOINTS)))
    state[:, -1] = 50
    push = np.zeros((rows, len(JOINTS)))
    push[:, :3] = 0.4 * (1 if episode % 2 else -1)
    push[:, 3:6] = 0.4 * (1 if lit(episode) else -1)
    return state.astype(np.float32), (state + push).astype(np.float32)


def lit(episode: int) -> int:
    """Number of the camera whose lamp is lit in a telling episode."""
    return episode // 2 % 2


def _lamp(camera: str, episode: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 200 if CAMERAS.index(camera) == lit(episode) else 40, np.uint8)


def _picture(camera: str, state: NDArray[np.float32], row: int, height: int, width: int) -> NDArray[np.uint8]:
    """A grey ramp, two squares that follow the joints, and a bar code of the row's number along the top."""
    first = CAMERAS.index(camera)
    picture = np.repeat(np.linspace(40, 120, width, dtype=np.uint8)[None, :, None], height, 0).repeat(3, 2)
    for joint, colour in ((first, (220, 40, 40)), (first + 2, (40, 60, 220))):
        x = round((width - SQUARE) * (0.5 + 0.5 * float(state[joint])))
        y = round((height - SQUARE - 12) * (0.5 + 0.5 * float(state[joint + 1]))) + 12
        picture[y : y + SQUARE, x : x + SQUARE] = colour
    for bit in range(8):
        picture[:8, bit * 8 : bit * 8 + 8] = 255 if row >> bit & 1 else 0
    return picture
