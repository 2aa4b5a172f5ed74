"""Closed forms of cost against what is counted on the meta device: operations, parameters, storages."""

import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from adapt.backbones.dreamzero import attention
from adapt.backbones.dreamzero.attention import Plan, unmasked
from adapt.backbones.dreamzero.config import PRESETS, DreamZeroConfig, preset
from adapt.backbones.dreamzero.cost import DreamZeroCost
from adapt.backbones.dreamzero.frozen import freeze_linears, frozen_bytes
from adapt.backbones.dreamzero.fused import fuse
from adapt.backbones.dreamzero.model import HEAD_MODULES, LORA_TARGETS, DreamZeroDiT, Settings, build
from adapt.backbones.dreamzero.objective import Batch, training_loss
from adapt.backbones.dreamzero.policy import Policy, Sampling
from adapt.backbones.dreamzero.timesteps import draw
from adapt.planning.rung import Rung

RANK = 8


@pytest.fixture(autouse=True)
def _fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention as a GPU's kernel counts and saves it; the meta device would choose the one that keeps scores."""

    def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is None
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0].transpose(1, 2)

    monkeypatch.setattr(attention, "_sdpa", fused)


def of_all_layers(config: DreamZeroConfig, count: Callable[[DreamZeroConfig], float]) -> float:
    """From one layer and two: all but the last cost the same."""
    one, two = (count(replace(config, layers=layers)) for layers in (1, 2))
    return one + (config.layers - 1) * (two - one)


def window(config: DreamZeroConfig) -> Batch:
    """Shapes of a whole window, on the meta device."""
    frames, grid, rows = config.window_latents, config.latent_grid, config.chunks * config.steps

    def of(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(1, *shape, dtype=dtype, device="meta")

    return Batch(
        latents=of(config.out_dim, frames, *grid),
        context=of(config.text_len, config.text_dim),
        has_action=(True,),
        action=of(rows, config.action_dim),
        action_valid=of(rows, config.action_dim, dtype=torch.bool),
        state=of(config.chunks * config.states_per_chunk, config.state_dim),
        y=of(config.conditioning_dim, frames, *grid) if config.conditioning_dim else None,
        clip=of(config.clip_tokens, config.clip_dim),
    )


def adapted(config: DreamZeroConfig, *, rank: int, activations: str) -> DreamZeroDiT:
    model = build(config, dtype=torch.bfloat16).requires_grad_(False)
    if rank:
        lora = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=[*LORA_TARGETS], modules_to_save=[*HEAD_MODULES])
        model = peft.get_peft_model(model, lora, autocast_adapter_dtype=False).base_model.model
    model.settings = Settings(attention="grouped", activations=activations)
    return model


def loss_of(model: DreamZeroDiT) -> Tensor:
    config = model.config
    rows = config.chunks * config.steps
    draws = draw(config, seeds=(0,), latent_shape=(config.window_latents, *config.latent_grid), rows=rows)
    return training_loss(model, window(config), draws.to("meta")).total


def counted(config: DreamZeroConfig, *, rank: int, activations: str = "keep", backward: bool = True) -> float:
    loss = loss_of
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        found = loss(adapted(config, rank=rank, activations=activations))
        if backward:
            found.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("size", ["tiny-5b", "mini", "14b"])
def test_a_forward_pass_has_the_operations_that_are_counted(size: str) -> None:
    config = preset(size)
    found = of_all_layers(config, lambda shallow: counted(shallow, rank=0, backward=False))
    assert DreamZeroCost(config, rank=0).flops(Rung()).forward == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(
    ("size", "activations"), [("tiny", "keep"), ("mini", "full"), ("14b", "keep"), ("14b", "full"), ("5b", "full")]
)
def test_a_lora_step_has_the_operations_that_are_counted(size: str, activations: str) -> None:
    config = preset(size)
    found = of_all_layers(config, lambda shallow: counted(shallow, rank=RANK, activations=activations))
    cost = DreamZeroCost(config, rank=RANK).flops(Rung(activations=activations))
    assert cost.done == pytest.approx(found, rel=0.005)
    assert (cost.recomputed > 0) == (activations == "full") and cost.linear < cost.done


def test_recomputing_fewer_blocks_saves_each_of_them() -> None:
    cost = DreamZeroCost(preset("14b"))
    done = [cost.flops(Rung(selective_blocks=n)).done for n in range(41)]
    assert done == sorted(done, reverse=True) and done[40] == cost.flops(Rung(activations="keep")).done


def test_the_published_count_of_the_14b_is_met() -> None:
    """The share of attention's backward pass makes 888 of the 887 that were published with another rounding."""
    flops = DreamZeroCost(preset("14b"), rank=0).flops(Rung())
    assert flops.forward / 1e12 == pytest.approx(399.0, abs=0.05)
    assert flops.useful / 1e12 == pytest.approx(887, rel=0.005)
    assert flops.done / 1e12 == pytest.approx(1286, rel=0.005)


@pytest.mark.parametrize("size", ["tiny", "14b"])
def test_a_chunk_has_the_operations_that_are_counted(size: str) -> None:
    config = preset(size)

    def chunk(shallow: DreamZeroConfig) -> float:
        model, batch = build(shallow, dtype=torch.bfloat16), window(shallow)
        model.settings = Settings(attention="grouped")
        policy = Policy(model, Sampling(steps=4, computed=4))
        session = policy.start(batch.context, batch.latents[:, :, :1], clip=batch.clip, y=batch.y)
        for first in range(1, shallow.window_latents - shallow.latents_per_chunk, shallow.latents_per_chunk):
            policy.observe(session, batch.latents[:, :, first : first + shallow.latents_per_chunk])
        with FlopCounterMode(display=False) as counter:
            policy.act(session, batch.state[:, : shallow.states_per_chunk])
        return counter.get_total_flops()

    cached = config.window_latents - config.latents_per_chunk
    cost = DreamZeroCost(config)
    assert 4 * cost.run_flops(cached, registers=True) == pytest.approx(of_all_layers(config, chunk), rel=1e-9)
    four, guided = cost.decision_flops(steps=4), cost.decision_flops(steps=4, guided=True)
    assert 4 * cost.run_flops(cached, registers=True) < four < guided < 2 * four


@pytest.mark.parametrize("size", PRESETS)
def test_parameters_are_those_of_the_model(size: str) -> None:
    model, parts = build(preset(size)), DreamZeroCost(preset(size)).parameters
    of_blocks = sum(p.numel() for p in model.blocks.parameters())
    of_heads = sum(p.numel() for name in HEAD_MODULES for p in getattr(model, name).parameters())
    everything = sum(p.numel() for p in model.parameters())
    assert (parts["blocks"], parts["heads"]) == (of_blocks, of_heads)
    assert parts["embeddings"] == everything - of_blocks - of_heads


def test_the_14b_has_its_published_sizes() -> None:
    parts, cost = DreamZeroCost(preset("14b")).parameters, DreamZeroCost(preset("14b"), rank=4)
    assert sum(parts[p] for p in ("blocks", "embeddings", "heads")) == 16_484_292_448
    assert parts["text encoder"] == 5_680_910_336 and cost.trained == 108_582_944
    found = {w: cost.weight_bytes(w) for w in ("bf16", "fp8", "nf4")}
    assert found == {"bf16": 32_968_584_896, "fp8": 16_831_737_536, "nf4": 9_755_733_696}


@pytest.mark.parametrize("weights", ["bf16", "fp8", "int8", "nf4"])
def test_frozen_weights_take_the_bytes_that_they_are_stored_in(weights: str) -> None:
    model = freeze_linears(build("mini", dtype=torch.bfloat16).requires_grad_(False), weights)
    assert DreamZeroCost(preset("mini")).weight_bytes(weights) == frozen_bytes(model)


def test_costs_are_planned_without_torch_or_pydantic() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, pydantic=None)\n"
        "from adapt.backbones.dreamzero.config import preset\n"
        "from adapt.backbones.dreamzero.cost import DreamZeroCost\n"
        "import adapt.planning.probe\nfrom adapt.planning.gpus import named\nfrom adapt.planning.ladder import choose\n"
        "print(choose(DreamZeroCost(preset('14b')), named('80'), batch=16).rung.weights)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["bf16"]


def test_trained_parameters_are_those_that_peft_trains() -> None:
    model = adapted(preset("mini"), rank=RANK, activations="keep")
    assert DreamZeroCost(preset("mini"), rank=RANK).trained == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )


def test_an_encoded_window_of_the_14b_takes_2_69_mb() -> None:
    batch, cost = window(preset("14b")), DreamZeroCost(preset("14b"))
    first_latents = batch.y[:, 4:]  # the mask before them is known
    shapes = batch.latents.nbytes + first_latents.nbytes + batch.clip.nbytes
    assert cost.cached_bytes == shapes == pytest.approx(2.69e6, rel=0.002)
    assert cost.prompt_bytes == batch.context.nbytes == pytest.approx(4.19e6, rel=0.002)


def test_encoding_a_14b_window_runs_the_video_encoder_twice() -> None:
    cost = DreamZeroCost(preset("14b"))
    assert cost.encode_flops / 1e12 == pytest.approx(2 * 37.74 + 0.3, rel=0.005)
    assert DreamZeroCost(preset("5b")).encode_flops / 1e12 == pytest.approx(5.96 + 0.3, rel=0.01)


class Live(TorchDispatchMode):
    """Bytes of the storages that live, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.add(tensor.untyped_storage())
        return out

    def add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return

        def gone(_: Any) -> None:
            self.now -= size
            del self.seen[key]

        self.seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def peak_of(config: DreamZeroConfig, activations: str, *, fused: bool) -> int:
    """Most bytes that a step of loss and gradients holds beside the parameters; adapters and heads are float32."""
    model = adapted(config, rank=RANK, activations=activations)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if fused:
        fuse(model)
    model.plan_override = Plan(unmasked, unmasked)  # as one kernel keeps it: no copies of keys by group
    with Live() as live:
        for parameter in model.parameters():
            live.add(parameter.untyped_storage())
        before = live.now
        loss_of(model).backward()
    return live.most - before


@pytest.mark.parametrize(("activations", "fused"), [("selective", True), ("full", False), ("full", True)])
def test_the_bytes_of_a_step_are_those_that_live_at_its_peak(activations: str, fused: bool) -> None:
    """Gradients are left out of the plan: at a shallow model's peak few are there."""
    config = preset("14b", layers=3)
    parts = DreamZeroCost(config, rank=RANK).bytes(Rung(activations=activations, fused_lora=fused))
    planned = sum(parts[p] for p in ("activations", "temporaries", "latents and losses"))
    found = peak_of(config, activations, fused=fused)
    assert 0.99 * found < planned < 1.1 * found


def test_the_base_divided_over_ranks_takes_its_share_and_two_layers() -> None:
    cost = DreamZeroCost(preset("14b"))
    whole, eighth = (cost.bytes(Rung(), ranks=n) for n in (1, 8))
    layer = 2 * cost.parameters["blocks"] / 40
    assert eighth["weights"] == pytest.approx(whole["weights"] / 8 + 2 * layer, rel=1e-6)
    assert {k: v for k, v in eighth.items() if k != "weights"} == {k: v for k, v in whole.items() if k != "weights"}


def test_eight_bit_moments_take_a_quarter_and_a_micro_batch_scales_what_is_its_own() -> None:
    cost = DreamZeroCost(preset("14b"))
    small, large = cost.bytes(Rung(optimizer="adamw8bit")), cost.bytes(Rung(micro_batch=3))
    assert small["optimizer"] == pytest.approx(cost.bytes(Rung())["optimizer"] / 4, rel=0.02)
    assert large["activations"] == 3 * small["activations"] and large["weights"] == small["weights"]


def test_offloaded_inputs_lie_in_host_memory_instead() -> None:
    cost = DreamZeroCost(preset("14b"))
    here, there = Rung(), Rung(activations="offload", selective_blocks=3)
    assert cost.host_bytes(there) == 37 * 2 * cost.tokens * 5120 and cost.host_bytes(here) == 0
    gone = cost.bytes(here)["activations"] - cost.bytes(Rung(activations="offload"))["activations"]
    assert gone == 37 * 2 * cost.tokens * 5120  # of 39: one is in use and one on its way


def test_packed_weights_are_read_and_written_once_a_pass() -> None:
    cost = DreamZeroCost(preset("14b"))
    blocks = cost.weight_bytes("bf16") - cost.weight_bytes("fp8")  # nearly: scales are in the one and not the other
    assert cost.unpacked_bytes(Rung()) == cost.unpacked_bytes(Rung(weights="fp8", fp8_matmul=True)) == 0
    assert cost.unpacked_bytes(Rung(weights="fp8")) == pytest.approx(3 * 3 * blocks, rel=0.001)
    assert cost.unpacked_bytes(Rung(weights="fp8", activations="selective")) == pytest.approx(2 * 3 * blocks, rel=0.001)
