"""The transformer's training pass against the reference: outputs, residual streams, gradients."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from goldens import Golden, assert_close, golden_json
from parity.dit import case, config_of, forward, loss_of, masked, model_of, packed, token_causal

from adapt.backbones.dreamzero.attention import Plan
from adapt.backbones.dreamzero.layout import Layout, training_layout
from adapt.backbones.dreamzero.model import DreamZeroDiT, Settings

SAME = ("a", "b", "d", "e", "e_odd", "f_no_tf", "g_3blocks")  # the reference's pattern is ours
REFERENCE_ONLY = ("c", "c_local", "d_global", "f_no_tf_video")  # ours differs, and a test says how
OUTPUT, HIDDEN, GRADIENT = 2e-5, 5e-5, 2e-5
WAYS = [(backend, trim) for backend in ("dense", "grouped", "flex", "packed") for trim in (False, True)]


def layout_of(facts: dict[str, Any], *, trim: bool = False) -> Layout:
    return training_layout(
        config_of(facts["constructor"]),
        frame_tokens=6,
        chunks=(facts["latent_frames"] - 1) // 2,
        clean=facts["teacher_forcing"],
        registers=facts["with_action"],
        trim=trim,
    )


def reference_plan(name: str, facts: dict[str, Any]) -> Plan:
    """What the reference computes where we compute something else."""
    layout = layout_of(facts)
    video = 54
    match name:
        case "f_no_tf_video":
            return masked(token_causal(video))
        case "c":  # clean tokens see every token before them; noisy ones see everything, their own answer too
            mask = torch.ones(2 * video, 2 * video, dtype=torch.bool)
            mask[:video] = torch.cat((token_causal(video), torch.zeros(video, video, dtype=torch.bool)), dim=1)
            return masked(mask)
        case "c_local":  # clean chunks as ours, but frame 0's answer is never written: zero in the fixture
            mask = torch.ones(2 * video, 2 * video, dtype=torch.bool)
            mask[:video] = ours(layout)[:video]
            return masked(mask, zero_rows=6)
        case "d_global":  # as ours, but clean tokens after frame 0 are causal token by token
            return masked(d_global_mask(layout, offset=0))
    raise AssertionError(name)


def ours(layout: Layout) -> torch.Tensor:
    owner = torch.repeat_interleave(torch.tensor([s.tokens for s in layout.segments]))
    return torch.tensor(layout.sees)[owner][:, owner]


def d_global_mask(layout: Layout, *, offset: int) -> torch.Tensor:
    """Clean frame 0 sees itself; a later clean token sees those before it, counted `offset` tokens too early."""
    mask = ours(layout)
    mask[6:54, :54] = token_causal(54)[6:54] if not offset else token_causal(54)[: 54 - offset]
    return mask


def check_gradients(model: DreamZeroDiT, facts: dict[str, Any], g: Golden) -> None:
    parameters = dict(model.named_parameters())
    for name, want in g.under("grad."):
        assert_close(parameters[name].grad, want, atol=GRADIENT * want.abs().max().item(), name=name)
    assert facts["grad_l2_and_sum"].keys() == parameters.keys()
    for name, figures in facts["grad_l2_and_sum"].items():
        grad = parameters[name].grad
        if figures is None:
            assert grad is None or not grad.any(), f"{name}: a gradient where the reference has none"
            continue
        norm, total = figures
        assert grad.double().norm().item() == pytest.approx(norm, rel=2e-5, abs=1e-8), name
        assert grad.double().sum().item() == pytest.approx(total, rel=1e-4, abs=2e-5 * norm * grad.numel() ** 0.5), name


@pytest.mark.parametrize(("attention", "trim"), WAYS)
@pytest.mark.parametrize("name", SAME)
def test_outputs_and_gradients_equal_the_reference(name: str, attention: str, trim: bool) -> None:
    facts, g = case(name)
    model = model_of(facts["constructor"])
    if attention == "packed":
        model.settings = Settings(trim=trim)
        model.plan_override = packed(layout_of(facts, trim=trim))
    else:
        model.settings = Settings(attention=attention, trim=trim)
    out = forward(model, facts, g)
    assert_close(out.video, g["out.video_noise_pred"], atol=OUTPUT, name="video")
    assert_close(out.action, g["out.action_noise_pred"], atol=OUTPUT, name="action")
    assert out.video.std().item() == pytest.approx(facts["std_video"], rel=1e-4)
    loss = loss_of(out, g)
    assert loss.item() == pytest.approx(g["out.loss"].item(), abs=1e-6) == facts["loss"]
    loss.backward()
    check_gradients(model, facts, g)


@pytest.mark.parametrize("name", SAME + REFERENCE_ONLY)
def test_residual_streams_equal_the_reference_untrimmed(name: str) -> None:
    facts, g = case(name)
    model = model_of(facts["constructor"])
    model.settings = Settings(attention="grouped", trim=False)
    if name in REFERENCE_ONLY:
        model.plan_override = reference_plan(name, facts)
    hidden: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, out: hidden.append(out.detach()))
    forward(model, facts, g)
    for index, stream in enumerate(hidden):
        assert_close(stream, g[f"out.hidden_after_block.{index}"], atol=HIDDEN, name=f"block {index}")


@pytest.mark.parametrize("name", REFERENCE_ONLY)
def test_where_we_differ_the_reference_is_reproduced_by_its_mask_alone(name: str) -> None:
    facts, g = case(name)
    model = model_of(facts["constructor"])
    model.settings = Settings(trim=False)
    model.plan_override = reference_plan(name, facts)
    out = forward(model, facts, g)
    assert_close(out.video, g["out.video_noise_pred"], atol=OUTPUT, name="video")
    if out.action is not None:
        assert_close(out.action, g["out.action_noise_pred"], atol=OUTPUT, name="action")
    loss = loss_of(out, g)
    assert loss.item() == pytest.approx(g["out.loss"].item(), abs=1e-6) == facts["loss"]
    loss.backward()
    check_gradients(model, facts, g)
    model.plan_override = None
    assert (forward(model, facts, g).video - out.video).abs().max() > 1e-3  # ours is another pattern, on purpose


@pytest.mark.parametrize("name", ["c", "d_global", "f_no_tf_video"])
def test_the_other_causal_alignment_is_the_fixtures_second_answer(name: str) -> None:
    facts, g = case(name)
    model = model_of(facts["constructor"])
    model.settings = Settings(trim=False)
    if name == "d_global":  # queries leave out frame 0, keys do not: aligned at the top left, each sees 6 tokens less
        model.plan_override = masked(d_global_mask(layout_of(facts), offset=6))
    else:
        model.plan_override = reference_plan(name, facts)  # equally many queries and keys: no difference
    out = forward(model, facts, g)
    assert_close(out.video, g["out.video_noise_pred_topleft_causal"], atol=OUTPUT, name="video")
    if out.action is not None:
        assert_close(out.action, g["out.action_noise_pred_topleft_causal"], atol=OUTPUT, name="action")
    differ = (g["out.video_noise_pred"] - g["out.video_noise_pred_topleft_causal"]).abs().max().item()
    assert differ == pytest.approx(facts["topleft_vs_bottomright_max_abs_diff"], abs=1e-6)


@pytest.mark.parametrize("name", ["c", "c_local"])
def test_video_alone_never_sees_the_latents_it_must_predict(name: str) -> None:
    """The reference's noisy tokens attend to the clean copy of their own frame. Ours do not: a wrong answer there moves
    no prediction of that chunk or of one before it."""
    facts, g = case(name)
    model = model_of(facts["constructor"])
    for chunk in range(4):
        changed = g["in.clean_latents"].clone()
        changed[:, :, 1 + 2 * chunk :] += 1.0
        outs = []
        for clean in (g["in.clean_latents"], changed):
            outs.append(
                model(
                    g["in.noisy_latents"], g["in.timestep"], g["in.context"], clip=None, y=g["in.y"], clean=clean
                ).video
            )
        moved = (outs[0] - outs[1]).abs().amax(dim=(0, 1, 3, 4))
        assert moved[: 3 + 2 * chunk].max() == 0
        assert chunk == 3 or moved[3 + 2 * chunk :].min() > 1e-4


def test_embodiment_ids_change_nothing_in_the_reference_so_ours_takes_none() -> None:
    for name in (*SAME, "d_global"):
        facts, g = case(name)
        assert g["in.embodiment_id"].shape == (facts["batch"],)


@pytest.mark.parametrize("name", ["f_no_tf", "f_no_tf_video"])
def test_without_teacher_forcing_the_clean_latents_of_the_fixture_are_left_out(name: str) -> None:
    facts, g = case(name)
    model = model_of(facts["constructor"])
    told = forward(model, facts | {"teacher_forcing": True}, g)
    assert g["in.clean_latents"].shape == told.video.shape
    assert (told.video - forward(model, facts, g).video).abs().max() > 1e-3


def test_timestep_ids_are_the_index_of_the_timesteps() -> None:
    for name in SAME + REFERENCE_ONLY:
        _, g = case(name)
        fraction = 1 - g["in.timestep_id"].double() / 1000
        assert_close(g["in.timestep"], 5000 * fraction / (1 + 4 * fraction), atol=1e-3, name=name)


def test_every_case_is_here() -> None:
    assert set(golden_json("dit_train")["cases"]) == {*SAME, *REFERENCE_ONLY}


def test_a_smaller_window_of_history_is_seen() -> None:
    """Case d differs from case a's pattern only in the window; the tolerance must tell them apart."""
    facts, g = case("d")
    model = model_of(facts["constructor"] | {"max_chunk_size": 4})
    assert (forward(model, facts, g).video - g["out.video_noise_pred"]).abs().max() > 1e-3
    assert replace(model.config, chunks=2) == config_of(facts["constructor"])
