"""The samplers: against diffusers' own, and against distributions whose answer is known."""

import math

import pytest
import torch
from torch import Tensor

from adapt.backbones.dreamzero.unipc import Euler, UniPC, computed_steps, skip_after
from schemas.errors import UsageError


def gaussian_velocity(x: Tensor, sigma: float, *, mean: float, deviation: float) -> Tensor:
    """noise - data as a perfect network predicts it where the data are one Gaussian."""
    clean_part, noise_part = (1 - sigma) * deviation**2, sigma
    scale = (noise_part - clean_part) / ((1 - sigma) ** 2 * deviation**2 + sigma**2)
    return -mean + scale * (x - (1 - sigma) * mean)


def gaussian_at(noise: Tensor, sigma: float) -> Tensor:
    """Where the flow between that Gaussian, here 0.5 +- 0.3, and `noise` is at `sigma`."""
    return (1 - sigma) * 0.5 + math.hypot((1 - sigma) * 0.3, sigma) * noise


def sampled(sampler: UniPC | Euler, noise: Tensor) -> Tensor:
    state = sampler.start(gaussian_at(noise, sampler.sigmas[0]))
    for sigma in sampler.sigmas[:-1]:
        _, state = sampler.step(gaussian_velocity(state.x, sigma, mean=0.5, deviation=0.3), state)
    return state.x


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 16, 50])
@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_unipc_is_diffusers_own_scheduler(steps: int, shift: float) -> None:
    from diffusers import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    theirs.set_timesteps(steps)
    ours = UniPC(steps, shift)
    assert ours.sigmas == pytest.approx(theirs.sigmas.tolist(), abs=1e-6)
    assert list(ours.timesteps) == theirs.timesteps.tolist()
    x = theirs_x = torch.randn(2, 3, generator=torch.Generator().manual_seed(steps))
    state = ours.start(x)
    for step, timestep in enumerate(theirs.timesteps):
        output = torch.tanh(3 * theirs_x) + 0.1 * step
        theirs_x = theirs.step(output, timestep, theirs_x).prev_sample
        x, state = ours.step(output, state)
        torch.testing.assert_close(x, theirs_x, rtol=0, atol=5e-6)


def test_doubling_the_steps_of_unipc_quarters_the_error_or_better() -> None:
    noise = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = gaussian_at(noise, 0.2)
    error = [(sampled(UniPC(n, shift=1, end_sigma=0.2), noise) - truth).abs().max().item() for n in (16, 32, 64)]
    assert error[0] < 0.02
    assert error[1] < error[0] / 3.5 and error[2] < error[1] / 3.5


def test_euler_ends_at_the_data_of_a_network_that_knows_them() -> None:
    data, noise = torch.tensor([0.2, -0.7]), torch.tensor([1.0, 2.0])
    for sampler in (Euler(5), UniPC(5)):
        start = sampler.sigmas[0]
        state = sampler.start((1 - start) * data + start * noise)
        for _ in sampler.timesteps:
            _, state = sampler.step(noise - data, state)
        torch.testing.assert_close(state.x, data)


def test_flash_sampling_stops_part_of_the_way() -> None:
    data, noise = torch.tensor([0.2, -0.7]), torch.tensor([1.0, 2.0])
    sampler = UniPC(end_sigma=0.8)
    state = sampler.start((1 - sampler.sigmas[0]) * data + sampler.sigmas[0] * noise)
    for _ in sampler.timesteps:
        _, state = sampler.step(noise - data, state)
    assert sampler.sigmas[-1] == pytest.approx(0.8) and sampler.sigmas[0] == UniPC().sigmas[0]
    torch.testing.assert_close(state.x, 0.2 * data + 0.8 * noise)


def test_two_runs_of_one_sampler_do_not_disturb_each_other() -> None:
    sampler, noises = UniPC(), (torch.randn(6), torch.randn(6))
    alone = [sampled(UniPC(), noise) for noise in noises]
    states = [sampler.start(gaussian_at(noise, sampler.sigmas[0])) for noise in noises]
    for sigma in sampler.sigmas[:-1]:
        for robot in (1, 0):
            output = gaussian_velocity(states[robot].x, sigma, mean=0.5, deviation=0.3)
            states[robot] = sampler.step(output, states[robot])[1]
    assert all(torch.equal(state.x, want) for state, want in zip(states, alone, strict=True))


def test_a_step_can_be_taken_again_from_the_same_state() -> None:
    sampler, state = UniPC(), UniPC().start(torch.randn(4))
    for _ in range(4):
        output = torch.randn(4)
        first, kept = sampler.step(output, state)
        again, _ = sampler.step(output, state)
        assert torch.equal(first, again)
        state = kept


@pytest.mark.parametrize("sampler", [UniPC(), Euler()])
def test_bfloat16_samples_are_kept_in_float32_between_steps(sampler: UniPC | Euler) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(50, generator=generator).bfloat16()
    outputs = [torch.randn(50, generator=generator).bfloat16() for _ in sampler.timesteps]
    state, exact = sampler.start(noise), sampler.start(noise.float())
    for output in outputs:
        x, state = sampler.step(output, state)
        _, exact = sampler.step(output.float(), exact)
        assert x.dtype == torch.bfloat16 and torch.equal(x, exact.x.bfloat16())


@pytest.mark.parametrize("sampler", [UniPC(), Euler()])
def test_nothing_in_a_step_reads_a_value_back_from_the_device(sampler: UniPC | Euler) -> None:
    state = sampler.start(torch.empty(3, device="meta"))
    for _ in sampler.timesteps:
        x, state = sampler.step(torch.empty(3, device="meta"), state)
        assert x.device.type == "meta"


def test_impossible_samplers_are_refused() -> None:
    for make in (lambda: UniPC(0), lambda: UniPC(end_sigma=1.0), lambda: Euler(0)):
        with pytest.raises(UsageError, match="sampler: .* Change one of them"):
            make()


def test_other_step_counts_compute_every_step() -> None:
    assert sum(computed_steps(8)) == 8 and computed_steps(4) == (True,) * 16
    assert computed_steps(8, steps=10) == (True,) * 10


@pytest.mark.parametrize(("cosine", "skipped"), [(1.0, 4), (0.951, 4), (0.949, 2), (0.931, 2), (0.929, 0), (-1.0, 0)])
def test_the_more_alike_two_action_predictions_are_the_more_is_skipped(cosine: float, skipped: int) -> None:
    previous = torch.zeros(1, 24, 32)
    current = previous.clone()
    previous[0, 3, 1], current[0, 3, 1], current[0, 7, 2] = 2.0, cosine, math.sqrt(max(0.0, 1 - cosine**2))
    assert skip_after(previous, 5 * current) == skipped


def test_the_sample_that_changed_most_decides_what_is_skipped() -> None:
    previous = torch.zeros(2, 24, 32)
    previous[:, 0, 0] = 1
    current = previous.clone()
    current[1, 1, 0] = 0.4  # cosine 0.928, and 0.964 on average
    assert skip_after(previous, current) == 0
