"""The training loop: steps over a feed, checkpoints that resume bit-equal, the best kept by held-out error.

Knows no backbone: it asks one for the losses of samples and for predictions. A step does not wait for the device: its
losses are read when they have arrived (`Ledger`), and none that is not finite is ever saved or followed. Every rank
sums its share of the losses; after a step all ranks hold the same weights.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from adapt.backbones.base import Backbone, Latents, count, trainable
from adapt.cache.feed import Step
from adapt.planning.rung import Rung
from adapt.training import checkpoint
from adapt.training.compact import pack_average, unpack_average
from adapt.training.curves import CURVES, Curves, Point, Trained, thinned
from adapt.training.optim import fill_gradients, follow, learning_rate_scale, optimizer_for, set_rate
from adapt.training.world import World, put, whole
from schemas.errors import DataError
from schemas.files import write_atomic
from wamdata.order import sample_seed

if TYPE_CHECKING:
    from schemas.recipe import AdaptRecipe

BEST = "best.safetensors"
LEVELS = (0.25, 0.5, 0.75)  # where action-free windows are judged while training
CLOCK_EVERY = 10  # steps between looks at the clock, which ranks must agree on


@dataclass(frozen=True)
class Tick:
    """One step done: for progress bars and logs; `loss` and its parts are the newest that have arrived.

    Args:
        parts: losses by name, weighted as they are descended.
        hold: error of standing still on the windows that `val_error` is over; None without actions.
        wait_share: of the time since the last tick, what was spent waiting for data.
        encoded: windows that were encoded for this step, since nobody had before.
    """

    step: int
    steps: int
    loss: float
    parts: dict[str, float]
    lr: float
    val_error: float | None
    hold: float | None
    resumed_from: int
    seconds: float
    wait_share: float
    samples: int
    encoded: int
    peak_bytes: int


@dataclass(frozen=True)
class Course:
    """How far a run goes, and where it may stop sooner.

    Args:
        steps: the schedule's length.
        stop_after: stop, without finishing, after so many steps of this call (tests of resuming).
        deadline: `time.monotonic()` at which training has to end, so that judging and export are in time.
    """

    steps: int
    stop_after: int | None = None
    deadline: float = math.inf


@dataclass(frozen=True)
class HeldOut:
    """What chooses the checkpoint: windows of the validation part, and the error of standing still on them."""

    samples: Sequence[Latents]
    hold: float | None

    @classmethod
    def of(
        cls,
        samples: Sequence[Latents],
        hold: Callable[[Latents], np.ndarray],
        most: int,
        load: Callable[[Latents], Latents] = lambda sample: sample,
    ) -> "HeldOut":
        """At most `most` windows, evenly over the part; those with commands where there are any.

        Args:
            load: gives a chosen sample's encodings, which choosing does not need.
        """
        able = [s for s in samples if s.has_action and s.action_valid[-1].any()]
        chosen = able or [s for s in samples if s.chunks == max(x.chunks for x in samples)]
        kept = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).astype(int))]
        loaded = [load(s) for s in kept]
        if not able:
            return cls(loaded, None)
        sums = np.sum([errors(hold(s)[None], [s]) for s in kept], axis=0)
        return cls(loaded, float(sums[0] / sums[1]))


def train(
    backbone: Backbone,
    model: nn.Module,
    feed: Callable[[int], "object"],
    held: HeldOut,
    recipe: "AdaptRecipe",
    folder: Path,
    *,
    course: Course,
    rung: Rung = Rung(weights="float32"),
    world: World = World(),
    on_tick: Callable[[Tick], None] = lambda tick: None,
    on_note: Callable[[str], None] = lambda words: None,
    on_save: Callable[[], None] = lambda: None,
) -> Trained:
    """Train `model` in place, leaving its best weights in it and in `folder`.

    Args:
        feed: the samples of each step from a given one on, as a context that is iterated (`feed.Feed`).

    Raises:
        DataError: a loss is not finite, or checkpoints are there and none is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Training(backbone, model, held, recipe, folder, course, rung, world, on_tick, on_note, on_save)
    with feed(run.first) as steps:
        for step in () if run.stopped else steps:
            if run.take(step):
                break
    return run.finish()


class _Training:
    """The state of one call of `train`."""

    def __init__(
        self,
        backbone: Backbone,
        model: nn.Module,
        held: HeldOut,
        recipe: "AdaptRecipe",
        folder: Path,
        course: Course,
        rung: Rung,
        world: World,
        on_tick: Callable[[Tick], None],
        on_note: Callable[[str], None],
        on_save: Callable[[], None],
    ) -> None:
        self.backbone, self.model, self.held, self.recipe = backbone, model, held, recipe
        self.folder, self.course, self.rung, self.world = folder, course, rung, world
        self.on_tick, self.on_note, self.on_save = on_tick, on_note, on_save
        self.parameters = trainable(model)
        self.names: dict[Tensor, str] = {p: n for n, p in self.parameters.items()}
        self.optimizer = optimizer_for(self.parameters, backbone.head_modules, recipe, rung)
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.first, self.curves, self.ahead = self._resume()
        self.before, self.started, self.ticked = self.curves.seconds, time.monotonic(), time.monotonic()
        self.ledger = Ledger(world.device, {"video": recipe.losses.video, "action": recipe.losses.action})
        self.stopped = self._staleness(self.first) if self.first < course.steps else ""
        self.val_error = self.curves.val_error[-1].value if self.curves.val_error else None
        self.done = self.first
        model.train()

    def take(self, step: Step) -> bool:
        """Do a step, and what is due after it; true when training ends here."""
        self._descend(step)
        self.done = done = step.number + 1
        last = done == self.course.steps
        is_due = done % self.recipe.eval_every == 0 or last
        looks = self.world.size == 1 or done % CLOCK_EVERY == 0
        is_late = looks and self.world.any(time.monotonic() > self.course.deadline)
        if is_late and not last:
            self.stopped = f"time was up at step {done} of {self.course.steps}"
        if is_due or is_late:
            self._note_losses(wait=True)
            self._judge(done, must=last or is_late)
            self.stopped = self.stopped or ("" if last else self._staleness(done))
        ends = last or bool(self.stopped)
        if done % self.recipe.save_every == 0 or ends:
            self._note_losses(wait=True)
            self._save(done, must=ends)
        self._tick(step)
        limit = self.course.stop_after
        return ends or (limit is not None and done - self.first >= limit)

    def finish(self) -> Trained:
        """Put the best weights into the model and say what was done."""
        self._note_losses(wait=True)
        if self.done == self.course.steps or self.stopped:
            self.world.wait()
            best = self.folder / BEST
            load_trainable(self.model, checkpoint.load_tensors(best))
            about = checkpoint.read_about(best)
            self.curves = replace(
                self.curves, best_step=int(about["best_step"]), best_kind=about["best_kind"], best_error=None
            )
        else:
            load_trainable(self.model, {n: whole(t) for n, t in self.average.items()})
        curves = self.curves
        return Trained(
            steps=self.done,
            chosen_step=curves.best_step,
            seconds=curves.seconds,
            trainable_parameters=count(self.parameters),
            total_parameters=sum(p.numel() for p in self.model.parameters()),
            windows=0,
            video_windows=0,
            epochs=0.0,
            loss=thinned(curves.loss),
            val_error=curves.val_error,
            raw_val_error=curves.raw_val_error,
            average_val_error=curves.average_val_error,
            chosen=curves.best_kind,
            stopped=self.stopped,
            rung=self.rung.words,
        )

    def _descend(self, step: Step) -> None:
        """Gradients of this rank's samples, summed over the ranks, and one step of the optimizer.

        On the CPU a loss that is not finite ends it before any weight has changed; a GPU may be a step or two ahead.
        """
        losses, norm = self._gradients(step)
        self.ledger.push(step.number + 1, losses, norm)
        self._note_losses(wait=False)
        self.optimizer.step()
        follow(self.average, self.parameters, step.number, decay=self.recipe.ema)

    def _gradients(self, step: Step) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of the whole step by name, and the length of their gradient before it was clipped."""
        recipe = self.recipe
        # The one draw that is not a sample's own.
        torch.manual_seed(sample_seed(recipe.seed, step.number, f"dropout/{self.world.rank}"))
        warmup = min(recipe.warmup, self.course.steps // 5)
        set_rate(self.optimizer, learning_rate_scale(step.number, warmup=warmup, steps=self.course.steps))
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        for low in range(0, len(step.samples), self.rung.micro_batch):
            part = slice(low, low + self.rung.micro_batch)
            found = self.backbone.loss(
                self.model, step.samples[part], seed=recipe.seed, epochs=step.epochs[part], of=step.of
            )
            weighted = {n: v * getattr(recipe.losses, n) for n, v in found.items()}
            sum(weighted.values()).backward()
            losses = {n: losses.get(n, 0) + v.detach().double() for n, v in weighted.items()}
        zero = torch.zeros((), device=self.world.device, dtype=torch.float64)  # of one kind on all ranks, to be summed
        losses = {n: losses.get(n, zero) for n in ("video", "action")}
        gradients = fill_gradients(self.parameters, self.backbone.head_modules, has_actions=step.of.action_rows > 0)
        self.world.sum_(([] if self.world.is_sharded else gradients) + list(losses.values()))
        return losses, whole(nn.utils.clip_grad_norm_(self.parameters.values(), 1.0))

    def _note_losses(self, *, wait: bool) -> None:
        for step, parts, norm in self.ledger.arrived(wait=wait):
            loss = sum(parts.values())
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DataError(
                    f"loss is {loss:g} and its gradient {norm:g} long at step {step}. Lower lr (now "
                    f"{self.recipe.lr:g}), or run `wam check` on the data."
                )
            self.curves = replace(self.curves, loss=(*self.curves.loss, Point(step, loss)))

    def _judge(self, done: int, *, must: bool) -> None:
        """Errors of the averaged and of the raw weights; the better ones are kept if they are the best so far."""
        raw = {n: p.detach().clone() for n, p in self.parameters.items()}
        found = {"raw": self._error()}
        load_parts(self.parameters, self.average)
        found["average"] = self._error()
        load_parts(self.parameters, raw)
        self.model.train()
        kind = min(("average", "raw"), key=lambda k: math.inf if found[k] is None else found[k])
        error, best = found[kind], self.curves.best_error
        if error is None or best is None or error < best:
            self._keep({"average": self.average, "raw": raw}[kind], done, kind, error, must=must)
        if error is not None:
            self.val_error = error
            self.curves = replace(
                self.curves,
                val_error=(*self.curves.val_error, Point(done, error)),
                average_val_error=(*self.curves.average_val_error, Point(done, found["average"])),
                raw_val_error=(*self.curves.raw_val_error, Point(done, found["raw"])),
                looks_since_best=0 if done == self.curves.best_step else self.curves.looks_since_best + 1,
            )

    def _error(self) -> float | None:
        """Held-out action error, or the video loss where there are no actions; None where nothing is held out."""
        self.model.eval()
        mine = shares(self.held.samples, self.world)
        sums = self._video_errors(mine) if self.held.hold is None else self._action_errors(mine)
        total, weight = self.world.numbers(list(sums))
        if not weight:
            return None
        if not math.isfinite(total):
            raise DataError(f"held-out error is {total:g} at step {self.done}. Lower lr (now {self.recipe.lr:g}).")
        return float(total / weight)

    def _action_errors(self, mine: Sequence[tuple[Latents, bool]]) -> np.ndarray:
        if not mine:
            return np.zeros(2)
        samples = [s for s, _ in mine]
        predicted = self.backbone.act(
            self.model, samples, denoise_steps=self.recipe.denoise_steps, draws=1, seed=self.recipe.seed
        )
        counted = [i for i, (_, counts) in enumerate(mine) if counts]
        return errors(predicted.action[counted], [samples[i] for i in counted]) if counted else np.zeros(2)

    def _video_errors(self, mine: Sequence[tuple[Latents, bool]]) -> np.ndarray:
        """(sum, count) of losses; one process alone takes all windows at once."""
        sums = np.zeros(2)
        for group in [mine] if self.world.size == 1 else [[m] for m in mine]:
            samples = [s for s, _ in group]
            at = [self.backbone.loss_at(self.model, samples, level=level, seed=self.recipe.seed) for level in LEVELS]
            if group and group[0][1] and all("video" in a for a in at):
                sums += len(group) * np.array([sum(a["video"] for a in at) / len(LEVELS), 1.0])
        return sums

    def _keep(self, tensors: dict[str, Tensor], done: int, kind: str, error: float | None, *, must: bool) -> None:
        """Raises DataError if it `must` be written and cannot; otherwise a later look may be kept.

        A run that was resumed passes steps again at which worse weights were kept than lie on disk by now.
        """
        if done < self.ahead:
            self.curves = replace(self.curves, best_step=done, best_kind=kind, best_error=error)
            return
        gathered = self._gathered(tensors)
        about = {"best_step": str(done), "best_kind": kind}
        path = self.folder / BEST
        if self._is_written(
            lambda: checkpoint.with_room(self.folder, lambda: checkpoint.write_tensors(path, gathered, about=about)),
            f"the best weights, of step {done},",
            must=must,
        ):
            self.curves = replace(self.curves, best_step=done, best_kind=kind, best_error=error)

    def _is_written(self, write: Callable[[], object], what: str, *, must: bool) -> bool:
        """Written by the first rank; where it cannot be, and need not be, that is said and costs this file alone."""
        try:
            self.world.first(write)
        except OSError as error:
            if must:
                raise DataError(
                    f"{self.folder}: {what} could not be written ({error.strerror}). Make room and run again: training "
                    "goes on from the newest checkpoint."
                ) from None
            self.on_note(f"{what} could not be written ({error.strerror}); going on, and trying again later")
            return False
        return True

    def _gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors on the host, for the rank that writes."""
        found = {}
        for name, tensor in tensors.items():
            gathered = whole(tensor.detach())  # every rank must ask
            if self.world.is_main:
                found[name] = gathered.cpu().contiguous()
        return found

    def _staleness(self, done: int) -> str:
        """Why to stop at this step, if the held-out part has seen no gain for long enough."""
        patience = self.recipe.patience
        is_stale = bool(patience) and self.curves.looks_since_best >= patience
        return f"no better for {patience} looks at the held-out part, at step {done}" if is_stale else ""

    def _save(self, step: int, *, must: bool) -> None:
        """Raises DataError only if this save `must` succeed; a full disk in between costs this save alone."""
        self.curves = replace(self.curves, seconds=self.before + time.monotonic() - self.started)
        distances = {}
        for name, parameter in self.parameters.items():  # going on is to be like resuming: see `compact`
            distances[name] = pack_average(self.average[name], parameter.detach())
            put(self.average[name], unpack_average(distances[name], parameter.detach()))
        tensors = self._gathered({f"weight.{n}": p for n, p in self.parameters.items()})
        tensors |= self._gathered({f"average.{n}": t for n, t in distances.items()})
        state = checkpoint.settled(self.optimizer, self.names, keep=self.world.is_main)
        content = self.curves.to_json()

        def write() -> None:
            checkpoint.save(self.folder, step, tensors, state, {CURVES: content})
            write_atomic(self.folder / CURVES, content)

        if self._is_written(write, f"the checkpoint of step {step}", must=must):
            self.on_save()

    def _resume(self) -> tuple[int, Curves, int]:
        """The step to go on from, its curves and the step of the best weights on disk; all else is put into place.

        One rank looks for the checkpoint, as it sets damaged ones aside.
        """

        def look() -> float:
            checkpoint.clear_partials(self.folder)
            found = checkpoint.newest(self.folder, on_note=self.on_note)
            return -1 if found is None else found[1].step

        step = int(self.world.told(look))
        if step < 0:
            return 0, Curves(), 0
        path = checkpoint.folder_of(self.folder, step)
        checkpoint.load_optimizer(path, self.optimizer, self.names)
        tensors = checkpoint.load_model(path)
        weights = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
        load_trainable(self.model, weights)
        for name, average in self.average.items():
            put(average, unpack_average(tensors[f"average.{name}"], weights[name]))
        return step, *self._with_best(Curves.read_json(path / CURVES))

    def _with_best(self, curves: Curves) -> tuple[Curves, int]:
        """Curves of a checkpoint, and the step of the best weights on disk, which may be a later one."""
        step = checkpoint.read_about(self.folder / BEST).get("best_step")
        if step is not None:
            return curves, int(step)
        if curves.best_step:
            self.on_note(f"{self.folder / BEST}: is missing or damaged; the next weights that are judged are kept")
        return replace(curves, best_error=None), 0

    def _tick(self, step: Step) -> None:
        now = time.monotonic()
        seconds, self.ticked = now - self.ticked, now
        parts = self.ledger.newest
        on_gpu = self.world.device.type == "cuda"
        self.on_tick(
            Tick(
                step=self.done,
                steps=self.course.steps,
                loss=sum(parts.values()),
                parts=parts,
                lr=self.optimizer.param_groups[0]["lr"],
                val_error=self.val_error,
                hold=self.held.hold,
                resumed_from=self.first,
                seconds=seconds,
                wait_share=min(1.0, step.waited_s / seconds) if seconds > 0 else 0.0,
                samples=step.of.samples,
                encoded=step.encoded,
                peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else 0,
            )
        )


class Ledger:
    """Losses on their way from the device: read when they are there, in the order of their steps."""

    def __init__(self, device: torch.device, parts: dict[str, float]) -> None:
        self._on_gpu = device.type == "cuda"
        self._names = list(parts)
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()
        self.newest: dict[str, float] = dict.fromkeys(parts, math.nan)

    def push(self, step: int, losses: dict[str, Tensor], norm: Tensor) -> None:
        stacked = torch.stack([*(losses[n].float() for n in self._names), norm.float()])
        if not self._on_gpu:
            self._waiting.append((step, stacked, None))
            return
        there = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
        there.copy_(stacked, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((step, there, event))

    def arrived(self, *, wait: bool) -> list[tuple[int, dict[str, float], float]]:
        """Step, losses and gradient norm of what has arrived since the last call; everything, if it waits."""
        found = []
        while self._waiting:
            step, values, event = self._waiting[0]
            if event is not None and wait:
                event.synchronize()
            if event is not None and not event.query():
                break
            self._waiting.popleft()
            *losses, norm = values.tolist()
            self.newest = dict(zip(self._names, losses, strict=True))
            found.append((step, self.newest, norm))
        return found


def shares(samples: Sequence[Latents], world: World) -> list[tuple[Latents, bool]]:
    """This rank's held-out windows, and whether each counts: every rank gets as many of every length.

    Ranks that share a divided model must pass through it equally often; where windows run out, the last comes again.
    """
    by_length: dict[int, list[Latents]] = {}
    for sample in samples:
        by_length.setdefault(sample.chunks, []).append(sample)
    found = []
    for group in by_length.values():
        for at in range(world.rank, -(-len(group) // world.size) * world.size, world.size):
            found.append((group[min(at, len(group) - 1)], at < len(group)))
    return found


def errors(predicted: np.ndarray, samples: Sequence[Latents]) -> np.ndarray:
    """(sum, count) of absolute errors (N, K, A) of the samples' last chunks over their valid rows."""
    truth, valid = recorded(samples)
    per_row = np.abs(predicted - truth).mean(-1)[valid]
    return np.array([per_row.sum(), per_row.size])


def load_trainable(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put saved trainable parameters back into a model; nothing else of it changes."""
    load_parts(trainable(model), tensors)


def load_parts(parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor]) -> None:
    """Raises DataError naming a parameter that one side lacks."""
    if parameters.keys() != tensors.keys():
        odd = min(parameters.keys() ^ tensors.keys())
        raise DataError(f"checkpoint and model differ in parameter {odd!r}. Delete the train folder and run again.")
    for name, parameter in parameters.items():
        put(parameter.detach(), tensors[name])


def recorded(samples: Sequence[Latents]) -> tuple[np.ndarray, np.ndarray]:
    """(N, K, A) recorded commands of the last chunks, and their validity (N, K)."""
    return np.stack([s.action[-1] for s in samples]), np.stack([s.action_valid[-1] for s in samples])
