"""What a DreamZero forward pass, LoRA step and policy chunk cost, on random weights and the real geometry.

    python -m benchmarks.train_step --preset 14b --out benchmarks/results/NAME.json      on a GPU
    python -m benchmarks.train_step --preset 14b --device meta                           counted, not timed
    python -m benchmarks.train_step --preset mini --compare-plain --steps 5              on a CPU

Run from the repository's root; nothing needs to be installed but torch, safetensors and peft. Micro-batch 1. The base
has `--dtype`, and so have LoRA and the robot's heads unless `--trained-dtype` says float32, in which they then compute:
nothing runs under autocast. AdamW steps float32 masters of what is trained and copies them back. An operation is a
multiply or an add; `tflop_useful` leaves out what is computed twice. `first_s` is the warm-up, compiling included.
`peak_bytes` includes the weights. `--weights`, `--activations`, `--selective-blocks` and `--fused-lora` are those of a
`Rung`, and the part `step` is what they say; `step_recompute` recomputes every block.

The file is written after every part. A part that runs out of memory, fails, or would pass `--budget-s` says so in it.
"""

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from adapt.backbones.dreamzero.attention import Backend, Plan, unmasked
from adapt.backbones.dreamzero.config import PRESETS, DreamZeroConfig, preset
from adapt.backbones.dreamzero.frozen import freeze_linears, frozen_bytes
from adapt.backbones.dreamzero.layout import training_layout
from adapt.backbones.dreamzero.model import (
    HEAD_MODULES,
    LORA_TARGETS,
    DreamZeroDiT,
    Output,
    Settings,
    build,
    configured,
)
from adapt.backbones.dreamzero.objective import Batch, Network, training_loss
from adapt.backbones.dreamzero.policy import REFERENCE, Policy, Sampling
from adapt.backbones.dreamzero.prepare import prepare
from adapt.backbones.dreamzero.timesteps import Draws, draw
from adapt.planning.rung import Activations, Rung
from benchmarks.plain_dit import plain_forward
from schemas.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
HOPPER_BF16_TFLOPS = 989.0  # NVIDIA's data sheets of the H100 SXM and the H200, dense
EXPECTED_SHARE = 0.25  # of the measured ceiling: how fast a part is expected to run when the budget is asked
COMPILE_S = 60.0  # likewise what compiling may take, on a GPU
SMALL_GRID = (8, 11)  # tokens of a frame in the comparisons: 1,508 in all
PLAIN_TOLERANCE = 1e-4  # float32
KEEP = Rung(activations="keep")

Work = Callable[[], Any]
Part = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """One run's settings, and what its parts share.

    Args:
        deadline: `time.monotonic()` after which nothing is started.
    """

    config: DreamZeroConfig
    device: torch.device
    dtype: torch.dtype
    trained_dtype: torch.dtype
    settings: Settings
    compiled: bool
    rank: int
    steps: int
    deadline: float
    rung: Rung = KEEP

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def model(self) -> DreamZeroDiT:
        model = build(self.config, device=self.device, dtype=self.dtype, seed=0)
        model.settings = self.settings
        return freeze_linears(model.requires_grad_(False), self.rung.weights)

    @cached_property
    def trained(self) -> DreamZeroDiT:
        """`model`, which has LoRA from here on."""
        lora = partial(add_lora, rank=self.rank, dtype=self.trained_dtype)
        return prepare(self.model, self.rung, lora, trained_dtype=self.trained_dtype)

    @cached_property
    def descend(self) -> Callable[[], None]:
        return descent([p for p in self.trained.parameters() if p.requires_grad])

    @cached_property
    def sample(self) -> tuple[Batch, Draws]:
        return sample(self.config, device=self.device, dtype=self.dtype)

    @cached_property
    def tflop(self) -> dict[str, float]:
        return tflop_of(self.config, rank=self.rank, rung=self.rung)

    @cached_property
    def products(self) -> dict[str, float]:
        """TFLOP/s of matrix products, the largest of which is the ceiling of what a part can reach."""
        return product_tflops(self)

    def compile_blocks(self) -> None:
        for block in self.model.blocks if self.compiled else ():
            block.compile()


# What is run


def sample(
    config: DreamZeroConfig, *, device: torch.device | str, dtype: torch.dtype, has_action: tuple[bool, ...] = (True,)
) -> tuple[Batch, Draws]:
    """A random whole window, and its noise."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    size, frames, grid = len(has_action), config.window_latents, config.latent_grid
    rows = config.chunks * config.steps
    action = torch.rand((size, rows, config.action_dim), generator=generator) * 2 - 1
    batch = Batch(
        latents=normal(size, config.out_dim, frames, *grid),
        context=normal(size, config.text_len, config.text_dim),
        has_action=has_action,
        action=action.to(dtype),
        action_valid=torch.ones(action.shape, dtype=torch.bool),
        state=normal(size, config.chunks * config.states_per_chunk, config.state_dim),
        y=normal(size, config.conditioning_dim, frames, *grid) if config.conditioning_dim else None,
        clip=normal(size, config.clip_tokens, config.clip_dim),
    )
    draws = draw(config, seeds=range(size), latent_shape=(frames, *grid), rows=rows)
    return batch.to(device), draws.to(device)


def add_lora(model: DreamZeroDiT, *, rank: int, dtype: torch.dtype) -> DreamZeroDiT:
    """The same model with LoRA in every block, and copies of the robot's heads to train whole, both in `dtype`."""
    import peft

    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=[*LORA_TARGETS], modules_to_save=[*HEAD_MODULES])
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False).base_model.model
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return adapted


def descent(parameters: list[Tensor]) -> Callable[[], None]:
    """A function that takes one AdamW step on float32 masters of the parameters, and clears their gradients."""
    masters = [p.detach().float().requires_grad_() for p in parameters]
    optimiser = torch.optim.AdamW(masters, lr=1e-5)

    def descend() -> None:
        for master, parameter in zip(masters, parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        optimiser.step()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters, strict=True):
                parameter.copy_(master)

    return descend


def lora_step(network: Network, batch: Batch, draws: Draws, *, descend: Callable[[], None] | None = None) -> Tensor:
    """The loss of one step; without `descend` the gradients stay."""
    loss = training_loss(network, batch, draws).total
    loss.backward()
    if descend:
        descend()
    return loss.detach()


def last_chunk(model: DreamZeroDiT, batch: Batch, sampling: Sampling) -> Work:
    """Denoising the last chunk of a window whose other chunks were seen."""
    config, per_chunk = model.config, model.config.latents_per_chunk
    policy, negative = Policy(model, sampling), None if sampling.guidance == 1 else -batch.context
    session = policy.start(batch.context, batch.latents[:, :, :1], clip=batch.clip, y=batch.y, negative_text=negative)
    for first in range(1, 1 + (config.chunks - 1) * per_chunk, per_chunk):
        policy.observe(session, batch.latents[:, :, first : first + per_chunk])
    return partial(policy.act, session, batch.state[:, : config.states_per_chunk])


# What is counted on the meta device


def of_all_layers(config: DreamZeroConfig, count: Callable[[DreamZeroConfig], float]) -> float:
    """A count of the whole model from those of one layer and of two: all layers but the last cost the same."""
    one, two = (count(replace(config, layers=layers)) for layers in (1, 2))
    return one + (config.layers - 1) * (two - one)


def of_a_mixture(config: DreamZeroConfig, count: Callable[[DreamZeroConfig, Activations], float], rung: Rung) -> float:
    """As `of_all_layers`, where the first `selective_blocks` are selective and not as the others."""
    special = min(rung.selective_blocks, config.layers - 1)
    total = of_all_layers(config, partial(count, kind=rung.activations))
    if not special:
        return total
    one, two = (replace(config, layers=layers) for layers in (1, 2))
    blocks = [count(two, kind=kind) - count(one, kind=kind) for kind in ("selective", rung.activations)]
    return total + special * (blocks[0] - blocks[1])


def tflop_of(config: DreamZeroConfig, *, rank: int, rung: Rung = KEEP) -> dict[str, float]:
    """TFLOP of a sample, for every part that is timed."""

    def plain(model: DreamZeroDiT, batch: Batch, draws: Draws) -> Work:
        return forward_work(partial(plain_forward, model), batch, draws)

    def plain_step(model: DreamZeroDiT, batch: Batch, draws: Draws) -> Work:
        return step_work(partial(plain_forward, model), batch, draws)

    def chunk(model: DreamZeroDiT, batch: Batch, draws: Draws, *, sampling: Sampling) -> Work:
        return last_chunk(model, batch, sampling)

    count = partial(of_all_layers, config)
    untrimmed = Settings(trim=False)

    def done(shallow: DreamZeroConfig, kind: Activations) -> float:
        step = partial(tflop, shallow, work=step_work, rank=rank)
        if kind != "selective":
            return step(settings=Settings(activations=kind))
        with FusedAttention():  # it is kept as one operation, and the meta device would choose several
            again = step(settings=Settings(activations=kind)) - step()
        return step() + again

    return {
        "forward": count(partial(tflop, work=forward_work)),
        "forward_untrimmed": count(partial(tflop, work=forward_work, settings=untrimmed)),
        "plain_forward": count(partial(tflop, work=plain)),
        "step": count(partial(done, kind="keep")),
        "step_done": of_a_mixture(config, done, rung),
        "step_untrimmed": count(partial(tflop, work=step_work, rank=rank, settings=untrimmed)),
        "step_recompute": count(partial(done, kind="full")),
        "plain_step": count(partial(tflop, work=plain_step, rank=rank)),
        "chunk": count(partial(tflop, work=partial(chunk, sampling=Sampling()))),
        "chunk_reference": count(partial(tflop, work=partial(chunk, sampling=REFERENCE))),
    }


def tflop(
    config: DreamZeroConfig,
    *,
    work: Callable[[DreamZeroDiT, Batch, Draws], Work],
    rank: int | None = None,
    settings: Settings = Settings(),
) -> float:
    """TFLOP of what `work` makes of a model and a sample; without a rank there is no LoRA."""
    model = build(config, device="meta").requires_grad_(False)
    model = add_lora(model, rank=rank, dtype=torch.float32) if rank else model
    model.settings = replace(settings, attention="grouped")
    run = work(model, *sample(config, device="meta", dtype=torch.float32))
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e12


def step_work(network: Network, batch: Batch, draws: Draws) -> Work:
    return partial(lora_step, network, batch, draws)


def forward_work(network: Network, batch: Batch, draws: Draws) -> Work:
    return torch.no_grad()(lambda: training_loss(network, batch, draws).total)


def weight_bytes(config: DreamZeroConfig) -> dict[str, int]:
    """Bytes of the weights: in 16 bits, and with the blocks' matrices in 8 or 4 bits and the rest in 16."""
    found = {}
    for weights in ("bf16", "fp8", "nf4"):
        model = build(config, dtype=torch.bfloat16).requires_grad_(False)
        try:
            found[weights] = frozen_bytes(freeze_linears(model, weights))
        except UsageError:  # nf4's package is not installed
            continue
    return found


def saved_bytes(
    config: DreamZeroConfig, *, rank: int, dtype: torch.dtype, trained_dtype: torch.dtype, rung: Rung
) -> dict[str, int]:
    """Bytes that a LoRA step keeps for its backward pass, without parameters and gradients.

    Counted from the storages that live between the two passes, with attention that keeps no scores, as FlexAttention.
    `recompute` has the input of every block and, at its peak, all that one block saves; so a `rung` that recomputes.
    """

    def count(shallow: DreamZeroConfig, kind: Activations) -> int:
        frozen = build(shallow, device="meta", dtype=dtype)
        plain = Rung(fused_lora=rung.fused_lora, activations=kind)
        model = prepare(frozen, plain, partial(add_lora, rank=rank, dtype=trained_dtype), trained_dtype=trained_dtype)
        model.plan_override = Plan(unmasked, unmasked)
        batch, draws = sample(shallow, device="meta", dtype=dtype)
        with FusedAttention(), LiveStorages([*model.parameters(), *model.buffers()]) as live:
            loss = training_loss(model, batch, draws).total
        assert loss.requires_grad  # it holds the graph while storages are counted
        return live.nbytes()

    one, two = (count(replace(config, layers=layers), "keep") for layers in (1, 2))
    one_selective, two_selective = (count(replace(config, layers=layers), "selective") for layers in (1, 2))
    block_input = tokens(config) * config.dim * dtype.itemsize
    outside = count(replace(config, layers=1), "full")
    blocks = {"keep": two - one, "selective": two_selective - one_selective, "full": block_input, "offload": 0}
    special = min(rung.selective_blocks, config.layers - 1)
    mixture = special * blocks["selective"] + (config.layers - special) * blocks[rung.activations]
    one_again = 0 if rung.activations == "keep" else blocks["keep"]
    return {
        "one_block": blocks["keep"],
        "one_selective_block": blocks["selective"],
        "all_blocks": one + (config.layers - 1) * blocks["keep"],
        "recompute": outside + config.layers * block_input + blocks["keep"],
        "rung": outside + mixture + one_again,
    }


class LiveStorages(TorchDispatchMode):
    """Which of the storages that operations make are still alive, whoever holds them."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {storage_of(t) for t in known}
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and storage_of(tensor) not in self.known:
                storage = tensor.untyped_storage()
                self.made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return out

    def nbytes(self) -> int:
        return sum(size for reference, size in self.made.values() if not reference.expired())


class FusedAttention(torch.overrides.TorchFunctionMode):
    """Scaled dot-product attention as its fused kernel saves it; the meta device would choose the one with scores."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        return func(*args, **(kwargs or {}))


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def tokens(config: DreamZeroConfig, *, trim: bool = True) -> int:
    """Tokens of a whole training window."""
    layout = training_layout(config, frame_tokens=config.frame_tokens, chunks=config.chunks, trim=trim)
    return layout.tokens


def analysis(bench: Bench) -> Part:
    bare = build(bench.config)
    model = add_lora(build(bench.config).requires_grad_(False), rank=bench.rank, dtype=bench.trained_dtype)
    saved = saved_bytes(
        bench.config, rank=bench.rank, dtype=bench.dtype, trained_dtype=bench.trained_dtype, rung=bench.rung
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # Beside the base and what is saved: trained weights and gradients, their float32 masters and Adam's two moments.
    weights = weight_bytes(bench.config)
    beside = trained * (2 * bench.trained_dtype.itemsize + 12)
    held = weights["bf16"] + beside
    return {
        "tokens": {"trimmed": tokens(bench.config), "untrimmed": tokens(bench.config, trim=False)},
        "parameters": sum(p.numel() for p in bare.parameters()),
        "trained_parameters": trained,
        "weight_bytes": weights,
        "saved_bytes": saved,
        "peak_bytes_without_temporaries": {
            "step_recompute": held + saved["recompute"],
            "step": held + saved["all_blocks"],
            "rung": weights.get(bench.rung.weights, weights["bf16"]) + beside + saved["rung"],
        },
        "tflop": bench.tflop,
    }


# What is compared


def small(bench: Bench) -> DreamZeroConfig:
    """Two layers of the model's width, on a canvas of at most 88 tokens a frame."""
    config, side = bench.config, bench.config.vae_stride * 2
    if config.frame_tokens > SMALL_GRID[0] * SMALL_GRID[1]:
        config = replace(config, canvas=(SMALL_GRID[0] * side, SMALL_GRID[1] * side))
    return replace(config, layers=2)


def correctness(bench: Bench) -> Part:
    """Every attention against the dense mask, over a sample with actions and one without: outputs and one gradient."""
    backends = ["dense", "grouped", "flex"] + ["varlen"] * bench.on_gpu
    config, exact = small(bench), None
    result: Part = {"tokens": tokens(config), "layers": config.layers}
    for dtype in (torch.float32, torch.bfloat16):
        model = build(config, device=bench.device, seed=0).to(dtype).requires_grad_(False)  # rounded, not drawn anew
        watched = model.blocks[0].self_attn.k.weight.requires_grad_()
        batch, draws = sample(config, device=bench.device, dtype=dtype, has_action=(True, False))
        line: Part = {}
        dense = None
        for backend in backends:
            if backend == "varlen" and dtype == torch.float32:
                continue  # it takes 16 bits only
            model.settings = Settings(attention=backend)
            with attempted(line, backend):
                found = answers(model, batch, draws, watched)
                exact, dense = exact or found, dense or found
                line[backend] = {
                    name: compared(found[name], dense=dense[name], exact=exact[name]) for name in ("output", "gradient")
                }
        result[str(dtype).removeprefix("torch.")] = line
    return result


def answers(model: DreamZeroDiT, batch: Batch, draws: Draws, watched: Tensor) -> dict[str, Tensor]:
    """Video and actions in one row, and the gradient of a weight whose input every attention's keys go through."""
    outputs = []

    def network(*args: Any, **kwargs: Any) -> Any:
        outputs.append(model(*args, **kwargs))
        return outputs[0]

    loss = training_loss(network, batch, draws).total
    (gradient,) = torch.autograd.grad(loss, [watched])
    used = (outputs[0].video, outputs[0].action[[i for i, has in enumerate(batch.has_action) if has]])
    return {"output": torch.cat([u.detach().flatten().float() for u in used]), "gradient": gradient.float()}


def compared(found: Tensor, *, dense: Tensor, exact: Tensor) -> dict[str, float]:
    """Largest difference from the dense mask in the same dtype, and relative distance from it in float32."""
    return {
        "max_difference": (found - dense).abs().max().item(),
        "relative_to_float32": ((found - exact).norm() / exact.norm()).item(),
    }


def plain_agreement(bench: Bench) -> Part:
    """The plain transformer against ours in float32: the model that is timed if that is float32, else a small one.

    Raises:
        UsageError: they differ, so their times say nothing.
    """
    config = bench.config if bench.dtype == torch.float32 else small(bench)
    model = build(config, device=bench.device, seed=0).requires_grad_(False)
    model.settings = bench.settings if bench.settings.attention != "varlen" else Settings()
    batch, draws = sample(config, device=bench.device, dtype=torch.float32)
    ours, plain = (predicted(network, batch, draws) for network in (model, partial(plain_forward, model)))
    pairs = {"video": (ours.video, plain.video), "action": (ours.action, plain.action)}
    differences = {name: (a - b).abs().max().item() for name, (a, b) in pairs.items()}
    if not all(difference <= PLAIN_TOLERANCE for difference in differences.values()):  # NaN is refused too
        raise UsageError(f"plain transformer: {differences} from ours, wanted {PLAIN_TOLERANCE}. Mend plain_dit.")
    return {"tokens": tokens(config), "layers": config.layers, "max_difference": differences}


@torch.no_grad()
def predicted(network: Network, batch: Batch, draws: Draws) -> Output:
    """What a network answers to the objective's own inputs."""
    outputs: list[Output] = []

    def watching(*args: Any, **kwargs: Any) -> Output:
        outputs.append(network(*args, **kwargs))
        return outputs[0]

    training_loss(watching, batch, draws)
    return outputs[0]


# What is timed


def ceiling(bench: Bench) -> Part:
    return {"tflops": bench.products}


def product_tflops(bench: Bench) -> dict[str, float]:
    """Of a large square product, and of the model's own shapes."""
    side, count, config = 8192 if bench.on_gpu else 1024, tokens(bench.config), bench.config
    repeats = 20 if bench.on_gpu else 1
    results = {}
    for shape in ((side, side, side), (count, config.dim, config.dim), (count, config.dim, config.ffn_dim)):
        rows, inner, columns = shape
        a = torch.randn(rows, inner, device=bench.device, dtype=bench.dtype)
        b = torch.randn(inner, columns, device=bench.device, dtype=bench.dtype)
        seconds = timed(replace(bench, steps=5), partial(multiply, a, b, repeats=repeats))["median_s"]
        results["x".join(map(str, shape))] = round(2e-12 * rows * inner * columns * repeats / seconds, 3)
    return results


def multiply(a: Tensor, b: Tensor, *, repeats: int) -> None:
    for _ in range(repeats):
        a @ b


def forward(bench: Bench) -> Part:
    bench.compile_blocks()
    return rated(bench, timed_loss(bench, forward_work(bench.model, *bench.sample)), "forward", "forward")


def step_recompute(bench: Bench) -> Part:
    return step(bench, rung=replace(bench.rung, activations="full", selective_blocks=0), counted="step_recompute")


def step(bench: Bench, *, rung: Rung | None = None, counted: str = "step_done") -> Part:
    model = bench.trained
    bench.compile_blocks()
    model.settings = configured(bench.settings, rung or bench.rung)
    timing = timed_loss(bench, partial(lora_step, model, *bench.sample, descend=bench.descend))
    return rated(bench, timing, counted, "step")


def plain_step(bench: Bench) -> Part:
    """The plain transformer and ours in turn, so that a machine that others use slows both."""
    result: Part = {"agreement": plain_agreement(bench)}
    model = bench.trained
    model.settings = replace(bench.settings, activations="full")
    plain, ours = (
        partial(lora_step, network, *bench.sample, descend=bench.descend)
        for network in (partial(plain_forward, model), model)
    )
    result |= rated(bench, timed_loss(bench, plain, between=ours), "plain_step", "step")
    return result | {"times_ours": result["median_s"] / result["between_median_s"]}


def compare(bench: Bench) -> Part:
    from benchmarks import engine_step  # which takes its means from here

    return engine_step.compare(bench)


def encode(bench: Bench) -> Part:
    from benchmarks import engine_step

    return engine_step.encode(bench)


def chunk(bench: Bench, *, sampling: Sampling = Sampling(), counted: str = "chunk") -> Part:
    timing = timed(bench, last_chunk(bench.model, bench.sample[0], sampling))
    return {k: v for k, v in rated(bench, timing, counted, counted).items() if k != "tokens_per_s"}


def chunk_reference(bench: Bench) -> Part:
    return chunk(bench, sampling=REFERENCE, counted="chunk_reference")


def timed_loss(bench: Bench, work: Callable[[], Tensor], *, between: Work | None = None) -> Part:
    """As `timed`, with the loss of the first run."""
    losses: list[Tensor] = []
    timing = timed(bench, lambda: losses.append(work()), between=between)
    return timing | {"loss": losses[0].item()}


def timed(bench: Bench, work: Work, *, between: Work | None = None) -> Part:
    """Seconds of one run, after one that warms up; fewer than `steps` are measured once the deadline has passed.

    Args:
        between: also warmed up, and timed after each run, to compare with.
    """
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    first = clocked(bench, work)
    peak = {"peak_bytes": torch.cuda.max_memory_allocated()} if bench.on_gpu else {}
    if between:
        between()
    seconds, others = [], []
    while not seconds or (len(seconds) < bench.steps and time.monotonic() < bench.deadline):
        seconds.append(clocked(bench, work))
        if between:
            others.append(clocked(bench, between))
    timing = {
        "first_s": first,
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "measured": len(seconds),
    }
    return timing | peak | ({"between_median_s": statistics.median(others)} if others else {})


def clocked(bench: Bench, work: Work) -> float:
    if bench.on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if bench.on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def rated(bench: Bench, timing: Part, done: str, useful: str) -> Part:
    """A timing with its rates: `mfu` of the useful operations, `of_ceiling` of all that are done."""
    seconds = timing["median_s"]
    done_tflop, useful_tflop = bench.tflop[done], bench.tflop[useful]
    rates = {
        "tflop_done": done_tflop,
        "tflop_useful": useful_tflop,
        "tflops": done_tflop / seconds,
        "of_ceiling": done_tflop / seconds / max(bench.products.values()),
        "tokens_per_s": tokens(bench.config) / seconds,
    }
    if bench.compiled and done != "plain_step" and not done.startswith("chunk"):
        rates["compile_s"] = timing["first_s"] - seconds
    if bench.dtype == torch.bfloat16 and is_hopper(bench.device):
        rates["mfu"] = useful_tflop / seconds / HOPPER_BF16_TFLOPS
    return timing | rates


def is_hopper(device: torch.device) -> bool:
    return device.type == "cuda" and any(name in torch.cuda.get_device_name(device) for name in ("H100", "H200"))


# The run


PARTS: dict[str, Callable[[Bench], Part]] = {
    "analysis": analysis,
    "ceiling": ceiling,
    "correctness": correctness,
    "chunk": chunk,
    "chunk_reference": chunk_reference,
    "forward": forward,
    "step_recompute": step_recompute,
    "step": step,
    "plain_step": plain_step,
    "compare": compare,
    "encode": encode,
}
WITH_PLAIN = ("plain_step", "compare", "encode")


@contextmanager
def attempted(results: Part, name: str) -> Iterator[None]:
    """Whatever fails inside is put down under `name`, and the next part goes on."""
    try:
        yield
    except torch.OutOfMemoryError:
        results[name] = {"oom": True}
    except (RuntimeError, ImportError, ValueError) as error:  # what a kernel, a compiler or a missing backend raises
        results[name] = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"}


def run(bench: Bench, names: list[str], save: Callable[[dict[str, Part]], None]) -> dict[str, Part]:
    """The parts, by name; `save` gets what there is after each."""
    results: dict[str, Part] = {}
    for name in names:
        if time.monotonic() + expected_s(bench, name) > bench.deadline:
            results[name] = {"skipped": "budget"}
        else:
            with attempted(results, name):
                results[name] = PARTS[name](bench)
        gc.collect()
        if bench.on_gpu:
            torch.cuda.empty_cache()
        sys.stderr.write(f"{name}: {json.dumps(results[name])}\n")
        save(results)
    return results


def expected_s(bench: Bench, name: str) -> float:
    """A guess at what a timed part takes, from its operations; 0 for the other parts, which are short."""
    if name in ("analysis", "ceiling", "correctness", "compare", "encode"):  # `compare` itself looks at the clock
        return 0.0
    tflop = bench.tflop[name] + (bench.tflop["step_recompute"] if name == "plain_step" else 0)
    seconds = tflop / (EXPECTED_SHARE * max(bench.products.values()))
    return seconds * (1 + bench.steps) + COMPILE_S * bench.on_gpu


def commit() -> str:
    """The checkout's commit; `unknown` in a bare copy."""
    if not shutil.which("git"):
        return "unknown"
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def hardware(device: torch.device) -> str:
    cpu = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    if device.type != "cuda":
        return f"{cpu}, no GPU used"
    facts = torch.cuda.get_device_properties(device)
    return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {facts.multi_processor_count} SMs; {cpu}"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=list(PRESETS), default="mini")
    parser.add_argument("--device", choices=["cpu", "cuda", "meta"], help="cuda by default where there is one")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="float32 on a CPU, else bfloat16")
    parser.add_argument(
        "--trained-dtype", choices=["float32", "bfloat16"], help="of LoRA and the heads; --dtype's else"
    )
    parser.add_argument("--attention", choices=get_args(Backend), default="auto")
    parser.add_argument("--compile", action="store_true", help="torch.compile each block, but not in chunk parts")
    parser.add_argument("--weights", choices=["bf16", "fp8", "int8", "nf4"], default="bf16", help="bf16: --dtype's")
    parser.add_argument("--activations", choices=get_args(Activations), default="keep", help="of the part step")
    parser.add_argument("--selective-blocks", type=int, default=0, help="with full or offload: so many selective ones")
    parser.add_argument("--fused-lora", action="store_true", help="base product and adapter in one function")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="measured runs of a part, after one that warms up")
    parser.add_argument("--canvas", help="HEIGHTxWIDTH in pixels, instead of the preset's")
    parser.add_argument("--compare-plain", action="store_true", help="time the straightforward transformer as well")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="only these")
    parser.add_argument("--budget-s", type=float, default=540.0, help="start no part that would end after this")
    parser.add_argument("--threads", type=int, help="torch's, instead of OMP_NUM_THREADS")
    parser.add_argument("--out", type=Path, help="a JSON file; standard output by default")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    started, given = time.monotonic(), parse(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.backends.cudnn.allow_tf32 = False  # the plain patch embedding is a convolution, and float32 is to be exact
    torch._dynamo.config.recompile_limit = 1024  # FlexAttention compiles once a shape, and past the limit runs unfused
    torch._dynamo.config.accumulated_recompile_limit = 1024
    changes = {"canvas": tuple(map(int, given.canvas.split("x")))} if given.canvas else {}
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = given.dtype or ("float32" if device == "cpu" else "bfloat16")
    bench = Bench(
        config=preset(given.preset, **changes),
        device=torch.device(device),
        dtype=getattr(torch, dtype),
        trained_dtype=getattr(torch, given.trained_dtype or dtype),
        settings=Settings(attention=given.attention),
        compiled=given.compile,
        rank=given.rank,
        steps=given.steps,
        deadline=started + given.budget_s,
        rung=Rung(
            weights=given.weights,
            activations=given.activations,
            selective_blocks=given.selective_blocks,
            fused_lora=given.fused_lora,
        ),
    )
    header = {
        "command": "python -m benchmarks.train_step " + " ".join(sys.argv[1:] if arguments is None else arguments),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": hardware(bench.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
        "config": bench.config.as_dict(),
        "dtype": dtype,
        "trained_dtype": given.trained_dtype or dtype,
        "rung": bench.rung.words,
    }
    names = ["analysis"] if device == "meta" else [n for n in PARTS if given.compare_plain or n not in WITH_PLAIN]
    names = [n for n in names if not given.parts or n in given.parts]

    def save(results: dict[str, Part]) -> None:
        if given.out:
            partial_file = given.out.with_suffix(".partial")
            partial_file.write_text(json.dumps(header | {"parts": results}, indent=1) + "\n")
            partial_file.replace(given.out)

    results = run(bench, names, save)
    if not given.out:
        sys.stdout.write(json.dumps(header | {"parts": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
