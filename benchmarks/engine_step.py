"""A DreamZero LoRA step by this engine and by a plain port of the same graph, in turn in one process.

    python -m benchmarks.train_step --preset mini --compare-plain --threads 1 --steps 5 --parts compare --out FILE

Same weights, batch, noise, rank, precision and optimizer; the plain port has peft's own LoRA. Rows take turns, so that
a machine that others use slows all of them. Beside the wall clock a CPU is asked for this process's own seconds, which
others' work lengthens less; they mean something with one thread only.

    ratio                 plain port                            ours
    recomputed            every block recomputed                every block recomputed
    kept                  all activations kept                  all activations kept
    selective             every block recomputed                products and attention kept
    as_run                every block recomputed, as shipped    all kept, peft's LoRA: the planner's choice on a CPU
    as_run_fused          every block recomputed, as shipped    all kept, LoRA as --fused-lora says
    as_run_with_encoders  the same, and encoding in the step    the same, latents cached

The public trainer encodes in every step: of the video encoder two passes, 75.5 TFLOP beside a forward pass of 463.1 at
the 14B's size. A video encoder of real width would drown the small size that a CPU can run (part `encode` measures
it), so the one in this comparison is as narrow as makes that same share. Narrow convolutions are slow on a CPU, so the
ratio is also told with encoders that run at the plain port's own rate. umt5 and CLIP, another 1.3 %, are left out.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.model import configured
from adapt.planning.rung import Activations, Rung
from benchmarks.plain_dit import plain_forward
from benchmarks.train_step import Bench, Part, Work, lora_step, plain_agreement

ENCODING_SHARE = 75.5 / 463.1  # of two passes of the video encoder, by the operations of an untrimmed forward pass
REAL_WIDTH = 96
PROBE_WIDTH = 8
FRAMES_PER_LATENT = 4
RATIOS: dict[str, tuple[tuple[str, ...], str]] = {
    "recomputed": (("plain_recomputed",), "recomputed"),
    "selective": (("plain_recomputed",), "selective"),
    "kept": (("plain_kept",), "kept"),
    "as_run": (("plain_recomputed",), "planned"),
    "as_run_fused": (("plain_recomputed",), "kept"),
    "as_run_with_encoders": (("plain_recomputed", "encoders"), "planned"),
    "as_run_with_encoders_at_its_rate": (("plain_recomputed", "encoders_at_its_rate"), "planned"),
}


def compare(bench: Bench) -> Part:
    """Seconds of every row, and how many times as long the plain port takes."""
    result: Part = {"agreement": plain_agreement(bench), "threads": torch.get_num_threads()}
    rows = works(bench)
    try:
        rows["encoders"], result["encoders"] = live_encoders(bench)
    except ImportError as error:
        result["encoders"] = {"skipped": str(error)}
    clocks = {"wall": time.perf_counter} | ({} if bench.on_gpu else {"cpu": time.process_time})
    seconds = in_turn(bench, rows, clocks)
    encoding = result["encoders"].get("tflop", 0.0) / bench.tflop["plain_step"]
    return result | {clock: summary(found, encoding=encoding) for clock, found in seconds.items()}


def works(bench: Bench) -> dict[str, Work]:
    """One step of each row; all models begin with equal weights."""
    bare = replace(bench, rung=Rung(activations="keep"))  # with peft's own LoRA
    port, planned = (replace(bare) for _ in range(2))
    for each in (port, planned, bench):
        torch.manual_seed(0)  # peft draws from the global generator
        _ = each.trained
        each.compile_blocks()

    def engine(own: Bench, activations: Activations) -> Tensor:
        rung = replace(own.rung, activations=activations, selective_blocks=0)
        own.model.settings = configured(bench.settings, rung)
        return lora_step(own.trained, *own.sample, descend=own.descend)

    def plainly(recompute: bool) -> Tensor:
        network = partial(plain_forward, port.trained, recompute=recompute)
        return lora_step(network, *port.sample, descend=port.descend)

    return {
        "plain_recomputed": partial(plainly, True),
        "plain_kept": partial(plainly, False),
        "recomputed": partial(engine, bench, "full"),
        "selective": partial(engine, bench, "selective"),
        "kept": partial(engine, bench, "keep"),
        "planned": partial(engine, planned, "keep"),
    }


def in_turn(
    bench: Bench, rows: dict[str, Work], clocks: dict[str, Callable[[], float]]
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each clock and row: all rows once to warm up, then round by round."""
    found: dict[str, dict[str, list[float]]] = {clock: {row: [] for row in rows} for clock in clocks}
    for number in range(1 + bench.steps):
        if number > 1 and time.monotonic() > bench.deadline:
            break
        for row, work in rows.items():
            synchronise(bench)
            started = {clock: now() for clock, now in clocks.items()}
            work()
            synchronise(bench)
            for clock, now in clocks.items() if number else ():
                found[clock][row].append(now() - started[clock])
    return found


def synchronise(bench: Bench) -> None:
    if bench.on_gpu:
        torch.cuda.synchronize()


def summary(seconds: dict[str, list[float]], *, encoding: float) -> Part:
    """Least and middle seconds of each row, and the ratios of both.

    Args:
        encoding: operations of the encoders over those of the plain port's step.
    """
    rows = {row: {"min_s": min(s), "median_s": statistics.median(s), "measured": len(s)} for row, s in seconds.items()}
    rows["encoders_at_its_rate"] = {of: encoding * rows["plain_recomputed"][of] for of in ("min_s", "median_s")}
    ratios: Part = {}
    for name, (plain, ours) in RATIOS.items():
        if set(plain) <= rows.keys():
            ratios[name] = {of: sum(rows[row][of] for row in plain) / rows[ours][of] for of in ("min_s", "median_s")}
    return {"rows": rows, "times_ours": ratios}


# Encoders


def live_encoders(bench: Bench) -> tuple[Work, Part]:
    """Two passes of a video encoder at the 14B's share of a step, and how wide it is."""
    target = ENCODING_SHARE * bench.tflop["plain_forward"] / 2
    width = max(1, round(PROBE_WIDTH * (target / encoding_tflop(bench.config, PROBE_WIDTH)) ** 0.5))
    once = encoding_work(bench, width)

    def twice() -> None:
        once()
        once()

    tflop = 2 * encoding_tflop(bench.config, width)
    return twice, {"width": width, "tflop": tflop, "share_of_forward": tflop / bench.tflop["plain_forward"]}


def encode(bench: Bench) -> Part:
    """One pass of Wan's video encoder, at its real width, over a window on the preset's canvas; random weights."""
    found = in_turn(replace(bench, steps=1), {"encode": encoding_work(bench, REAL_WIDTH)}, {"wall": time.perf_counter})
    seconds = found["wall"]["encode"][0]
    tflop = encoding_tflop(bench.config, REAL_WIDTH)
    return {"measured_s": seconds, "width": REAL_WIDTH, "tflop": tflop, "tflops": tflop / seconds}


def encoding_work(bench: Bench, width: int) -> Work:
    model, frames = encoder(width, bench.device, bench.dtype), video(bench.config, bench.device, bench.dtype)
    return torch.no_grad()(lambda: model.encode(frames))


def encoding_tflop(config: DreamZeroConfig, width: int) -> float:
    """Of one pass over a window, counted on the meta device."""
    meta = torch.device("meta")
    model, frames = encoder(width, meta, torch.float32), video(config, meta, torch.float32)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), meta:
        model.encode(frames)
    return counter.get_total_flops() / 1e12


def encoder(width: int, device: torch.device, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKLWan

    with torch.device(device):
        return AutoencoderKLWan(base_dim=width).to(dtype).requires_grad_(False)


def video(config: DreamZeroConfig, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1, 3, T, H, W) pixels of a window."""
    return torch.zeros(1, 3, 1 + FRAMES_PER_LATENT * (config.window_latents - 1), *config.canvas).to(device, dtype)
