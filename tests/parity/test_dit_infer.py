"""The transformer's cached pass against the reference: prefill, denoise, commit, next chunk; keys and values kept."""

import pytest
import torch
from goldens import assert_close, golden, golden_json
from parity.dit import clip_features, model_of

from adapt.backbones.dreamzero.cache import KVCache

CASES = ("i2v", "i2v_rolling", "ti2v")
OUTPUT, HIDDEN = 2e-5, 5e-5


@pytest.mark.parametrize("attention", ["dense", "grouped", "flex"])
@pytest.mark.parametrize("name", CASES)
def test_every_call_of_a_session_equals_the_reference(name: str, attention: str) -> None:
    facts, g = golden_json("dit_infer")[name], golden(f"dit_infer_{name}")
    model = model_of(facts["constructor"])
    model.settings = type(model.settings)(attention=attention)
    cache = KVCache(model.config, batch=1, frame_tokens=6, device=torch.device("cpu"), dtype=torch.float32)
    assert cache.most == facts["max_attention_size"]
    context = model.context_keys_values(g["in.context"], clip_features(1))
    for key, shape in facts["shapes"].items():
        assert list(g.raw(key).shape) == shape

    def y(start: int, stop: int) -> torch.Tensor:
        return g["in.y"][:, :, start:stop]

    def keep(label: str, start: int, stop: int) -> None:
        zero = torch.zeros(1, stop - start)
        clean = g["in.clean_latents"][:, :, start:stop]
        out = model.decode(clean, zero, context, cache, first_frame=start, y=y(start, stop), commit=True)
        assert_close(out.video, g[f"out.{label}.video"], atol=OUTPUT, name=f"{label} video")
        for layer in range(model.config.layers):
            key = f"out.{label}.kv_cache.layer{layer}"
            if key in g:
                assert_close(cache.layer(layer), g[key], atol=HIDDEN, name=key)

    keep("prefill0", 0, 1)
    for block in range(facts["blocks"]):
        start, part = 1 + 2 * block, f"in.block{block}"
        out = model.decode(
            g[f"{part}.noisy_latents"],
            g[f"{part}.timestep"].float(),
            context,
            cache,
            first_frame=start,
            y=y(start, start + 2),
            state=g[f"{part}.state"],
            action=g[f"{part}.noisy_action"],
            action_timestep=g[f"{part}.timestep_action"].float(),
            state_sees_all=True,  # the reference's; in training the state sees itself alone
        )
        assert_close(out.video, g[f"out.block{block}.video_noise_pred"], atol=OUTPUT, name=f"block {block} video")
        assert_close(out.action, g[f"out.block{block}.action_noise_pred"], atol=OUTPUT, name=f"block {block} action")
        if f"out.commit{block}.video" in g:
            keep(f"commit{block}", start, start + 2)
    assert g["in.state"].shape == (1, 1, 64)  # the reference is given one at prefill, and uses none


def test_every_case_is_here() -> None:
    assert {*CASES} == set(golden_json("dit_infer"))
