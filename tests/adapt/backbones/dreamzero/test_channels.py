"""Heads reordered for servers that pack a robot's columns from channel 0 on."""

import pytest
import torch

from adapt.backbones.dreamzero.channels import file_order, in_file_order, is_file_order, slots_as_dict, slots_from_dict
from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.model import HEAD_MODULES, build
from adapt.backbones.dreamzero.slots import BASES, Columns, Component, columns, slot_map, to_base
from schemas.errors import DataError

ARMS = tuple(Component(f"{side}_arm", "joint", "arm", side, 7) for side in ("right", "left"))
HANDS = tuple(Component(f"{side}_hand", "hand", "hand", side, 3) for side in ("right", "left"))
SLOTS = slot_map(Columns((*ARMS, *HANDS), (*HANDS, *ARMS)), base=BASES["agibot"])


def test_a_reordered_model_gives_on_packed_columns_what_it_gave_on_its_slots() -> None:
    config = preset("tiny", layers=1)
    trained, served = (build(config, device="cpu", seed=0).double() for _ in range(2))
    torch.nn.init.normal_(trained.action_decoder.layer2.b)
    heads = {n: t for n, t in trained.state_dict().items() if n.startswith(HEAD_MODULES)}
    served.load_state_dict(in_file_order(heads, SLOTS), strict=False)
    draw = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    video, y, text, clip = random(1, 16, 3, 4, 6), random(1, 20, 3, 4, 6), random(1, 16, 48), random(1, 257, 1280)
    noise = random(1, 24, 32)  # every channel is noised, those that the robot does not use too
    state = random(1, 1, len(columns(SLOTS.state)))
    times = torch.full((1, 3), 400.0, dtype=torch.float64)

    def velocities(model: torch.nn.Module, action: torch.Tensor, channels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = model(
            video,
            times,
            text,
            clip=clip,
            y=y,
            clean=video,
            state=channels,
            action=action,
            action_timestep=times[:, 1:2],
        )
        return out.video, out.action

    used = columns(SLOTS.action)
    by_slots = velocities(trained, noise, to_base(state, SLOTS.state, 64))
    packed_state = torch.cat((state, torch.zeros(1, 1, 64 - state.shape[-1], dtype=torch.float64)), dim=-1)
    packed = velocities(served, noise[..., file_order(SLOTS.action, 32)], packed_state)
    torch.testing.assert_close(packed[0], by_slots[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(packed[1][..., : len(used)], by_slots[1][..., used], rtol=0, atol=1e-12)


def test_an_order_that_is_the_files_changes_nothing() -> None:
    slots = slot_map(BASES["yam"], base=BASES["yam"])
    assert is_file_order(slots) and not is_file_order(SLOTS)
    heads = {n: t for n, t in build("tiny", device="cpu", seed=0).state_dict().items() if n.startswith(HEAD_MODULES)}
    assert all(torch.equal(t, heads[n]) for n, t in in_file_order(heads, slots).items())


def test_slots_come_back_from_their_file_and_bad_ones_are_refused() -> None:
    assert slots_from_dict(slots_as_dict(SLOTS)) == SLOTS
    with pytest.raises(DataError, match="overlap or leave"):
        one = {"component": "a", "channel": 30, "width": 4, "why": ""}
        slots_from_dict({"action": [one], "state": []})
    with pytest.raises(DataError, match=r"Give the slots.json"):
        slots_from_dict({"action": []})


def test_a_head_that_is_missing_is_named() -> None:
    with pytest.raises(DataError, match=r"no state_encoder.layer1.W"):
        in_file_order({}, SLOTS)
