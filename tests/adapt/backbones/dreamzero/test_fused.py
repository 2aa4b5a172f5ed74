"""Fused LoRA against peft's own and against float64: the same numbers, parameters and states, less kept."""

import copy

import peft
import pytest
import torch
from torch import Tensor, nn

from adapt.backbones.dreamzero.frozen import FrozenLinear, frozen
from adapt.backbones.dreamzero.fused import FusedForward, fuse


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(64, 96), nn.Linear(64, 96, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.q(x) * self.k(x)


def adapted(
    dtype: torch.dtype, *, trained: torch.dtype | None = None, weights: str = "plain", **lora: object
) -> nn.Module:
    torch.manual_seed(0)
    model = Two().to(dtype).requires_grad_(False)
    if weights != "plain":
        model.q = frozen(model.q, weights, fp8_matmul=False, name="q")
        model.k = frozen(model.k, weights, fp8_matmul=False, name="k")
    config = peft.LoraConfig(r=8, lora_alpha=24, target_modules=["q", "k"], **lora)
    model = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, dtype=torch.float64).to(trained or dtype)
    return model


def found(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Output, gradient of the input and of every adapter."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 50, 64, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    model.zero_grad()
    y = model(x)
    y.backward(torch.randn(y.shape, generator=generator, dtype=torch.float64).to(dtype))
    return {"y": y.detach(), "x": x.grad} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("weights", ["plain", "fp8", "int8"])
def test_float64_equals_peft(weights: str) -> None:
    model = adapted(torch.float64, weights=weights)
    theirs, names = found(model, torch.float64), list(model.state_dict())
    assert fuse(model) == 2
    ours = found(model, torch.float64)
    assert list(model.state_dict()) == names and ours.keys() == theirs.keys() and len(ours) == 6
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("trained", [torch.bfloat16, torch.float32])
def test_16_bit_errors_are_no_larger_than_pefts_own(trained: torch.dtype) -> None:
    model = adapted(torch.bfloat16, trained=trained)
    exact = found(copy.deepcopy(model).double(), torch.float64)
    theirs = found(copy.deepcopy(model).bfloat16(), torch.bfloat16)  # in which the adapters compute here too
    fuse(model)
    ours = found(model, torch.bfloat16)
    for name, value in exact.items():
        errors = [((got[name].double() - value).norm() / value.norm()).item() for got in (ours, theirs)]
        assert errors[0] <= 1.02 * errors[1], (name, errors)
        assert ours[name].dtype == (trained if "lora" in name else torch.bfloat16)


def test_nothing_of_the_outputs_size_is_kept_and_x_once() -> None:
    model = adapted(torch.float64)
    fuse(model)
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage()._cdata for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    x = torch.randn(1, 50, 64, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = model.base_model.model.q(x) + model.base_model.model.k(x)
    assert y.requires_grad
    assert sum(kept.values()) == 8 * 50 * (64 + 2 * 8)


def test_disabling_merging_and_copying_work_as_pefts() -> None:
    model = adapted(torch.float64)
    x = torch.randn(2, 5, 64, dtype=torch.float64)
    base = Two().double()
    base.load_state_dict(
        {n.replace(".base_layer", ""): t for n, t in model.base_model.model.state_dict().items() if "lora" not in n}
    )
    fuse(model)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), base(x), rtol=0, atol=1e-12)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.base_model.model.q.lora_B.default.weight.zero_()
    assert not torch.equal(twin(x), model(x))
    torch.testing.assert_close(copy.deepcopy(model).merge_and_unload()(x), model(x), rtol=0, atol=1e-12)


def test_dropout_and_dora_stay_pefts() -> None:
    assert fuse(adapted(torch.float32, lora_dropout=0.1)) == 0
    assert fuse(adapted(torch.float32, use_dora=True)) == 0
    model = adapted(torch.float32)
    assert (fuse(model), fuse(model)) == (2, 0)
    assert all(isinstance(getattr(model.base_model.model, n), FusedForward) for n in "qk")


def test_a_16_bit_base_in_fp8_has_float32_gradients_of_float32_adapters() -> None:
    model = adapted(torch.bfloat16, trained=torch.float32, weights="fp8")
    assert isinstance(model.base_model.model.q.base_layer, FrozenLinear)
    fuse(model)
    gradients = found(model, torch.bfloat16)
    assert {t.dtype for n, t in gradients.items() if "lora" in n} == {torch.float32}
