"""The plan of a run, and a probe that is held against it."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapt.backbones.dreamzero.config import preset
from adapt.clips import Clips
from adapt.defaults import resolve
from adapt.planning.gpus import named
from adapt.planning.plan import Plan, choice_of, cost_of, plan
from adapt.planning.probe import Planned, Probe, agree, probe
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, Lora


def recipe_for(clips: Clips, **fields: object) -> AdaptRecipe:
    play = MixPart(name="play", shards=str(clips.folder), share=1.0, losses=("video", "action"), role="play")
    return AdaptRecipe(**{"parts": (play,), "backbone": "dreamzero", "base": "dreamzero-agibot"} | fields)


@pytest.fixture(scope="module")
def g1_clips(g1_shards: Path) -> Clips:
    return Clips.open(g1_shards)


@pytest.fixture(scope="module")
def of_14b(g1_clips: Clips) -> Plan:
    return plan(recipe_for(g1_clips, steps=2000), {"play": g1_clips}, gpu=named("141"), serve_gpu=named("24"))


def test_steps_and_epochs_say_the_same(g1_clips: Clips, of_14b: Plan) -> None:
    assert of_14b.epochs == pytest.approx(2000 * 16 / of_14b.counts.windows)
    by_epochs = plan(recipe_for(g1_clips, epochs=3.0), {"play": g1_clips})
    assert by_epochs.steps == -(-3 * by_epochs.counts.windows // 16) and by_epochs.epochs >= 3
    assert f"2,000 steps x 16 = {of_14b.epochs:.1f} epochs" in of_14b.headline


def test_the_cache_has_every_copy_of_every_window_and_the_judged_chunks(of_14b: Plan) -> None:
    windows = 4 * of_14b.counts.windows + sum(of_14b.counts.judged.values())
    assert of_14b.disk["cache"] == windows * 2_685_440 + len(of_14b.counts.instructions) * 4_194_304


def test_hours_follow_from_steps_and_windows(g1_clips: Clips, of_14b: Plan) -> None:
    assert of_14b.hours["train"] == pytest.approx(2000 * of_14b.seconds_per_step / 3600)
    low, high = of_14b.seconds_range
    assert low < of_14b.seconds_per_step < high and not of_14b.is_measured
    on_eight = plan(recipe_for(g1_clips, steps=2000), {"play": g1_clips}, gpu=named("141"), gpus=8)
    for stage in ("train", "encode", "judge"):
        assert on_eight.hours[stage] == pytest.approx(of_14b.hours[stage] / 8, rel=0.01), stage


def test_control_needs_a_decision_within_a_chunk_and_memory_for_it(g1_clips: Clips, of_14b: Plan) -> None:
    assert of_14b.control is not None and not of_14b.control.fits and not of_14b.control.in_time
    assert any("which it has not" in w for w in of_14b.warnings)
    recipe = recipe_for(g1_clips, steps=10, denoise_steps=4)
    fast = plan(recipe, {"play": g1_clips}, gpu=named("141")).control
    slow = plan(recipe.model_copy(update={"denoise_steps": 16}), {"play": g1_clips}, serve_gpu=named("a6000")).control
    assert fast.in_time and fast.decision_s < fast.slowest_s < fast.chunk_s == 1.6
    assert slow.decision_s > 1.6 and not slow.in_time


def test_a_base_is_planned_with_its_own_sizes_and_one_that_is_not_here_by_its_name(
    g1_clips: Clips, tmp_path: Path
) -> None:
    from dreamzero_checkpoints import TINY, write_released

    recipe = recipe_for(g1_clips, steps=10)
    recipe = resolve(recipe, g1_clips.embodiment)
    assert cost_of(recipe, write_released(tmp_path / "base")).config == TINY
    assert cost_of(recipe).config == preset("14b") and cost_of(recipe).rank == 32
    assert cost_of(recipe.model_copy(update={"base": "wan2.2-ti2v-5b"})).config == preset("5b")


def test_what_cannot_be_fused_is_planned_with_its_larger_memory(g1_clips: Clips) -> None:
    fused, not_fused = (
        choice_of(resolve(recipe_for(g1_clips, lora=Lora(dropout=p)), g1_clips.embodiment), named("80"))
        for p in (0.0, 0.1)
    )
    assert fused.rung.fused_lora and not not_fused.rung.fused_lora
    assert not_fused.rung.selective_blocks < fused.rung.selective_blocks


def test_a_full_disk_is_told(g1_clips: Clips, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("adapt.planning.plan._free", lambda folder: 10_000_000)
    told = plan(recipe_for(g1_clips, steps=10), {"play": g1_clips}, folder=tmp_path / "run").warnings
    assert any("0.0 GB are free on that disk" in w for w in told)


def test_licences_of_data_and_base_are_both_told(g1_clips: Clips) -> None:
    assert plan(recipe_for(g1_clips), {"play": g1_clips}, base_licence="CC-BY-NC-4.0").licences == (
        "MIT",
        "CC-BY-NC-4.0 (base)",
    )


def test_nano_is_measured_and_its_plan_agrees_with_itself(g1_clips: Clips) -> None:
    found = plan(recipe_for(g1_clips, backbone="nano", base=None, batch=4), {"play": g1_clips})
    assert found.is_measured and found.seconds_per_step > 0 and found.bytes["activations"] > 0
    twice = plan(recipe_for(g1_clips, backbone="nano", base=None, batch=8), {"play": g1_clips})
    assert twice.operations == pytest.approx(2 * found.operations, rel=0.01)
    assert twice.bytes["activations"] > 1.8 * found.bytes["activations"]
    assert twice.bytes["weights"] == found.bytes["weights"]


def test_a_probe_runs_two_steps_and_counts_one() -> None:
    ran, (a, b) = [], torch.ones(2, 64, 64)

    def step() -> None:
        ran.append(a @ b)
        time.sleep(0.02)

    found = probe(step, device="cpu")
    assert len(ran) == 2 and found.flops == 2 * 64**3 and found.peak_bytes is None and 0.02 <= found.seconds < 1
    assert probe(step, device=torch.device("cpu"), has_flops=False).flops == 0 and len(ran) == 4


def test_a_probe_that_is_more_than_a_tenth_off_is_told_with_what_it_means() -> None:
    planned = Planned(steps=2000, seconds=18.0, bytes=80_000_000_000, flops=4e15)
    as_planned = Probe(18.0, 80_000_000_000, 4e15)
    assert agree(planned, as_planned) == [] == agree(Planned(2000), as_planned)
    assert agree(planned, replace(as_planned, peak_bytes=87_000_000_000)) == []
    (memory,) = agree(planned, replace(as_planned, peak_bytes=96_000_000_000))
    assert memory == "memory at the peak: 96 GB measured, 80 planned (+20%)"
    (slow,) = agree(planned, replace(as_planned, seconds=36.0))
    assert slow == "a step: 36 s measured, 18 planned (+100%), training 20.0 h"
    (counted,) = agree(planned, replace(as_planned, flops=3.2e15, peak_bytes=None))
    assert "operations" in counted and "-20%" in counted


def test_all_parts_of_a_mixture_are_counted(g1_clips: Clips, droid_shards: Path) -> None:
    """Play data in two folders, film, and another manifest that is replayed against forgetting."""
    films = Clips.open(droid_shards)
    parts = (
        MixPart(name="play", shards="a", share=0.4, losses=("video", "action"), role="play"),
        MixPart(name="added", shards="b", share=0.3, losses=("video", "action"), role="play"),
        MixPart(name="film", shards="c", share=0.1, losses=("video",), role="video"),
        MixPart(name="before", shards="d", share=0.2, losses=("video", "action"), role="replay"),
    )
    sources = {"play": g1_clips, "added": g1_clips, "film": films, "before": g1_clips}
    alone = plan(recipe_for(g1_clips, epochs=2.0), {"play": g1_clips})
    mixed = plan(recipe_for(g1_clips, epochs=2.0, parts=parts), sources)
    one = alone.counts
    assert (mixed.counts.train, mixed.counts.replay) == (2 * one.train, one.train) and mixed.counts.video > 0
    assert mixed.counts.judged == {k: 2 * one.judged[k] for k in ("val", "test")} | {"replay": one.judged["test"]}
    assert mixed.steps == -(-2 * 2 * one.train // (16 * 0.7)) and mixed.epochs >= 2
    assert f"+ {one.train} replayed" in mixed.headline and mixed.disk["cache"] > 2.9 * alone.disk["cache"]
    assert mixed.counts.instructions == one.instructions and mixed.counts.prompts == one.prompts + 1
