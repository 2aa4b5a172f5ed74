"""Reports side by side: paired where they judged the same windows, refused where they did not."""

import json
from pathlib import Path

import numpy as np
import pytest

from adapt.evaluate.compare import compare, rows_of, write_page
from adapt.report import Figures, WindowErrors, write_report
from adapt.scoring import score_actions, verdict, window_errors
from adapt.scoring.baselines import ActionWindows, stand_still
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.report import Report, SplitPart

ROBOT = Embodiment.model_validate(
    {
        "schema": "wamkit/embodiment@1",
        "name": "tiny",
        "native_hz": 10,
        "state": [{"name": "arm", "from": "s", "columns": [0]}],
        "action": [{"name": "arm", "from": "a", "columns": [0], "relative_to": "state.arm"}],
    }
)


def windows(first: int = 0) -> ActionWindows:
    """Twelve windows of three episodes, every command 1 from a state of 0."""
    return ActionWindows(
        state=np.zeros((12, 1)),
        history=np.zeros((12, 1, 1)),
        last_action=np.zeros((12, 1)),
        action=np.ones((12, 2, 1)),
        valid=np.ones((12, 2), bool),
        episode=np.repeat(["a", "b", "c"], 4),
        start=np.tile(np.arange(4) * 2 + first, 3),
    )


def write(folder: Path, model: np.ndarray | float, *, first: int = 0, keep: bool = True, order=None) -> Path:
    """The report of a model, as a run leaves it; `order` shuffles its windows."""
    judged = windows(first)
    predicted = np.broadcast_to(model, judged.action.shape)
    if order is not None:
        judged = ActionWindows(**{n: v[order] for n, v in vars(judged).items()})
        predicted = predicted[order]
    predictions = {"model": predicted, "stand_still": stand_still(judged, ROBOT)}
    action = score_actions(judged, predictions, ROBOT, past=np.zeros(12, int), action_hz=10)
    words = verdict(action, has_base=False, episodes=3)
    kept = WindowErrors.of(
        list(judged.episode), judged, window_errors(judged, predictions), np.zeros(12, int), action_hz=10
    )
    found = Report(
        verdict=words[0], reason=words[1], robot="tiny", backbone="nano", base="", information=(), chunk_s=0.2,
        action_hz=10, split={"test": SplitPart(episodes=("a", "b", "c"), minutes=1, windows=12)}, action=action,
        video=None, training=None, rejects={}, notes=(), provenance={}, windows_sha256=kept.sha256 if keep else "",
    )  # fmt: skip
    write_report(folder / "eval", found, Figures(), windows=kept if keep else None)
    return folder


def scattered(mean: float) -> np.ndarray:
    return mean + 0.02 * np.random.default_rng(0).normal(size=(12, 1, 1))


def test_models_are_compared_window_by_window(tmp_path):
    better, worse = write(tmp_path / "better", scattered(0.9)), write(tmp_path / "worse", scattered(0.8))
    found = compare([better, worse])
    assert [line.name for line in found.lines] == ["better", "worse"]
    assert [line.verdict for line in found.lines] == ["OFFLINE PASS", "OFFLINE PASS"]
    (pair,) = found.pairs
    assert pair.difference.difference == pytest.approx(found.lines[0].error - found.lines[1].error, abs=1e-6)
    # the scatter is the same window by window, so the difference is surer than either error
    assert pair.difference.low == pytest.approx(-0.1, abs=1e-3) == pytest.approx(pair.difference.high, abs=1e-3)
    assert pair.difference.share_better == 1.0
    assert found.lines[0].gain == pytest.approx(1 - found.lines[0].error)
    assert found.lines[0].amplitude.low < found.lines[0].amplitude.value < found.lines[0].amplitude.high


def test_the_order_in_which_windows_were_kept_does_not_matter(tmp_path):
    order = np.random.default_rng(2).permutation(12)
    other = write(tmp_path / "b", scattered(0.8), order=order)
    plain = compare([write(tmp_path / "a", 0.5), write(tmp_path / "c", scattered(0.8))]).pairs[0].difference
    mixed = compare([tmp_path / "a", other]).pairs[0].difference
    assert mixed == plain


def test_other_windows_are_refused_unless_asked_for_and_then_not_paired(tmp_path):
    one, other = write(tmp_path / "one", 0.9), write(tmp_path / "other", 0.8, first=1)
    with pytest.raises(UsageError, match="judged on other windows than .*one .*Judge both on the same shards, or give"):
        compare([one, other])
    found = compare([one, other], anyway=True)
    assert found.pairs[0].difference is None and found.pairs[0].reason == "different windows"
    assert "different windows" in found.notes[0]


def test_three_reports_give_three_pairs_and_every_kind_of_path_is_found(tmp_path):
    runs = [write(tmp_path / name, value) for name, value in (("a", 0.9), ("b", 0.8), ("c", 0.1))]
    export = runs[2] / "adapter" / "export"
    export.mkdir(parents=True)
    found = compare([runs[0], runs[1] / "eval" / "report.json", export])
    assert [(p.first, p.second) for p in found.pairs] == [
        ("a", "report.json"),
        ("a", "export"),
        ("report.json", "export"),
    ]
    assert found.lines[2].error == pytest.approx(0.9)


def test_reports_of_one_name_go_by_their_paths(tmp_path):
    one, two = write(tmp_path / "x" / "run", 0.9), write(tmp_path / "y" / "run", 0.8)
    assert [line.name for line in compare([one, two]).lines] == [str(one), str(two)]


def test_a_report_without_kept_windows_is_compared_but_not_paired(tmp_path):
    old, new = write(tmp_path / "old", 0.9, keep=False), write(tmp_path / "new", 0.8)
    (pair,) = compare([old, new]).pairs
    assert pair.difference is None and pair.reason == "old keeps no windows.npz"


def test_what_holds_no_report_or_is_alone_is_refused(tmp_path):
    run = write(tmp_path / "run", 0.9)
    with pytest.raises(UsageError, match="one report is nothing to compare"):
        compare([run])
    with pytest.raises(UsageError, match=r"empty: holds no report.json"):
        (tmp_path / "empty").mkdir()
        compare([run, tmp_path / "empty"])
    (run / "eval" / "windows.npz").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"windows.npz: cannot be read"):
        compare([run, write(tmp_path / "whole", 0.8)])


def test_a_broken_model_is_compared_in_words_and_valid_json(tmp_path):
    found = compare([write(tmp_path / "fine", 0.9), write(tmp_path / "broken", np.nan)])
    held = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert held["reports"][1]["error"] is None and held["paired"][0]["difference"]["difference"] is None
    assert held["reports"][1]["cosine"]["reason"] == "not finite"
    assert rows_of(found)[0][1][1][2] == "not finite"


def test_the_page_is_self_contained_and_holds_both_tables(tmp_path):
    found = compare([write(tmp_path / "a<b>", 0.9), write(tmp_path / "c", 0.8)])
    text = write_page(tmp_path / "page", found).read_text()
    assert "http" not in text and "<script" not in text and "a<b>" not in text and "a&lt;b&gt; minus c" in text
    assert "OFFLINE PASS" in text


def test_windows_are_known_by_their_recorded_commands_and_places():
    def digest(judged: ActionWindows, hz: float = 10) -> str:
        errors = {"model": np.zeros(12)}
        return WindowErrors.of(list(judged.episode), judged, errors, np.zeros(12, int), action_hz=hz).sha256

    same = windows()
    other = ActionWindows(**(vars(same) | {"action": same.action * 2}))
    assert digest(same) == digest(windows())
    assert len({digest(same), digest(other), digest(windows(1)), digest(same, hz=20)}) == 4
