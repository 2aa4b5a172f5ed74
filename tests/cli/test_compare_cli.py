"""`wam compare` as a user calls it: a table, JSON, one line when it refuses."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.compare import compare
from schemas.errors import UsageError
from schemas.report import ActionScore, Measure, Motion, Paired, Report, SplitPart

APP = typer.Typer()
APP.command()(compare)


def write(folder: Path, error: float, *, episodes: tuple[str, ...] = ("a",)) -> Path:
    """A report as it was before windows were kept."""
    missing = Measure.missing("no gripper")
    motion = Motion(
        amplitude=Measure.of(0.8, 0.7, 0.9), cosine=Measure.of(0.6), gripper_f1=missing, jerk=missing,
        onset_share=missing, onset_delay_s=missing,
    )  # fmt: skip
    errors = {"model": error, "stand_still": 0.04}
    paired = Paired(difference=error - 0.04, low=-0.03, high=-0.01, share_better=0.9)
    action = ActionScore(
        windows=12, steps=2, error=errors, step_error={n: (e, e) for n, e in errors.items()}, components=(),
        paired={"stand_still": paired}, amplitude_ratio=0.8, motion={"model": motion},
    )  # fmt: skip
    split = {"test": SplitPart(episodes=episodes, minutes=1, windows=12)}
    Report(
        verdict="OFFLINE PASS", reason="made up", robot="tiny", backbone="nano", base="", information=(), chunk_s=0.2,
        action_hz=10, split=split, action=action, video=None, training=None, rejects={}, notes=(), provenance={},
    ).write_json(folder / "report.json")  # fmt: skip
    return folder


def test_two_reports_give_a_table_and_a_page(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / "one", 0.02)), str(write(tmp_path / "two", 0.03))]
    ran = CliRunner().invoke(APP, [*paths, "--out", str(tmp_path / "page")])
    assert ran.exit_code == 0, ran.output
    for words in ("one", "two", "OFFLINE PASS", "0.0200", "50 %", "0.80 (0.70 to 0.90)", "keeps no windows.npz"):
        assert words in ran.output, words
    assert (tmp_path / "page" / "comparison.html").exists()


def test_json_is_json_alone(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / "one", 0.02)), str(write(tmp_path / "two", 0.03))]
    held = json.loads(CliRunner().invoke(APP, [*paths, "--json"]).output)
    assert [r["gain"] for r in held["reports"]] == [pytest.approx(0.5), pytest.approx(0.25)]
    assert held["reports"][0]["gripper_f1"] == {"value": None, "low": None, "high": None, "reason": "no gripper"}


def test_other_episodes_are_refused_unless_told_anyway(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / "one", 0.02)), str(write(tmp_path / "two", 0.03, episodes=("b", "c")))]
    refused = CliRunner().invoke(APP, paths).exception
    assert isinstance(refused, UsageError) and "judged on other episodes" in str(refused)
    ran = CliRunner().invoke(APP, [*paths, "--anyway"])
    assert ran.exit_code == 0 and "different windows" in ran.output
