"""Training and acting: the loss, one graph for both, and adapters."""

from dataclasses import replace

import peft
import pytest
import torch
from test_nano_model import awake, random_batch, random_draws
from torch import nn

from adapt.backbones.base import Totals
from adapt.backbones.nano.batch import Batch, Draws
from adapt.backbones.nano.config import NanoConfig, tiny
from adapt.backbones.nano.model import HEAD_MODULES, LORA_TARGETS, build
from adapt.backbones.nano.objective import lean, loss, noised
from adapt.backbones.nano.policy import Chunk, act, noise_for

CONFIG = replace(tiny(), state_noise=0.0, context_noise=0.0, hide_video=0.0, text_dropout=0.0)


def context_of(batch: Batch, config: NanoConfig, chunks: int) -> Batch:
    """What is known when the chunk after `chunks` complete ones begins."""
    now = slice(chunks, chunks + 1)
    return replace(
        batch,
        latents=batch.latents[:, : 1 + chunks * config.latents_per_chunk],
        state=batch.state[:, now],
        history=batch.history[:, now],
        last_action=batch.last_action[:, now],
        action=batch.action[:, now],
        action_valid=batch.action_valid[:, now],
    )


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, frames_per_chunk=8, last_command=True)])
@torch.no_grad()
def test_acting_is_the_teacher_forced_prediction_at_the_same_noise_and_level(config: NanoConfig) -> None:
    model, batch, draws = awake(config), random_batch(config), random_draws(config)
    video, action = model(*noised(config, batch, draws, level=torch.ones(2, config.chunks)))
    for chunk in range(config.chunks):
        noise = Chunk(draws.video[:, chunk, None], draws.action[:, chunk, None])
        acted = act(model, context_of(batch, config, chunk), denoise_steps=1, noise=noise)
        torch.testing.assert_close(acted.action[:, 0], action[:, chunk], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(acted.video[:, 0], video[:, chunk], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_samples_share_the_context_and_differ_by_their_noise_alone() -> None:
    model, batch = awake(CONFIG), context_of(random_batch(CONFIG), CONFIG, 1)
    noise = noise_for(CONFIG, torch.Generator().manual_seed(0), batch=2, samples=3)
    together = act(model, batch, denoise_steps=3, noise=noise)
    assert together.action.shape == (2, 3, CONFIG.steps, CONFIG.action_width)
    for i in range(3):
        alone = act(model, batch, denoise_steps=3, noise=Chunk(noise.video[:, i : i + 1], noise.action[:, i : i + 1]))
        torch.testing.assert_close(alone.action[:, 0], together.action[:, i], atol=1e-5, rtol=1e-5)
    assert not torch.equal(together.action[:, 0], together.action[:, 1])


def test_an_untrained_policy_stands_still() -> None:
    batch = context_of(random_batch(CONFIG), CONFIG, 2)
    noise = noise_for(CONFIG, torch.Generator().manual_seed(0), batch=2)
    assert not act(build(CONFIG, 0), batch, denoise_steps=4, noise=noise).action.any()


def test_hidden_video_leaves_the_action_to_state_and_text() -> None:
    model, batch = awake(CONFIG), context_of(random_batch(CONFIG), CONFIG, 1)
    noise = noise_for(CONFIG, torch.Generator().manual_seed(0), batch=2)
    blind = [
        act(model, replace(batch, latents=latents), denoise_steps=2, noise=noise, hide_video=True).action
        for latents in (batch.latents, batch.latents + 1)
    ]
    assert torch.equal(*blind)


def test_too_long_a_context_is_refused() -> None:
    batch = random_batch(CONFIG)
    noise = noise_for(CONFIG, torch.Generator().manual_seed(0), batch=2)
    with pytest.raises(AssertionError, match="no context"):
        act(build(CONFIG, 0), batch, denoise_steps=1, noise=noise)


def test_loss_falls_when_one_batch_is_learnt_by_heart() -> None:
    batch, model = random_batch(CONFIG), build(CONFIG, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = [step(model, optimizer, batch, random_draws(CONFIG)) for _ in range(150)]
    assert history[-1] < 0.3 * history[0]


def test_absent_and_invalid_actions_have_no_loss_and_no_gradient() -> None:
    batch, draws = random_batch(CONFIG), random_draws(CONFIG)
    valid = batch.action_valid.clone()
    valid[0, -1, 2:] = False
    batch = replace(batch, action_valid=valid, has_action=torch.tensor([True, False]))
    model = awake(CONFIG)
    before = losses(model, batch, draws)["action"]
    action = batch.action.clone()
    action[1] += 5
    assert torch.equal(before, losses(model, replace(batch, action=action), draws)["action"])
    only_video = losses(model, replace(batch, has_action=torch.zeros(2, dtype=torch.bool)), draws)
    assert only_video["action"] == 0
    only_video["loss"].backward()
    assert not model.action_decoder.weight.grad.any()


def test_loss_is_that_of_the_velocity_above_the_floor() -> None:
    config = replace(CONFIG, sigma_floor=1e-3)
    batch, draws, model = random_batch(config), random_draws(config), awake(config)
    level = lean(draws.level, config.shift)
    context, noisy = noised(config, batch, draws, level=level)
    _, action = model(context, noisy)
    velocity = (noisy.action - action) / level[..., None, None]
    wanted = (velocity - (draws.action - batch.action)).square().mean()
    torch.testing.assert_close(losses(model, batch, draws)["action"], wanted, rtol=1e-4, atol=1e-5)


def test_a_fresh_adapter_changes_no_bit_and_training_it_no_base_weight() -> None:
    batch, draws, base = random_batch(CONFIG), random_draws(CONFIG), awake(CONFIG)
    before = losses(base, batch, draws)
    weights = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    lora = peft.LoraConfig(r=4, lora_alpha=4, target_modules=list(LORA_TARGETS), modules_to_save=list(HEAD_MODULES))
    model = peft.get_peft_model(base, lora)
    after = losses(model, batch, draws)
    assert all(torch.equal(before[name], after[name]) for name in before)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        step(model, optimizer, batch, draws)
    assert not torch.equal(losses(model, batch, draws)["loss"], after["loss"])
    trained = ("lora_", "modules_to_save")
    now = {plain(name): p for name, p in model.named_parameters() if not any(part in name for part in trained)}
    assert now.keys() == weights.keys()
    assert all(torch.equal(now[name], weights[name]) for name in weights)


def test_lora_reaches_every_projection_of_every_block() -> None:
    lora = peft.LoraConfig(r=2, target_modules=list(LORA_TARGETS))
    model = peft.get_peft_model(build(CONFIG, 0), lora)
    wrapped = [name for name, module in model.named_modules() if name.endswith("lora_A.default")]
    assert len(wrapped) == CONFIG.depth * len(LORA_TARGETS)


def losses(model: nn.Module, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
    """Of a batch that is a whole step; `loss` is their sum."""
    counted = (batch.action_valid & batch.has_action[:, None, None]).sum()
    found = loss(model, batch, draws, Totals(len(batch), int(counted)))
    return found | {"loss": sum(found.values())}


def test_losses_of_parts_of_a_batch_add_up_to_its_own() -> None:
    batch, draws, model = random_batch(CONFIG), random_draws(CONFIG), awake(CONFIG)
    batch = replace(batch, has_action=torch.tensor([True, False]))
    of = Totals(2, int(batch.action_valid[0].sum()))
    whole = loss(model, batch, draws, of)
    parts = [
        loss(model, *(type(x)(**{n: t[i : i + 1] for n, t in vars(x).items()}) for x in (batch, draws)), of)
        for i in range(2)
    ]
    for name in whole:
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name], rtol=1e-5, atol=1e-6)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, draws: Draws) -> float:
    value = losses(model, batch, draws)["loss"]
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.item()


def plain(name: str) -> str:
    """A parameter's name before peft."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".original_module.", ".")
