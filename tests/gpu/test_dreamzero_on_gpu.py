"""DreamZero on a GPU: attentions agree compiled and in 16 bit, the step waits for nothing, the real 14B runs.

Each has a twin on the CPU at a tiny size, in tests/adapt/backbones/dreamzero; here everything is skipped without CUDA.
"""

import peft
import pytest
import torch

from adapt.backbones.dreamzero.attention import attend
from adapt.backbones.dreamzero.config import DreamZeroConfig, preset
from adapt.backbones.dreamzero.layout import Layout, decoding_layout, training_layout
from adapt.backbones.dreamzero.model import HEAD_MODULES, LORA_TARGETS, Settings, build
from adapt.backbones.dreamzero.objective import Batch, training_loss
from adapt.backbones.dreamzero.policy import Policy, Sampling
from adapt.backbones.dreamzero.timesteps import draw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
CUDA = torch.device("cuda")
WHOLE_14B_BYTES = 80e9


def layouts() -> dict[str, Layout]:
    config = preset("14b")
    return {
        "trimmed": training_layout(config, frame_tokens=110, chunks=4),
        "whole": training_layout(config, frame_tokens=110, chunks=4, trim=False),
        "decoding": decoding_layout(config, frame_tokens=110, cached_frames=5, first_frame=5, frames=2, registers=True),
    }


@pytest.mark.parametrize("has_action", [(True,), (False, True)])
@pytest.mark.parametrize("name", ["trimmed", "whole", "decoding"])
def test_compiled_flex_and_varlen_equal_the_dense_mask(name: str, has_action: tuple[bool, ...]) -> None:
    layout = layouts()[name]
    queries = (layout.asking, layout.tokens)
    torch.manual_seed(0)
    q = torch.randn(2, queries[1] - queries[0], 4, 128, device=CUDA)
    k, v = torch.randn(2, 2, layout.tokens, 4, 128, device=CUDA)

    def answers(backend: str, dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [t.to(dtype).requires_grad_() for t in (q, k, v)]
        out = attend(layout, queries, backend, CUDA, has_action)(*inputs)
        out.float().square().sum().backward()
        return [out.detach().float(), *(t.grad.float() for t in inputs)]

    exact = answers("dense", torch.float32)
    for backend in ("grouped", "flex"):
        for got, want in zip(answers(backend, torch.float32), exact, strict=True):
            torch.testing.assert_close(got, want, atol=5e-3 * want.abs().max().item(), rtol=0)  # tf32 in the kernels
    for backend in ("grouped", "flex", "varlen"):
        for got, want in zip(answers(backend, torch.bfloat16), exact, strict=True):
            torch.testing.assert_close(got, want, atol=2e-2 * want.abs().max().item(), rtol=0)


def batch_of(config: DreamZeroConfig, dtype: torch.dtype) -> Batch:
    frames, (height, width) = config.window_latents, config.latent_grid
    rows = config.chunks * config.steps

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=CUDA, dtype=dtype)

    return Batch(
        latents=random(1, config.out_dim, frames, height, width),
        context=random(1, config.text_len, config.text_dim),
        has_action=(True,),
        action=torch.rand(1, rows, config.action_dim, device=CUDA) * 2 - 1,
        action_valid=torch.ones(1, rows, config.action_dim, dtype=torch.bool, device=CUDA),
        state=random(1, config.chunks * config.states_per_chunk, config.state_dim),
        y=random(1, config.conditioning_dim, frames, height, width) if config.conditioning_dim else None,
        clip=random(1, config.clip_tokens, config.clip_dim),
    )


def with_lora(model: torch.nn.Module) -> torch.nn.Module:
    lora = peft.LoraConfig(r=4, lora_alpha=4, target_modules=[*LORA_TARGETS], modules_to_save=[*HEAD_MODULES])
    return peft.get_peft_model(model, lora)


def step(
    model: torch.nn.Module, batch: Batch, config: DreamZeroConfig, optimizer: torch.optim.Optimizer
) -> torch.Tensor:
    shape = (config.window_latents, *config.latent_grid)
    draws = draw(config, seeds=[0], latent_shape=shape, rows=config.chunks * config.steps).to(CUDA)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = training_loss(model, batch, draws).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return loss.detach()


def test_a_training_step_waits_for_nothing() -> None:
    config = preset("mini", layers=2)
    model = with_lora(build(config, device=CUDA, dtype=torch.bfloat16, seed=0))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    batch = batch_of(config, torch.bfloat16)
    training_loss(
        model, batch, draw(config, seeds=[1], latent_shape=(9, 12, 20), rows=96).to(CUDA)
    )  # builds its tables
    losses = [step(model, batch, config, optimizer) for _ in range(3)]
    assert torch.stack(losses).isfinite().all()


def test_the_real_14b_trains_and_acts_within_80_gb() -> None:
    if torch.cuda.get_device_properties(0).total_memory < WHOLE_14B_BYTES:
        pytest.skip("less than 80 GB of GPU memory")
    config = preset("14b")
    torch.cuda.reset_peak_memory_stats()
    model = build(config, device=CUDA, dtype=torch.bfloat16, seed=0)
    batch = batch_of(config, torch.bfloat16)
    with torch.no_grad():
        zero = torch.full((1, 9), 500.0, device=CUDA)
        out = model(batch.latents, zero, batch.context, clip=batch.clip, y=batch.y, clean=batch.latents)
    assert out.video.isfinite().all() and out.action is None
    policy = Policy(model, Sampling(steps=2, computed=2))
    session = policy.start(batch.context, batch.latents[:, :, :1], clip=batch.clip, y=batch.y)
    assert policy.act(session, batch.state[:, :1]).action.shape == (1, 24, 32)
    del session
    model.settings = Settings(activations="full")
    wrapped = with_lora(model)
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], fused=True)
    training_loss(wrapped, batch, draw(config, seeds=[1], latent_shape=(9, 44, 80), rows=96).to(CUDA)).total.backward()
    assert step(wrapped, batch, config, optimizer).isfinite()
    assert torch.cuda.max_memory_allocated() <= WHOLE_14B_BYTES
