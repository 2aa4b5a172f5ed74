"""The schedule, the training losses and the samplers against the public reference's own numbers."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from goldens import Golden, assert_close, golden, golden_json
from torch import Tensor

from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.objective import Batch, Losses, training_loss, valid_action
from adapt.backbones.dreamzero.schedule import (
    level_sigmas,
    mix,
    nearest_ids,
    training_schedule,
    velocity,
)
from adapt.backbones.dreamzero.timesteps import Draws, action_ids_of, biased_ids, share_in_chunks
from adapt.backbones.dreamzero.unipc import FLASH_END_SIGMA, Euler, UniPC, computed_steps

CASES = ("coupled_b1", "coupled_b1_fake", "coupled_b3", "decoupled_b2", "high_noise_b2", "odd_crop_b1", "video_only_b2")
TINY = preset("tiny")
EXACT = 0.0


@dataclass
class Recorded:
    """A network that predicts what was recorded, and keeps what it was called with."""

    video: Tensor
    action: Tensor | None
    seen: dict[str, Any] = field(default_factory=dict)

    def __call__(self, noisy: Tensor, timestep: Tensor, context: Tensor, **given: Any) -> "Recorded":
        self.seen = {"noisy": noisy, "timestep": timestep, "context": context, **given}
        return self


@dataclass(frozen=True)
class Case:
    name: str
    stored: Golden

    def __getitem__(self, key: str) -> Tensor:
        return self.stored[f"{self.name}/{key}"]

    def __contains__(self, key: str) -> bool:
        return f"{self.name}/{key}" in self.stored

    def batch(self) -> Batch:
        return Batch(
            latents=self["in.latents"],
            context=torch.zeros(len(self["in.latents"]), TINY.text_len, TINY.text_dim),
            has_action=tuple(self["in.has_real_action"].flatten().tolist()),
            action=self["in.action"],
            action_valid=self["in.action_mask"],
            state=self["in.state"],
        )

    def draws(self) -> Draws:
        """The recorded raw draws, made into ids by our rules."""
        video_noise = self["draw.randn_like.0"]
        if "draw.video_beta" in self:
            raw = biased_ids(self["draw.video_beta"])
        elif "draw.high_noise_beta" in self:
            raw = biased_ids(self["draw.high_noise_beta"])
        else:
            raw = self["draw.randint.0"]
        video_ids = share_in_chunks(raw, latents_per_chunk=TINY.latents_per_chunk)
        action = self["in.action"]
        if "draw.video_beta" in self:
            action_ids = self["draw.randint.0"]
        else:
            shared = action_ids_of(video_ids, latents_per_chunk=TINY.latents_per_chunk, steps=TINY.steps)
            action_ids = shared[:, : action.shape[1]]
        action_noise = self["draw.randn_like.1"] if action.numel() else torch.zeros_like(action)
        return Draws(video_noise, video_ids, action_noise, action_ids)

    def network(self) -> Recorded:
        action = self["in.stub_action_noise_pred"] if self["in.action"].numel() else None
        return Recorded(self["in.stub_video_noise_pred"], action)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param, golden("objective"))


def assert_losses(got: Losses, want: dict[str, Tensor]) -> None:
    for name, loss in want.items():
        torch.testing.assert_close(getattr(got, name), loss.reshape(()), rtol=1e-5, atol=0)


def test_the_training_schedule_is_the_references() -> None:
    stored, schedule = golden("objective"), training_schedule(torch.device("cpu"))
    assert_close(schedule.sigmas, stored["sched.sigmas"], atol=1e-6)
    assert_close(schedule.timesteps / 1000, stored["sched.timesteps"] / 1000, atol=1e-6)
    assert_close(schedule.weights, stored["sched.linear_timesteps_weights"], atol=1e-6)
    assert_close(level_sigmas(100), stored["sched_default100.sigmas"], atol=1e-6)
    assert_close(level_sigmas(100), stored["sched_default100.timesteps"] / 1000, atol=1e-6)


def test_data_noise_and_level_mix_as_the_reference_mixes_them() -> None:
    stored, schedule = golden("objective"), training_schedule(torch.device("cpu"))
    ids, clean, noise = stored["add_noise.timestep_id"], stored["add_noise.x0"], stored["add_noise.noise"]
    assert_close(schedule.timesteps[ids] / 1000, stored["add_noise.timestep"] / 1000, atol=1e-6)
    assert torch.equal(nearest_ids(schedule, stored["add_noise.timestep"]), ids)
    assert_close(mix(clean, noise, schedule.sigmas[ids][:, None, None]), stored["add_noise.out"], atol=1e-6)
    assert_close(velocity(clean, noise), stored["training_target.out"], atol=EXACT)
    assert_close(schedule.weights[ids], stored["training_weight.out"], atol=1e-6)


def test_a_timestep_off_the_grid_takes_the_nearest_level() -> None:
    stored, schedule = golden("objective"), training_schedule(torch.device("cpu"))
    ids = nearest_ids(schedule, stored["offgrid.timestep"])
    sigmas = schedule.sigmas[ids][:, None]
    assert_close(schedule.weights[ids], stored["offgrid.training_weight"], atol=1e-6)
    noised = mix(torch.zeros_like(sigmas), torch.ones_like(sigmas), sigmas)
    assert_close(noised, stored["offgrid.add_noise_of_x0_0_noise_1"], atol=1e-6)


def test_recorded_draws_give_the_references_network_inputs(case: Case) -> None:
    batch, draws, network = case.batch(), case.draws(), case.network()
    training_loss(network, batch, draws)
    seen = network.seen
    assert_close(seen["noisy"], case["out.model_input.noisy_latents"], atol=1e-6)
    assert_close(seen["timestep"] / 1000, case["out.model_input.timestep"] / 1000, atol=1e-6)
    assert_close(seen["clean"], case["out.model_input.clean_x"], atol=EXACT)
    assert_close(seen["state"], case["in.state"], atol=EXACT)
    if case["in.action"].numel():
        schedule, want = training_schedule(torch.device("cpu")), case["out.model_input.noisy_action"]
        sigma, timestep = schedule.sigmas[draws.action_ids][..., None], case["out.model_input.timestep_action"] / 1000
        assert_close(schedule.timesteps[draws.action_ids] / 1000, timestep, atol=1e-6)
        assert_close(mix(batch.action, draws.action_noise, sigma), want, atol=1e-6)
    if not case["in.action"].numel():
        assert seen["action"] is None and seen["action_timestep"] is None
        return
    assert_close(seen["action_timestep"] / 1000, timestep, atol=1e-6)
    for index, has in enumerate(batch.has_action):  # what a sample has none of is noise alone, not padding and noise
        ours = want[index] if has else sigma[index] * draws.action_noise[index]
        assert_close(seen["action"][index], ours, atol=1e-6)


def test_losses_are_the_references_under_its_own_reduction(case: Case) -> None:
    got = training_loss(case.network(), case.batch(), case.draws(), reduction="reference")
    noted = golden_json("objective")["cases"][case.name]
    for ours, theirs in (("video", "dynamics_loss"), ("action", "action_loss"), ("total", "loss")):
        assert_losses(got, {ours: case[f"out.{theirs}"]})
        assert_losses(got, {ours: torch.tensor(noted[theirs])})


def test_the_valid_reduction_undoes_the_references_dilution(case: Case) -> None:
    """With all rows of a sample equally padded, the two differ by known factors, sample by sample."""
    batch, draws = case.batch(), case.draws()
    if not batch.action.shape[1]:
        assert training_loss(case.network(), batch, draws).action.item() == 0
        return
    per_sample = []
    for index, has in enumerate(batch.has_action):
        network, one, drawn = (row_of(whole, index) for whole in (case.network(), batch, draws))
        reference = training_loss(network, one, drawn, reduction="reference")
        share = batch.action_valid[index].float().mean()
        per_sample += [reference.action / share] if has else []
    want = torch.stack(per_sample).mean() if per_sample else torch.tensor(0.0)
    torch.testing.assert_close(training_loss(case.network(), batch, draws).action, want, rtol=1e-5, atol=0)


def row_of(whole: Batch | Draws | Recorded, index: int) -> Any:
    """The same with one sample."""
    parts = {name: part[index : index + 1] for name, part in vars(whole).items() if isinstance(part, Tensor | tuple)}
    return replace(whole, **parts)


def test_the_reference_cannot_tell_samples_of_a_batch_apart_and_ours_can() -> None:
    """Its has_real_action (B,) becomes (B, 1) against (B, T, A). Given (B, 1), the same code masks sample by sample."""
    case = Case("coupled_b3", golden("objective"))
    flat = torch.tensor(case.batch().has_action)
    with pytest.raises(RuntimeError) as crash:
        flat[:, None] * torch.zeros_like(case["in.action"])
    noted = golden_json("objective")["has_real_action_shape_B_with_batch_3"]
    assert f"RuntimeError: {crash.value}" == noted
    got = training_loss(case.network(), case.batch(), case.draws(), reduction="reference")
    assert_losses(got, {"action": case["out.action_loss"]})
    everyone = replace(case.batch(), has_action=(True, True, True))
    assert training_loss(case.network(), everyone, case.draws(), reduction="reference").action > got.action * 1.1


def test_recorded_cases_are_what_our_configuration_describes(case: Case) -> None:
    noted = golden_json("objective")["cases"][case.name]
    latents, predicted = case["in.latents"], case["in.stub_video_noise_pred"]
    assert list(latents.shape) == noted["latent_shape"] and len(latents) == noted["batch"]
    assert case["in.has_real_action"].tolist() == noted["has_real_action"]
    assert [key for key in noted["draws_in_order"] if key not in case] == []
    assert case["meta.seq_len"].tolist() == [TINY.window_latents * TINY.frame_tokens]
    assert predicted.shape[-2:] == TINY.latent_grid
    assert case["in.embodiment_id"].tolist() == [17] * len(latents)  # DROID's; the network ignores it, ours takes none
    batch = case.batch()
    assert_close(valid_action(replace(batch, has_action=(True,) * len(latents))), batch.action, atol=EXACT)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("unipc16", UniPC()),
        ("unipc16_decoupled_video", UniPC(end_sigma=FLASH_END_SIGMA)),
        ("euler16", Euler()),
    ],
)
def test_a_sampler_takes_the_references_trajectory(name: str, sampler: UniPC | Euler) -> None:
    stored = golden("objective")
    want = stored[f"{name}.sigmas"]
    assert_close(torch.tensor(sampler.sigmas)[: len(want)], want, atol=1e-6)
    timesteps = stored[f"{name}.timesteps"]
    assert_close(torch.tensor(sampler.timesteps) / 1000, timesteps / 1000, atol=1e-6)
    if not timesteps.is_floating_point():
        assert torch.tensor(sampler.timesteps).equal(timesteps)
    state = sampler.start(stored[f"{name}.sample0"])
    outputs, trajectory = stored[f"{name}.model_outputs"], stored[f"{name}.trajectory"]
    for step, (output, expected) in enumerate(zip(outputs, trajectory, strict=True)):
        x, state = sampler.step(output, state)
        assert_close(x, expected, atol=5e-6, name=f"{name} step {step}")


def test_the_computed_steps_are_the_references_tables() -> None:
    noted = golden_json("e2e")["dit_step_masks"]
    assert noted.pop("other") == "all 16"
    for count, steps in noted.items():
        mask = computed_steps(int(count.removesuffix(" (default)")))
        assert [step for step, computed in enumerate(mask) if computed] == steps
    assert computed_steps(9) == computed_steps(16) == (True,) * 16
