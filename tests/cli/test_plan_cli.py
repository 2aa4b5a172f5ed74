"""`wam plan` as a user meets it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.plan import plan


def wam_plan(*args: object, code: int = 0) -> str:
    """Output of `wam plan`, run in this process; a UsageError becomes what `wam` makes of it."""
    import typer

    from schemas.errors import UsageError

    app = typer.Typer()
    app.command()(plan)
    ran = CliRunner().invoke(app, [str(a) for a in args])
    if isinstance(ran.exception, UsageError):
        assert code == 2, ran.exception
        return str(ran.exception)
    assert ran.exit_code == code, ran.output + str(ran.exception)
    return ran.output


def test_nano_is_measured_here_and_told_in_lines(g1_shards: Path) -> None:
    told = wam_plan(g1_shards)
    assert "16 episodes x " in told.splitlines()[0] and "language is untestable" in told.splitlines()[0]
    assert "714 training windows" in told and "measured here in two steps" in told and "licences: MIT" in told
    facts = json.loads(wam_plan(g1_shards, "--json"))
    assert facts["train_windows"] == 714 and facts["is_measured"] and facts["seconds_per_step"] > 0
    assert facts["peak_bytes"] == sum(facts["bytes"].values()) and facts["disk"]["cache"] == facts["cache_bytes"]


def test_dreamzero_on_a_gpu_gets_a_rung_hours_and_a_verdict_on_control(g1_shards: Path) -> None:
    told = wam_plan(g1_shards, "--gpu", "80", "--serve-gpu", "141")
    assert "80 GB class (speed of an H100 SXM)" in told and "assumed" in told
    assert "bf16 weights" in told and "stays free" in told and "a chunk lasts 1.6 s, a decision takes" in told
    facts = json.loads(wam_plan(g1_shards, "--gpu", "80", "--json"))
    assert facts["rung_fields"]["weights"] == "bf16" and 0 < facts["rung_fields"]["selective_blocks"] < 40
    assert facts["hours"]["train"] == pytest.approx(facts["steps"] * facts["seconds_per_step"] / 3600)
    assert facts["peak_bytes"] < 80e9


def test_a_base_that_is_not_here_is_told_with_its_size(g1_shards: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAM_BASES", str(tmp_path))
    told = wam_plan(g1_shards, "--base", "dreamzero-agibot", "--gpu", "80", "--steps", 9, "--batch", 12)
    assert "the base is not here: 45-49 GB of disk more, `wam base pull dreamzero-agibot`" in told
    assert "9 steps x 12" in told.splitlines()[0]


def test_what_cannot_fit_is_refused_with_what_would(g1_shards: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("backbone: dreamzero\nhardware: {weights: bf16}\n")
    told = wam_plan(g1_shards, "--recipe", recipe, "--gpu", "24", code=2)
    assert "GB are missing" in told and "the 5B" in told and "leave weights open (nf4 weights" in told
    assert "L40S" in told or "48 GB" in told
    assert "not known" in wam_plan(g1_shards, "--gpu", "banana", code=2)


def test_without_a_gpu_dreamzero_is_counted_and_says_what_is_open(g1_shards: Path, monkeypatch) -> None:
    monkeypatch.setattr("adapt.planning.gpus.at_hand", lambda: None)
    told = wam_plan(g1_shards, "--backbone", "dreamzero")
    assert "no GPU here; name one with --gpu" in told and "no base is named" in told


def test_film_is_counted_beside_play_and_a_film_alone_cannot_control(g1_shards: Path, droid_shards: Path) -> None:
    facts = json.loads(wam_plan(g1_shards, "--video", droid_shards, "--json"))
    assert facts["video_windows"] > 0 and facts["train_windows"] == 714
    alone = json.loads(wam_plan(droid_shards, "--gpu", "141", "--json"))
    assert alone["control"] is None and any("cannot control" in w for w in alone["warnings"])


def test_more_play_and_replayed_data_are_planned_and_raw_logs_refused(
    g1_shards: Path, droid_shards: Path, g1: Path, tmp_path: Path
) -> None:
    facts = json.loads(wam_plan(g1_shards, "--add", g1_shards, "--replay", droid_shards, "--json"))
    assert facts["train_windows"] == 2 * 714 and facts["replay_windows"] > 0
    assert "holds no shards. Ingest it with `wam ingest`" in wam_plan(g1, code=2)
    assert "no such file" in wam_plan(tmp_path / "nowhere", code=2) and "no data" in wam_plan(code=2)
    mix = tmp_path / "mix.yaml"
    mix.write_text(
        "schema: wamkit/mix@1\nparts:\n"
        f"- {{name: play, shards: {g1_shards}, share: 0.8, losses: [video, action], role: play}}\n"
        f"- {{name: film, shards: {droid_shards}, share: 0.2, losses: [video], role: video}}\n"
    )
    mixed = json.loads(wam_plan("--mix", mix, "--json"))
    assert mixed["train_windows"] == 714 and mixed["video_windows"] > 0
