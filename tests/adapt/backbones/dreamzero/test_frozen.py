"""Frozen linears: errors bounded on weights of the real spread, bytes exact, nothing trained and nothing undone."""

import sys
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.frozen import (
    FP8,
    Form,
    FrozenLinear,
    fp8_product,
    freeze_linears,
    frozen,
    frozen_bytes,
    put,
    quantised,
    rounded_rows,
    settle_adapters,
)
from adapt.backbones.dreamzero.fused import FusedForward
from adapt.backbones.dreamzero.model import build
from adapt.backbones.dreamzero.prepare import prepare
from adapt.planning.rung import Rung
from benchmarks.train_step import add_lora, descent, lora_step, sample
from schemas.errors import UsageError

TINY = preset("tiny")
ERRORS = {"fp8": 0.030, "int8": 0.010, "nf4": 0.100}
FORMS = [
    "fp8",
    "int8",
    pytest.param("nf4", marks=pytest.mark.skipif("not __import__('importlib.util').util.find_spec('bitsandbytes')")),
]


def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    """Weights of a trained layer's spread: rows of different sizes, and some outliers."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(256, 384)
    weight = torch.randn(384, 256, generator=generator) / 16
    weight *= torch.exp(0.5 * torch.randn(384, 1, generator=generator))
    weight[torch.rand(384, 256, generator=generator) < 1e-4] *= 5
    layer.weight.data = weight
    return layer.to(dtype).requires_grad_(False)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def distance(got: Tensor, wanted: Tensor) -> float:
    return ((got.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", FORMS)
def test_outputs_and_input_gradients_are_near_those_of_the_weight(weights: str, dtype: torch.dtype) -> None:
    plain = linear(dtype)
    layer = frozen(plain, weights, fp8_matmul=False, name="q")
    x, gradient = inputs(2, 40, 256, dtype=dtype).requires_grad_(), inputs(2, 40, 384, dtype=dtype)
    y = layer(x)
    y.backward(gradient)
    assert y.dtype == x.grad.dtype == dtype
    exact = x.detach().double() @ plain.weight.double().T + plain.bias.double()
    assert distance(y.detach(), exact) < ERRORS[weights]
    assert distance(x.grad, gradient.double() @ plain.weight.double()) < ERRORS[weights]


@pytest.mark.parametrize("weights", FORMS)
def test_what_is_computed_is_the_product_with_the_dequantised_weight(weights: str) -> None:
    layer = frozen(linear(torch.float64), weights, fp8_matmul=False, name="q")
    x = inputs(7, 256, dtype=torch.float64).requires_grad_()
    weight = layer.dequantised(torch.float64)
    torch.testing.assert_close(layer(x), x @ weight.T + layer.bias, rtol=1e-12, atol=1e-12)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(7, -1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weights", ["fp8", "int8"])
def test_every_weight_is_rounded_to_the_nearest_and_16_bits_hold_what_comes_back(weights: str) -> None:
    weight = linear().weight.data
    layer = frozen(linear(), weights, fp8_matmul=False, name="q")
    exact = layer.dequantised(torch.float64)
    largest = weight.abs().amax(1, keepdim=True)
    # e4m3 has 3 bits after the first, and 448 / 2^-9 between its largest and its smallest step
    bound = {"fp8": weight.abs() / 16 + largest * 2**-17, "int8": largest / 252}[weights]
    assert ((exact - weight).abs() <= bound).all()
    rounding = 0 if weights == "fp8" else 2**-8
    assert ((layer.dequantised(torch.bfloat16).double() - exact).abs() <= rounding * exact.abs()).all()


def test_fp8_products_are_those_of_the_rounded_numbers() -> None:
    plain = linear(torch.float64)
    layer = frozen(plain, "fp8", fp8_matmul=True, name="q")
    x, gradient = inputs(40, 256).requires_grad_(), inputs(40, 384)
    layer.bias.data = layer.bias.data.float()
    y = layer(x)
    y.backward(gradient)
    weight = layer.dequantised(torch.float64)

    def rounded(rows: Tensor) -> Tensor:
        values, scale = rounded_rows(rows)
        return values.double() * scale

    torch.testing.assert_close(y.double(), rounded(x.detach()) @ weight.T + layer.bias, rtol=0, atol=1e-5)
    scaled = gradient * layer.scale.T
    torch.testing.assert_close(x.grad.double(), rounded(scaled) @ layer.weight.double(), rtol=0, atol=1e-5)
    assert distance(y.detach(), x.detach().double() @ plain.weight.T + plain.bias) < 0.04
    assert distance(x.grad, gradient.double() @ plain.weight) < 0.04


def test_what_is_no_number_is_not_hidden_by_fp8() -> None:
    x = inputs(3, 16)
    x[1, 2] = torch.inf
    x[2] = 0
    values = fp8_product(x, torch.ones(16, 16).to(FP8), torch.ones(1, 16), None)
    assert values[0].isfinite().all() and not values[1].isfinite().any() and (values[2] == 0).all()


def test_no_input_is_kept() -> None:
    layer, kept = frozen(linear(), "fp8", fp8_matmul=False, name="q"), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(inputs(5, 256).requires_grad_())
    assert {t.data_ptr() for t in kept} == {layer.weight.data_ptr(), layer.scale.data_ptr()}


def test_a_change_of_dtype_leaves_the_stored_form_and_a_saved_state_returns() -> None:
    layer = frozen(linear(), "int8", fp8_matmul=False, name="q")
    nn.init.zeros_(layer.bias)  # which does follow, and is rounded
    x = inputs(5, 256)
    wanted = layer(x)
    layer.to(torch.bfloat16)
    assert (layer.weight.dtype, layer.scale.dtype, layer.bias.dtype) == (torch.int8, torch.float32, torch.bfloat16)
    assert torch.equal(layer.float()(x), wanted)
    other = frozen(nn.Linear(256, 384), "int8", fp8_matmul=False, name="q")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), wanted)


@pytest.mark.parametrize("weights", FORMS)
def test_a_model_streamed_into_its_form_is_the_one_frozen_whole(weights: str) -> None:
    whole = build(TINY, device="cpu", seed=0, dtype=torch.bfloat16)
    tensors = {name: p.detach().clone() for name, p in whole.named_parameters()}
    streamed = freeze_linears(build(TINY, dtype=torch.bfloat16), weights)
    for name, tensor in tensors.items():
        put(streamed, name, tensor)
    assert not any(t.is_meta for t in (*streamed.parameters(), *streamed.buffers()))
    state = freeze_linears(whole, weights).state_dict()
    assert state.keys() == streamed.state_dict().keys() and tensors.keys() <= state.keys()
    assert all(torch.equal(t.float(), state[n].float()) for n, t in streamed.state_dict().items())
    frozen_ones = [m for m in streamed.modules() if isinstance(m, FrozenLinear)]
    assert len(frozen_ones) == 12 * TINY.layers
    assert freeze_linears(streamed, weights) is streamed  # again: nothing happens
    with pytest.raises(UsageError, match="a FrozenLinear cannot be frozen in"):
        freeze_linears(streamed, "fp8" if weights == "int8" else "int8")


@pytest.mark.parametrize("weights", ["bf16", *FORMS[:2], FORMS[2]])
def test_bytes_of_the_14b_are_counted_without_memory(weights: str) -> None:
    gigabytes = {"bf16": 32.97, "fp8": 16.83, "int8": 16.83, "nf4": 9.756}
    model = freeze_linears(build("14b", dtype=torch.bfloat16).requires_grad_(False), weights)
    assert frozen_bytes(model) / 1e9 == pytest.approx(gigabytes[weights], abs=0.006)


def test_bytes_on_a_device_are_those_of_the_meta_model() -> None:
    for weights in ("bf16", "fp8"):
        models = [
            freeze_linears(build(TINY, device=d, dtype=torch.bfloat16, seed=0).requires_grad_(False), weights)
            for d in ("cpu", "meta")
        ]
        assert frozen_bytes(models[0]) == frozen_bytes(models[1])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("weights", FORMS)
def test_a_frozen_base_trains_its_adapters_in_float32_and_stays(weights: str, fused: bool) -> None:
    rung = Rung(weights=weights, fused_lora=fused, activations="full", selective_blocks=1)
    model = build(TINY, device="cpu", seed=0, dtype=torch.bfloat16)
    lora = partial(add_lora, rank=4, dtype=torch.bfloat16)
    adapted = prepare(model, rung, lora)
    learnt = [p for p in adapted.parameters() if p.requires_grad]
    assert {p.dtype for p in learnt} == {torch.float32}
    assert sum(isinstance(m, FusedForward) for m in adapted.modules()) == (30 if fused else 0)
    before = {n: t.clone() for n, t in adapted.state_dict().items() if "base_layer" in n}
    batch = sample(TINY, device="cpu", dtype=torch.bfloat16)
    losses = [lora_step(adapted, *batch, descend=descent(learnt)).item() for _ in range(2)]
    plain = build(TINY, device="cpu", seed=0, dtype=torch.bfloat16)
    assert losses[0] == pytest.approx(lora_step(prepare(plain, Rung(), lora), *batch).item(), rel=0.02)
    after = adapted.state_dict()
    assert all(torch.equal(after[n].float(), t.float()) for n, t in before.items())
    assert any("scale" in n for n in before)


def test_adapters_that_peft_gave_the_bases_fp8_are_settled() -> None:
    import peft

    model = freeze_linears(build(TINY, device="cpu", seed=0, dtype=torch.bfloat16).requires_grad_(False), "fp8")
    config = peft.LoraConfig(r=4, target_modules=["ffn.0"], init_lora_weights=True)
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    dtypes = {p.dtype for n, p in adapted.named_parameters() if "lora_" in n}
    assert dtypes == {FP8}  # if this fails, peft has mended it
    settle_adapters(adapted, torch.bfloat16)
    assert {p.dtype for n, p in adapted.named_parameters() if "lora_" in n} == {torch.bfloat16}


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UsageError, match=r'pip install "wamkit\[quant\]"'):
        freeze_linears(build(TINY), "nf4")


def test_forms_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="weights 'int3': not known"):
        freeze_linears(build(TINY), "int3")
    with pytest.raises(UsageError, match="fp8 products of int8 weights"):
        freeze_linears(build(TINY), "int8", fp8_matmul=True)
    with pytest.raises(UsageError, match="multiples of 16"):
        frozen(nn.Linear(24, 32), "fp8", fp8_matmul=True, name="q")
    with pytest.raises(UsageError, match="cannot be frozen in fp8. Freeze before LoRA"):
        freeze_linears(add_lora(build(TINY), rank=4, dtype=torch.float32), "fp8")
    with pytest.raises(ValueError, match="products in fp8 need fp8 weights"):
        Rung(fp8_matmul=True)
    with pytest.raises(ValueError, match="optimizer 'sgd': not known"):
        Rung(optimizer="sgd")
    with pytest.raises(ValueError, match="mixes selective blocks"):
        Rung(activations="keep", selective_blocks=3)


def test_meta_weights_have_the_shapes_of_real_ones() -> None:
    for weights in ("fp8", "int8"):
        form = Form(weights, (384, 256))
        real, meta = quantised(linear().weight.data, form), quantised(linear().weight.data.to("meta"), form)
        assert [(t.shape, t.dtype) for t in real] == [(t.shape, t.dtype) for t in meta]
