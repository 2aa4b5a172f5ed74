"""What blocks keep changes no number, and takes the bytes that the closed form says."""

import pytest
import torch

from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.fused import fuse
from adapt.backbones.dreamzero.model import DreamZeroDiT, Settings, build
from adapt.backbones.dreamzero.objective import training_loss
from adapt.backbones.dreamzero.remember import Kind
from adapt.backbones.dreamzero.saved import saved_bytes
from adapt.planning.rung import Rung
from benchmarks.train_step import LiveStorages, add_lora, lora_step, sample, tokens
from benchmarks.train_step import saved_bytes as live_bytes

TINY = preset("tiny")
MIXTURES = [
    Settings(activations="selective"),
    Settings(activations="full"),
    Settings(activations="offload"),
    Settings(activations="full", selective_blocks=2),
    Settings(activations="offload", selective_blocks=1),
]


def adapted(*, dtype: torch.dtype = torch.float64, fused: bool = False) -> DreamZeroDiT:
    """A tiny model with LoRA, and values in its B so that every path carries a gradient."""
    model = add_lora(build(TINY, device="cpu", seed=0, dtype=dtype).requires_grad_(False), rank=4, dtype=dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    if fused:
        assert fuse(model) == 10 * TINY.layers
    return model


def found(model: DreamZeroDiT, settings: Settings) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and every gradient."""
    dtype = model.patch_embedding.weight.dtype
    model.settings = settings
    model.zero_grad()
    loss = lora_step(model, *sample(TINY, device="cpu", dtype=dtype, has_action=(True, False)))
    return loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("settings", MIXTURES)
def test_loss_and_every_gradient_are_those_of_keeping_everything(settings: Settings, fused: bool) -> None:
    model = adapted(fused=fused)
    loss, gradients = found(model, Settings())
    same_loss, same = found(model, settings)
    assert torch.equal(same_loss, loss)
    assert gradients.keys() == same.keys() and len(gradients) == 2 * 10 * 3 + 14
    for name, gradient in gradients.items():
        assert torch.equal(same[name], gradient), name


@pytest.mark.parametrize("attention", ["dense", "grouped"])
def test_every_attention_may_be_kept_or_done_again(attention: str) -> None:
    model = adapted(dtype=torch.float32)
    loss, gradients = found(model, Settings(attention=attention))
    same_loss, same = found(model, Settings(attention=attention, activations="selective"))
    assert torch.equal(same_loss, loss)
    assert all(torch.equal(same[n], g) for n, g in gradients.items())


def test_flexattention_that_no_block_can_watch_is_refused() -> None:
    with pytest.raises(ValueError, match="needs compiled blocks"):
        found(adapted(dtype=torch.float32), Settings(attention="flex", activations="selective"))


def test_a_base_that_trains_has_the_gradients_of_its_gates_too() -> None:
    model = build(TINY, device="cpu", seed=0, dtype=torch.float64)
    loss, gradients = found(model, Settings())
    same_loss, same = found(model, Settings(activations="selective"))
    assert torch.equal(same_loss, loss) and "blocks.2.modulation" in gradients
    assert all(torch.equal(same[n], g) for n, g in gradients.items())


def test_a_second_backward_pass_through_selective_blocks_is_refused() -> None:
    model = adapted()
    model.settings = Settings(activations="selective")
    loss = training_loss(model, *sample(TINY, device="cpu", dtype=torch.float64)).total
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only one backward pass"):
        loss.backward()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("trained", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", ["14b"])
def test_closed_form_bytes_are_those_that_live_between_the_passes(size: str, trained: torch.dtype, fused: bool) -> None:
    config, rung = preset(size), Rung(activations="keep", fused_lora=fused)
    live = live_bytes(config, rank=16, dtype=torch.bfloat16, trained_dtype=trained, rung=rung)
    for kind, key in (("keep", "one_block"), ("selective", "one_selective_block")):
        closed = saved_bytes(config, tokens(config), kind, 16, adapter_itemsize=trained.itemsize, fused=fused)
        assert closed == pytest.approx(live[key], rel=0.003), kind
    if size == "14b":
        assert live["one_selective_block"] < 1.72e9  # 59,904 numbers a token are 1.70e9


def test_less_is_kept_on_this_machine_too() -> None:
    """Storages that live between the passes of a real run, block by block from one of two layers to one of three."""

    def between(settings: Settings, layers: int) -> int:
        config = preset("tiny", layers=layers)
        base = build(config, device="cpu", seed=0, dtype=torch.bfloat16).requires_grad_(False)
        model = add_lora(base, rank=4, dtype=torch.bfloat16)
        model.settings = settings
        batch, draws = sample(config, device="cpu", dtype=torch.bfloat16)
        training_loss(model, batch, draws)  # tables that stay for later passes are made here
        with LiveStorages([*model.parameters()]) as live:
            loss = training_loss(model, batch, draws).total
        assert loss.requires_grad
        return live.nbytes()

    def block(kind: Kind) -> int:
        return between(Settings(activations=kind), 3) - between(Settings(activations=kind), 2)

    count = tokens(TINY)
    for kind in ("selective", "full"):
        assert block(kind) == pytest.approx(saved_bytes(TINY, count, kind, 4), rel=0.03), kind
    assert block("keep") > 2 * block("selective") > 8 * block("full")


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
def test_compiled_selective_blocks_have_the_same_gradients(fused: bool) -> None:
    model = adapted(dtype=torch.float32, fused=fused)
    loss, gradients = found(model, Settings())
    for block in model.blocks:
        block.compile(backend="aot_eager_decomp_partition")  # all of the compiler but the code it writes
    same_loss, same = found(model, Settings(activations="selective"))
    torch.testing.assert_close(same_loss, loss, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            same[name], gradient, rtol=0, atol=1e-4 * gradient.abs().max().item() + 1e-9, msg=name
        )
