"""The robots that ship with wamkit: right in themselves, agreed among each other, and true to the data they name."""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from robots import episode
from samples import agibot, hdf5, rlds, zarr

from adapt.backbones.dreamzero import house
from adapt.backbones.dreamzero.slots import columns
from schemas.embodiment import (
    BUILT_IN,
    SI_FACTOR,
    UNKNOWN_UNITS,
    Component,
    Embodiment,
    built_in_names,
    load_embodiment,
)
from schemas.episode import Episode, Stream, Video
from schemas.recipe import Filters
from wamdata.filters import ranges
from wamdata.kinds import component_kind
from wamdata.mapping import map_episode
from wamdata.readers import detect_reader
from wamdata.source import Source

DATA = Path(__file__).parents[1] / "data"
ROBOTS = built_in_names()
# Columns of action and where the number comes from.
ACTION_WIDTHS = {
    "agibot_g1": 22,  # dreamzero convert_agibot.py: arms 14, effectors 2, head 2, waist 2, velocity 2
    "aloha": 14,  # meta/info.json of lerobot/aloha_static_vinh_cup_left
    "droid": 8,  # dreamzero base_48_wan_fine_aug_relative.yaml: oxe_droid, joints 7 and gripper 1
    "franka": 8,  # DROID RLDS 1.0.1: action_dict/joint_position 7 and gripper_position 1
    "g1_inspire": 26,  # unitree_lerobot constants.py: G1_INSPIRE_CONFIG
    "gr1": 29,  # Isaac-GR00T modality.json of robot_sim.PickNPlace: arms 14, hands 12, waist 3 of 44
    "human_hand": 0,
    "libero": 7,  # robosuite OSC_POSE 6 and gripper 1
    "mobile_aloha": 16,  # ACT's 14 and base_action 2
    "openarm": 16,  # meta/info.json of lerobot/full_folding
    "piper": 7,  # piper_follower.py: six joints and the gripper
    "so100": 6,  # lerobot so_follower: six motors
    "so101": 6,
    "umi_gripper": 7,  # UMI: position 3, axis angle 3, width 1
    "unitree_g1": 17,  # unitree_g1 of lerobot, arms 14 and waist 3 of 29
    "unitree_g1_dex3": 28,  # unitree_lerobot constants.py: G1_DEX3_CONFIG
    "ur5e": 7,  # six joints and the gripper
    "video_only": 0,
    "widowx": 7,  # BridgeData V2: steps 6 and gripper 1
    "yam": 14,  # dreamzero open_loop_yam.py: (6 + 1) on each side
}
# What a log holds at an open and at a closed gripper; of state and action, or of both alike.
GRIPPERS = {
    "agibot_g1": [(35, 120), (0, 1)],  # AgiBot-World issue 133; the data set's card: 0 full open, 1 full close
    "aloha": [(1, 0)],  # ACT real_env.py: 0 close, 1 open
    "droid": [(0, 1)],  # DROID's gripper_position: 0 open
    "franka": [(0, 1)],
    "libero": [(0.04, 0), (-1, 1)],  # way of a Panda's finger; robosuite: -1 opens
    "mobile_aloha": [(1, 0)],
    "openarm": [(-65, 0)],  # lerobot openarm_follower: calibrated to 0 closed, limits -65 to 0
    "piper": [(1, 0)],  # piper_follower.py: share of the opening
    "so100": [(100, 0)],
    "so101": [(100, 0)],
    "umi_gripper": [(0.09, 0)],  # control_robots.py of UMI: 0 to 90 mm
    "ur5e": [(0, 1)],  # Robotiq counts up as it closes
    "widowx": [(1, 0)],  # BridgeData V2: 1 open
    "yam": [(1, 0)],  # lerobot bi_yam: 0.0 fully closed, 1.0 fully open
}
# LeRobot's MotorNormMode: openarm_follower is always in degrees, so_follower here in shares of the calibrated range.
ARM_UNITS = {"openarm": {"deg"}, "so100": {"normalized"}, "so101": {"normalized"}, "umi_gripper": {"m", "rad"}}
# Columns that nothing but their place tells apart, in state and in action.
SLICES = {
    "droid": {"arm": ((7, 14), (14, 21)), "gripper": ((6, 7), (12, 13))},  # dreamzero convert_droid.py
    "gr1": {
        "left_arm": ((0, 7), (0, 7)),  # Isaac-GR00T modality.json of robot_sim.PickNPlace
        "right_arm": ((22, 29), (22, 29)),
        "left_hand": ((7, 13), (7, 13)),
        "right_hand": ((29, 35), (29, 35)),
        "waist": ((41, 44), (41, 44)),
    },
    "widowx": {"tool": ((0, 6), None), "move": (None, (0, 3)), "turn": (None, (3, 6)), "gripper": ((6, 7), (6, 7))},
    "yam": {
        "left_arm": ((34, 40), (34, 40)),  # dreamzero open_loop_yam.py
        "right_arm": ((40, 46), (40, 46)),
        "left_gripper": ((32, 33), (32, 33)),
        "right_gripper": ((33, 34), (33, 34)),
    },
}
# Real data in this repository, for each robot that says it is verified.
VERIFIED = {"g1_inspire": "g1_inspire_v21", "video_only": "droid_video", "widowx": "bridge_rlds"}
LICENCES = {"unknown", "MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-NC-SA-4.0"}
# A rotation that stands as plain numbers: the difference of two is no rotation.
ABSOLUTE_JOINTS = {("umi_gripper", "rotation")}
every_robot = pytest.mark.parametrize("name", ROBOTS)


def components(robot: Embodiment) -> Iterable[Component]:
    return (*robot.state, *robot.action)


def limits_of(component: Component) -> np.ndarray | None:
    return np.array(component.limits) if isinstance(component.limits, tuple) else None


def logged(component: Component, *, high: bool) -> np.ndarray:
    """(D,) what a log holds where the component is at its upper limits (open), or at its lower ones (closed)."""
    if component.open is not None:
        return np.full(component.width, component.open if high else component.closed)
    limits = limits_of(component)
    mapped = np.full(component.width, 0.1) if limits is None else limits[:, int(high)]
    degrees = np.array([unit == "deg" for unit in component.units])
    return np.where(degrees, mapped * 180 / math.pi, mapped)


def made_up(robot: Embodiment, *, high: bool, rows: int = 6) -> Episode:
    """An episode of the streams that a robot reads, standing at one end of everything, with the log's own names."""
    t_ns = np.round(np.arange(rows) * 1e9 / robot.native_hz).astype(np.int64)
    streams: dict[str, Stream] = {}
    for source in dict.fromkeys(c.source for c in components(robot)):
        readers = [c for c in components(robot) if c.source == source]
        by_name = any(c.columns is None and c.joints for c in readers)
        names = list(dict.fromkeys(j for c in readers for j in c.joints or ()))[::-1] if by_name else []
        width = len(names) or 1 + max(max(c.columns or (0,)) for c in readers)
        values = np.full(width, np.nan, np.float32)
        for component in readers:
            at = [names.index(j) for j in component.joints or ()] if by_name else list(component.columns or ())
            values[at] = logged(component, high=high)
        streams[source] = Stream(source, t_ns, np.tile(values, (rows, 1)), tuple(names))
    videos = {c.source: Video(Path("none.mp4"), t_ns, 0, "h264", 64, 64) for c in robot.cameras}
    return episode(streams=streams, videos=videos, texts=())


def mapped_components(robot: Embodiment, made: Episode) -> Iterable[tuple[Component, np.ndarray]]:
    """Each component with its columns of the mapped episode."""
    trajectory = map_episode(made, robot)
    for values, parts in ((trajectory.state, robot.model_state), (trajectory.action, robot.model_action)):
        stops = np.cumsum([c.width for c in parts])
        yield from zip(parts, np.split(values, stops[:-1], axis=1) if len(parts) else [], strict=True)


def first_episode(source: Path) -> Episode:
    logs = Source.at(source)
    reader = detect_reader(logs)
    return reader.read(reader.list_episodes(logs).episodes[0])


@every_robot
def test_a_file_says_what_it_is_and_where_its_data_come_from(name: str) -> None:
    text, robot = (BUILT_IN / f"{name}.yaml").read_text(), load_embodiment(name)
    assert robot.name == name
    assert re.match(r"# [A-Z].{40,}", text), "a comment on top says which robot and which layout"
    assert re.search(r"^licence: ", text, re.M) and robot.licence in LICENCES
    assert robot.family != "unknown"
    assert max(map(len, text.splitlines())) <= 120


@every_robot
def test_every_column_has_a_unit_that_is_written_down(name: str) -> None:
    content = yaml.safe_load((BUILT_IN / f"{name}.yaml").read_text())
    for part in (*content.get("state", ()), *content.get("action", ())):
        assert "unit" in part or "like" in part, part["name"]
    for component in components(load_embodiment(name)):
        assert len(component.units) == len(component.mapped_units) == component.width > 0
        assert set(component.units) <= {*SI_FACTOR, *UNKNOWN_UNITS}


@every_robot
def test_a_gripper_says_where_it_is_open_and_only_a_gripper_does(name: str) -> None:
    for component in components(load_embodiment(name)):
        assert (component.kind == "gripper") == (component.open is not None), component.name


def test_a_gripper_is_open_where_its_source_says() -> None:
    for name in ROBOTS:
        robot, ends = load_embodiment(name), GRIPPERS.get(name, [])
        for end, parts in zip((ends[:1], ends[-1:]), (robot.state, robot.action), strict=True):
            said = {(c.open, c.closed) for c in parts if c.kind == "gripper"}
            assert said == set(end), name


@pytest.mark.parametrize("name", SLICES)
def test_columns_are_where_the_source_says(name: str) -> None:
    robot = load_embodiment(name)
    for at, parts in enumerate((robot.state, robot.action)):
        said = {c.name: ((c.columns or ())[0], (c.columns or ())[-1] + 1) for c in parts}
        assert said == {part: spans[at] for part, spans in SLICES[name].items() if spans[at]}


def test_arms_log_radians_but_for_those_that_are_known_not_to() -> None:
    for name in ROBOTS:
        units = {u for c in components(load_embodiment(name)) if c.kind == "joint" and c.part == "arm" for u in c.units}
        assert units <= ARM_UNITS.get(name, {"rad"}), name


@every_robot
def test_limits_rise(name: str) -> None:
    for component in components(load_embodiment(name)):
        limits = limits_of(component)
        if limits is not None:
            assert limits.shape == (component.width, 2) and (limits[:, 0] < limits[:, 1]).all(), component.name


@every_robot
def test_every_camera_has_a_key_and_a_stream_of_its_own(name: str) -> None:
    robot = load_embodiment(name)
    assert robot.model_cameras
    for values in ([c.key for c in robot.cameras], [c.source for c in robot.cameras]):
        assert len(set(values)) == len(values)


@every_robot
def test_joint_targets_are_relative_to_their_state_and_the_rest_is_not(name: str) -> None:
    robot = load_embodiment(name)
    widths = {f"state.{c.name}": c.width for c in robot.model_state}
    for action in robot.model_action:
        is_target = action.kind == "joint" and (name, action.name) not in ABSOLUTE_JOINTS
        if is_target:
            assert action.relative_to == f"state.{action.name}" and widths[action.relative_to] == action.width
        elif action.kind != "hand":
            assert action.relative_to is None
        assert action.on_stop == ("zero" if action.kind in ("velocity", "base") else "keep"), action.name


def test_every_robot_has_as_many_columns_of_action_as_its_source_says() -> None:
    assert {name: load_embodiment(name).action_width for name in ROBOTS} == ACTION_WIDTHS


def test_robots_of_a_family_have_the_same_joints_in_parts_of_the_same_name() -> None:
    """Up to the suffix of a recorder: `.pos` and `.q`."""
    seen: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    for name in ROBOTS:
        robot = load_embodiment(name)
        for component in components(robot):
            if component.kind != "joint" or not component.joints:
                continue
            joints = tuple(joint.removesuffix(".pos").removesuffix(".q") for joint in component.joints)
            other, theirs = seen.setdefault((robot.family, component.name), (name, joints))
            assert joints == theirs, f"{component.name} of {name} and {other}"
    shared = {family for family, _ in seen if sum(load_embodiment(n).family == family for n in ROBOTS) > 1}
    assert shared == {"aloha", "franka", "so_arm", "unitree_g1"}


@every_robot
@pytest.mark.parametrize("high", [True, False])
def test_what_is_logged_at_a_limit_is_mapped_to_it(name: str, high: bool) -> None:
    robot = load_embodiment(name)
    made = made_up(robot, high=high)
    trajectory = map_episode(made, robot)
    assert trajectory.state.shape == (len(trajectory.t_ns), robot.state_width)
    assert trajectory.action.shape == (len(trajectory.t_ns), robot.action_width)
    for component, values in mapped_components(robot, made):
        limits = limits_of(component)
        if component.kind == "gripper":
            assert np.allclose(values, float(high)), component.name
        elif limits is not None:
            assert np.allclose(values, limits[:, int(high)], atol=1e-4), component.name
    assert not ranges.check(trajectory, Filters())


@every_robot
def test_a_robot_is_verified_by_real_data_in_this_repository_or_not_at_all(name: str) -> None:
    robot = load_embodiment(name)
    assert (robot.status == "verified") == (name in VERIFIED) == (robot.verified_with is not None)
    if name not in VERIFIED:
        return
    real = first_episode(DATA / VERIFIED[name])
    trajectory = map_episode(real, robot)
    assert {c.source for c in robot.cameras} <= set(real.videos)
    assert len(trajectory.t_ns) > 5 and not ranges.check(trajectory, Filters())
    for values, valid in ((trajectory.state, trajectory.state_valid), (trajectory.action, trajectory.action_valid)):
        assert valid.all() and np.isfinite(values).all()


def test_widowx_moves_as_fast_as_its_state_says() -> None:
    robot, logs = load_embodiment("widowx"), Source.at(DATA / "bridge_rlds")
    reader = detect_reader(logs)
    real = [map_episode(reader.read(ref), robot) for ref in reader.list_episodes(logs).episodes]
    found = component_kind([t.action[:, :3] for t in real], [t.state[:, :3] for t in real], robot.native_hz)
    assert found.kind == "velocity", found.words
    assert all(t.state[0, 6] > 0.9 for t in real), "Bridge begins with an open gripper"


def agibot_world(root: Path) -> Path:
    """The sample with what its arms leave out: head, waist and wheels."""
    folder = agibot.world(root)
    for file in folder.rglob("proprio_stats.h5"):
        with h5py.File(file, "a") as h5:
            for part in ("state/head", "state/waist", "action/head", "action/waist"):
                h5[f"{part}/position"] = np.zeros((10, 2), np.float32)
            h5["action/robot/velocity"] = np.zeros((10, 2), np.float32)
    return folder


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("agibot_g1", agibot_world),
        ("franka", rlds.written_droid),
        ("libero", hdf5.libero),
        ("mobile_aloha", hdf5.mobile_aloha),
        ("umi_gripper", zarr.umi),
    ],
)
def test_streams_are_named_as_our_own_readers_name_them(
    name: str, sample: Callable[[Path], Path], tmp_path: Path
) -> None:
    robot, read = load_embodiment(name), first_episode(sample(tmp_path))
    trajectory = map_episode(read, robot)
    assert trajectory.action.shape[1] == ACTION_WIDTHS[name] and trajectory.state_valid.all()
    assert {c.source for c in components(robot)} <= set(read.streams)
    assert set(read.videos) <= {c.source for c in robot.cameras}


@pytest.mark.parametrize(("name", "base"), [("agibot_g1", "agibot"), ("droid", "droid"), ("yam", "yam")])
def test_robots_of_the_public_checkpoints_take_their_own_channels_and_mosaic(name: str, base: str) -> None:
    robot = load_embodiment(name)
    slots = house.slots_of(robot, base=base)
    assert columns(slots.state) == list(range(robot.state_width))
    assert columns(slots.action) == list(range(robot.action_width))
    assert house.mosaic_of(robot, base=base).style == base
