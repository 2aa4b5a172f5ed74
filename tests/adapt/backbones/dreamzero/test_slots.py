"""Which of the base's channels a robot uses, and that nothing is lost on the way there and back."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt.backbones.dreamzero.slots import (
    BASES,
    Columns,
    Component,
    Slot,
    Slots,
    columns,
    describe,
    draw,
    from_base,
    mask,
    slot_map,
    to_base,
)
from schemas.embodiment import load_embodiment
from schemas.errors import DataError, UsageError

ARMS = tuple(Component(f"{side}_arm", "joint", "arm", side, 7) for side in ("left", "right"))
HANDS = tuple(Component(f"{side}_hand", "hand", "hand", side, 6) for side in ("left", "right"))
G1 = Columns((*ARMS, *HANDS), (*ARMS, *HANDS))
SINGLE = (Component("arm", "joint", "arm", "none", 6), Component("gripper", "gripper", "gripper", "none", 1))
SO101 = Columns(SINGLE, SINGLE)


def _places(slots: tuple[Slot, ...]) -> list[tuple[str, int, int]]:
    return [(s.component, s.channel, s.width) for s in slots]


@pytest.mark.parametrize(("name", "state", "action"), [("agibot", 20, 22), ("droid", 8, 8), ("yam", 14, 14)])
def test_the_bases_own_robot_keeps_its_order(name: str, state: int, action: int) -> None:
    slots = slot_map(BASES[name], base=BASES[name])
    assert columns(slots.state) == list(range(state))
    assert columns(slots.action) == list(range(action))


def test_arms_go_to_arms_and_hands_to_free_channels_whole() -> None:
    slots = slot_map(G1, base=BASES["agibot"])
    assert _places(slots.state) == [
        ("left_arm", 0, 7),
        ("right_arm", 7, 7),
        ("left_hand", 20, 6),
        ("right_hand", 26, 6),
    ]
    assert _places(slots.action) == [
        ("left_arm", 0, 7),
        ("right_arm", 7, 7),
        ("left_hand", 22, 6),
        ("right_hand", 14, 6),  # only four are left behind the base's 22: effectors, head and waist are not used here
    ]


def test_a_narrower_arm_uses_the_first_channels_and_one_without_a_side_the_first_arm() -> None:
    slots = slot_map(SO101, base=BASES["agibot"])
    assert _places(slots.action) == [("arm", 0, 6), ("gripper", 14, 1)]
    assert slots.action[0].why == "the base's left_arm, 1 left over"


def test_the_rest_of_a_wider_arm_goes_behind_the_base() -> None:
    slots = slot_map(Columns((), ARMS), base=BASES["yam"])
    assert _places(slots.action) == [("left_arm", 0, 6), ("left_arm", 14, 1), ("right_arm", 7, 6), ("right_arm", 15, 1)]
    assert [s.why for s in slots.action[:2]] == ["the base's left_joint, 1 too many", "the rest; free in the base"]


def test_a_second_arm_finds_no_partner_on_a_base_of_one_arm() -> None:
    slots = slot_map(Columns((), ARMS), base=BASES["droid"])
    assert _places(slots.action) == [("left_arm", 0, 7), ("right_arm", 8, 7)]


def test_components_of_an_embodiment_file_have_slots() -> None:
    robot = load_embodiment("droid")
    state, action = (
        tuple(Component(c.name, c.kind, c.part, c.side, c.width) for c in part)
        for part in (robot.model_state, robot.model_action)
    )
    slots = slot_map(Columns(state, action), base=BASES["droid"])
    assert _places(slots.state) == _places(slots.action) == [("arm", 0, 7), ("gripper", 7, 1)]


def test_a_part_in_the_centre_is_one_without_a_side() -> None:
    head = Component("neck", "joint", "head", "center", 2)
    assert _places(slot_map(Columns((head,), ()), base=BASES["agibot"]).state) == [("neck", 16, 2)]


def test_a_component_is_divided_only_where_no_stretch_holds_it() -> None:
    robot = (Component("body", "joint", "spine", "none", 20), Component("tail", "joint", "tail", "none", 12))
    slots = slot_map(Columns((), robot), base=BASES["agibot"])
    assert _places(slots.action) == [("body", 0, 20), ("tail", 22, 10), ("tail", 20, 2)]


def test_a_part_of_another_kind_is_no_partner() -> None:
    pose = Component("left_arm", "pose", "arm", "left", 7)
    assert slot_map(Columns((), (pose,)), base=BASES["agibot"]).action[0].channel == 22


def test_an_override_goes_first_and_may_differ_for_state_and_action() -> None:
    wishes = {"arm": "right_arm", "state.gripper": 40, "action.gripper": "right_effector"}
    slots = slot_map(SO101, base=BASES["agibot"], overrides=wishes)
    assert _places(slots.action) == [("arm", 7, 6), ("gripper", 15, 1)]
    assert _places(slots.state) == [("arm", 7, 6), ("gripper", 40, 1)]


def test_who_is_driven_from_its_partner_by_an_override_goes_elsewhere() -> None:
    slots = slot_map(Columns((), ARMS), base=BASES["agibot"], overrides={"right_arm": "left_arm"})
    assert _places(slots.action) == [("left_arm", 22, 7), ("right_arm", 0, 7)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"leg": 3}, "slot override 'leg': the robot has no such component. Give one of action.left_arm"),
        ({"left_arm": "leg"}, "override action.left_arm: the base has no action component 'leg'. Give one of head"),
        ({"left_arm": 26}, "channels 26..32 are not all in 0..31"),
        ({"left_arm": -1}, "channels -1..5 are not all in 0..31"),
        ({"left_arm": 3, "right_arm": 9}, "right_arm: channels 9..15 collide with those of 'left_arm', 3..9"),
        ({"left_arm": "left_arm", "right_arm": "left_arm"}, "channels 0..6 collide with those of 'left_arm'"),
    ],
)
def test_overrides_that_cannot_be_are_refused(overrides: dict[str, str | int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        slot_map(G1, base=BASES["agibot"], overrides=overrides)


@pytest.mark.parametrize(("side", "width", "channels"), [("action", 33, 32), ("state", 65, 64)])
def test_more_columns_than_channels_are_refused(side: str, width: int, channels: int) -> None:
    wide = (Component("arm", "joint", "arm", "none", width),)
    robot = Columns(wide, ()) if side == "state" else Columns((), wide)
    with pytest.raises(UsageError, match=f"{side}: the robot has {width} columns, the base {channels} channels"):
        slot_map(robot, base=BASES["droid"])
    with pytest.raises(UsageError, match="component 'gripper' is given twice"):
        slot_map(Columns((), (SINGLE[1], SINGLE[1])), base=BASES["droid"])


def test_values_of_another_robot_are_refused() -> None:
    slots = slot_map(SO101, base=BASES["agibot"])
    with pytest.raises(DataError, match="8 columns, but the slots take 7"):
        to_base(torch.zeros(2, 8), slots.action, 32)
    with pytest.raises(DataError, match="10 channels, but a slot reaches channel 14"):
        from_base(torch.zeros(2, 10), slots.action)


def test_values_land_in_their_channels_and_all_else_is_zero() -> None:
    slots = slot_map(SO101, base=BASES["agibot"])
    placed = to_base(torch.arange(1.0, 8), slots.action, 32)
    assert placed[:7].tolist() == [1, 2, 3, 4, 5, 6, 0] and placed[14] == 7 and placed.count_nonzero() == 7
    assert torch.equal(mask(slots.action, 32), placed != 0)


PARTS = st.sampled_from(
    [("joint", "arm"), ("gripper", "gripper"), ("hand", "hand"), ("joint", "head"), ("pose", "arm")]
)
COMPONENTS = st.lists(
    st.tuples(PARTS, st.sampled_from(["left", "right", "center", "none"]), st.integers(1, 9)), max_size=7
)


@settings(deadline=None, max_examples=200)
@given(parts=COMPONENTS, name=st.sampled_from(sorted(BASES)), wish=st.none() | st.integers(0, 31))
def test_from_base_undoes_to_base_for_any_robot(parts: list, name: str, wish: int | None) -> None:
    robot = tuple(Component(f"c{i}", kind, part, side, width) for i, ((kind, part), side, width) in enumerate(parts))
    total = sum(c.width for c in robot)
    overrides = {"c0": wish} if wish is not None and robot and wish + robot[0].width <= 32 else {}
    if total > 32:
        with pytest.raises(UsageError, match="action: the robot has"):
            slot_map(Columns(robot, robot), base=BASES[name], overrides=overrides)
        return
    slots = slot_map(Columns(robot, robot), base=BASES[name], overrides=overrides)
    for own, channels in ((slots.action, 32), (slots.state, 64)):
        values = torch.rand(2, 3, total) + 1
        where = columns(own)
        assert len(set(where)) == total and all(0 <= channel < channels for channel in where)
        assert [s.component for s in own] == sorted(s.component for s in own), "the order of the robot's columns"
        placed = to_base(values, own, channels)
        assert torch.equal(from_base(placed, own), values)
        assert torch.equal((placed != 0)[0, 0], mask(own, channels))


def test_the_table_names_channels_component_and_reason() -> None:
    slots = Slots(action=(Slot("arm", 0, 6, "the base's joint"),), state=(Slot("gripper", 7, 1, "as asked"),))
    assert describe(slots).splitlines() == [
        "        channels  component    why",
        "action  0-5       arm (6)      the base's joint",
        "state   7         gripper (1)  as asked",
    ]


def test_the_strip_has_a_colour_for_each_component(tmp_path: Path) -> None:
    from PIL import Image

    draw(slot_map(G1, base=BASES["agibot"]), tmp_path / "slots.png", base=BASES["agibot"])
    colours = Image.open(tmp_path / "slots.png").convert("RGB").getcolors(1 << 20)
    assert {(0, 103, 165), (213, 94, 0), (0, 158, 115), (162, 85, 155)} <= {c for n, c in colours if n > 2000}
