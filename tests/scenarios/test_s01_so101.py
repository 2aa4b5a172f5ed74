"""Scenario 1: a six-joint arm in LeRobot v3 with two cameras is planned from its logs and shown as a model sees it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from commands import refused, wam
from PIL import Image
from told import QUIET, words

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow", "wrist_pitch", "wrist_roll", "wrist_yaw"]


def test_logs_are_planned_and_previewed_as_they_are(
    lerobot_v3: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    logs = untouched(lerobot_v3)
    assert "`wam adapt --dry-run`" in refused("plan", logs)
    planned = wam("adapt", logs, "--out", tmp_path / "run", "--dry-run", "--yes", *QUIET)
    told = words(planned)
    assert "robot drafted from the data" in planned.stderr
    for word in ("5 episodes x 6 s", "training windows", "memory at the peak of a step", "s a step", "time: train"):
        assert word in told, word
    robot = yaml.safe_load((tmp_path / "run/shards.robot.yaml").read_text())
    for what in ("state", "action"):
        assert [(c["name"], c["joints"]) for c in robot[what]] == [("arm", JOINTS), ("gripper", ["gripper"])], what
    assert [c["from"] for c in robot["cameras"]] == ["observation.images.front", "observation.images.wrist"]


def test_the_mosaic_is_of_real_frames_and_the_prompt_names_the_tiles_there_are(
    lerobot_v3: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    logs = untouched(lerobot_v3)
    shards = tmp_path / "shards"
    assert wam("ingest", logs, "--out", shards, "--yes", *QUIET).returncode == 0
    facts = json.loads(wam("robot", "preview", shards, "--out", tmp_path / "view", "--json").stdout)
    prompt = facts["prompt"].lower()
    assert "wrist" in prompt and "exterior" in prompt and "put the red square into the corner" in prompt
    assert not [w for w in ("head", "left hand", "right wrist", "black", "three", "four") if w in prompt], prompt
    told = {slot["component"]: slot["width"] for slot in facts["slots"]["action"]}
    assert told == {"arm": 6, "gripper": 1}
    mosaic = np.asarray(Image.open(tmp_path / "view/mosaic.png").convert("RGB")).reshape(-1, 3).astype(int)
    for red, green, blue in ((220, 40, 40), (40, 60, 220)):  # the squares that follow the joints
        assert (np.abs(mosaic - (red, green, blue)).max(axis=1) < 45).sum() > 50
