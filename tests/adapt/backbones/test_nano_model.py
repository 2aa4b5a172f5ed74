"""What may influence what, measured by changing inputs; what an untrained model says; what is deterministic."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adapt.backbones.nano.autoencoder import hold
from adapt.backbones.nano.batch import Batch, Draws, draws_for
from adapt.backbones.nano.config import NanoConfig, tiny
from adapt.backbones.nano.model import Context, NanoWAM, Noisy, build
from adapt.backbones.nano.objective import noised

CONFIG = replace(tiny(), hide_video=0.0)
LEVEL = torch.tensor([[0.9, 0.5, 0.7], [0.3, 1.0, 0.6]])


def awake(config: NanoConfig, seed: int = 0) -> NanoWAM:
    """A model whose zero-initialised layers are not zero, so that nothing is independent by accident."""
    model = build(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def random_batch(config: NanoConfig, size: int = 2, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator)

    chunks, steps = config.chunks, config.steps
    return Batch(
        latents=normal(config.num_latents, config.channels, *config.grid),
        state=normal(chunks, config.state_width),
        history=normal(chunks, config.lags, config.state_width),
        last_action=normal(chunks, config.action_width * config.last_command),
        action=normal(chunks, steps, config.action_width),
        action_valid=torch.ones(size, chunks, steps, dtype=torch.bool),
        has_action=torch.ones(size, dtype=torch.bool),
        text=normal(config.text_width),
    )


def random_draws(config: NanoConfig, size: int = 2) -> Draws:
    return Draws.stack([draws_for(0, 0, f"clip@{i:06d}", config) for i in range(size)])


@pytest.fixture
def inputs() -> tuple[Context, Noisy]:
    context, noisy = noised(CONFIG, random_batch(CONFIG), random_draws(CONFIG), level=LEVEL)
    return context, replace(noisy, hide_video=torch.zeros(2, dtype=torch.bool))


def changed(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> tuple[list[bool], list[bool]]:
    """Per predicted block, whether its video and its actions differ at all."""
    video, action = ((a != b).transpose(0, 1).flatten(1).any(1).tolist() for a, b in zip(before, after, strict=True))
    return video, action


def bumped(tensor: Tensor, *index: int | slice) -> Tensor:
    copy = tensor.clone()
    copy[(slice(None), *index)] += 1.0
    return copy


@torch.no_grad()
@pytest.mark.parametrize("frame, first_block", [(0, 0), (1, 1), (2, 2)])
def test_clean_frames_reach_only_the_blocks_after_them(
    inputs: tuple[Context, Noisy], frame: int, first_block: int
) -> None:
    model, (context, noisy) = awake(CONFIG), inputs
    clean, seen = bumped(context.clean, frame), bumped(context.seen, frame)
    other = replace(context, clean=clean, seen=seen)
    wanted = [block >= first_block for block in range(3)]
    assert changed(model(context, noisy), model(other, noisy)) == (wanted, wanted)


@torch.no_grad()
@pytest.mark.parametrize("field", ["video", "action", "state", "level"])
def test_what_belongs_to_a_block_reaches_only_that_block(inputs: tuple[Context, Noisy], field: str) -> None:
    model, (context, noisy) = awake(CONFIG), inputs
    for block in range(3):
        other = replace(noisy, **{field: bumped(getattr(noisy, field), block) * 1.0})
        wanted = [b == block for b in range(3)]
        assert changed(model(context, noisy), model(context, other)) == (wanted, wanted)


@torch.no_grad()
def test_the_clean_copy_of_a_block_never_reaches_its_own_prediction() -> None:
    """The window's latents are changed where block 1 lies, but its noisy copy is kept as it was."""
    model, batch, draws = awake(CONFIG), random_batch(CONFIG), random_draws(CONFIG)
    context, noisy = noised(CONFIG, batch, draws, level=LEVEL)
    other, _ = noised(CONFIG, replace(batch, latents=bumped(batch.latents, 2)), draws, level=LEVEL)
    video, action = changed(model(context, noisy), model(other, noisy))
    assert video == action == [False, False, True]


@torch.no_grad()
def test_video_of_a_sample_without_actions_ignores_actions_and_state(inputs: tuple[Context, Noisy]) -> None:
    model, (context, noisy) = awake(CONFIG), inputs
    noisy = replace(noisy, has_action=torch.tensor([True, False]))
    other = replace(noisy, action=noisy.action + 1, state=noisy.state - 1)
    (video, _), (other_video, _) = model(context, noisy), model(context, other)
    assert torch.equal(video[1], other_video[1])
    assert not torch.equal(video[0], other_video[0])


@torch.no_grad()
def test_hidden_video_does_not_reach_actions_but_actions_reach_video(inputs: tuple[Context, Noisy]) -> None:
    model, (context, noisy) = awake(CONFIG), inputs
    noisy = replace(noisy, hide_video=torch.tensor([False, True]))
    _, action = model(context, noisy)
    _, other = model(
        replace(context, clean=context.clean + 1, seen=context.seen + 1), replace(noisy, video=noisy.video - 1)
    )
    assert torch.equal(action[1], other[1])
    assert not torch.equal(action[0], other[0])
    video, _ = model(context, noisy)
    moved, _ = model(context, replace(noisy, action=noisy.action + 1))
    assert not torch.equal(video[1], moved[1])


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch(inputs: tuple[Context, Noisy]) -> None:
    model, (context, noisy) = awake(CONFIG), inputs
    both = model(context, noisy)
    alone = model(
        Context(context.clean[:1], context.seen[:1], context.text[:1]),
        Noisy(noisy.blocks, *(getattr(noisy, name)[:1] for name in list(Noisy.__dataclass_fields__)[1:])),
    )
    for a, b in zip(alone, both, strict=True):
        torch.testing.assert_close(a, b[:1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_untrained_model_stands_still_and_repeats_the_last_frame(inputs: tuple[Context, Noisy]) -> None:
    context, noisy = inputs
    video, action = build(CONFIG, 0)(context, noisy)
    assert not action.any()
    still = hold(context.clean[:, [0, 1, 2]], CONFIG.static_channels)
    assert torch.equal(video, still[:, :, None].expand_as(video))


@torch.no_grad()
def test_empty_text_is_its_own_condition(inputs: tuple[Context, Noisy]) -> None:
    model, (context, noisy) = awake(CONFIG), inputs
    silent = replace(context, text=torch.zeros_like(context.text))
    assert changed(model(context, noisy), model(silent, noisy)) == ([True] * 3, [True] * 3)
    model.no_text.add_(1)
    assert changed(model(context, noisy), model(context, noisy)) == ([False] * 3, [False] * 3)


def test_a_model_depends_on_config_and_seed_alone() -> None:
    torch.manual_seed(1)
    first = build(CONFIG, 5).state_dict()
    torch.manual_seed(2)
    again, other = build(CONFIG, 5).state_dict(), build(CONFIG, 6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["place"], other["place"])


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    build(CONFIG, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_patches_and_their_inverse_are_a_round_trip() -> None:
    model = build(CONFIG, 0)
    latents = torch.randn(2, 3, CONFIG.channels, *CONFIG.grid)
    assert torch.equal(model._unpatch(model._patch(latents).flatten(1, 2)), latents)


def test_config_survives_its_dict() -> None:
    assert NanoConfig.from_dict(CONFIG.to_dict()) == CONFIG


def test_draws_depend_only_on_seed_epoch_and_window() -> None:
    torch.manual_seed(1)
    first = draws_for(3, 1, "clip@000004", CONFIG)
    torch.manual_seed(2)
    again = draws_for(3, 1, "clip@000004", CONFIG)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in Draws.__dataclass_fields__)
    for seed, epoch, window in [(4, 1, "clip@000004"), (3, 2, "clip@000004"), (3, 1, "clip@000005")]:
        assert not torch.equal(first.video, draws_for(seed, epoch, window, CONFIG).video)
