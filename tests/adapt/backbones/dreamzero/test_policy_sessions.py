"""The policy beyond parity: what it predicts is what was trained, and sessions do not know of each other."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.model import build
from adapt.backbones.dreamzero.policy import REFERENCE, Policy, Sampling, Session
from adapt.backbones.dreamzero.unipc import UniPC
from schemas.errors import UsageError

CONFIG = preset("tiny", layers=2)
MODEL = build(CONFIG, device="cpu", seed=0).double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(seed: int, *, batch: int = 1) -> dict[str, Tensor]:
    return {
        "text": draw(batch, 16, 48, seed=seed),
        "clip": draw(batch, 257, 1280, seed=seed + 1),
        "y": draw(batch, 20, 9, 4, 6, seed=seed + 2),
        "clean": draw(batch, 16, 9, 4, 6, seed=seed + 3),
        "state": draw(batch, 4, 64, seed=seed + 4),
        "noise_video": draw(batch, 16, 2, 4, 6, seed=seed + 5),
        "noise_action": draw(batch, 24, 32, seed=seed + 6),
    }


def begin(policy: Policy, given: dict[str, Tensor], **options: Tensor) -> Session:
    return policy.start(given["text"], given["clean"][:, :, :1], clip=given["clip"], y=given["y"], **options)


def act(policy: Policy, session: Session, given: dict[str, Tensor], chunk: int) -> Tensor:
    noise = given["noise_video"], given["noise_action"]
    return policy.act(session, given["state"][:, chunk : chunk + 1], noise=noise).action


def test_a_decision_is_the_sampler_on_the_training_pass() -> None:
    """Each of the policy's steps equals a training forward pass over the whole window."""
    given, policy = inputs(3), Policy(MODEL, Sampling(steps=3, computed=3))
    session = begin(policy, given)
    policy.observe(session, given["clean"][:, :, 1:3])
    got = policy.act(session, given["state"][:, 1:2], noise=(given["noise_video"], given["noise_action"]))

    sampler = UniPC(3)
    video, action = sampler.start(given["noise_video"].float()), sampler.start(given["noise_action"].float())
    for timestep in sampler.timesteps:
        noisy, actions = draw(1, 16, 5, 4, 6, seed=77), draw(1, 48, 32, seed=78)  # chunk 1 sees nothing of chunk 0's
        noisy[:, :, 3:], actions[:, 24:] = video.x, action.x
        times = torch.full((1, 5), float(timestep), dtype=torch.float64)
        out = MODEL(
            noisy,
            times,
            given["text"],
            clip=given["clip"],
            y=given["y"][:, :, :5],
            clean=given["clean"][:, :, :5],
            state=given["state"][:, :2],
            action=actions,
            action_timestep=times[:, 3:],
        )
        _, video = sampler.step(out.video[:, :, 3:].float(), video)
        _, action = sampler.step(out.action[:, 24:].float(), action)
    torch.testing.assert_close(got.action, action.x, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.video, video.x, rtol=0, atol=1e-5)


def test_two_robots_in_one_process_do_not_touch_each_other() -> None:
    policy, robots = Policy(MODEL, Sampling(steps=2, computed=2)), (inputs(10), inputs(20))

    def alone(given: dict[str, Tensor]) -> list[Tensor]:
        session, actions = begin(policy, given), []
        for chunk in range(3):
            actions.append(act(policy, session, given, chunk))
            policy.observe(session, given["clean"][:, :, 1 + 2 * chunk : 3 + 2 * chunk])
        return actions

    apart = [alone(given) for given in robots]
    sessions = [begin(policy, given) for given in robots]
    for chunk in range(3):
        for robot, (given, session) in enumerate(zip(robots, sessions, strict=True)):
            assert torch.equal(act(policy, session, given, chunk), apart[robot][chunk])
            policy.observe(session, given["clean"][:, :, 1 + 2 * chunk : 3 + 2 * chunk])


def test_acting_twice_without_looking_gives_the_same_and_remembers_nothing() -> None:
    policy, given = Policy(MODEL, Sampling(steps=2, computed=2)), inputs(30)
    session = begin(policy, given)
    assert torch.equal(act(policy, session, given, 0), act(policy, session, given, 0))


def test_noise_comes_from_the_generator() -> None:
    policy, given = Policy(MODEL, Sampling(steps=2, computed=2)), inputs(30)
    session = begin(policy, given)

    def drawn(seed: int) -> Tensor:
        return policy.act(session, given["state"][:, :1], generator=torch.Generator().manual_seed(seed)).action

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_a_window_ends_after_its_chunks() -> None:
    policy, given = Policy(MODEL, Sampling(steps=1, computed=1)), inputs(40)
    session = begin(policy, given)
    for chunk in range(3):
        assert policy.has_room(session)
        act(policy, session, given, chunk)
        policy.observe(session, given["clean"][:, :, 1 + 2 * chunk : 3 + 2 * chunk])
    assert not policy.has_room(session)
    last = act(policy, session, given, 3)
    with pytest.raises(UsageError, match="has held its 4 chunks. Start a new session"):
        policy.observe(session, given["clean"][:, :, 7:])
    assert torch.equal(act(policy, session, given, 3), last)


def test_latents_that_leave_a_rest_are_refused_by_the_policy() -> None:
    with pytest.raises(UsageError, match="5x6 do not divide into patches of 2x2"):
        Policy(MODEL).start(draw(1, 16, 48), draw(1, 16, 1, 5, 6), clip=None, y=draw(1, 20, 9, 5, 6))


def test_an_observation_that_fails_half_way_is_as_if_it_had_not_been() -> None:
    policy, given = Policy(MODEL, Sampling(steps=1, computed=1)), inputs(45)
    session = begin(policy, given)
    want = act(policy, session, given, 0)
    with pytest.raises(RuntimeError):
        policy.observe(session, given["clean"][:, :12, 1:3])  # too few channels
    assert session.next_frame == 1 and session.branches[0].cache.frames == 1
    assert torch.equal(act(policy, session, given, 0), want)


def test_a_session_begun_in_inference_mode_goes_on_outside() -> None:
    policy, given = Policy(MODEL, Sampling(steps=1, computed=1)), inputs(46)
    with torch.inference_mode():
        session = begin(policy, given)
    assert act(policy, session, given, 0).shape == (1, 24, 32)


def test_skipped_steps_run_no_network() -> None:
    given = inputs(50)
    for sampling, runs in ((Sampling(computed=5), 5), (Sampling(computed=8), 8), (Sampling(), 16)):
        policy = Policy(MODEL, sampling)
        session = begin(policy, given)
        noise = given["noise_video"], given["noise_action"]
        assert policy.act(session, given["state"][:, :1], noise=noise).network_runs == runs
    for steps, computed in ((16, 0), (16, 9), (8, 4)):
        with pytest.raises(UsageError, match=f"{computed} of {steps} steps computed. Give one of"):
            Sampling(steps=steps, computed=computed)


def test_adaptive_skipping_rests_four_steps_while_actions_stay_the_same() -> None:
    model, given = deepcopy(MODEL), inputs(50)
    torch.nn.init.zeros_(model.action_decoder.layer2.W)
    torch.nn.init.ones_(model.action_decoder.layer2.b)  # every prediction is the same
    policy = Policy(model, Sampling(adaptive=True))
    session = begin(policy, given)
    chunk = policy.act(session, given["state"][:, :1], noise=(given["noise_video"], given["noise_action"]))
    assert chunk.network_runs == 4  # steps 0, 1, 6, 11
    torch.testing.assert_close(chunk.action, given["noise_action"].float() - 0.999799967, rtol=0, atol=1e-4)


def test_a_seed_gives_every_decision_the_same_noise() -> None:
    given = inputs(55)

    def decisions(seed: int | None) -> list[Tensor]:
        policy = Policy(MODEL, Sampling(steps=1, computed=1, seed=seed))
        session = begin(policy, given)
        return [policy.act(session, given["state"][:, :1]).action for _ in range(2)]

    assert torch.equal(*decisions(1140)) and torch.equal(decisions(7)[0], decisions(7)[1])
    assert not torch.equal(*decisions(None))
    assert REFERENCE.seed == 1140


def test_guidance_moves_the_video_and_wants_a_negative_prompt() -> None:
    given = inputs(60)
    negative = draw(1, 16, 48, seed=99)
    with pytest.raises(UsageError, match="guidance other than 1 takes a negative prompt"):
        begin(Policy(MODEL, REFERENCE), given)
    plain, guided = (
        Policy(MODEL, Sampling(steps=1, computed=1)),
        Policy(MODEL, Sampling(steps=1, computed=1, guidance=5.0)),
    )
    noise = given["noise_video"], given["noise_action"]
    one = plain.act(begin(plain, given), given["state"][:, :1], noise=noise)
    two = guided.act(begin(guided, given, negative_text=negative), given["state"][:, :1], noise=noise)
    assert torch.equal(one.action, two.action)  # actions take the conditional prediction
    assert (one.video - two.video).abs().max() > 1e-3


def test_a_batch_of_robots_is_each_alone() -> None:
    policy, both = Policy(MODEL, Sampling(steps=2, computed=2)), inputs(70, batch=2)
    together = act(policy, begin(policy, both), both, 0)
    for robot in range(2):
        one = {name: tensor[robot : robot + 1] for name, tensor in both.items()}
        torch.testing.assert_close(act(policy, begin(policy, one), one, 0), together[robot : robot + 1])
