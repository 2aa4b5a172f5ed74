"""Scenario 19: what fits a GPU is said before any weight is loaded; what does not is refused with what would.

The real out-of-memory mid-step is `tests/gpu` and `tests/adapt/test_run.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import refused, wam
from told import words


@pytest.mark.parametrize(("gpu", "weights"), [("24", "nf4"), ("48", "bf16"), ("80", "bf16"), ("141", "bf16")])
def test_a_gpu_gets_what_fits_it(
    gpu: str, weights: str, g1: Path, g1_shards: Path, untouched: Callable[[Path], Path]
) -> None:
    untouched(g1)
    facts = json.loads(wam("plan", g1_shards, "--gpu", gpu, "--json").stdout)
    assert facts["rung_fields"]["weights"] == weights and facts["peak_bytes"] < float(gpu) * 1e9
    assert facts["headroom"] >= 0 and facts["seconds_per_step"] > 0


def test_what_cannot_fit_is_refused_with_options(
    g1: Path, g1_shards: Path, tmp_path: Path, untouched: Callable[[Path], Path]
) -> None:
    untouched(g1)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("backbone: dreamzero\nhardware: {weights: bf16}\n")
    told = refused("plan", g1_shards, "--recipe", recipe, "--gpu", "24")
    assert "GB are missing" in told and "the 5B" in told and "leave weights open (nf4 weights" in told


def test_without_a_gpu_the_plan_says_what_is_open(
    g1: Path, g1_shards: Path, monkeypatch: pytest.MonkeyPatch, untouched: Callable[[Path], Path]
) -> None:
    untouched(g1)
    monkeypatch.setattr("adapt.planning.gpus.at_hand", lambda: None)
    told = words(wam("plan", g1_shards, "--backbone", "dreamzero"))
    assert "no GPU here; name one with --gpu 24, 32, 48, 80 or 141" in told
