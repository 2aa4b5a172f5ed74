"""Frames and joints in, commands out, with the tiny encoders of the fixtures."""

from dataclasses import replace

import pytest
import torch
from goldens import golden
from torch import Tensor

from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.controller import Controller, Observation, Run
from adapt.backbones.dreamzero.encoders import Encoders
from adapt.backbones.dreamzero.encoders.image import TINY_VIT, ImageEncoder
from adapt.backbones.dreamzero.encoders.text import TINY_UMT5, TextEncoder
from adapt.backbones.dreamzero.encoders.video import TINY_WAN21, VideoEncoder, to_model_range
from adapt.backbones.dreamzero.model import build
from adapt.backbones.dreamzero.policy import REFERENCE, Policy, Sampling
from adapt.backbones.dreamzero.rules import Stats, crop_and_resize
from adapt.backbones.dreamzero.slots import BASES, columns, slot_map
from adapt.backbones.dreamzero.space import ActionSpace
from adapt.backbones.dreamzero.views import NEGATIVE_PROMPT, Camera, mosaic_for, prompt, tile, unit_size
from schemas.errors import DataError

CONFIG = preset("tiny", layers=1, text_dim=32, clip_dim=32, clip_tokens=5)
CAMERAS = (Camera("left", "exterior", "left"), Camera("right", "exterior", "right"), Camera("wrist", "wrist"))
MOSAIC = mosaic_for(CAMERAS, "droid")
ANCHORS = (6, 5, 4, 3, 2, 1, 0)  # a log may have its joints the other way round


def tokenize(prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Characters as tokens: enough to tell prompts apart."""
    ids = torch.zeros(len(prompts), 16, dtype=torch.int64)
    for row, text in enumerate(prompts):
        ids[row] = torch.tensor([sum(map(ord, text[i::16])) % 63 + 1 for i in range(16)])
    return ids, torch.ones_like(ids)


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    def weights(name: str) -> dict[str, Tensor]:
        return dict(golden(name).under("w."))

    f32 = torch.float32
    return Encoders(
        VideoEncoder.load(weights("encoder_vae16"), TINY_WAN21, dtype=f32),
        TextEncoder.load(weights("encoder_t5"), TINY_UMT5, dtype=f32),
        ImageEncoder.load({f"visual.{k}": v for k, v in weights("encoder_clip_vision").items()}, TINY_VIT, dtype=f32),
        tokenize,
    )


def stats(width: int, *, low: float, high: float) -> Stats:
    ones = torch.ones(width)
    return Stats(0 * ones, ones, low * ones, high * ones, low * ones, high * ones)


def space() -> ActionSpace:
    """DROID's: seven relative joints and an absolute gripper."""
    slots = slot_map(BASES["droid"], base=BASES["agibot"])
    return ActionSpace(slots, stats(8, low=-2, high=2), stats(8, low=-0.5, high=0.5), (*ANCHORS, None))


def controller(encoders: Encoders, *, sampling: Sampling | None = None, **options: bool) -> Controller:
    model = build(CONFIG, device="cpu", seed=1)
    return Controller(Policy(model, sampling or Sampling(steps=2, computed=2)), encoders, MOSAIC, space(), **options)


def observation(count: int, *, seed: int, instruction: str = "Pick up the cup") -> Observation:
    generator = torch.Generator().manual_seed(seed)
    frames = {c.key: torch.randint(0, 256, (count, 40, 60, 3), generator=generator, dtype=torch.uint8) for c in CAMERAS}
    return Observation(frames, torch.rand(8, generator=generator), instruction)


def drive(robot: Controller, counts: list[int], *, seed: int = 0) -> tuple[list[Tensor], Run]:
    run, actions = None, []
    for step, count in enumerate(counts):
        chunk, run = robot.decide(
            observation(count, seed=seed + step), run, generator=torch.Generator().manual_seed(step)
        )
        actions.append(chunk.actions)
    return actions, run


def test_history_is_encoded_as_in_training_in_one_pass_from_the_windows_first_frame(encoders: Encoders) -> None:
    robot = controller(encoders)
    _, run = drive(robot, [1, 8, 8])
    size = unit_size(MOSAIC, CONFIG.canvas)
    seen = [observation(n, seed=i).frames for i, n in enumerate((1, 8, 8))]
    views = {k: crop_and_resize(torch.cat([s[k] for s in seen]), size) for k in MOSAIC.keys}
    video = to_model_range(tile(views, MOSAIC)).permute(3, 0, 1, 2)[None]
    latents = encoders.video.encode(video)  # 17 frames at once, as a training window has them
    assert run.session.next_frame == latents.shape[2] == 5
    again = robot.policy.start(
        encoders.embed(_words("Pick up the cup")),
        latents[:, :, :1],
        clip=encoders.image.encode(video[:, :, 0]),
        y=encoders.video.first_frame(video[:, :, 0], frames=33),
    )
    for start in (1, 3):
        robot.policy.observe(again, latents[:, :, start : start + 2])
    held, want = run.session.branches[0].cache.layer(0), again.branches[0].cache.layer(0)
    torch.testing.assert_close(held, want, rtol=0, atol=1e-4)


def _words(instruction: str) -> str:
    return prompt(MOSAIC, instruction)


def test_relative_actions_come_back_absolute(encoders: Encoders) -> None:
    robot, seen = controller(encoders), observation(1, seed=0)
    values = torch.zeros(1, 24, 32)
    values[..., columns(robot.space.slots.action)] = torch.tensor([0.5] * 7 + [1.0])
    absolute = robot.space.actions_from_base(values, seen.state[None, None])[0]
    torch.testing.assert_close(absolute[:, :7], (seen.state[list(ANCHORS)] + 0.25).expand(24, 7))
    torch.testing.assert_close(absolute[:, 7], torch.full((24,), 0.5))  # the gripper is no offset
    chunk, _ = robot.decide(seen, None, generator=torch.Generator().manual_seed(0))
    assert chunk.actions.shape == (24, 8) and chunk.imagined.shape == (16, 2, 4, 6)


def test_to_the_base_and_back_is_the_identity() -> None:
    s = space()
    state = torch.rand(2, 4, 8) - 0.5
    actions = torch.rand(2, 96, 8) * 0.8 - 0.4
    actions[..., :7] += state[..., list(ANCHORS)].repeat_interleave(24, 1)
    values = s.actions_to_base(actions, state)
    assert values.shape == (2, 96, 32) and values.abs().max() <= 1
    assert not values[..., ~s.action_mask].any() and s.action_mask.sum() == 8
    torch.testing.assert_close(s.actions_from_base(values, state), actions)
    assert s.state_to_base(state).shape == (2, 4, 64)


def test_two_robots_share_a_controller(encoders: Encoders) -> None:
    robot = controller(encoders)
    alone, _ = drive(robot, [1, 8], seed=100)
    other = None
    run = None
    for step, count in enumerate((1, 8)):
        _, other = robot.decide(observation(count, seed=step, instruction="Wave"), other)
        noise = torch.Generator().manual_seed(step)
        chunk, run = robot.decide(observation(count, seed=100 + step), run, generator=noise)
        assert torch.equal(chunk.actions, alone[step])


def test_a_full_window_and_a_new_instruction_begin_with_the_newest_frame(encoders: Encoders) -> None:
    robot = controller(encoders)
    _, run = drive(robot, [1, 8, 8, 8])
    assert run.session.next_frame == 7
    seen = observation(8, seed=50)
    _, after = robot.decide(seen, run)
    assert after is not run and after.session.next_frame == 1
    newest = replace(seen, frames={k: v[-1:] for k, v in seen.frames.items()})
    assert torch.equal(after.seen, robot.decide(newest, None)[1].seen)
    _, told = robot.decide(observation(3, seed=51, instruction="Wave"), after)
    assert told.instruction == "Wave" and told.session.next_frame == 1


def test_the_reference_mode_doubles_four_frames_and_encodes_them_alone(encoders: Encoders) -> None:
    sampling = replace(REFERENCE, steps=2, computed=2)
    robot = controller(encoders, sampling=sampling, reference_history=True)
    _, run = drive(robot, [1, 4])
    assert run.session.next_frame == 3 and len(run.session.branches) == 2
    prompts = [robot.encoders.embed(text) for text in (_words("Pick up the cup"), NEGATIVE_PROMPT)]
    for branch, text in zip(run.session.branches, prompts, strict=True):
        keys = robot.policy.model.blocks[0].cross_attn.keys_values(robot.policy.model.embed_context(text, None)).text[0]
        torch.testing.assert_close(branch.context[0].text[0], keys)
    frames = {k: crop_and_resize(v, unit_size(MOSAIC, CONFIG.canvas)) for k, v in observation(4, seed=1).frames.items()}
    canvas = to_model_range(tile(frames, MOSAIC)).permute(3, 0, 1, 2)[None]
    latents = robot.encoders.video.encode(canvas[:, :, [0, 0, 0, 1, 1, 2, 2, 3, 3]])[:, :, 1:]
    begun = drive(robot, [1])[1]
    robot.policy.observe(begun.session, latents)
    torch.testing.assert_close(run.session.branches[0].cache.layer(0), begun.session.branches[0].cache.layer(0))
    with pytest.raises(DataError, match="8 frames since the last decision: wanted 4"):
        robot.decide(observation(8, seed=9), run)


def test_what_is_missing_is_refused_and_never_taken_as_zero(encoders: Encoders) -> None:
    robot, seen = controller(encoders), observation(1, seed=0)
    with pytest.raises(DataError, match=r"state of shape \(7,\).*wanted 8 columns"):
        robot.decide(replace(seen, state=seen.state[:7]), None)
    broken = seen.state.clone()
    broken[3] = torch.nan
    with pytest.raises(DataError, match="1 of it no numbers"):
        robot.decide(replace(seen, state=broken), None)
    with pytest.raises(DataError, match="camera 'wrist'"):
        robot.decide(replace(seen, frames={k: v for k, v in seen.frames.items() if k != "wrist"}), None)
    _, run = robot.decide(seen, None)
    with pytest.raises(DataError, match="5 frames since the last decision: wanted 8"):
        robot.decide(observation(5, seed=1), run)


def test_a_decision_that_fails_can_be_asked_for_again(encoders: Encoders) -> None:
    robot = controller(encoders)
    want, _ = drive(robot, [1, 8])
    _, run = drive(robot, [1])
    poisoned = robot.policy.model.action_decoder.layer2.b
    kept = poisoned.detach().clone()
    poisoned.data.fill_(torch.nan)
    with pytest.raises(DataError, match="commands are no finite numbers"):
        robot.decide(observation(8, seed=1), run)
    assert run.session.next_frame == 1 and run.seen.shape[2] == 1
    poisoned.data.copy_(kept)
    again, _ = robot.decide(observation(8, seed=1), run, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.actions, want[1])


def test_statistics_of_another_robot_are_refused() -> None:
    with pytest.raises(DataError, match="action: statistics of 7 columns, slots for 8"):
        replace(space(), action=stats(7, low=-1, high=1))
    with pytest.raises(DataError, match="anchors"):
        replace(space(), anchors=(*range(7), 8))
