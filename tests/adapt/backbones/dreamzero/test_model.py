"""The transformer beyond parity: exact trimming, caching, mixed batches, sizes."""

from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adapt.backbones.dreamzero.block import gated, modulated
from adapt.backbones.dreamzero.cache import KVCache
from adapt.backbones.dreamzero.config import DreamZeroConfig, preset
from adapt.backbones.dreamzero.model import HEAD_MODULES, LORA_TARGETS, DreamZeroDiT, Settings, build
from adapt.backbones.dreamzero.rope import rotate

TINY = preset("tiny", layers=3)


def tiny(*, seed: int = 0, dtype: torch.dtype = torch.float64, config: DreamZeroConfig = TINY) -> DreamZeroDiT:
    return build(config, device="cpu", seed=seed).to(dtype)


def window(
    config: DreamZeroConfig = TINY,
    *,
    batch: int = 2,
    chunks: int = 4,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Random arguments of a forward pass."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        if device == "meta":
            return torch.empty(shape, device="meta", dtype=dtype)
        return torch.randn(shape, generator=generator, dtype=dtype)

    frames, (height, width) = 1 + chunks * config.latents_per_chunk, config.latent_grid
    per_frame = draw(batch, 1 + chunks).abs() * 300
    timestep = torch.cat((per_frame[:, :1], per_frame[:, 1:].repeat_interleave(config.latents_per_chunk, 1)), dim=1)
    video = (batch, config.out_dim, frames, height, width)
    y = draw(batch, config.conditioning_dim, *video[2:]) if config.conditioning_dim else None
    arguments = draw(*video), timestep, draw(batch, config.text_len, config.text_dim)
    rest = {
        "clip": draw(batch, config.clip_tokens, config.clip_dim),
        "y": y,
        "clean": draw(*video),
        "state": draw(batch, chunks * config.states_per_chunk, config.state_dim),
        "action": draw(batch, chunks * config.steps, config.action_dim),
        "action_timestep": per_frame[:, 1:],
    }
    return arguments, rest


def with_lora(model: DreamZeroDiT) -> torch.nn.Module:
    """LoRA whose B is not zero, so that gradients reach A."""
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=[*LORA_TARGETS], modules_to_save=[*HEAD_MODULES])
    wrapped = peft.get_peft_model(model, config).double()
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return wrapped


@pytest.mark.parametrize(("size", "parameters", "tensors"), [("14b", 16_484_292_448, 1317), ("5b", 5_606_692_832, 997)])
def test_released_sizes_have_exactly_the_released_parameters(size: str, parameters: int, tensors: int) -> None:
    model = build(size)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("chunks", [1, 2, 4])
@pytest.mark.parametrize("attention", ["dense", "grouped"])
def test_trimming_changes_no_output_and_no_lora_gradient(attention: str, chunks: int) -> None:
    torch.manual_seed(0)
    model = with_lora(tiny())
    results = []
    for trim in (False, True):
        model.base_model.model.settings = Settings(attention=attention, trim=trim)
        arguments, rest = window(chunks=chunks)
        out = model(*arguments, **rest)
        model.zero_grad()
        (out.video.square().mean() + out.action.square().mean()).backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        results.append((out.video, out.action, grads))
    (video, action, grads), (trimmed_video, trimmed_action, trimmed_grads) = results
    torch.testing.assert_close(trimmed_video, video, rtol=0, atol=1e-12)
    torch.testing.assert_close(trimmed_action, action, rtol=0, atol=1e-12)
    assert grads.keys() == trimmed_grads.keys() and len(grads) == 2 * 10 * 3 + 14
    for name, grad in grads.items():
        torch.testing.assert_close(trimmed_grads[name], grad, rtol=0, atol=1e-12 + 1e-10 * grad.abs().max().item())
        assert grad.any()


def test_trimming_saves_what_was_derived_for_the_14b() -> None:
    """TFLOP of one 14B sample's forward pass, counted on the meta device: 463.1 as shipped, 399.0 here."""
    shipped_time_embedding = 15_940 * 2 * 5120 * (256 + 5120 + 6 * 5120) / 1e12  # per token there, per timestep here

    def counted(layers: int, *, trim: bool) -> float:
        config = preset("14b", layers=layers)
        model = build(config)
        model.settings = Settings(attention="grouped", trim=trim)
        arguments, rest = window(config, batch=1, dtype=torch.float32, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(*arguments, **rest)
        return counter.get_total_flops() / 1e12

    def of_40_layers(*, trim: bool) -> float:  # all layers but the last cost the same
        one, two = counted(1, trim=trim), counted(2, trim=trim)
        return one + 39 * (two - one)

    shipped = of_40_layers(trim=False) + shipped_time_embedding
    ours = of_40_layers(trim=True)
    assert shipped == pytest.approx(463.1, abs=0.1)
    assert ours == pytest.approx(399.0, abs=0.1)
    assert 1 - ours / shipped == pytest.approx(0.138, abs=0.001)


@pytest.mark.parametrize("size", ["tiny", "tiny-5b"])
def test_cached_decoding_of_a_chunk_equals_the_training_pass(size: str) -> None:
    """What a policy computes is what was trained: the same clean history, noise and state give the same velocities."""
    config = preset(size)
    model = tiny(config=config)
    (noisy, timestep, text), rest = window(config, batch=1)
    want = model(noisy, timestep, text, **rest)
    context = model.context_keys_values(text, rest["clip"])
    cache = KVCache(config, batch=1, frame_tokens=config.frame_tokens, device=model.device, dtype=torch.float64)

    def part(key: str, start: int, stop: int) -> Tensor | None:
        return None if rest[key] is None else rest[key][:, :, start:stop]

    spans = [(0, 1), *((1 + 2 * c, 3 + 2 * c) for c in range(4))]
    for chunk, (start, stop) in enumerate(spans[1:]):
        before = spans[chunk]
        zero = torch.zeros(1, before[1] - before[0], dtype=torch.float64)
        model.decode(
            part("clean", *before), zero, context, cache, first_frame=before[0], y=part("y", *before), commit=True
        )
        got = model.decode(
            noisy[:, :, start:stop],
            timestep[:, start:stop],
            context,
            cache,
            first_frame=start,
            y=part("y", start, stop),
            state=rest["state"][:, chunk : chunk + 1],
            action=rest["action"][:, 24 * chunk : 24 * chunk + 24],
            action_timestep=rest["action_timestep"][:, chunk : chunk + 1],
        )
        torch.testing.assert_close(got.video, want.video[:, :, start:stop], rtol=0, atol=1e-11)
        torch.testing.assert_close(got.action, want.action[:, 24 * chunk : 24 * chunk + 24], rtol=0, atol=1e-11)


def test_a_rolled_cache_keeps_the_newest_frames() -> None:
    config = preset("tiny", chunks=1, layers=1)
    cache = KVCache(config, batch=1, frame_tokens=6, device=torch.device("cpu"), dtype=torch.float32)
    seen = []
    for frame, frames in ((0, 1), (1, 2), (3, 2)):
        new = torch.arange(frame * 6, (frame + frames) * 6).float().view(1, -1, 1, 1).expand(1, -1, 4, 32)
        keys, _ = cache.extended(0, new, new, video=frames * 6)
        seen.append((keys[0, 0, 0, 0].item(), keys.shape[1]))
        cache.commit(frames * 6)
    assert seen == [(0.0, 6), (0.0, 18), (12.0, 18)]
    assert cache.layer(0)[0, 0, :, 0, 0].tolist() == [float(t) for t in range(12, 30)]


@pytest.mark.parametrize("attention", ["dense", "grouped", "flex"])
def test_a_mixed_batch_is_its_samples_one_by_one(attention: str) -> None:
    """With actions: as alone. Without: as video alone, whatever lies in the padding."""
    model = tiny(dtype=torch.float32)
    model.settings = Settings(attention=attention)
    (noisy, timestep, text), rest = window(batch=3, dtype=torch.float32)
    has_action = (True, False, True)
    mixed = model(noisy, timestep, text, **rest, has_action=has_action)
    for i, has in enumerate(has_action):
        alone = {k: None if v is None else v[i : i + 1] for k, v in rest.items()}
        if not has:
            alone |= {"state": None, "action": None, "action_timestep": None}
        want = model(noisy[i : i + 1], timestep[i : i + 1], text[i : i + 1], **alone)
        torch.testing.assert_close(mixed.video[i : i + 1], want.video, rtol=0, atol=2e-5)
        if has:
            torch.testing.assert_close(mixed.action[i : i + 1], want.action, rtol=0, atol=2e-5)


def test_actions_of_a_video_only_sample_reach_no_video_and_no_gradient() -> None:
    model = tiny()
    (noisy, timestep, text), rest = window(batch=2)
    rest["action"].requires_grad_()
    rest["state"].requires_grad_()
    model(noisy, timestep, text, **rest, has_action=(True, False)).video.square().sum().backward()
    assert rest["action"].grad[0].any() and rest["state"].grad[0].any()
    assert not rest["action"].grad[1].any() and not rest["state"].grad[1].any()


@pytest.mark.parametrize("attention", ["dense", "grouped", "flex"])
def test_tables_made_in_inference_mode_train_afterwards(attention: str) -> None:
    config = preset("tiny", layers=1, steps=23)  # a layout that no other test has made
    model = tiny(config=config)
    model.settings = Settings(attention=attention)
    arguments, rest = window(config)
    with torch.inference_mode():
        want = model(*arguments, **rest).video
    out = model(*arguments, **rest)
    out.video.square().sum().backward()
    assert torch.equal(out.video, want)


def test_a_whole_batch_without_actions_takes_no_state_and_costs_no_register() -> None:
    from adapt.backbones.dreamzero.objective import Batch, training_loss
    from adapt.backbones.dreamzero.timesteps import draw

    (latents, _, text), rest = window(dtype=torch.float32)
    padded = Batch(
        latents=latents,
        context=text,
        has_action=(False, False),
        action=torch.full((2, 96, 32), 7.0),
        action_valid=torch.zeros(2, 96, 32, dtype=torch.bool),
        y=rest["y"],
        clip=rest["clip"],
    )
    draws = draw(TINY, seeds=[0, 1], latent_shape=(9, 4, 6), rows=96)
    model = tiny(dtype=torch.float32)
    losses = training_loss(model, padded, draws)
    bare = replace(padded, action=padded.action[:, :0], action_valid=padded.action_valid[:, :0])
    assert torch.equal(losses.total, training_loss(model, bare, draws).total)
    assert losses.action == 0
    losses.total.backward()
    assert model.action_decoder.layer2.W.grad is None and model.state_encoder.layer1.W.grad is None


def test_a_batch_without_actions_gives_every_head_a_gradient_of_zero_where_it_has_rows_and_a_state() -> None:
    """Ranks of a divided model must reduce the same tensors, whatever their samples hold."""
    from adapt.backbones.dreamzero.objective import Batch, training_loss
    from adapt.backbones.dreamzero.timesteps import draw

    (latents, _, text), rest = window(dtype=torch.float64)
    rows = {"action": torch.zeros(2, 96, 32), "action_valid": torch.zeros(2, 96, 32, dtype=torch.bool)}
    pictures = {"latents": latents, "context": text, "y": rest["y"], "clip": rest["clip"]}
    batch = Batch(**pictures, has_action=(False, False), state=torch.zeros(2, 4, TINY.state_dim), **rows)
    model = tiny(dtype=torch.float64)
    losses = training_loss(model, batch, draw(TINY, seeds=[0, 1], latent_shape=(9, 4, 6), rows=96))
    losses.total.backward()
    heads = {n: p.grad for n, p in model.named_parameters() if n.startswith(("action_", "state_encoder"))}
    assert heads and all(grad is not None and not grad.any() for grad in heads.values()) and losses.action == 0
    bare = replace(batch, state=None, **{n: t[:, :0] for n, t in rows.items()})
    alone = training_loss(model, bare, draw(TINY, seeds=[0, 1], latent_shape=(9, 4, 6), rows=0))
    torch.testing.assert_close(losses.video, alone.video, rtol=1e-10, atol=0)


def test_evaluation_without_gradients_works_and_recomputing_changes_nothing() -> None:
    model = tiny()
    arguments, rest = window()
    with torch.no_grad():
        plain = model(*arguments, **rest).video
    grads = []
    for activations in ("keep", "full"):
        model.settings = Settings(activations=activations)
        model.zero_grad()
        out = model(*arguments, **rest)
        assert torch.equal(out.video, plain)
        out.video.square().sum().backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert all(torch.equal(grads[0][n], grads[1][n]) for n in grads[0])


def test_one_action_timestep_a_chunk_is_the_same_given_for_every_row() -> None:
    model = tiny()
    arguments, rest = window()
    by_chunk = model(*arguments, **rest)
    by_row = model(*arguments, **rest | {"action_timestep": rest["action_timestep"].repeat_interleave(24, 1)})
    torch.testing.assert_close(by_row.video, by_chunk.video, rtol=0, atol=1e-12)
    torch.testing.assert_close(by_row.action, by_chunk.action, rtol=0, atol=1e-12)


def test_heads_and_lora_train_in_float32_on_a_bfloat16_base() -> None:
    model = with_lora(tiny(dtype=torch.bfloat16))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else torch.bfloat16)
    arguments, rest = window(dtype=torch.float32)
    out = model(*arguments, **rest)
    assert out.video.dtype == torch.bfloat16 and out.action.dtype == torch.float32
    (out.video.float().square().mean() + out.action.square().mean()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
            assert parameter.grad.isfinite().all(), name


def test_bfloat16_stays_near_float32() -> None:
    arguments, rest = window(dtype=torch.float32)
    exact = tiny(dtype=torch.float32)(*arguments, **rest)
    rough = tiny(dtype=torch.bfloat16)(*arguments, **rest)
    assert rough.video.dtype == rough.action.dtype == torch.bfloat16
    for got, want in ((rough.video, exact.video), (rough.action, exact.action)):
        assert (got.float() - want).abs().mean() < 0.01 * want.std()


def test_a_bfloat16_stream_is_modulated_gated_and_rotated_in_float32() -> None:
    """Each ends within one rounding of the exact answer; computed in bfloat16 it would be several."""
    generator = torch.Generator().manual_seed(0)
    x, update = torch.randn(2, 4096, generator=generator).bfloat16()
    scale, shift = torch.randn(2, 4096, generator=generator) * 0.01
    angles = torch.randn(2048, generator=generator)
    exact = x.double()
    pairs = exact.unflatten(-1, (-1, 2))
    turned = torch.stack(
        (
            pairs[:, 0] * angles.double().cos() - pairs[:, 1] * angles.double().sin(),
            pairs[:, 0] * angles.double().sin() + pairs[:, 1] * angles.double().cos(),
        ),
        dim=-1,
    ).flatten()
    for got, want in (
        (modulated(x, shift, scale), exact * (1 + scale.double()) + shift.double()),
        (gated(x, update, scale), exact + update.double() * scale.double()),
        (rotate(x, (angles.cos(), angles.sin())), turned),
    ):
        assert got.dtype == torch.bfloat16
        assert ((got.double() - want).abs() <= want.abs() * 2**-8 + 1e-6).all()


def test_timesteps_of_any_dtype_count_as_they_are() -> None:
    arguments, rest = window(dtype=torch.float32)
    model = tiny(dtype=torch.float32)
    rest["action_timestep"] = rest["action_timestep"] + 0.5
    want = model(*arguments, **rest)
    whole = arguments[0], arguments[1].long(), arguments[2]
    rounded = arguments[0], arguments[1].long().float(), arguments[2]
    torch.testing.assert_close(model(*whole, **rest).action, model(*rounded, **rest).action, rtol=0, atol=0)
    assert (model(*whole, **rest).action - want.action).abs().max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": torch.zeros(1, 95, 32)}, "95 action rows: wanted 4 chunks of 24"),
        ({"state": torch.zeros(1, 3, 64)}, "3 state rows: wanted 4"),
        ({"y": None}, "conditioned on the first frame"),
        ({"state": None}, "actions come with a state"),
        ({"has_action": (True, False)}, "one has_action a sample"),
        ({"clean": torch.zeros(1, 16, 7, 4, 6)}, "wanted clean latents of this shape"),
        ({"action": None}, "timesteps of actions, and no actions"),
        ({"action_timestep": torch.zeros(1, 7)}, "7 timesteps of actions: wanted 4 or 96"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    arguments, rest = window(batch=1, dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        tiny(dtype=torch.float32)(*arguments, **rest | change)


def test_frames_that_make_no_whole_chunk_are_refused() -> None:
    (noisy, timestep, text), rest = window(batch=1, dtype=torch.float32)
    with pytest.raises(ValueError, match="8 latent frames.*whole chunks of 2"):
        tiny(dtype=torch.float32)(noisy[:, :, :8], timestep[:, :8], text, **rest)


def test_an_unknown_size_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'70b': not known. Give one of: 14b, 5b"):
        build("70b")
    with pytest.raises(ValueError, match="even width"):
        replace(TINY, heads=3)
