"""The train stage of a run, as one process of one or many does it: from the run folder to trained weights in it."""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache as kept
from pathlib import Path

import numpy as np
import torch
from torch import nn

from adapt.backbones.base import Backbone, Latents
from adapt.backbones.registry import backbone_info
from adapt.cache.feed import Feed, Step, Taught
from adapt.cache.samples import Cache, Encoding, open_cache
from adapt.clips import Clips
from adapt.defaults import steps_for
from adapt.handover.adapter import FULL
from adapt.planning.probe import Planned, Probe, agree, probe
from adapt.planning.rung import Rung
from adapt.training.curves import Trained
from adapt.training.loop import Course, HeldOut, Tick, train
from adapt.training.lora import ADAPTER, go_on_from, with_lora
from adapt.training.sharding import divide
from adapt.training.world import World
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError, WamError
from schemas.files import write_atomic
from schemas.recipe import AdaptRecipe
from wamdata.mix import MixOrder

LATENTS, TRAIN, HORIZON = "latents", "train", "horizon.json"
LOOKS = 1.25  # of a step's time, so that looks at the held-out part, the optimizer and saves fit in as well
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Job:
    """What a process must know to take part in a run's training; it can be sent to another machine.

    Args:
        run: the run folder, which all processes see.
        sources: by part of the recipe, its shards and the robot to see them as.
        steps: of the schedule; fewer where `ends_at`, a `time.time()`, comes sooner.
        planned: what the plan says a step takes, to be held against a probe.
        stop_after: for tests of resuming.
    """

    run: Path
    recipe: AdaptRecipe
    sources: dict[str, tuple[Path, Embodiment]]
    rung: Rung
    steps: int
    store: Path | None = None
    ends_at: float = math.inf
    planned: Planned | None = None
    stop_after: int | None = None

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.recipe.hardware.precision or "float32"]

    def clips(self) -> dict[str, Clips]:
        return {name: Clips.open(folder, robot) for name, (folder, robot) in self.sources.items()}


def train_here(
    job: Job,
    world: World,
    *,
    on_tick: Callable[[Tick], None] = lambda tick: None,
    on_note: Callable[[str], None] = lambda words: None,
    on_save: Callable[[], None] = lambda: None,
) -> Trained:
    """Take part in the training of `job` as one process of `world`.

    Raises:
        torch.OutOfMemoryError: the rung is too high for this device.
    """
    recipe = job.recipe
    torch.set_num_threads(recipe.hardware.threads)  # results are bit-equal at a fixed number only
    backbone = load_backbone(job.run, recipe, world.device)
    cache = open_cache(job.run / LATENTS, job.store)
    if world.is_sharded:
        _refuse_undividable(job, world)
    maker = backbone.to(torch.device("cpu")) if world.is_sharded else backbone  # cut on the host: no GPU holds it whole
    model = build_model(maker, recipe, job.rung, job.dtype, start=True, is_mapped=world.is_sharded)
    if world.is_sharded:
        model = divide(model, backbone, world)
    order = order_of(recipe, cache)
    clips = job.clips()
    held = held_out(cache, lambda s: stand_still(s, backbone, clips[recipe.play.name]), recipe.eval_windows)
    encoding = Encoding(backbone, clips, frozenset(recipe.imitate))

    def feed(first: int, stop: int | None = None) -> AbstractContextManager:
        return Feed(
            cache, order, taught(recipe, cache), first=first, stop=steps if stop is None else stop,
            rank=world.rank, world=world.size, encoding=encoding, every_head=world.is_sharded,
        )  # fmt: skip

    first = kept(lambda: _step(job, backbone, model, feed(0, 1).take(0)))
    if job.rung.compile and recipe.hardware.compile is None:
        compiled_or_not(model, first(), world, on_note)
    steps = job.steps
    steps = horizon(job, model, first, world, on_note)
    course = Course(steps, job.stop_after, time.monotonic() + job.ends_at - time.time())
    done = train(
        backbone, model, feed, held, recipe, job.run / TRAIN,
        course=course, rung=job.rung, world=world, on_tick=on_tick, on_note=on_note, on_save=on_save,
    )  # fmt: skip
    counts = {p.name: len(cache.catalogue.parts[p.name].entries) for p in recipe.parts}
    silent = sum(counts[p.name] for p in recipe.parts if "action" not in p.losses)
    return replace(
        done,
        windows=sum(counts.values()) - silent,
        video_windows=silent,
        epochs=_epochs(order.epochs(done.steps), counts, recipe),
        budget=f"{steps} steps of {recipe.batch}" + (f", until {recipe.until}" if recipe.until else ""),
    )


def horizon(
    job: Job,
    model: nn.Module,
    first: Callable[[], Callable[[], None]],
    world: World,
    on_note: Callable[[str], None],
) -> int:
    """The schedule's length: as asked for, or what fits before `ends_at`; kept in `train/horizon.json` when resumed.

    Where time is short or a GPU is used, two steps are taken first, without the optimizer: a formula alone is no plan.
    """
    path = job.run / TRAIN / HORIZON
    if path.exists() and any((job.run / TRAIN).glob("step-*")):  # else nothing was done by it yet
        stored = int(json.loads(path.read_bytes())["steps"])
        if stored < job.steps:
            on_note(f"goes on with the schedule of {stored} steps that it began with; a new run takes {job.steps}")
        return stored
    steps, facts = job.steps, {}
    if math.isfinite(job.ends_at) or world.device.type == "cuda":
        found = _probed(model, first(), world)
        facts = {"seconds_per_step": found.seconds, "peak_bytes": found.peak_bytes}
        for words in _in_words(found, job.planned):
            on_note(words)
        if math.isfinite(job.ends_at):
            possible = max(1, int((job.ends_at - time.time()) / (LOOKS * found.seconds)))
            steps = min(steps, possible)
            if steps < job.steps:
                on_note(f"time allows {steps} of {job.steps} steps: the schedule is that much shorter")
    steps = int(world.numbers([steps if world.is_main else 0])[0])
    world.first(lambda: write_atomic(path, json.dumps({"steps": steps} | facts).encode()))
    return steps


def _probed(model: nn.Module, step: Callable[[], None], world: World) -> Probe:
    """A step's forward and backward passes; seconds are the mean of all ranks."""
    found = probe(step, device=world.device, has_flops=False)  # its counter does not see into compiled blocks
    model.zero_grad(set_to_none=True)
    return replace(found, seconds=world.numbers([found.seconds])[0] / world.size)


def _step(job: Job, backbone: Backbone, model: nn.Module, taken: Step) -> Callable[[], None]:
    """A step's forward and backward passes, to be done as often as one likes."""

    def step() -> None:
        for low in range(0, len(taken.samples), job.rung.micro_batch):
            part = slice(low, low + job.rung.micro_batch)
            samples, epochs = taken.samples[part], taken.epochs[part]
            found = backbone.loss(model, samples, seed=job.recipe.seed, epochs=epochs, of=taken.of)
            sum(found.values()).backward()

    return step


def compiled_or_not(model: nn.Module, step: Callable[[], None], world: World, on_note: Callable[[str], None]) -> None:
    """Leave the model as it is if a step of it compiles on every rank; else undo what is compiled, and say so.

    Raises:
        torch.OutOfMemoryError: the rung is too high.
    """
    failure = ""
    try:
        step()
    except (torch.OutOfMemoryError, WamError):
        raise
    except Exception as error:  # compilers fail in many ways; what is wrong with the step itself shows when it is run
        failure = " ".join(str(error).split("\n")[:2]) or type(error).__name__
    model.zero_grad(set_to_none=True)
    if world.any(bool(failure)):
        on_note(f"blocks are not compiled: {failure or 'it failed on another rank'}")
        for module in model.modules():
            module._compiled_call_impl = None


def _in_words(found: Probe, planned: Planned | None) -> list[str]:
    peak = f", {found.peak_bytes / 1e9:.1f} GB at its peak" if found.peak_bytes else ""
    parts = [] if planned is None else agree(planned, found)
    verdict = "" if planned is None else "; not as planned:" if parts else "; as planned"
    return [f"probe: {found.seconds:.3g} s a step{peak}{verdict}", *parts]


def load_backbone(run: Path, recipe: AdaptRecipe, device: torch.device) -> Backbone:
    """The run's backbone, its encoders and batches on `device`."""
    base = None if recipe.base is None else Path(recipe.base)
    return backbone_info(recipe.backbone).load().load(run / LATENTS, base=base).to(device)


def build_model(
    backbone: Backbone,
    recipe: AdaptRecipe,
    rung: Rung,
    dtype: torch.dtype,
    *,
    start: bool,
    is_mapped: bool = False,
) -> nn.Module:
    """The model to train: the base with fresh adapters or those of the recipe's `start`; all of it without a base."""
    base = None if recipe.base is None else Path(recipe.base)
    with torch.random.fork_rng():
        model = backbone.build(seed=recipe.seed, base=base, rung=rung, dtype=dtype, is_mapped=is_mapped)
        if base is not None:
            model = backbone.adapted(model, rung, lambda m: with_lora(m, recipe.lora, backbone, seed=recipe.seed))
    if start and recipe.start is not None:
        go_on_from(model, Path(recipe.start) / (FULL if base is None else ADAPTER))
    return model


def order_of(recipe: AdaptRecipe, cache: Cache) -> MixOrder:
    """Which windows each step takes.

    Raises:
        DataError: a part has no window.
    """
    parts = {p.name: ([e.id for e in cache.catalogue.parts[p.name].entries], p.share) for p in recipe.parts}
    return MixOrder(parts, recipe.batch, recipe.seed)


def taught(recipe: AdaptRecipe, cache: Cache) -> dict[str, Taught]:
    """What is learned from each part."""
    return {
        p.name: Taught(copies=cache.catalogue.parts[p.name].copies, is_silent="action" not in p.losses)
        for p in recipe.parts
    }


def held_out(cache: Cache, hold: Callable[[Latents], np.ndarray], most: int) -> HeldOut:
    """What chooses the checkpoint, from the validation windows of all parts that have some."""
    names = [n for n, part in cache.catalogue.parts.items() if part.split == "val"]
    found = [(name, outline) for name in names for outline in cache.outlines(name)]
    part_of = {outline.window_id: name for name, outline in found}
    return HeldOut.of([o for _, o in found], hold, most, load=lambda o: cache.load(part_of[o.window_id], o.window_id))


def steps_of(recipe: AdaptRecipe, cache: Cache) -> int:
    """The schedule's length: as given, or as many epochs of the play parts."""
    if recipe.steps is not None:
        return recipe.steps
    windows = sum(len(cache.catalogue.parts[p.name].entries) for p in recipe.plays)
    if not windows:
        raise DataError("no training clip holds a whole window. Log longer episodes or lower chunk_s.")
    return steps_for(recipe, windows)


def _epochs(done: dict[str, float], windows: dict[str, int], recipe: AdaptRecipe) -> float:
    """How often a window of the play parts was seen, on average."""
    names = [p.name for p in recipe.plays]
    return sum(done[n] * windows[n] for n in names) / sum(windows[n] for n in names)


def stand_still(sample: Latents, backbone: Backbone, clips: Clips) -> np.ndarray:
    """(K, A): the present state held; velocities stop."""
    hold = np.array(clips.embodiment.hold_columns(), np.int64)
    still = np.where(hold >= 0, sample.state[-1][np.maximum(hold, 0)], 0.0)
    return np.broadcast_to(still, (backbone.time_base.steps, len(still)))


def _refuse_undividable(job: Job, world: World) -> None:
    """Divided over ranks, every rank must pass through the model equally often, and all state is plain tensors."""
    if job.rung.optimizer != "adamw":
        raise UsageError(f"{job.rung.optimizer}: 8-bit moments cannot be divided over GPUs. Give optimizer adamw.")
    if job.recipe.batch % (world.size * job.rung.micro_batch):
        raise UsageError(
            f"batch {job.recipe.batch} over {world.size} ranks of micro-batch {job.rung.micro_batch}: a divided base "
            "needs a batch that they divide evenly."
        )
