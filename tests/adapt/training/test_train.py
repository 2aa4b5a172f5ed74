"""The loop's own promises: what is refused, when it stops, which weights are kept, that it waits for nothing."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from training_jobs import endings, toy_job, toy_recipe

from adapt.backbones.nano.backbone import NanoBackbone
from adapt.training import loop
from adapt.training.job import train_here
from adapt.training.loop import BEST, HeldOut
from adapt.training.world import World
from schemas.errors import DataError


class Spoiled:
    """nano whose loss, or its gradient alone, is not finite from one step on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, at: int, what: str) -> None:
        self.calls, plain = 0, NanoBackbone.loss

        def loss(backbone, model, samples, **options):
            self.calls += 1
            found = plain(backbone, model, samples, **options)
            if self.calls < at:
                return found
            bad = math.nan if what == "loss" else 0.0
            first = next(model.parameters()).sum()
            slope = (first - first.detach()).abs().sqrt() if what == "gradient" else first  # 0, and a slope of infinity
            return {**found, "video": found["video"] + bad * first + (slope - slope.detach())}

        monkeypatch.setattr(NanoBackbone, "loss", loss)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_is_refused_at_once_and_changes_nothing_that_is_kept(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(save_every=1, eval_every=1)
    spoiled, job = Spoiled(monkeypatch, at=5, what=what), toy_job(tmp_path, recipe)
    held = []
    plain = loop._Training.__init__

    def noted(self, *arguments):
        plain(self, *arguments)
        held.append(self)

    monkeypatch.setattr(loop._Training, "__init__", noted)
    with pytest.raises(DataError, match=r"at step 5\. Lower lr \(now 0.01\), or run `wam check`") as refused:
        train_here(job, World())
    assert "\n" not in str(refused.value) and spoiled.calls == 5
    end = endings(tmp_path)
    assert end["step"] == "step-000004" and end["curves"]["loss"][-1]["step"] == 4
    assert all(t.isfinite().all() for part in ("model", "best") for t in end[part].values())
    for name, average in held[0].average.items():
        assert average.isfinite().all() and held[0].parameters[name].detach().isfinite().all()


def test_predictions_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = NanoBackbone.act

    def act(backbone, *arguments, **options):
        found = plain(backbone, *arguments, **options)
        return replace(found, action=found.action * math.nan)

    monkeypatch.setattr(NanoBackbone, "act", act)
    with pytest.raises(DataError, match="held-out error is nan at step 4"):
        train_here(toy_job(tmp_path), World())
    assert not (tmp_path / "train" / BEST).exists()


def _judged(monkeypatch: pytest.MonkeyPatch, errors: dict[str, list[float]]) -> None:
    """Let held-out errors of raw and averaged weights be these, look after look."""
    told = iter([e for pair in zip(errors["raw"], errors["average"], strict=True) for e in pair])
    monkeypatch.setattr(loop._Training, "_error", lambda self: next(told))


def test_the_better_of_raw_and_averaged_weights_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _judged(monkeypatch, {"raw": [0.5, 0.9, 0.3, 0.8], "average": [0.6, 0.4, 0.35, 0.7]})
    seen: dict[int, dict[str, dict[str, torch.Tensor]]] = {}
    plain = loop._Training._judge

    def judge(self, done: int, *, must: bool) -> None:
        raw = {n: p.detach().clone() for n, p in self.parameters.items()}
        seen[done] = {"raw": raw, "average": {n: t.clone() for n, t in self.average.items()}}
        plain(self, done, must=must)
        after = {n: p.detach() for n, p in self.parameters.items()}
        assert all(torch.equal(after[n], raw[n]) for n in raw) and self.model.training

    monkeypatch.setattr(loop._Training, "_judge", judge)
    done = train_here(toy_job(tmp_path, toy_recipe(eval_every=2)), World())
    assert (done.chosen_step, done.chosen) == (6, "raw")
    assert [p.value for p in done.val_error] == [0.5, 0.4, 0.3, 0.7]
    kept = load_file(tmp_path / "train" / BEST)
    assert all(torch.equal(t, seen[6]["raw"][n]) for n, t in kept.items())
    assert any(not torch.equal(seen[6]["raw"][n], seen[6]["average"][n]) for n in kept)


def test_the_average_is_kept_where_it_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _judged(monkeypatch, {"raw": [0.5, 0.9], "average": [0.6, 0.4]})
    done = train_here(toy_job(tmp_path), World())
    assert (done.chosen_step, done.chosen) == (8, "average")


def test_the_average_follows_with_its_decay(tmp_path: Path) -> None:
    """Against the definition, step by step in float64; saves round it, so there is none before the end."""
    job = toy_job(tmp_path, toy_recipe(precision="float64", save_every=100, eval_every=100, steps=5, ema=0.3))
    raw: list[dict[str, torch.Tensor]] = []
    averages = []
    plain = loop._Training._descend

    def descend(self, step) -> None:
        if not raw:
            raw.append({n: p.detach().clone() for n, p in self.parameters.items()})
        plain(self, step)
        raw.append({n: p.detach().clone() for n, p in self.parameters.items()})
        averages.append({n: t.clone() for n, t in self.average.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Training, "_descend", descend)
        train_here(job, World())
    name = next(iter(raw[0]))
    wanted = raw[0][name]
    for step in range(5):
        decay = min(0.3, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * raw[step + 1][name]
        assert torch.allclose(averages[step][name], wanted, rtol=1e-12, atol=0)


def test_training_stops_when_the_held_out_part_sees_no_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _judged(monkeypatch, {"raw": [0.5, 0.6, 0.4, 0.5, 0.45, 0.1], "average": [0.5, 0.6, 0.4, 0.5, 0.45, 0.1]})
    done = train_here(toy_job(tmp_path, toy_recipe(steps=8, eval_every=1, patience=2)), World())
    assert done.steps == 5 and done.chosen_step == 3
    assert done.stopped == "no better for 2 looks at the held-out part, at step 5"
    assert endings(tmp_path)["step"] == "step-000005"


def test_at_its_deadline_training_judges_saves_and_ends(tmp_path: Path) -> None:
    job, ticks = toy_job(tmp_path, toy_recipe(steps=100_000, eval_every=50_000, save_every=50_000)), []
    done = train_here(replace(job, ends_at=time.time() + 2.0), World(), on_tick=ticks.append)
    assert 0 < done.steps < 100_000 and "until" not in done.budget
    if done.stopped:  # the schedule was made to fit; a machine that became slower stops sooner
        assert done.stopped.startswith(f"time was up at step {done.steps} of ")
    assert done.chosen_step == done.steps and (tmp_path / "train" / BEST).exists()
    assert json.loads((tmp_path / f"train/step-{done.steps:06d}/checkpoint.json").read_text())["step"] == done.steps


def test_a_deadline_that_is_past_still_gives_a_model(tmp_path: Path) -> None:
    done = train_here(replace(toy_job(tmp_path), ends_at=0.0), World())
    assert done.steps == 1 and (tmp_path / "train" / BEST).exists()


class NoWait(TorchDispatchMode):
    """Raises where a tensor's value is asked for, for which a GPU is waited; an optimizer's counters are the host's."""

    def __init__(self, allowed) -> None:
        super().__init__()
        self.allowed = allowed

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            assert any(args[0] is a or args[0].data_ptr() == a.data_ptr() for a in self.allowed()), "a step waits"
        return func(*args, **(kwargs or {}))


def test_a_step_asks_for_no_tensor_s_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, watched = loop._Training._descend, []

    def descend(self, step) -> None:
        def counters():
            return [s["step"] for s in self.optimizer.state.values()]

        if not self.optimizer.state:
            return plain(self, step)
        with NoWait(counters):
            plain(self, step)
        watched.append(step.number)

    def on_host(plain):
        def work(*arguments, **options):
            with _disable_current_modes():
                return plain(*arguments, **options)

        return work

    monkeypatch.setattr(loop._Training, "_descend", descend)
    monkeypatch.setattr(NanoBackbone, "batch", on_host(NanoBackbone.batch))  # made on the host, before it is moved
    train_here(toy_job(tmp_path, micro_batch=2), World())
    assert len(watched) == 7


def test_the_guard_sees_a_value_that_is_asked_for() -> None:
    for ask in (lambda t: t.item(), bool, float, lambda t: t[t > 0]):
        with pytest.raises(AssertionError, match="a step waits"), NoWait(list):
            ask(torch.ones(()))


def test_losses_are_read_in_the_order_of_their_steps_and_none_is_left_out(tmp_path: Path) -> None:
    done = train_here(toy_job(tmp_path), World())
    assert [p.step for p in done.loss] == list(range(1, 9)) and all(math.isfinite(p.value) for p in done.loss)


def test_held_out_windows_are_spread_over_the_part_and_have_commands(tmp_path: Path) -> None:
    from training_jobs import toy_cache

    toy_job(tmp_path)
    samples = toy_cache(tmp_path).all("val")
    held = HeldOut.of(samples, lambda s: s.action[-1], most=3)
    assert [s.window_id for s in held.samples] == ["val@000", "val@003", "val@006"] and held.hold == 0.0
    silent = [replace(s, action_valid=s.action_valid & False) for s in samples]
    film = HeldOut.of(silent, lambda s: s.action[-1], most=10)
    assert film.hold is None and {s.chunks for s in film.samples} == {2}
    assert HeldOut.of([], lambda s: s.action[-1], most=3) == HeldOut([], None)


def test_where_nothing_is_held_out_the_last_average_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapt.training import job as training

    monkeypatch.setattr(training, "held_out", lambda cache, hold, most: HeldOut([], None))
    done = train_here(toy_job(tmp_path), World())
    assert done.chosen_step == 8 and done.chosen == "average" and done.val_error == ()


def test_film_alone_is_judged_by_its_video_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapt.training import job as training

    def silent(cache, hold, most) -> HeldOut:
        samples = [replace(s, action_valid=s.action_valid & False) for s in cache.all("val")]
        return HeldOut.of(samples, hold, most)

    monkeypatch.setattr(training, "held_out", silent)
    done = train_here(toy_job(tmp_path), World())
    assert len(done.val_error) == 2 and done.val_error[0].value > 0
