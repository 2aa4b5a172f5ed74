"""What a run would do, before anything is spent: windows, epochs, hours, bytes; read from shards, no pixel decoded.

DreamZero is planned in closed form, at an assumed share of a GPU's peak; `probe` measures two real steps, and `agree`
says where plan and measurement part. `nano` is small enough to be measured at once, on random numbers.
Does not read the base's weights, only their headers.
"""

from __future__ import annotations  # the training loop probes on machines without pydantic, which the schemas need

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.planning.gpus import EXPECTED, FASTEST, SLOWEST, Gpu
from adapt.planning.ladder import Choice, choose, seconds

if TYPE_CHECKING:
    from adapt.backbones.dreamzero.cost import DreamZeroCost
    from adapt.clips import Clips
    from schemas.recipe import AdaptRecipe

CHECKPOINTS = 3  # kept at once: two newest and the chosen one
DRIFT = 0.1  # plan and probe may differ by so much without a word


@dataclass(frozen=True)
class Counts:
    """What the shards hold for a run; `short_clips` give no whole window and are not trained on.

    Args:
        train: windows of the robot's training part; `video` those of action-free film.
        judged: chunks of the parts that are held out.
        episodes, minutes: by part.
    """

    train: int
    video: int
    judged: dict[str, int]
    episodes: dict[str, int]
    minutes: dict[str, float]
    instructions: tuple[str, ...]
    short_clips: tuple[str, ...]

    @property
    def windows(self) -> int:
        return self.train + self.video


@dataclass(frozen=True)
class Control:
    """Whether the result can steer at the robot's rate: a chunk's length against the time that deciding on it takes.

    Args:
        decision_s: at the expected share of the GPU's peak; `slowest_s` at the least that is expected.
        gigabytes: of weights, encoders and one session.
    """

    gpu: str
    chunk_s: float
    decision_s: float
    slowest_s: float
    denoise_steps: int
    guided: bool
    gigabytes: float
    fits: bool

    @property
    def in_time(self) -> bool:
        return self.fits and self.decision_s <= self.chunk_s

    @property
    def words(self) -> str:
        guidance = "with guidance" if self.guided else "no guidance"
        if not self.fits:
            return f"serving on {self.gpu}: needs {self.gigabytes:.0f} GB, which it has not. Give another --serve-gpu."
        verdict = (
            "in time" if self.in_time else "too slow to control at this rate: fewer steps, a faster GPU, or the 5B"
        )
        return (
            f"serving on {self.gpu}: a chunk lasts {self.chunk_s:g} s, a decision takes {self.decision_s:.2f} s "
            f"(at worst {self.slowest_s:.2f}; {self.denoise_steps} denoising steps, {guidance}): {verdict}"
        )


@dataclass(frozen=True)
class Plan:
    """A run as it would be.

    Args:
        epochs: how often training sees each window of the play data.
        seconds_per_step: measured, or at an assumed share of the GPU's peak; `seconds_range` at the ends of what is
            assumed. None where no GPU was named.
        hours: of each stage.
        bytes: at the peak of a step on one GPU (or CPU), by part; `host_bytes` beside a GPU.
        disk: bytes by what is written; `disk_free` where the run goes.
        operations: of a step on one GPU, all that are done.
    """

    robot: str
    backbone: str
    base: str
    gpu: str
    gpus: int
    counts: Counts
    steps: int
    batch: int
    epochs: float
    rung: str
    is_measured: bool
    seconds_per_step: float | None
    seconds_range: tuple[float, float] | None
    hours: dict[str, float]
    bytes: dict[str, int]
    host_bytes: int
    headroom: int | None
    operations: float
    disk: dict[str, int]
    disk_free: int | None
    control: Control | None
    licences: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    choice: Choice | None = field(default=None, repr=False)

    @property
    def peak_bytes(self) -> int:
        return sum(self.bytes.values())

    @property
    def headline(self) -> str:
        """The run in one line."""
        counts = self.counts
        minutes = sum(counts.minutes.values())
        episodes = sum(counts.episodes.values())
        each = f"{60 * minutes / episodes:.0f} s" if episodes else "nothing"
        film = f" + {counts.video} of film" if counts.video else ""
        texts = len(counts.instructions)
        listens = "one instruction: language is untestable" if texts == 1 else f"{texts} instructions"
        return (
            f"{episodes} episodes x {each} = {minutes:.1f} min; {counts.train} training windows{film}; "
            f"{self.steps:,} steps x {self.batch} = {self.epochs:.1f} epochs; {listens}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        counts = self.counts
        found = {k: v for k, v in vars(self).items() if k not in ("counts", "control", "choice")}
        found |= {
            "episodes": counts.episodes,
            "minutes": counts.minutes,
            "train_windows": counts.train,
            "video_windows": counts.video,
            "judged_chunks": counts.judged,
            "instructions": counts.instructions,
            "short_clips": counts.short_clips,
            "cache_bytes": self.disk["cache"],
            "peak_bytes": self.peak_bytes,
            "headline": self.headline,
            "control": vars(self.control) | {"in_time": self.control.in_time} if self.control else None,
        }
        return found | {"rung_fields": vars(self.choice.rung) if self.choice else None}


def plan(
    recipe: AdaptRecipe,
    play: Clips,
    films: Clips | None = None,
    *,
    gpu: Gpu | None = None,
    gpus: int = 1,
    serve_gpu: Gpu | None = None,
    base: Path | None = None,
    folder: Path | None = None,
    base_licence: str | None = None,
) -> Plan:
    """The plan of a run on these shards.

    Args:
        gpu: that trains; None plans no time and no memory of a DreamZero. `nano` is measured on this machine.
        serve_gpu: that the robot will be controlled with; `gpu` by default.
        base: folder of the base's checkpoint; without one a DreamZero has the 14B's sizes, or the 5B's by its name.
        folder: where the run will be written, to look at the free disk.

    Raises:
        UsageError: no rung fits the GPU, or the batch does not divide over them.
    """
    from adapt.defaults import play_per_step, resolve, steps_for

    recipe = resolve(recipe, play.embodiment)
    counts = count(recipe, play, films)
    if not recipe.steps and not counts.windows:
        recipe = recipe.model_copy(update={"steps": 1})
    steps = steps_for(recipe, max(1, counts.train))
    common = {
        "robot": play.embodiment.name,
        "counts": counts,
        "gpus": gpus,
        "steps": steps,
        "batch": recipe.batch,
        "epochs": steps * play_per_step(recipe, counts.train) / counts.train if counts.train else 0.0,
        "disk_free": _free(folder),
        "licences": _licences(play, films, base_licence),
    }
    warnings = [*_warnings(recipe, play, counts)]
    if recipe.backbone == "nano":
        found = _nano(recipe, play, counts, steps)
    else:
        found = _dreamzero(recipe, play, counts, steps, gpu=gpu, gpus=gpus, serve_gpu=serve_gpu or gpu, base=base)
    made = Plan(**common, **found)
    written = sum(made.disk.values())
    if made.disk_free is not None and written > made.disk_free:
        warnings.append(
            f"the run writes {written / 1e9:.1f} GB and {made.disk_free / 1e9:.1f} GB are free on that disk"
        )
    if made.control and not made.control.in_time:
        warnings.append(made.control.words)
    return replace(made, warnings=tuple(warnings))


def count(recipe: AdaptRecipe, play: Clips, films: Clips | None) -> Counts:
    """Windows, chunks, minutes and instructions of the shards on the recipe's time base, which must be resolved."""
    from wamdata.windows import judged_starts, on_time_base, window_starts

    time_base = recipe.time_base
    stride = max(1, round(recipe.window_stride_s * time_base.action_hz))
    texts, short, chunks = {}, [], {"val": 0, "test": 0}
    train = video = 0
    split_of = {s.key: s.split for s in play.manifest.samples}
    for clip in play.stream():
        rows = on_time_base(clip, play.embodiment, time_base)
        texts.setdefault(clip.text_at(int(rows.t_ns[0])), None)
        if split_of[clip.key] != "train":
            chunks[split_of[clip.key]] += len(judged_starts(clip, rows, time_base)[0])
            continue
        starts = window_starts(clip, rows, time_base, stride=stride)
        train += len(starts)
        if not starts:
            short.append(clip.key)
    for clip in films.stream() if films else ():
        rows = on_time_base(clip, films.embodiment, time_base)
        video += len(window_starts(clip, rows, time_base, stride=stride))
    samples = play.manifest.samples
    return Counts(
        train=train,
        video=video,
        judged=chunks,
        episodes={p: len({s.session for s in samples if s.split == p}) for p in ("train", "val", "test")},
        minutes={p: sum(s.seconds for s in samples if s.split == p) / 60 for p in ("train", "val", "test")},
        instructions=tuple(texts),
        short_clips=tuple(short),
    )


# A probe


@dataclass(frozen=True)
class Probe:
    """Two real steps, measured.

    Args:
        seconds: of the second; the first one warmed up.
        peak_bytes: most that was allocated on the GPU; None on a CPU.
        flops: operations of one step.
    """

    seconds: float
    peak_bytes: int | None
    flops: float


def probe(step: Callable[[], None], *, device: Any, has_flops: bool = True) -> Probe:
    """What a step costs: one that warms up and is counted, and one that is timed.

    The steps are real: take them before a state is restored, or on a copy of what they change.

    Args:
        device: a torch device, or its name.
        has_flops: count operations; not possible where blocks are compiled, whose insides no counter sees.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = torch.device(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    flops = 0.0
    if has_flops:
        with FlopCounterMode(display=False) as counter:
            step()
        flops = float(counter.get_total_flops())
    else:
        step()
    if on_gpu:
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    if on_gpu:
        torch.cuda.synchronize(device)
    taken = time.perf_counter() - started
    return Probe(taken, torch.cuda.max_memory_allocated(device) if on_gpu else None, flops)


def agree(plan: Plan, probe: Probe) -> list[str]:
    """Where a probe of a whole step is more than a tenth off the plan, one sentence each; empty where it is not."""
    pairs = [
        ("operations of a step", plan.operations / 1e12, probe.flops / 1e12, "TFLOP"),
        ("memory at the peak", plan.peak_bytes / 1e9, (probe.peak_bytes or 0) / 1e9, "GB"),
        ("a step", plan.seconds_per_step or 0, probe.seconds, "s"),
    ]
    found = []
    for what, planned, measured, unit in pairs:
        if planned and measured and abs(measured / planned - 1) > DRIFT:
            hours = f", training {probe.seconds * plan.steps / 3600:.1f} h" if unit == "s" else ""
            found.append(
                f"{what}: {measured:.3g} {unit} measured, {planned:.3g} planned ({measured / planned - 1:+.0%}){hours}"
            )
    return found


def measured(plan: Plan, probe: Probe) -> Plan:
    """The plan with a probe's seconds in place of assumed ones, in training's hours too."""
    hours = plan.hours | {"train": plan.steps * probe.seconds / 3600}
    both = (probe.seconds, probe.seconds)
    return replace(plan, is_measured=True, seconds_per_step=probe.seconds, seconds_range=both, hours=hours)


# DreamZero


def cost_of(recipe: AdaptRecipe, base: Path | None = None) -> DreamZeroCost:
    """The cost model of a recipe's DreamZero: the base's own sizes, or the 5B's or the 14B's by the base's name."""
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.config import preset
    from adapt.backbones.dreamzero.cost import DreamZeroCost

    config = open_checkpoint(base).config if base else preset("5b" if "5b" in (recipe.base or "").lower() else "14b")
    return DreamZeroCost(config, rank=recipe.lora.rank, has_average=recipe.ema > 0)


def choice_of(recipe: AdaptRecipe, gpu: Gpu, *, gpus: int = 1, base: Path | None = None) -> Choice:
    """The rung that a resolved DreamZero recipe takes on a GPU; what its `hardware` settles stays.

    Raises:
        UsageError: nothing fits.
    """
    return _chosen(recipe, cost_of(recipe, base), gpu, gpus)


def _chosen(recipe: AdaptRecipe, cost: DreamZeroCost, gpu: Gpu, gpus: int) -> Choice:
    from adapt.backbones.dreamzero.config import preset
    from adapt.backbones.dreamzero.cost import DreamZeroCost
    from adapt.planning.hardware import given_of

    hardware = recipe.hardware
    fixed = given_of(hardware)
    if recipe.lora.dropout or recipe.lora.options.get("use_dora"):
        fixed["fused_lora"] = False  # neither can be fused
    small = DreamZeroCost(preset("5b"), rank=cost.rank, has_average=cost.has_average)
    others = {"the 5B": small} if cost.config != small.config else {}
    return choose(cost, gpu, batch=recipe.batch, world=gpus, shard=hardware.shard, fixed=fixed, alternatives=others)


def _dreamzero(
    recipe: AdaptRecipe,
    play: Clips,
    counts: Counts,
    steps: int,
    *,
    gpu: Gpu | None,
    gpus: int,
    serve_gpu: Gpu | None,
    base: Path | None,
) -> dict[str, Any]:
    from adapt.backbones.registry import backbone_info

    cost = cost_of(recipe, base)
    copies = recipe.augment.copies
    encoded = counts.windows * copies + sum(counts.judged.values())
    choice = _chosen(recipe, cost, gpu, gpus) if gpu else None
    each = recipe.batch // gpus
    times = (
        [seconds(cost, choice.rung, gpu, samples=each, share=s) for s in (EXPECTED, FASTEST, SLOWEST)] if gpu else None
    )
    hours = {}
    if gpu:
        rate = gpu.bf16_tflops * 1e12 * EXPECTED
        decisions = _decisions(recipe, counts, steps) / gpus
        hours = {
            "encode": (encoded / gpus * cost.encode_flops + len(counts.instructions) * cost.prompt_flops) / rate / 3600,
            "train": steps * times[0] / 3600,
            "judge": decisions * cost.decision_flops(steps=recipe.denoise_steps) / rate / 3600,
        }
    state = cost.trained * (4 + 8 + 4 * cost.has_average)
    return {
        "backbone": f"{recipe.backbone}: {backbone_info(recipe.backbone).about}",
        "base": recipe.base or "none",
        "gpu": gpu.name if gpu else "none named",
        "rung": choice.rung.words if choice else "",
        "is_measured": False,
        "seconds_per_step": times[0] if times else None,
        "seconds_range": (times[1], times[2]) if times else None,
        "hours": hours,
        "bytes": choice.bytes if choice else {},
        "host_bytes": choice.host_bytes if choice else 0,
        "headroom": choice.headroom if choice else None,
        "operations": each * cost.flops(choice.rung).done if choice else 0.0,
        "disk": {
            "cache": encoded * cost.cached_bytes + len(counts.instructions) * cost.prompt_bytes,
            "checkpoints": CHECKPOINTS * state,
            "adapter": 4 * cost.trained,
        },
        "control": _control(recipe, cost, serve_gpu) if serve_gpu and not play.embodiment.is_action_free else None,
        "reasons": choice.reasons if choice else (),
        "choice": choice,
    }


def _decisions(recipe: AdaptRecipe, counts: Counts, steps: int) -> float:
    """Decisions that judging takes: looks while training, and the report's model, mean, blind and base arms."""
    looks = steps // recipe.eval_every * min(recipe.eval_windows, counts.judged["val"])
    return looks + counts.judged["test"] * (3 + recipe.samples)


def _control(recipe: AdaptRecipe, cost: DreamZeroCost, gpu: Gpu) -> Control:
    needed = cost.weight_bytes("bf16") + cost.encoder_bytes + cost.session_bytes
    flops = cost.decision_flops(steps=recipe.denoise_steps)
    rate = gpu.bf16_tflops * 1e12
    return Control(
        gpu=gpu.name,
        chunk_s=recipe.time_base.chunk_s,
        decision_s=flops / (rate * EXPECTED),
        slowest_s=flops / (rate * SLOWEST),
        denoise_steps=recipe.denoise_steps,
        guided=False,
        gigabytes=needed / 1e9,
        fits=needed <= gpu.usable_gb * 1e9,
    )


# nano


def _nano(recipe: AdaptRecipe, play: Clips, counts: Counts, steps: int) -> dict[str, Any]:
    """Two steps on random numbers of the run's own shapes, on this machine's CPU."""
    from adapt.backbones.registry import backbone_info

    config, found, parameters, saved = _probed_nano(recipe, play)
    encoded = counts.windows * recipe.augment.copies + sum(counts.judged.values())
    latents = 2 * config.num_latents * config.channels * math.prod(config.grid)
    # A decision runs the network forward alone, a third of a step's operations, on one chunk of the window.
    decision = found.seconds / recipe.batch / 3 / config.chunks * recipe.denoise_steps
    each = 4 * parameters
    return {
        "backbone": f"{recipe.backbone}: {backbone_info(recipe.backbone).about}",
        "base": recipe.base or "none",
        "gpu": f"CPU, {recipe.hardware.threads} thread" + "s" * (recipe.hardware.threads > 1),
        "rung": "float32, everything kept",
        "is_measured": True,
        "seconds_per_step": found.seconds,
        "seconds_range": (found.seconds, found.seconds),
        "hours": {
            "train": steps * found.seconds / 3600,
            "judge": _decisions(recipe, counts, steps) * decision / 3600,
        },
        "bytes": {
            "weights": each,
            "gradients": each,
            "optimizer": 2 * each,
            "moving average": each * (recipe.ema > 0),
            "activations": saved,
        },
        "host_bytes": 0,
        "headroom": None,
        "operations": found.flops,
        "disk": {
            "cache": encoded * latents,
            "checkpoints": CHECKPOINTS * each * (3 + (recipe.ema > 0)),
            "adapter": each,
        },
        "control": None,
    }


def _probed_nano(recipe: AdaptRecipe, play: Clips) -> tuple[Any, Probe, int, int]:
    """The config, a probe, the number of parameters, and bytes that a step keeps for its backward pass."""
    import torch

    from adapt.backbones.base import Totals
    from adapt.backbones.nano.backbone import _config
    from adapt.backbones.nano.batch import Draws, draws_for
    from adapt.backbones.nano.model import build
    from adapt.backbones.nano.objective import loss

    config = _config(play.embodiment, recipe)
    model, batch = build(config, 0), _random_batch(config, recipe.batch)
    draws = Draws.stack([draws_for(0, 0, str(i), config) for i in range(recipe.batch)])
    of = Totals(recipe.batch, recipe.batch * config.chunks * config.steps)
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = sum(loss(model, batch, draws, of).values())
        total.backward()

    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.hardware.threads)
    try:
        found = probe(step, device="cpu")
    finally:
        torch.set_num_threads(threads)
    return config, found, sum(p.numel() for p in model.parameters()), sum(kept.values())


def _random_batch(config: Any, size: int) -> Any:
    import torch

    from adapt.backbones.nano.batch import Batch

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn((size, *shape), generator=generator)

    last = config.action_width if config.last_command else 0
    return Batch(
        latents=normal(config.num_latents, config.channels, *config.grid),
        state=normal(config.chunks, config.state_width),
        history=normal(config.chunks, config.lags, config.state_width),
        last_action=normal(config.chunks, last),
        action=normal(config.chunks, config.steps, config.action_width),
        action_valid=torch.ones(size, config.chunks, config.steps, dtype=torch.bool),
        has_action=torch.ones(size, dtype=torch.bool),
        text=normal(config.text_width),
    )


# Shared


def _free(folder: Path | None) -> int | None:
    if folder is None:
        return None
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    return shutil.disk_usage(existing).free if existing else None


def _licences(play: Clips, films: Clips | None, base: str | None) -> tuple[str, ...]:
    named = [*play.manifest.licences, *(films.manifest.licences if films else ())]
    return tuple(dict.fromkeys(named)) + ((f"{base} (base)",) if base else ())


def _warnings(recipe: AdaptRecipe, play: Clips, counts: Counts) -> list[str]:
    found = []
    time_base = recipe.time_base
    if not counts.windows:
        found.append(f"no whole window of {time_base.window_rows / time_base.action_hz:.1f} s: nothing to train on")
    if not counts.judged["test"]:
        found.append("nothing is held out for the report: at least three sessions are needed")
    if len(counts.instructions) == 1:
        found.append("one instruction: whether the model listens cannot be tested")
    if "" in counts.instructions:
        found.append("some clips have no instruction")
    rate = play.embodiment.native_hz
    if not play.embodiment.is_action_free and abs(rate / time_base.action_hz - 1) > 0.02:
        found.append(f"the robot runs at {rate:g} Hz, the model at {time_base.action_hz:g} Hz: rows are resampled")
    if play.embodiment.is_action_free:
        found.append("no actions: the result can imagine video, it cannot control a robot")
    if not recipe.base and recipe.backbone != "nano":
        found.append("no base is named: the plan has the 14B's sizes (`--base` names another)")
    if any(licence.lower().startswith(("cc-by-nc", "unknown")) for licence in play.manifest.licences):
        found.append("the data's licence is unknown or excludes commercial use: so does the adapter's")
    return found
