"""Two complete policy calls of the reference: 16 UniPC steps, guidance 5, cached history; and one training step."""

from typing import Any

import pytest
import torch
from goldens import Golden, assert_close, golden, golden_json
from parity.dit import clip_features, model_of
from torch import Tensor

from adapt.backbones.dreamzero.model import DreamZeroDiT, Settings
from adapt.backbones.dreamzero.objective import Batch, training_loss
from adapt.backbones.dreamzero.policy import REFERENCE, Policy, Sampling
from adapt.backbones.dreamzero.timesteps import Draws, action_ids_of, biased_ids, share_in_chunks
from adapt.backbones.dreamzero.unipc import FLASH_END_SIGMA

MODES = {
    "steps8_default": REFERENCE,
    "steps16": Sampling(guidance=5.0, state_sees_all=True),
    "steps16_decoupled": Sampling(guidance=5.0, state_sees_all=True, video_end_sigma=FLASH_END_SIGMA),
}


def tiny(layers: int = 3) -> DreamZeroDiT:
    return model_of(golden_json("dit_train")["cases"]["a"]["constructor"])


@pytest.mark.parametrize("mode", MODES)
def test_two_decisions_in_a_row_equal_the_reference(mode: str) -> None:
    g, facts = golden("e2e_policy_inference"), golden_json("e2e")["inference"][mode]
    model, calls = tiny(), []
    decode = model.decode

    def noted(video: Tensor, timestep: Tensor, *args: Any, first_frame: int, **rest: Any) -> Any:
        action = rest.get("action_timestep")
        calls.append([int(timestep[0, 0]), first_frame, None if action is None else int(action[0, 0])])
        return decode(video, timestep, *args, first_frame=first_frame, **rest)

    model.decode = noted  # only listens
    policy = Policy(model, MODES[mode])
    noise = g["in.noise_video"], g["in.noise_action"]
    session = policy.start(
        g["in.context"],
        g["in.first_latent"],
        clip=clip_features(1),
        y=g["in.y"],
        negative_text=g["in.context_negative"],
    )
    first = policy.act(session, g["in.state"], noise=noise)
    video = torch.cat((g["in.first_latent"], first.video), dim=2)  # the reference returns the first frame along
    assert_close(first.action, g[f"{mode}/out.call0.action_pred"], atol=1e-4, name="first action")
    assert_close(video, g[f"{mode}/out.call0.video_pred"], atol=1e-4, name="first video")
    policy.observe(session, g["in.latent_video_call1"])
    second = policy.act(session, g["in.state"], noise=noise)
    assert_close(second.action, g[f"{mode}/out.call1.action_pred"], atol=1e-4, name="second action")
    assert_close(second.video, g[f"{mode}/out.call1.video_pred"], atol=1e-4, name="second video")
    after = g[f"{mode}/out.current_start_frame"].item()  # the reference counts the predicted chunk at once
    assert session.next_frame + 2 == after
    kept = session.branches[0].cache.layer(0)
    assert g[f"{mode}/out.final_kv_cache_shape"].tolist() == list(kept.shape)
    assert calls == facts["model_calls"]
    assert [first.network_runs, second.network_runs] == [sum(facts["dit_step_mask"])] * 2
    assert facts["decouple_inference_noise"] == (MODES[mode].video_end_sigma > 0)


def recorded(g: Golden, part: str) -> Draws:
    if f"{part}/draw.video_beta" in g:
        ids, action_ids = biased_ids(g[f"{part}/draw.video_beta"]), g[f"{part}/draw.randint.0"]
        ids = share_in_chunks(ids, latents_per_chunk=2)
    else:
        ids = share_in_chunks(g[f"{part}/draw.randint.0"], latents_per_chunk=2)
        action_ids = action_ids_of(ids, latents_per_chunk=2, steps=24)
    return Draws(g[f"{part}/draw.randn_like.0"], ids, g[f"{part}/draw.randn_like.1"], action_ids)


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("part", ["coupled", "decoupled"])
def test_a_training_step_equals_the_reference(part: str, trim: bool) -> None:
    g, facts = golden("e2e_train_step"), golden_json("e2e")["train"][part]
    model = tiny()
    model.settings = Settings(trim=trim)
    assert g[f"{part}/in.embodiment_id"].shape == (1,)
    batch = Batch(
        latents=g[f"{part}/in.latents"],
        context=g[f"{part}/in.context"],
        has_action=tuple(g[f"{part}/in.has_real_action"].flatten().tolist()),
        action=g[f"{part}/in.action"],
        action_valid=g[f"{part}/in.action_mask"],
        state=g[f"{part}/in.state"],
        y=g[f"{part}/in.y"],
        clip=clip_features(1),
    )
    losses = training_loss(model, batch, recorded(g, part), reduction="reference")
    for name, got in {"loss": losses.total, "dynamics_loss": losses.video, "action_loss": losses.action}.items():
        assert got.item() == pytest.approx(facts[name], rel=1e-5), name
        assert got.item() == pytest.approx(g[f"{part}/out.{name}"].item(), rel=1e-5), name
    losses.total.backward()
    total = sum(p.grad.double().square().sum() for p in model.parameters() if p.grad is not None) ** 0.5
    assert total.item() == pytest.approx(facts["total_grad_l2"], rel=1e-5)
    assert total.item() == pytest.approx(g[f"{part}/out.total_grad_l2"].item(), rel=1e-5)
    parameters = dict(model.named_parameters())
    for key, want in g.under(f"{part}/grad."):
        assert_close(parameters[key].grad, want, atol=2e-5 * want.abs().max().item(), name=key)
