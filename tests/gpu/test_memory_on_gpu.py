"""Frozen forms, kept activations and fused LoRA on a GPU: kernels against their CPU twins, and memory that goes down.

Each has a twin on the CPU in tests/adapt/backbones/dreamzero; here everything is skipped without CUDA.
"""

from functools import partial

import pytest
import torch
from torch import nn

from adapt.backbones.dreamzero.config import DreamZeroConfig, preset
from adapt.backbones.dreamzero.frozen import frozen, frozen_bytes
from adapt.backbones.dreamzero.model import Settings, build
from adapt.backbones.dreamzero.prepare import prepare
from adapt.backbones.dreamzero.saved import saved_bytes
from adapt.planning.rung import Rung
from benchmarks.train_step import add_lora, lora_step, sample, tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
CUDA = torch.device("cuda")


def has_fp8_products() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)


def pair(weights: str, *, fp8_matmul: bool) -> tuple[nn.Module, nn.Module]:
    """The same frozen linear on the CPU and on the GPU."""
    torch.manual_seed(0)
    plain = nn.Linear(512, 1408, dtype=torch.bfloat16).requires_grad_(False)
    host = frozen(plain, weights, fp8_matmul=fp8_matmul, name="q")
    device = frozen(nn.Linear(512, 1408, dtype=torch.bfloat16, device=CUDA), weights, fp8_matmul=fp8_matmul, name="q")
    device.load_state_dict(host.state_dict())
    return host, device


def answers(layer: nn.Module, device: torch.device) -> list[torch.Tensor]:
    torch.manual_seed(1)
    x, gradient = torch.randn(2, 333, 512), torch.randn(2, 333, 1408)
    x = x.to(device, torch.bfloat16).requires_grad_()
    y = layer(x)
    y.backward(gradient.to(device, torch.bfloat16))
    return [y.detach().float().cpu(), x.grad.float().cpu()]


@pytest.mark.skipif(not has_fp8_products(), reason="this GPU has no fp8 products")
def test_fp8_kernels_give_the_numbers_of_their_twin() -> None:
    host, device = pair("fp8", fp8_matmul=True)
    for got, want in zip(answers(device, CUDA), answers(host, torch.device("cpu")), strict=True):
        # the same rounded numbers, summed in another order and with fewer bits inside the tensor cores
        torch.testing.assert_close(got, want, rtol=0, atol=5e-3 * want.abs().max().item())


@pytest.mark.parametrize("weights", ["fp8", "int8", "nf4"])
def test_stored_forms_dequantise_alike(weights: str) -> None:
    if weights == "nf4":
        pytest.importorskip("bitsandbytes", reason="an extra, and the lent machine has none")
    host, device = pair(weights, fp8_matmul=False)
    assert torch.equal(device.dequantised(torch.bfloat16).cpu(), host.dequantised(torch.bfloat16))
    for got, want in zip(answers(device, CUDA), answers(host, torch.device("cpu")), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-2 * want.abs().max().item())


def stepped(config: DreamZeroConfig, rung: Rung) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Loss, gradients, and bytes that the forward pass leaves behind."""
    model = build(config, device=CUDA, dtype=torch.bfloat16, seed=0)
    adapted = prepare(model, rung, partial(add_lora, rank=4, dtype=torch.bfloat16))
    model.settings = Settings("grouped", True, rung.activations, rung.selective_blocks)
    batch = sample(config, device=CUDA, dtype=torch.bfloat16)
    lora_step(adapted, *batch)
    adapted.zero_grad(set_to_none=True)
    before = torch.cuda.memory_allocated()
    from adapt.backbones.dreamzero.objective import training_loss

    loss = training_loss(adapted, *batch).total
    kept = torch.cuda.memory_allocated() - before
    loss.backward()
    torch.cuda.synchronize()
    return loss.detach(), {n: p.grad for n, p in adapted.named_parameters() if p.grad is not None}, kept


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("activations", ["selective", "full", "offload"])
def test_gradients_are_those_of_keeping_everything_and_memory_goes_down(activations: str, fused: bool) -> None:
    config = preset("mini", layers=4)
    loss, gradients, everything = stepped(config, Rung(activations="keep", fused_lora=fused))
    same_loss, same, kept = stepped(config, Rung(activations=activations, fused_lora=fused))
    assert torch.equal(same_loss, loss) and kept < 0.7 * everything
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, rtol=0, atol=2e-2 * gradient.abs().max().item(), msg=name)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_a_block_keeps_the_bytes_of_the_closed_form(kind: str) -> None:
    config = preset("mini", canvas=(352, 640))
    kept = [stepped(preset("mini", canvas=(352, 640), layers=n), Rung(activations=kind))[2] for n in (2, 4)]
    assert (kept[1] - kept[0]) / 2 == pytest.approx(saved_bytes(config, tokens(config), kind, 4), rel=0.03)


def test_a_streamed_14b_in_fp8_takes_its_bytes() -> None:
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("less than 40 GB free")
    model = build(preset("14b", layers=4), device=CUDA, dtype=torch.bfloat16, seed=0)
    adapted = prepare(model, Rung(weights="fp8"), partial(add_lora, rank=4, dtype=torch.bfloat16))
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() < 1.1 * frozen_bytes(adapted) + 2e9
    assert lora_step(adapted, *sample(model.config, device=CUDA, dtype=torch.bfloat16)).isfinite()
