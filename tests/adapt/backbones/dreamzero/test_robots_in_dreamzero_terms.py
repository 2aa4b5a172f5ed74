"""Robots of the house as DreamZero sees them."""

import json
from pathlib import Path

import pytest
import torch
from goldens import golden_json

from adapt.backbones.dreamzero import house
from adapt.backbones.dreamzero.slots import columns
from adapt.backbones.dreamzero.views import prompt
from schemas.embodiment import Camera, Component, Embodiment, load_embodiment
from schemas.errors import DataError, UsageError
from schemas.stats import Moments, Statistics


def two_arms(*cameras: Camera) -> Embodiment:
    """Six joints and a gripper on each side."""
    state = tuple(
        Component(name=f"{side}_{name}", source="s", kind=kind, part=part, side=side, unit=unit, columns=span, **ends)
        for side, first in (("left", 0), ("right", 7))
        for name, kind, part, unit, span, ends in (
            ("arm", "joint", "arm", "rad", tuple(range(first, first + 6)), {}),
            ("gripper", "gripper", "gripper", "fraction", (first + 6,), {"open": 1.0, "closed": 0.0}),
        )
    )
    action = tuple(
        c.model_copy(update={"relative_to": f"state.{c.name}" if c.kind == "joint" else None}) for c in state
    )
    return Embodiment(
        schema_id="wamkit/embodiment@1", name="two_arms", native_hz=30, cameras=cameras, state=state, action=action
    )


HEAD, LEFT, RIGHT = (
    Camera(role="head", source="a"),
    Camera(role="wrist", side="left", source="b"),
    Camera(role="wrist", side="right", source="c"),
)


def test_droid_gets_the_reference_mosaic_and_prompt_of_droid() -> None:
    mosaic = house.mosaic_of(load_embodiment("droid"), base="droid")
    assert mosaic.style == "droid"
    assert prompt(mosaic, "Open it").startswith("A multi-view video shows that a robot open it The video is split into")


def test_cameras_of_the_bases_kind_are_put_into_its_order() -> None:
    robot = two_arms(RIGHT, HEAD, LEFT)
    mosaic = house.mosaic_of(robot, base="agibot")
    assert mosaic.style == "agibot"
    assert {c.place: c.view.key for c in mosaic.cells if c.view} == {
        "top-left view": HEAD.key,
        "bottom-left view": LEFT.key,
        "top-right view": RIGHT.key,
    }


def test_cameras_that_are_not_get_a_generated_mosaic() -> None:
    sideless = tuple(Camera(role=role, source=role) for role in ("front", "rear", "above"))
    assert house.mosaic_of(two_arms(*sideless), base="agibot").style == "quad"
    assert house.mosaic_of(load_embodiment("g1_inspire"), base="agibot").style == "whole"
    assert house.mosaic_of(two_arms(HEAD, LEFT, RIGHT), base="agibot", style="quad").style == "quad"


def test_relative_columns_are_anchored_on_their_state_columns() -> None:
    robot = two_arms(HEAD)
    moments = Moments(
        count=9, mean=(0.0,) * 14, std=(1.0,) * 14, min=(-1.0,) * 14, max=(1.0,) * 14, q01=(-1.0,) * 14, q99=(1.0,) * 14
    )
    relative = moments.model_copy(update={"q01": (-0.5,) * 14, "q99": (0.5,) * 14})
    stats = Statistics(
        embodiment_sha256=robot.digest(),
        action_hz=15,
        state=moments,
        action=moments,
        relative=relative,
        relative_step=(),
    )
    slots = house.slots_of(robot, base="yam")
    assert columns(slots.action) == list(range(14))
    space = house.space_of(robot, stats, slots)
    assert space.anchors == (0, 1, 2, 3, 4, 5, None, 7, 8, 9, 10, 11, 12, None)
    state = torch.full((1, 1, 14), 0.3)
    action = torch.full((1, 24, 14), 0.4)
    values = space.actions_to_base(action, state)
    torch.testing.assert_close(values[0, 0, [0, 6]], torch.tensor([0.2, 0.8]))  # 0.1 and 0.4 in -0.5..0.5
    torch.testing.assert_close(space.actions_from_base(values, state), action)
    with pytest.raises(UsageError, match="statistics are of another robot than 'two_arms'"):
        house.space_of(robot, stats.model_copy(update={"embodiment_sha256": "0"}), slots)


def test_time_bases_are_the_papers_and_the_scripts() -> None:
    agibot, origin = house.time_base_of("agibot")
    assert (agibot.chunk_s, agibot.video_fps) == (1.6, 5.0) and "published" in origin
    yam, _ = house.time_base_of("yam")
    assert (yam.chunk_s, yam.video_fps, yam.action_hz) == (pytest.approx(0.8), pytest.approx(10.0), pytest.approx(30.0))
    with pytest.raises(UsageError, match="'gr1': not known. Give one of: agibot, droid, yam"):
        house.time_base_of("gr1")


def test_a_checkpoints_own_files_decide_its_time_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(golden_json("keys_14b")["full.config_json"]))
    known, origin = house.time_base_of("agibot", checkpoint=tmp_path)
    assert known.chunk_s == pytest.approx(1.6) and "15 Hz as published" in origin
    (tmp_path / "experiment_cfg").mkdir()
    conf = tmp_path / "experiment_cfg" / "conf.yaml"
    conf.write_text("train_dataset: {fps: {agibot: 30, yam: 50}}")
    own, origin = house.time_base_of("agibot", checkpoint=tmp_path)
    assert (own.chunk_s, own.video_fps, own.steps, own.chunks) == (pytest.approx(0.8), pytest.approx(10.0), 24, 4)
    assert "conf.yaml (agibot)" in origin
    assert house.time_base_of("agibot", checkpoint=tmp_path, tag="yam")[0].chunk_s == pytest.approx(0.48)
    conf.write_text("a: [")
    with pytest.raises(DataError, match=r"conf.yaml: cannot be read"):
        house.time_base_of("agibot", checkpoint=tmp_path)
    with pytest.raises(DataError, match=r"config.json: cannot be read"):
        house.time_base_of("agibot", checkpoint=tmp_path / "elsewhere")
