"""What is guessed of a robot from its logs, each guess with its reason; what is not known is asked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from arm_logs import take, write_logs
from samples import agibot, hdf5, mcap, zarr

from schemas.embodiment import Component, Embodiment
from schemas.errors import DataError
from schemas.yaml_io import parse
from wamdata.draft import draft_embodiment
from wamdata.draft.grippers import find_ends, looks_like_one
from wamdata.draft.streams import choose, flavour
from wamdata.draft.units import unit_of
from wamdata.readers import detect_reader
from wamdata.source import Source


def drafted(source: Path) -> tuple[Embodiment, str]:
    text = draft_embodiment(Source.at(source))
    return parse(Embodiment, yaml.safe_load(text), "draft"), text


def made(make: Callable[[Path], Path], folder: Path) -> tuple[Embodiment, str]:
    return drafted(make(folder))


@pytest.fixture(scope="module")
def g1_draft(g1: Path) -> tuple[Embodiment, str]:
    return drafted(g1)


def test_the_g1s_arms_and_hands_are_told_apart_and_commanded_by_targets(g1_draft: tuple[Embodiment, str]) -> None:
    robot, text = g1_draft
    assert [(c.name, c.kind, c.width) for c in robot.action] == [
        ("left_arm", "joint", 7), ("right_arm", "joint", 7), ("left_hand", "hand", 6), ("right_hand", "hand", 6),
    ]  # fmt: skip
    assert [c.relative_to for c in robot.action] == [f"state.{c.name}" for c in robot.action]
    assert (robot.native_hz, [c.key for c in robot.cameras]) == (30.0, ["head"])
    assert text.count("QUESTION") == text.count("QUESTION: does 1 mean open?") == 4  # of each hand, twice


def test_every_guess_has_its_reason_and_says_how_sure_it_is(g1_draft: tuple[Embodiment, str]) -> None:
    _, text = g1_draft
    assert "sure: a target: the state explains 99% of it as where the state is 5 rows later" in text
    assert "the command lies where it is" in text and "sure: 'high' in its name; its picture stands still" in text
    assert "Instructions: 4 of 4 episodes looked at have one, from task_index" in text


def test_a_robot_that_is_known_is_named(g1_draft: tuple[Embodiment, str]) -> None:
    assert "# The built-in robot 'g1_inspire' fits these logs too: `--robot g1_inspire`." in g1_draft[1]


def test_bridges_steps_are_no_targets_and_its_rate_is_asked_for(request: pytest.FixtureRequest) -> None:
    robot, text = drafted(request.config.rootpath / "tests/data/bridge_rlds/1.0.0")
    (action,) = robot.action
    assert action.relative_to is None and action.is_velocity and "a step, not a target" in text
    assert robot.name == "bridge_dataset" and "QUESTION: the log holds no times" in text
    assert "QUESTION: is column 6 a gripper?" in text and len({c.key for c in robot.cameras}) == 4


def test_alohas_columns_are_two_arms_with_grippers(tmp_path: Path) -> None:
    robot, text = made(hdf5.SAMPLES["mobile_aloha"], tmp_path)
    assert [(c.name, c.width) for c in robot.state] == [
        ("left_arm", 6), ("left_gripper", 1), ("right_arm", 6), ("right_gripper", 1)
    ]  # fmt: skip
    assert [(c.name, c.kind) for c in robot.action][-1] == ("base", "velocity")
    assert "left out: observations/effort, observations/qvel" in text
    ends = {(c.open, c.closed) for c in (*robot.state, *robot.action) if c.name == "left_gripper"}
    assert len(ends) == 1  # state and command on one scale


def test_topics_of_a_bag_are_told_apart(tmp_path: Path) -> None:
    robot, text = made(mcap.SAMPLES["robot"], tmp_path)
    assert [c.source for c in robot.state] == ["/joint_states.position"] and robot.state[0].joints
    assert [c.source for c in robot.action] == ["/command"] and robot.clock == "uniform"
    assert "from /instruction" in text and [c.key for c in robot.cameras] == ["wrist"]


def test_arms_and_grippers_may_have_streams_of_their_own(tmp_path: Path) -> None:
    robot, text = made(agibot.SAMPLES["world"], tmp_path)
    assert {(c.name, c.source, c.width) for c in robot.state} == {
        ("left_arm", "state/joint/position", 7), ("right_arm", "state/joint/position", 7),
        ("left_gripper", "state/effector/position", 1), ("right_gripper", "state/effector/position", 1),
    }  # fmt: skip
    assert "left out: state/end/orientation, state/end/position" in text


def test_without_commands_the_next_state_is_proposed_and_asked_about(tmp_path: Path) -> None:
    robot, text = made(zarr.SAMPLES["umi"], tmp_path)
    assert {c.source for c in robot.state} == {
        "robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width"
    }  # fmt: skip
    assert all(c.ahead == 1 for c in robot.action) and len(robot.action) == 3
    assert "QUESTION: the log holds no commands" in text


def test_modality_json_is_taken_at_its_word(g1: Path, tmp_path: Path) -> None:
    logs = Path(shutil.copytree(g1, tmp_path / "gear"))
    slices = {"arms": {"start": 0, "end": 14}, "left_hand": {"start": 14, "end": 20}}
    (logs / "meta/modality.json").write_text(json.dumps({"state": slices, "action": slices}))
    robot, text = drafted(logs)
    assert [(c.name, c.columns[0], c.width) for c in robot.state] == [("arms", 0, 14), ("left_hand", 14, 6)]
    assert robot.action[0].relative_to == "state.arms" and "as meta/modality.json says" in text
    (logs / "meta/modality.json").write_text(json.dumps({"state": {"arms": {"start": 0, "end": 99}}}))
    with pytest.raises(
        DataError, match=r"modality\.json: state\.arms is \[0, 99\) of 'observation\.state', which has 26"
    ):
        drafted(logs)


def test_why_nothing_can_be_drafted_is_told(tmp_path: Path) -> None:
    source = write_logs(tmp_path / "logs", [take(0, rows=20)])
    (source / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"nothing can be drafted\. First: data/chunk-000/episode_000000\.parquet"):
        drafted(source)


def test_a_draft_maps_the_logs_that_it_was_drafted_from(tmp_path: Path) -> None:
    from wamdata.mapping import map_episode

    source = write_logs(tmp_path / "logs", [take(n, rows=60) for n in range(2)])
    robot, _ = drafted(source)
    reader = detect_reader(Source.at(source))
    trajectory = map_episode(reader.read(reader.list_episodes(Source.at(source)).episodes[0]), robot)
    assert trajectory.state.shape == (60, 3) and trajectory.state_valid.all()
    assert [(c.name, c.unit) for c in robot.state] == [("arm", "rad")] and robot.action[0].relative_to == "state.arm"


def closing(rows: int = 200, *, open_at: float = 1.0, closed_at: float = 0.0, held_at: float | None = None):
    """(state, command) of a gripper that closes in the middle, on a thing where `held_at` is given."""
    command = np.full(rows, open_at, np.float32)
    command[rows // 3 : 2 * rows // 3] = closed_at
    state = np.empty(rows, np.float32)
    now = open_at
    for row in range(rows):
        wanted = float(command[row])
        if held_at is not None and wanted == closed_at:
            wanted = held_at
        now += np.clip(wanted - now, -0.1 * abs(open_at - closed_at), 0.1 * abs(open_at - closed_at))
        state[row] = now
    return state, command


@pytest.mark.parametrize(("open_at", "closed_at", "held_at"), [(1.0, 0.0, 0.4), (0.0, 1.0, 0.7), (100.0, 0.0, 35.0)])
def test_a_hand_that_holds_something_tells_its_closed_end(open_at: float, closed_at: float, held_at: float) -> None:
    pairs = [closing(open_at=open_at, closed_at=closed_at, held_at=held_at) for _ in range(3)]
    ends = find_ends([s for s, _ in pairs], [c for _, c in pairs], "fraction")
    assert (ends.open, ends.closed, ends.is_sure) == (open_at, closed_at, True)


def test_where_nothing_is_held_the_ends_are_asked_for() -> None:
    pairs = [closing(open_at=0.0, closed_at=1.0) for _ in range(3)]
    ends = find_ends([s for s, _ in pairs], [c for _, c in pairs], "fraction")
    assert (ends.open, ends.closed, ends.is_sure) == (0.0, 1.0, False) and "begin at 0" in ends.reason
    wide = find_ends([s * 0.08 for s, _ in pairs], None, "m")
    assert wide.is_sure and wide.open == pytest.approx(0.08)
    assert find_ends([np.ones(50, np.float32)], None, "m") is None


def test_a_gripper_moves_between_two_ends_and_a_joint_does_not() -> None:
    assert looks_like_one(closing()[0]) and looks_like_one(closing(closed_at=-3.0)[0])
    assert not looks_like_one(np.sin(np.arange(200) / 30).astype(np.float32))
    assert not looks_like_one(np.ones(50, np.float32))


@pytest.mark.parametrize(
    ("values", "kind", "names", "unit"),
    [
        (np.linspace(-3, 3, 50), "joint", (), "rad"),
        (np.linspace(-170, 120, 50), "joint", (), "deg"),
        (np.linspace(-99.8, 99.5, 50), "joint", ("shoulder_pan.pos",), "normalized"),
        (np.linspace(-99.8, 99.5, 50), "joint", (), "normalized"),
        (np.linspace(-60, 40, 50), "joint", (), "deg"),
        (np.arange(1000, 3000, 7.0), "joint", (), "tick"),
        (np.linspace(0, 1, 50), "gripper", (), "fraction"),
        (np.linspace(0, 0.08, 50), "gripper", (), "m"),
        (np.linspace(0, 99, 50), "gripper", (), "percent"),
        (np.arange(0, 4000, 9.0), "gripper", (), "tick"),
        (np.linspace(-0.6, 0.7, 50), "pose", (), "m"),
        (np.linspace(-600, 700, 50), "pose", (), "mm"),
    ],
)
def test_units_are_told_from_values(values: np.ndarray, kind: str, names: tuple[str, ...], unit: str) -> None:
    found = unit_of(values[:, None].astype(np.float32), "arm", kind, names)
    assert found.unit == unit and found.sure in ("sure", "likely", "unsure") and "values" in found.reason


@pytest.mark.parametrize(
    ("names", "state", "action"),
    [
        (["observation.state", "action", "observation.velocity"], ["observation.state"], ["action"]),
        (["master/joint_position", "puppet/joint_position", "puppet/end_effector"],
         ["puppet/joint_position", "puppet/end_effector"], ["master/joint_position"]),
        (["/joint_states.position", "/joint_states.velocity", "/arm/command", "/gripper/joint_states.position"],
         ["/joint_states.position", "/gripper/joint_states.position"], ["/arm/command"]),
        (["action/cartesian_position", "action/joint_position", "action/gripper_position",
          "observation/joint_positions", "observation/gripper_position"],
         ["observation/joint_positions", "observation/gripper_position"],
         ["action/joint_position", "action/gripper_position"]),
        (["actions", "obs/robot0_eef_pos", "rewards", "dones"], ["obs/robot0_eef_pos"], ["actions"]),
        (["/odom.pose", "/cmd_vel"], ["/odom.pose"], ["/cmd_vel"]),
    ],
)  # fmt: skip
def test_streams_are_chosen_by_their_names(names: list[str], state: list[str], action: list[str]) -> None:
    from robots import episode

    from schemas.episode import Stream

    t_ns = np.arange(5, dtype=np.int64)
    streams = {n: Stream(n, t_ns.copy(), np.zeros((5, 2), np.float32)) for n in names}
    found = choose([episode(streams=streams)])
    assert [sorted(c.names) for c in found] == [sorted(state), sorted(action)]


def test_words_of_a_name_tell_what_it_speaks_of() -> None:
    assert [flavour(n) for n in ("state/effector/position", "/leftArm/jointStates.position", "tcp_pose", "x")] == [
        "gripper", "joint", "pose", "plain"
    ]  # fmt: skip


def test_a_question_is_part_of_its_component(tmp_path: Path) -> None:
    _, text = made(hdf5.SAMPLES["aloha"], tmp_path)
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if "is it open at" in line)
    assert "name: left_gripper" in lines[at + 1]
    components: tuple[Component, ...] = parse(Embodiment, yaml.safe_load(text), "draft").state
    assert all(c.open is not None for c in components if c.kind == "gripper")
