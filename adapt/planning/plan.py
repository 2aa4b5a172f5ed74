"""What a run would do, before anything is spent: windows, epochs, hours, bytes; read from shards, no pixel decoded.

DreamZero is planned in closed form, at an assumed share of a GPU's peak; a run holds a probe of two real steps against
it. `nano` is measured at once. Does not read the base's weights, only their headers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.clips import Clips
from adapt.defaults import play_per_step, resolve, steps_for
from adapt.planning.channels import check_channels
from adapt.planning.counts import CHECKPOINTS, Counts, count, decisions
from adapt.planning.gpus import EXPECTED, FASTEST, SLOWEST, Gpu
from adapt.planning.ladder import Choice, choose, seconds
from adapt.planning.nano import plan_nano
from schemas.embodiment import Embodiment
from schemas.recipe import AdaptRecipe

if TYPE_CHECKING:
    from adapt.backbones.dreamzero.cost import DreamZeroCost

COMPILED = ("bf16", "fp8")  # others unpack through kernels that a compiler does not see into


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
        film += f" + {counts.replay} replayed" if counts.replay else ""
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
            "replay_windows": counts.replay,
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
    sources: Mapping[str, Clips],
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
        sources: shards of every part of the recipe, by the part's name.
        gpu: that trains; None plans no time and no memory of a DreamZero. `nano` is measured on this machine.
        serve_gpu: that the robot will be controlled with; `gpu` by default.
        base: folder of the base's checkpoint; without one a DreamZero has the 14B's sizes, or the 5B's by its name.
        folder: where the run will be written, to look at the free disk.

    Raises:
        UsageError: no rung fits the GPU, the batch does not divide over them, or the base has too few channels.
    """
    robot = sources[recipe.play.name].embodiment
    recipe = resolve(recipe, robot)
    counts = count(recipe, sources)
    if not recipe.steps and not counts.windows:
        recipe = recipe.model_copy(update={"steps": 1})
    steps = steps_for(recipe, max(1, counts.train))
    licences = tuple(dict.fromkeys(x for clips in sources.values() for x in clips.manifest.licences))
    common = {
        "robot": robot.name,
        "counts": counts,
        "gpus": gpus,
        "steps": steps,
        "batch": recipe.batch,
        "epochs": steps * play_per_step(recipe, counts.train) / counts.train if counts.train else 0.0,
        "disk_free": _free(folder),
        "licences": licences + ((f"{base_licence} (base)",) if base_licence else ()),
    }
    warnings = [*_warnings(recipe, robot, counts, licences)]
    if recipe.backbone == "nano":
        found = plan_nano(recipe, robot, counts, steps)
    else:
        check_channels(sources[recipe.play.name])
        found = _dreamzero(recipe, robot, counts, steps, gpu=gpu, gpus=gpus, serve_gpu=serve_gpu or gpu, base=base)
    made = Plan(**common, **found)
    written = sum(made.disk.values())
    if made.disk_free is not None and written > made.disk_free:
        warnings.append(
            f"the run writes {written / 1e9:.1f} GB and {made.disk_free / 1e9:.1f} GB are free on that disk"
        )
    if made.control and not made.control.in_time:
        warnings.append(made.control.words)
    return replace(made, warnings=tuple(warnings))


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
    choice = choose(cost, gpu, batch=recipe.batch, world=gpus, shard=hardware.shard, fixed=fixed, alternatives=others)
    is_compiled = hardware.compile if hardware.compile is not None else choice.rung.weights in COMPILED
    return replace(choice, rung=replace(choice.rung, compile=is_compiled))


def _dreamzero(
    recipe: AdaptRecipe,
    robot: Embodiment,
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
    encoded = counts.encoded(recipe.augment.copies)
    choice = _chosen(recipe, cost, gpu, gpus) if gpu else None
    each = recipe.batch // gpus
    times = (
        [seconds(cost, choice.rung, gpu, samples=each, share=s) for s in (EXPECTED, FASTEST, SLOWEST)] if gpu else None
    )
    hours = {}
    if gpu:
        rate = gpu.bf16_tflops * 1e12 * EXPECTED
        acted = decisions(recipe, counts, steps) / gpus
        hours = {
            "encode": (encoded / gpus * cost.encode_flops + counts.prompts * cost.prompt_flops) / rate / 3600,
            "train": steps * times[0] / 3600,
            "judge": acted * cost.decision_flops(steps=recipe.denoise_steps) / rate / 3600,
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
            "cache": encoded * cost.cached_bytes + counts.prompts * cost.prompt_bytes,
            "checkpoints": CHECKPOINTS * state,
            "adapter": 4 * cost.trained,
        },
        "control": _control(recipe, cost, serve_gpu) if serve_gpu and not robot.is_action_free else None,
        "reasons": choice.reasons if choice else (),
        "choice": choice,
    }


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


def _free(folder: Path | None) -> int | None:
    if folder is None:
        return None
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    return shutil.disk_usage(existing).free if existing else None


def _warnings(recipe: AdaptRecipe, robot: Embodiment, counts: Counts, licences: Sequence[str]) -> list[str]:
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
    rate = robot.native_hz
    if not robot.is_action_free and abs(rate / time_base.action_hz - 1) > 0.02:
        found.append(f"the robot runs at {rate:g} Hz, the model at {time_base.action_hz:g} Hz: rows are resampled")
    if robot.is_action_free:
        found.append("no actions: the result can imagine video, it cannot control a robot")
    if not recipe.base and recipe.backbone != "nano":
        found.append("no base is named: the plan has the 14B's sizes (`--base` names another)")
    if any(licence.lower().startswith(("cc-by-nc", "unknown")) for licence in licences):
        found.append("the data's licence is unknown or excludes commercial use: so does the adapter's")
    return found
