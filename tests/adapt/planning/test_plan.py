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
from adapt.planning.plan import Plan, Probe, agree, choice_of, cost_of, measured, plan, probe
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
    return plan(recipe_for(g1_clips, steps=2000), g1_clips, gpu=named("141"), serve_gpu=named("24"))


def test_steps_and_epochs_say_the_same(g1_clips: Clips, of_14b: Plan) -> None:
    assert of_14b.epochs == pytest.approx(2000 * 16 / of_14b.counts.windows)
    by_epochs = plan(recipe_for(g1_clips, epochs=3.0), g1_clips)
    assert by_epochs.steps == -(-3 * by_epochs.counts.windows // 16) and by_epochs.epochs >= 3
    assert f"2,000 steps x 16 = {of_14b.epochs:.1f} epochs" in of_14b.headline


def test_the_cache_has_every_copy_of_every_window_and_the_judged_chunks(of_14b: Plan) -> None:
    windows = 4 * of_14b.counts.windows + sum(of_14b.counts.judged.values())
    assert of_14b.disk["cache"] == windows * 2_685_440 + len(of_14b.counts.instructions) * 4_194_304


def test_hours_follow_from_steps_and_windows(g1_clips: Clips, of_14b: Plan) -> None:
    assert of_14b.hours["train"] == pytest.approx(2000 * of_14b.seconds_per_step / 3600)
    low, high = of_14b.seconds_range
    assert low < of_14b.seconds_per_step < high and not of_14b.is_measured
    on_eight = plan(recipe_for(g1_clips, steps=2000), g1_clips, gpu=named("141"), gpus=8)
    for stage in ("train", "encode", "judge"):
        assert on_eight.hours[stage] == pytest.approx(of_14b.hours[stage] / 8, rel=0.01), stage


def test_control_needs_a_decision_within_a_chunk_and_memory_for_it(g1_clips: Clips, of_14b: Plan) -> None:
    assert of_14b.control is not None and not of_14b.control.fits and not of_14b.control.in_time
    assert any("which it has not" in w for w in of_14b.warnings)
    recipe = recipe_for(g1_clips, steps=10, denoise_steps=4)
    fast = plan(recipe, g1_clips, gpu=named("141")).control
    slow = plan(recipe.model_copy(update={"denoise_steps": 16}), g1_clips, serve_gpu=named("a6000")).control
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
    told = plan(recipe_for(g1_clips, steps=10), g1_clips, folder=tmp_path / "run").warnings
    assert any("0.0 GB are free on that disk" in w for w in told)


def test_licences_of_data_and_base_are_both_told(g1_clips: Clips) -> None:
    assert plan(recipe_for(g1_clips), g1_clips, base_licence="CC-BY-NC-4.0").licences == ("MIT", "CC-BY-NC-4.0 (base)")


def test_nano_is_measured_and_its_plan_agrees_with_itself(g1_clips: Clips) -> None:
    found = plan(recipe_for(g1_clips, backbone="nano", base=None, batch=4), g1_clips)
    assert found.is_measured and found.seconds_per_step > 0 and found.bytes["activations"] > 0
    twice = plan(recipe_for(g1_clips, backbone="nano", base=None, batch=8), g1_clips)
    assert twice.operations == pytest.approx(2 * found.operations, rel=0.01)
    assert twice.bytes["activations"] > 1.8 * found.bytes["activations"]
    assert twice.bytes["weights"] == found.bytes["weights"]
    assert agree(found, Probe(found.seconds_per_step, None, found.operations)) == []


def test_a_probe_runs_two_steps_and_counts_one() -> None:
    ran, (a, b) = [], torch.ones(2, 64, 64)

    def step() -> None:
        ran.append(a @ b)
        time.sleep(0.02)

    found = probe(step, device="cpu")
    assert len(ran) == 2 and found.flops == 2 * 64**3 and found.peak_bytes is None and 0.02 <= found.seconds < 1
    assert probe(step, device=torch.device("cpu"), has_flops=False).flops == 0 and len(ran) == 4


def test_a_probe_that_is_more_than_a_tenth_off_is_told_with_what_it_means(of_14b: Plan) -> None:
    as_planned = Probe(of_14b.seconds_per_step, of_14b.peak_bytes, of_14b.operations)
    assert agree(of_14b, as_planned) == []
    assert agree(of_14b, replace(as_planned, peak_bytes=round(1.09 * of_14b.peak_bytes))) == []
    (memory,) = agree(of_14b, replace(as_planned, peak_bytes=round(1.2 * of_14b.peak_bytes)))
    assert "memory at the peak" in memory and "+20%" in memory
    (slow,) = agree(of_14b, replace(as_planned, seconds=2 * of_14b.seconds_per_step))
    now = measured(of_14b, replace(as_planned, seconds=2 * of_14b.seconds_per_step))
    assert now.is_measured and now.hours == of_14b.hours | {"train": 2 * of_14b.hours["train"]}
    assert "a step" in slow and f"training {2 * of_14b.hours['train']:.1f} h" in slow
    (counted,) = agree(of_14b, replace(as_planned, flops=0.8 * of_14b.operations, peak_bytes=None))
    assert "operations" in counted and "-20%" in counted
