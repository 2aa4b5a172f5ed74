from pathlib import Path

import pytest
import yaml
from robots import robot

from schemas.embodiment import Embodiment, built_in_names, load_embodiment
from schemas.errors import UsageError
from schemas.yaml_io import parse, read_yaml, write_yaml

EXAMPLE = """
schema: wamkit/embodiment@1
name: mobile_arms
native_hz: 50
clock: header.stamp
episodes: {start: "/episode/event=1", stop: "/episode/event=2"}
cameras:
  - {role: head, from: /cam_high}
  - {role: wrist, side: left, from: /cam_left, rotate: 180, mount: {link: left_gripper, xyz_m: [0.05, 0, 0.04]}}
  - {role: head_depth, kind: depth, unit: mm, from: /depth, use: carry}
state:
  - {name: left_arm, side: left, kind: joint, unit: rad, limits: urdf, from: /puppet_left, joints: [waist, elbow]}
  - {name: left_gripper, side: left, part: gripper, kind: gripper, unit: rad, closed: -0.35, open: 1.49,
     from: /puppet_left, joints: [gripper]}
  - {name: left_tool, side: left, kind: pose, frame: left_base, rotation: quat_xyzw, from: /fk_left, use: carry}
  - {like: left_*, side: right, replace: {left: right}}
action:
  - {name: left_arm, like: state.left_arm, from: /master_left, relative_to: state.left_arm, max_speed: 2.0}
  - {like: left_*, side: right, replace: {left: right}}
  - {name: base, part: base, kind: velocity, unit: [m/s, rad/s], from: "/cmd_vel.{linear.x,angular.z}"}
control_source: {from: /teleop/active, map: {0: policy, 1: intervention}, default: human}
mirror: {swap: [left, right], negate: {arm: [waist]}}
"""


def test_every_built_in_robot_is_right_in_itself() -> None:
    assert "g1_inspire" in built_in_names()
    for name in built_in_names():
        assert load_embodiment(name).name == name


def test_like_makes_the_second_arm_from_the_first() -> None:
    arms = parse(Embodiment, yaml.safe_load(EXAMPLE), "example")
    assert [c.name for c in arms.state] == [
        "left_arm", "left_gripper", "left_tool", "right_arm", "right_gripper", "right_tool",
    ]  # fmt: skip
    assert arms.state[3].source == "/puppet_right" and arms.state[3].side == "right"
    assert arms.action[1].relative_to == "state.right_arm" and arms.action[1].source == "/master_right"


def test_braces_name_the_columns_of_a_stream() -> None:
    base = parse(Embodiment, yaml.safe_load(EXAMPLE), "example").action[-1]
    assert base.source == "/cmd_vel" and base.joints == ("linear.x", "angular.z")
    assert base.is_velocity and base.mapped_units == ("m/s", "rad/s")


def test_what_is_carried_does_not_widen_the_model() -> None:
    arms = parse(Embodiment, yaml.safe_load(EXAMPLE), "example")
    assert arms.state_width == 2 * (2 + 1) and arms.action_width == 2 + 2 + 2
    assert [c.key for c in arms.model_cameras] == ["head", "wrist_left"]


def test_relative_and_hold_columns_point_at_the_state() -> None:
    assert robot().relative_columns() == (0, 1, -1)
    assert robot().hold_columns() == (0, 1, 2)


def test_units_are_mapped_to_si_and_grippers_to_the_fraction_open() -> None:
    arm, gripper = robot().state
    assert arm.mapped_units == ("rad", "rad") and gripper.mapped_units == ("fraction",)


def test_a_file_read_and_written_is_the_same_robot(tmp_path: Path) -> None:
    first = robot()
    write_yaml(tmp_path / "toy.yaml", first)
    path = tmp_path / "toy.yaml"
    path.write_text("schema: wamkit/embodiment@1\n" + path.read_text().replace("schema: wamkit/embodiment@1\n", ""))
    assert read_yaml(path, Embodiment).digest() == first.digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("native_hz: 30\nnativ_hz: 3", "unknown field 'nativ_hz'. Did you mean 'native_hz'"),
        ("native_hz: 0", "native_hz"),
        ("native_hz: 30\nnative_hz: 20", "key 'native_hz' is given twice"),
        ("native_hz: 30\nstate: [{name: arm, unit: rad, from: s, colums: '0:2'}]", "Did you mean 'columns'"),
        ("native_hz: 30\nstate: [{name: arm, unit: furlong, from: s, columns: '0:2'}]", "unknown unit 'furlong'"),
        ("native_hz: 30\nstate: [{name: arm, unit: rad, from: s}]", "needs `columns` or `joints`"),
        ("native_hz: 30\nstate: [{name: arm, from: s, columns: '2:2'}]", "a slice such as"),
        ("native_hz: 30\nstate: [{name: g, from: s, columns: [1], open: 1}]", "give both `open` and `closed`"),
        ("native_hz: 30\naction: [{name: a, from: s, columns: [1], relative_to: state.a}]", "is not one of none"),
        ("native_hz: 30\nstate: [{like: left_*}]", "matches no entry above it"),
        ("native_hz: [", "line"),
    ],
)
def test_a_mistake_in_a_robot_file_is_named(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"schema: wamkit/embodiment@1\nname: bad\n{change}\n")
    with pytest.raises(UsageError) as error:
        load_embodiment(str(path))
    assert message in str(error.value) and "bad.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_robot_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="g1_inspire"):
        load_embodiment("g2")


def test_standing_still_is_not_read_from_a_state_in_another_unit() -> None:
    action = [{"name": "arm", "unit": "m/s", "from": "action", "columns": "0:2"}]
    assert robot(action=action).hold_columns() == (-1, -1)
    deltas = [{"name": "arm", "unit": "deg", "from": "action", "columns": "0:2", "on_stop": "zero"}]
    assert robot(action=deltas).hold_columns() == (-1, -1)


@pytest.mark.parametrize(
    "line",
    [
        "family: {{x: 1}: 2}",
        "state:\naction: [{name: arm, like: state.arm, from: a}]",
        "action: [{name: arm, like: native_hz.arm, from: a}]",
        "state: [{name: l_arm, unit: rad, from: s, columns: [0]}, {like: l_*, replace: left}]",
        "state: [{name: arm, unit: tick, from: s, columns: '0:3', to_si: {scale: [1, 2]}}]",
        "control_source: {from: c, map: {teleop: human}}",
        "state: [{name: arm, unit: rad, from: s, columns: [-1]}]",
        "state: [{name: arm, unit: rad, from: s, columns: []}]",
        "state: [{name: tip, kind: pose, rotation: quat_wxyz, unit: m, from: s, columns: '0:6'}]",
        "unit: 3",
    ],
)
def test_an_odd_robot_file_is_one_line_not_a_traceback(tmp_path: Path, line: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"schema: wamkit/embodiment@1\nname: odd\nnative_hz: 30\n{line}\n")
    with pytest.raises(UsageError, match=r"odd\.yaml") as error:
        load_embodiment(str(path))
    assert "\n" not in str(error.value)
