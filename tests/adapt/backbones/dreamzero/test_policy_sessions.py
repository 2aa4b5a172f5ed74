"""The policy beyond parity: what it predicts is what was trained, and sessions do not know of each other."""


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
    """Euler on paper: each of the policy's steps equals a training forward pass over the whole window."""
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
    for chunk in range(4):
        assert policy.has_room(session) == (chunk < 3)
        act(policy, session, given, chunk)
        policy.observe(session, given["clean"][:, :, 1 + 2 * chunk : 3 + 2 * chunk])
    assert policy.is_full(session)
    with pytest.raises(UsageError, match="holds its 4 chunks. Start a new session"):
        act(policy, session, given, 3)


def test_skipped_steps_run_no_network() -> None:
    given = inputs(50)
    for sampling, runs in ((Sampling(computed=5), 5), (Sampling(computed=8), 8), (Sampling(), 16)):
        policy = Policy(MODEL, sampling)
        session = begin(policy, given)
        noise = given["noise_video"], given["noise_action"]
        assert policy.act(session, given["state"][:, :1], noise=noise).network_runs == runs
    policy = Policy(MODEL, Sampling(adaptive=True))
    session = begin(policy, given)
    assert policy.act(session, given["state"][:, :1], noise=noise).network_runs < 16


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
