"""Reports side by side: one table, and paired differences where they judged the same windows.

Reports are of the same windows if `windows_sha256` says so: equal names, rates and recorded commands. Without it (a
report from before it was kept) episodes, chunk length and number of windows must agree, and nothing is paired.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from adapt.report.windows import WINDOWS, WindowErrors
from adapt.scoring.bootstrap import paired
from schemas.errors import UsageError
from schemas.report import Measure, Paired, Report

REPORT = "report.json"
PLACES = (REPORT, f"eval/{REPORT}", f"../../eval/{REPORT}", f"../eval/{REPORT}")  # a run's adapter is in adapter/export


@dataclass(frozen=True)
class Judged:
    """A report and, where they were kept, its windows' errors."""

    name: str
    path: Path
    report: Report
    windows: WindowErrors | None


@dataclass(frozen=True)
class Line:
    """What the table says of one report; None is not measured."""

    name: str
    verdict: str
    error: float | None
    gain: float | None  # share of standing still's error that is gone
    amplitude: Measure
    cosine: Measure
    gripper_f1: Measure
    psnr: float | None
    windows: int


@dataclass(frozen=True)
class Pair:
    """`first` minus `second`, model against model, on the same windows; or why that cannot be told."""

    first: str
    second: str
    difference: Paired | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; numbers that are not finite are null."""
        lines = [
            {n: v.model_dump(mode="json") if isinstance(v, Measure) else _finite(v) for n, v in vars(line).items()}
            for line in self.lines
        ]
        pairs = [vars(p) | {"difference": _paired_dict(p.difference)} for p in self.pairs]
        return {"reports": lines, "paired": pairs, "notes": list(self.notes)}


def compare(paths: Sequence[Path], *, anyway: bool = False) -> Comparison:
    """The reports at `paths`: runs, folders of `wam eval`, a run's adapter, or `report.json` files.

    Args:
        anyway: also where the reports judged different windows; nothing is paired then.

    Raises:
        UsageError: fewer than two, no report at a path, or different test windows.
    """
    if len(paths) < 2:
        raise UsageError("compare: one report is nothing to compare. Give two or more runs or reports.")
    judged = _named([_read(path) for path in paths])
    notes = []
    for other in judged[1:]:
        why = difference_of_windows(judged[0], other)
        if why and not anyway:
            raise UsageError(f"{other.path}: {why}. Judge both on the same shards, or give --anyway.")
        if why:
            notes.append(f"{other.name} and {judged[0].name} were judged on different windows: {why}")
    lines = tuple(_line(j) for j in judged)
    return Comparison(lines, tuple(_pair(a, b) for a, b in combinations(judged, 2)), tuple(notes))


def difference_of_windows(one: Judged, other: Judged) -> str:
    """What tells the judged windows of two reports apart; "" where they are the same."""
    a, b = one.report, other.report
    if a.windows_sha256 and b.windows_sha256:
        if a.windows_sha256 == b.windows_sha256:
            return ""
        return f"judged on other windows than {one.path} ({_told(b)} against {_told(a)})"
    if (a.action is None) != (b.action is None):
        return f"one of it and {one.path} has no actions"
    same = (a.robot, a.chunk_s, _told(a), _episodes(a)) == (b.robot, b.chunk_s, _told(b), _episodes(b))
    return "" if same else f"judged on other episodes than {one.path} ({_told(b)} against {_told(a)})"


def _told(report: Report) -> str:
    windows = report.action.windows if report.action else report.video.windows if report.video else 0
    return f"{windows} windows of {len(_episodes(report))} episodes"


def _episodes(report: Report) -> tuple[str, ...]:
    part = report.split.get("test")
    return part.episodes if part else ()


def _read(path: Path) -> Judged:
    file = path if path.is_file() else next((path / p for p in PLACES if (path / p).is_file()), None)
    if file is None:
        raise UsageError(f"{path}: holds no {REPORT}. Give a run, a folder made by `wam eval`, or a {REPORT}.")
    report, windows = Report.read_json(file), file.with_name(WINDOWS)
    return Judged(path.resolve().name, path, report, WindowErrors.read(windows) if windows.exists() else None)


def _named(judged: Sequence[Judged]) -> list[Judged]:
    """With names that differ: a path's last parts, as many as it takes."""
    if len({j.name for j in judged}) == len(judged):
        return list(judged)
    return [Judged(str(j.path), j.path, j.report, j.windows) for j in judged]


def _line(judged: Judged) -> Line:
    report, action = judged.report, judged.report.action
    absent = Measure.missing("no actions" if action is None else "from before it was measured")
    motion = action.motion.get("model") if action else None
    gain = None
    if action and action.error["stand_still"] > 0:
        gain = 1 - action.error["model"] / action.error["stand_still"]
    amplitude = motion.amplitude if motion else Measure.of(action.amplitude_ratio) if action else absent
    windows = action.windows if action else report.video.windows if report.video else 0
    return Line(
        name=judged.name,
        verdict=report.verdict,
        error=action.error["model"] if action else None,
        gain=gain,
        amplitude=amplitude,
        cosine=motion.cosine if motion else absent,
        gripper_f1=motion.gripper_f1 if motion else absent,
        psnr=report.video.psnr.get("model") if report.video else None,
        windows=windows,
    )


def _pair(one: Judged, other: Judged) -> Pair:
    without = next((j for j in (one, other) if j.windows is None), None)
    if without is not None:
        return Pair(one.name, other.name, None, f"{without.name} keeps no {WINDOWS}")
    a, b = one.windows, other.windows
    if a.sha256 != b.sha256:
        return Pair(one.name, other.name, None, "different windows")
    order_a, order_b = np.argsort(a.window), np.argsort(b.window)
    model, second = (np.asarray(w.error["model"], np.float64)[o] for w, o in ((a, order_a), (b, order_b)))
    (found,) = paired(model, second[:, None], a.steps[order_a], a.episode[order_a], a.start[order_a])
    return Pair(one.name, other.name, found)


def _paired_dict(found: Paired | None) -> dict[str, Any] | None:
    return None if found is None else {n: _finite(v) for n, v in found.model_dump().items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_page(path: Path, comparison: Comparison) -> Path:
    """`comparison.html`, one page that needs nothing else; its path."""
    from adapt.report.comparison import render_comparison
    from schemas.files import write_atomic

    write_atomic(path / "comparison.html", render_comparison(rows_of(comparison), comparison.notes).encode())
    return path / "comparison.html"


def rows_of(comparison: Comparison) -> tuple[tuple[list[str], list[list[str]]], tuple[list[str], list[list[str]]]]:
    """(header, rows) of the table and of the paired differences, as text."""
    from adapt.report.numbers import measured, measured_interval, short

    def told(measure: Measure) -> str:
        interval = measured_interval(measure)
        return f"{measured(measure)} ({interval})" if interval else measured(measure)

    header = ["report", "verdict", "error", "gain over still", "amplitude", "direction", "gripper F1", "PSNR, dB"]
    rows = [
        [
            line.name,
            line.verdict,
            "–" if line.error is None else short(line.error),
            "–" if line.gain is None or not math.isfinite(line.gain) else f"{line.gain * 100:.0f} %",
            told(line.amplitude),
            told(line.cosine),
            told(line.gripper_f1),
            "–" if line.psnr is None else f"{line.psnr:.1f}",
        ]
        for line in comparison.lines
    ]
    pairs = [
        [f"{p.first} minus {p.second}", "–", p.reason, ""]
        if p.difference is None
        else [
            f"{p.first} minus {p.second}",
            short(p.difference.difference),
            f"{short(p.difference.low)} to {short(p.difference.high)}",
            f"{p.difference.share_better * 100:.0f} %",
        ]
        for p in comparison.pairs
    ]
    return (header, rows), (["paired difference of errors", "", "95 % interval", "windows won"], pairs)
