"""What is guessed of a robot from its logs, each guess with its reason; what is not known is asked."""

from pathlib import Path

import pytest
import yaml
from samples import hdf5 as hdf5_samples

from schemas.embodiment import Embodiment
from schemas.yaml_io import parse
from wamdata.draft import draft_embodiment
from wamdata.source import Source


def drafted(source: Path) -> tuple[Embodiment, str]:
    text = draft_embodiment(Source.at(source))
    return parse(Embodiment, yaml.safe_load(text), "draft"), text


@pytest.fixture(scope="module")
def g1_draft(g1: Path) -> tuple[Embodiment, str]:
    return drafted(g1)


def test_the_g1s_arms_and_hands_are_told_apart_and_commanded_by_targets(g1_draft: tuple[Embodiment, str]) -> None:
    robot, _ = g1_draft
    assert [(c.name, c.kind, c.width) for c in robot.action] == [
        ("left_arm", "joint", 7), ("right_arm", "joint", 7), ("left_hand", "hand", 6), ("right_hand", "hand", 6),
    ]  # fmt: skip
    assert [c.relative_to for c in robot.action] == [f"state.{c.name}" for c in robot.action]
    assert (robot.native_hz, [c.key for c in robot.cameras]) == (30.0, ["head"])


def test_every_guess_has_its_reason(g1_draft: tuple[Embodiment, str]) -> None:
    _, text = g1_draft
    assert "a target: the state explains 99% of it as where the state is 5 rows later" in text
    assert "the command lies where it is" in text and "'high' in its name; its picture stands still" in text


def test_bridges_steps_are_no_targets_and_its_rate_is_asked_for(request: pytest.FixtureRequest) -> None:
    robot, text = drafted(request.config.rootpath / "tests/data/bridge_rlds/1.0.0")
    (action,) = robot.action
    assert action.relative_to is None and action.is_velocity and "a step, not a target" in text
    assert robot.name == "bridge_dataset" and "QUESTION: the log holds no times" in text
    assert len({c.key for c in robot.cameras}) == 4


def test_an_aloha_folder_gives_two_arms_worth_of_columns(tmp_path: Path) -> None:
    make = next(make for name, make in hdf5_samples.SAMPLES.items() if "aloha" in name)
    robot, _ = drafted(make(tmp_path))
    assert robot.state_width == robot.action_width == 14 and len(robot.cameras) >= 1
