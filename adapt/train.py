"""The training loop: steps over an epoch's order, checkpoints that resume bit-equal, the best kept by held-out error.

Knows no backbone: it asks one for the loss of samples and for predictions. A sample's noise depends on (seed,
epoch, window), its place on the step, so a resumed run sees what an uninterrupted one would have seen.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adapt import checkpoint
from adapt.backbones.base import Backbone, Latents, count, trainable
from adapt.curves import CURVES, Curves, Point, Trained, thinned
from schemas.errors import DataError
from schemas.files import sync, write_atomic
from wamdata.order import epoch_order, sample_seed

if TYPE_CHECKING:
    from schemas.recipe import AdaptRecipe

BEST = "best.safetensors"


@dataclass(frozen=True)
class Tick:
    """One step done: for progress bars."""

    step: int
    steps: int
    loss: float
    val_error: float | None
    resumed_from: int


def train(
    backbone: Backbone,
    model: nn.Module,
    play: Sequence[Latents],
    video: Sequence[Latents],
    val: Sequence[Latents],
    recipe: "AdaptRecipe",
    folder: Path,
    *,
    on_tick: Callable[[Tick], None] = lambda tick: None,
    stop_after: int | None = None,
) -> Trained:
    """Train `model` in place, leaving its best weights in it and in `folder`.

    Args:
        stop_after: stop, without finishing, after this many steps of this call (tests of resuming).

    Raises:
        DataError: there is nothing to train on, or the loss is not finite.
    """
    samples = {s.window_id: s for s in (*play, *video)}
    if not samples:
        raise DataError("no window to train on: every clip is shorter than one window. See `wam plan`.")
    folder.mkdir(parents=True, exist_ok=True)
    parameters = trainable(model)
    names: dict[Tensor, str] = {p: n for n, p in parameters.items()}
    optimizer = torch.optim.AdamW(_groups(parameters, recipe), betas=(0.9, 0.99))
    average = {n: p.detach().clone() for n, p in parameters.items()}
    first, curves, average = _resume(folder, model, optimizer, names, average)
    held = _HeldOut(backbone, val, recipe)
    started, before = time.monotonic(), curves.seconds
    plan = _Order([s.window_id for s in play], [s.window_id for s in video], recipe)
    val_error = curves.val_error[-1].value if curves.val_error else None
    model.train()
    for step in range(first, recipe.steps):
        ids, epoch = plan.at(step)
        torch.manual_seed(sample_seed(recipe.seed, step, "dropout"))  # the one draw that is not a sample's own
        _set_lr(optimizer, learning_rate_scale(step, recipe))
        losses = backbone.loss(model, [samples[i] for i in ids], seed=recipe.seed, epoch=epoch)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        _follow(average, parameters, step, recipe)
        done = step + 1
        loss = float(losses["loss"].detach())
        if not math.isfinite(loss):
            raise DataError(
                f"loss is {loss} at step {done}. Lower lr (now {recipe.lr:g}), or run `wam check` on the data."
            )
        last = done == recipe.steps
        curves = replace(curves, loss=(*curves.loss, Point(done, loss)))
        if done % recipe.eval_every == 0 or last:
            val_error = held.error(model, average)
            curves = _judged(curves, done, val_error, average, folder)
        if done % recipe.save_every == 0 or last:
            curves = replace(curves, seconds=before + time.monotonic() - started)
            _save(folder, done, parameters, average, optimizer, names, curves)
        on_tick(Tick(done, recipe.steps, loss, val_error, first))
        if stop_after is not None and done - first >= stop_after:
            break
    load_trainable(model, checkpoint.load_tensors(folder / BEST) if stop_after is None else average)
    return Trained(
        steps=recipe.steps,
        chosen_step=curves.best_step,
        seconds=curves.seconds,
        trainable_parameters=count(parameters),
        total_parameters=sum(p.numel() for p in model.parameters()),
        windows=len(play),
        video_windows=len(video),
        epochs=plan.epochs(recipe.steps),
        loss=thinned(curves.loss),
        val_error=curves.val_error,
    )


def learning_rate_scale(step: int, recipe: "AdaptRecipe") -> float:
    """Linear warm-up, then a half cosine to zero at the last step."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    part = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * part))


def load_trainable(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put saved trainable parameters back into a model; nothing else of it changes."""
    parameters = trainable(model)
    if parameters.keys() != tensors.keys():
        odd = min(parameters.keys() ^ tensors.keys())
        raise DataError(f"checkpoint and model differ in parameter {odd!r}. Delete the train folder and run again.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def recorded(samples: Sequence[Latents]) -> tuple[np.ndarray, np.ndarray]:
    """(N, K, A) recorded commands of the last chunks, and their validity (N, K)."""
    return np.stack([s.action[-1] for s in samples]), np.stack([s.action_valid[-1] for s in samples])


class _Order:
    """Which windows each step takes: play and video each in their own epochs, so many of either in every batch.

    An epoch has no remainder, and no window comes twice in one.
    """

    def __init__(self, play: list[str], video: list[str], recipe: "AdaptRecipe") -> None:
        films = min(max(1, round(recipe.video_share * recipe.batch)), recipe.batch - 1) if play and video else 0
        films = recipe.batch if video and not play else films
        self._parts = [
            (sorted(ids), min(n, len(ids))) for ids, n in ((play, recipe.batch - films), (video, films)) if ids and n
        ]
        self._seed = recipe.seed
        self._orders: dict[tuple[int, int], list[str]] = {}

    def at(self, step: int) -> tuple[list[str], int]:
        """The windows of a step, and the epoch of the first part, which seeds their noise."""
        chosen: list[str] = []
        for part, (ids, size) in enumerate(self._parts):
            epoch, place = divmod(step, len(ids) // size)
            chosen += self._order(part, epoch)[place * size : (place + 1) * size]
        ids, size = self._parts[0]
        return chosen, step // (len(ids) // size)

    def _order(self, part: int, epoch: int) -> list[str]:
        if (part, epoch) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] != part}
            self._orders[part, epoch] = epoch_order(self._parts[part][0], seed=self._seed, epoch=epoch)
        return self._orders[part, epoch]

    def epochs(self, steps: int) -> float:
        ids, size = self._parts[0]
        return steps * size / len(ids)


class _HeldOut:
    """Action error on the validation part, of the averaged weights; None where there are no actions."""

    def __init__(self, backbone: Backbone, val: Sequence[Latents], recipe: "AdaptRecipe") -> None:
        self._backbone, self._recipe = backbone, recipe
        self._val = [s for s in val if s.has_action]

    def error(self, model: nn.Module, average: dict[str, Tensor]) -> float | None:
        if not self._val:
            return None
        raw = {n: p.detach().clone() for n, p in trainable(model).items()}
        load_trainable(model, average)
        model.eval()
        predicted = self._backbone.act(
            model, self._val, denoise_steps=self._recipe.denoise_steps, draws=1, seed=self._recipe.seed
        )
        truth, valid = recorded(self._val)
        error = np.abs(predicted.action - truth).mean(-1)[valid].mean()
        load_trainable(model, raw)
        model.train()
        return float(error)


def _judged(curves: Curves, step: int, error: float | None, average: dict[str, Tensor], folder: Path) -> Curves:
    """Note a held-out error, keeping the weights if they are the best so far (or the only choice: the last)."""
    best = min((p.value for p in curves.val_error), default=math.inf)
    if error is None or error <= best:
        partial = folder / f"{BEST}.partial"
        save_file({n: t.contiguous() for n, t in average.items()}, partial)
        sync(partial)
        partial.replace(folder / BEST)
        curves = replace(curves, best_step=step)
    if error is None:
        return curves
    return replace(curves, val_error=(*curves.val_error, Point(step, error)))


def _groups(parameters: dict[str, Tensor], recipe: "AdaptRecipe") -> list[dict]:
    """Weight decay for matrices, none for biases, gains and tables."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    rest = [p for p in parameters.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [g | {"lr": recipe.lr, "base_lr": recipe.lr} for g in groups if g["params"]]


def _set_lr(optimizer: torch.optim.Optimizer, scale: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale


def _follow(average: dict[str, Tensor], parameters: dict[str, Tensor], step: int, recipe: "AdaptRecipe") -> None:
    """Exponential moving average with a warm-up, so that early weights do not linger."""
    decay = min(recipe.ema, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, parameter in parameters.items():
            average[name].lerp_(parameter, 1 - decay)


def _save(
    folder: Path,
    step: int,
    parameters: dict[str, Tensor],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    names: dict[Tensor, str],
    curves: Curves,
) -> None:
    tensors = {f"weight.{n}": p for n, p in parameters.items()} | {f"average.{n}": t for n, t in average.items()}
    content = curves.to_json()
    checkpoint.save(folder, step, tensors, optimizer, names, {CURVES: content})
    write_atomic(folder / CURVES, content)


def _resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    names: dict[Tensor, str],
    average: dict[str, Tensor],
) -> tuple[int, Curves, dict[str, Tensor]]:
    found = checkpoint.newest(folder)
    if found is None:
        return 0, Curves(), average
    path, record = found
    tensors = checkpoint.load_model(path)
    load_trainable(model, {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")})
    checkpoint.load_optimizer(path, optimizer, names)
    average = {n.removeprefix("average."): t for n, t in tensors.items() if n.startswith("average.")}
    return record.step, Curves.read_json(path / CURVES), average
