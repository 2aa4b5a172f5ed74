"""Scenario 17: labels that copy the state; columns that never, or hardly, change; statistics that are exact."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_logs import robot_file, take, write_logs
from commands import wam
from told import QUIET, checked, of_code

from adapt.backbones.nano.normalizer import Normalizer
from schemas.stats import Statistics
from schemas.yaml_io import read_yaml
from wamdata.shards import read_manifest, stream_clips

NAMES = ("pan", "lift", "elbow", "lock", "hum")  # the last two never and hardly move


def five(content: dict) -> None:
    content["state"][0]["joints"] = list(NAMES)


@pytest.fixture
def takes() -> list:
    found = [take(n, 100, width=5) for n in range(5)]
    for number, one in enumerate(found):
        noise = np.random.default_rng(number).normal(0, 1e-5, len(one.state))
        for values in (one.state, one.action):
            values[:, 3], values[:, 4] = 0.5, 0.2 + noise
    return found


def test_a_label_that_copies_the_state_is_an_error(
    takes: list, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    for one in takes:
        one.action = one.state.copy()
    logs = untouched(write_logs(tmp_path / "logs", takes, joints=NAMES))
    facts = checked(logs, "--robot", robot_file(tmp_path / "robot.yaml", five), "--no-pixels")
    echoes = of_code(facts, "echo_label")
    assert len(echoes) == 5 and {e["severity"] for e in echoes} == {"error"} and facts["code"] == 1
    assert "equals the state at the same row" in echoes[0]["message"]
    assert "a policy can win by copying" in echoes[0]["message"]


def test_columns_that_do_not_move_are_named_and_leave_the_normalised_ones_alone(
    takes: list, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    logs = untouched(write_logs(tmp_path / "logs", takes, joints=NAMES))
    robot, out = robot_file(tmp_path / "robot.yaml", five), tmp_path / "shards"
    facts = checked(logs, "--robot", robot, "--no-pixels")
    assert "state never changes in 1 of 5 columns: lock" in of_code(facts, "constant")[0]["message"]
    assert "2 of 5 columns over all episodes (lock, hum)" in of_code(facts, "near_constant")[0]["message"]
    assert wam("ingest", logs, "--robot", robot, "--out", out, *QUIET).returncode == 0
    clips = list(stream_clips(out, read_manifest(out)))
    state = torch.tensor(np.concatenate([c.state[:96:24] for c in clips]))
    action = torch.tensor(np.stack([c.action[at : at + 24] for c in clips for at in range(0, 96, 24)]))
    told = Normalizer.fit(
        state=state, history=state[:, None], action=action, action_valid=torch.ones(len(action), 24, dtype=torch.bool),
        relative_columns=torch.arange(5),
    )  # fmt: skip
    seen = told.actions_to_model(action, state=state)
    assert seen[..., 3].abs().max() == 0 and seen[..., 4].abs().max() < 1e-2, "noise was blown up"
    assert (told.actions_from_model(seen, state=state) - action).abs().max() < 1e-6


def test_statistics_are_the_exact_quantiles_of_the_training_rows(
    takes: list, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    logs = untouched(write_logs(tmp_path / "logs", takes, joints=NAMES))
    robot, out = robot_file(tmp_path / "robot.yaml", five), tmp_path / "shards"
    assert wam("ingest", logs, "--robot", robot, "--out", out, *QUIET).returncode == 0
    at_the_logs_rate = ("--chunk-s", "1.2", "--steps", "24")
    assert wam("stats", out, *at_the_logs_rate, "--out", tmp_path / "stats.json").returncode == 0
    found = read_yaml(tmp_path / "stats.json", Statistics).action
    train = [s.episode for s in read_manifest(out).samples if s.split == "train"]
    logged = np.concatenate([takes[int(name[-6:])].action for name in train]).astype(np.float64)
    assert len(train) < len(takes) and found.count == len(logged)
    for name, share in (("q01", 0.01), ("q99", 0.99)):
        assert np.abs(np.array(getattr(found, name)) - np.quantile(logged, share, axis=0)).max() < 1e-6
    assert np.allclose(found.mean, logged.mean(axis=0), atol=1e-6)
