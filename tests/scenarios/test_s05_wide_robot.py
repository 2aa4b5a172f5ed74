"""Scenario 5: two arms with hands, 48 columns, trained on the tiny backbone; 70 columns are never cut off."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arm_logs import take, write_logs
from commands import refused, wam
from told import QUIET, small_recipe

from wamdata.shards import read_manifest

STEPS = 24


def names(arm: int, hand: int) -> tuple[str, ...]:
    return tuple(
        f"{side}_{part}_{i}"
        for side in ("left", "right")
        for part, count in (("arm_joint", arm), ("hand_finger", hand))
        for i in range(count)
    )


@pytest.mark.slow
def test_48_columns_train_and_the_loss_falls(tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    takes = [take(n, 80, width=48, cameras=("front",)) for n in range(5)]
    logs = untouched(write_logs(tmp_path / "logs", takes, joints=names(14, 10)))
    recipe = small_recipe(tmp_path / "small.yaml", steps=STEPS, eval_every=STEPS, save_every=STEPS)
    ran = wam("adapt", logs, "--out", tmp_path / "run", "--recipe", recipe, "--yes", *QUIET, "--json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert read_manifest(tmp_path / "run/shards").embodiment.action_width == 48
    assert len(report["action"]["components"]) == 4
    assert "trained in full from a seed" in report["base"]
    lines = [json.loads(line) for line in (tmp_path / "run/train/log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == STEPS and np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_70_columns_of_state_are_refused_with_the_count(tmp_path: Path, untouched: Callable[[Path], Path]) -> None:
    takes = [take(n, 60, width=70, cameras=("front",)) for n in range(3)]
    for one in takes:
        one.action = one.action[:, :20]
    wide = names(20, 15)
    logs = untouched(write_logs(tmp_path / "logs", takes, joints=wide, command_joints=wide[:20]))
    assert wam("ingest", logs, "--out", tmp_path / "shards", "--yes", *QUIET).returncode == 0
    told = refused("plan", tmp_path / "shards", "--gpu", "80")
    assert "state: 70 > 64: the robot has 70 columns, the base 64 channels" in told and "(all of them move)" in told
