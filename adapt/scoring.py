"""How wrong the predicted actions and frames are, and what may be said of the model because of it.

The verdict has one gate: on held-out episodes the model must be better than standing still (and than the un-adapted
base, where there is one) by more than chance. Everything else is told, not gated. It is an offline verdict: passing
it says nothing about a robot in the loop. Numbers over all columns mix units where a robot has several; the
per-component scores do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from adapt.baselines import ActionWindows, Float, hold
from schemas.embodiment import Embodiment
from schemas.errors import DataError
from schemas.report import ActionScore, ComponentScore, Paired, Verdict, VideoScore

Frames = NDArray[np.uint8]

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
SEED = 0
BARELY_MOVES = 0.2
LEAST_GAIN = 0.05  # of standing still's error: an untrained model that twitches beats it by less, and surely
STILL = 1e-6  # mean motion below this is no motion; keeps ratios finite
PSNR_CAP_DB = 100.0  # equal frames; keeps means finite

NAMES = {
    "stand_still": "standing still",
    "last_command": "last command",
    "mean": "mean motion",
    "ridge": "ridge",
    "ridge_state": "ridge on state",
    "base": "the un-adapted base",
}
TOLD = ("mean", "last_command", "ridge_state", "ridge")  # named in the reason, never gated on


@dataclass(frozen=True)
class UnitColumns:
    """Neighbouring action columns of one component that share a unit: the smallest thing with one error."""

    name: str
    unit: str
    labels: tuple[str, ...]
    columns: slice


def unit_columns(robot: Embodiment) -> tuple[UnitColumns, ...]:
    """The action's columns by component; one with several units (a base: m/s, rad/s) gives one entry per unit."""
    found: list[UnitColumns] = []
    start = 0
    for component in robot.model_action:
        at = 0
        for unit, run in groupby(component.mapped_units):
            width = len(list(run))
            columns = slice(start + at, start + at + width)
            found.append(UnitColumns(component.name, unit, component.labels[at : at + width], columns))
            at += width
        start += component.width
    return tuple(found)


def score_actions(windows: ActionWindows, predictions: Mapping[str, Float], robot: Embodiment) -> ActionScore:
    """Errors of every prediction (N, K, A) against the recorded commands; `model` and `stand_still` must be there.

    Raises:
        DataError: there is no window, or a recorded command that counts is not finite.
    """
    assert {"model", "stand_still"} <= predictions.keys(), sorted(predictions)
    if len(windows) == 0:
        raise DataError("no held-out window with actions. Hold out longer episodes or shorten chunk_s.")
    mask = windows.valid[..., None]
    broken = mask & ~np.isfinite(windows.action)
    if broken.any():
        n, k, a = (int(i[0]) for i in np.nonzero(broken))
        raise DataError(
            f"episode {windows.episode[n]}: action column {a} is not finite at row {windows.start[n] + k} "
            f"but counts as valid. Mark the row invalid or drop the episode."
        )
    still = hold(windows, robot)[:, None]
    error = {name: _masked(np.abs(p - windows.action), mask) for name, p in predictions.items()}
    moved = _masked(np.abs(predictions["model"] - still), mask)
    wanted = _masked(np.abs(windows.action - still), mask)
    weight = windows.valid.sum()
    columns = {name: e.sum((0, 1)) / weight for name, e in error.items()}
    return ActionScore(
        windows=len(windows),
        steps=windows.action.shape[1],
        error={name: float(c.mean()) for name, c in columns.items()},
        step_error={name: _per_step(e, windows.valid) for name, e in error.items()},
        components=tuple(_component(part, columns, moved, wanted) for part in unit_columns(robot)),
        paired=paired_differences(windows, error),
        amplitude_ratio=_ratio(moved, wanted),
    )


def paired_differences(windows: ActionWindows, error: Mapping[str, Float]) -> dict[str, Paired]:
    """Model minus each other, on the same windows, with a two-level bootstrap interval.

    Each resample draws as many episodes as there are, then as many windows as each drawn episode has, both with
    replacement: neighbouring windows of one episode are alike, so windows alone would give too narrow an interval.

    Args:
        error: absolute errors (N, K, A) by name, zero where not valid.
    """
    order = np.lexsort((windows.start, windows.episode))
    weight = windows.valid.sum(1)[order].astype(np.float64)
    total = {name: e.mean(2).sum(1)[order] for name, e in error.items()}
    others = [name for name in total if name != "model"]
    excess = np.stack([total["model"] - total[name] for name in others], axis=1)
    excess = np.where(np.isfinite(excess), excess, np.nan)
    draws = _resampled_means(excess, weight, windows.episode[order])
    low, high = np.percentile(draws, INTERVAL, axis=0)
    return {
        name: Paired(
            difference=float(excess[:, i].sum() / weight.sum()),
            low=float(low[i]),
            high=float(high[i]),
            share_better=float((excess[:, i] < 0).mean()),
        )
        for i, name in enumerate(others)
    }


def verdict(score: ActionScore | None, *, has_base: bool, episodes: int) -> tuple[Verdict, str]:
    """The verdict and one sentence that gives its numbers.

    Args:
        score: None when the held-out episodes carry no actions.
        has_base: there is an un-adapted base, scored under `base`, that the model must beat too.
        episodes: how many held-out episodes the windows come from.
    """
    if score is None:
        return "NO ACTION VERDICT", "video only: teaches tasks and looks, is no controller"
    gates = ("stand_still", "base") if has_base else ("stand_still",)
    model = score.error["model"]
    for name in ("model", *gates):
        if not np.isfinite(score.error[name]):
            who = "the model" if name == "model" else NAMES[name]
            return "FAIL", f"{who} predicted numbers that are not finite (NaN or infinite), so no error can be stated"
    failures = [words for name in gates if (words := _gate_failure(score, name))]
    passed = not failures
    against = score.error["stand_still"]
    clauses = [
        f"error {_short(model)} against {_short(against)} for standing still{_percent(model, against)} "
        f"on {score.windows} window{_s(score.windows)} of {episodes} held-out episode{_s(episodes)}"
    ]
    if episodes == 1:
        clauses.append("one episode says little about others")
    clauses += failures
    if score.amplitude_ratio < BARELY_MOVES:
        clauses.append(f"warning: barely moves, {score.amplitude_ratio * 100:.0f} % of the recorded motion")
    worse = [c.name for c in score.components if c.error["model"] >= c.error["stand_still"] > 0]
    if passed and worse:
        clauses.append(f"no better than standing still on {_listed(worse)}")
    clauses += _told(score, ("base", *TOLD) if has_base else TOLD, skip=() if passed else gates)
    return ("OFFLINE PASS" if passed else "FAIL"), "; ".join(clauses)


def psnr(truth: Frames, other: Frames) -> Float:
    """(N, F) peak signal-to-noise ratio in dB of frames (N, F, H, W, 3) uint8; equal frames give `PSNR_CAP_DB`."""
    assert truth.shape == other.shape and truth.dtype == other.dtype == np.uint8
    noise = np.stack([_squared_error(t, o) for t, o in zip(truth, other, strict=True)])
    with np.errstate(divide="ignore"):
        return np.minimum(20 * np.log10(255.0) - 10 * np.log10(noise), PSNR_CAP_DB)


def copy_last(last: Frames, num_frames: int) -> Frames:
    """(N, F, H, W, 3): the last known frame (N, H, W, 3) shown again F times; a view."""
    return np.broadcast_to(last[:, None], (len(last), num_frames, *last.shape[1:]))


def score_video(truth: Frames, predictions: Mapping[str, Frames], *, frame_s: Sequence[float]) -> VideoScore:
    """PSNR of each prediction (N, F, H, W, 3): `model`, `copy_last`, and `ceiling`, the latents decoded again.

    Args:
        frame_s: F times of the frames after the last known one, in seconds.
    """
    assert len(frame_s) == truth.shape[1]
    frames = {name: psnr(truth, frames).mean(0) for name, frames in predictions.items()}
    return VideoScore(
        windows=len(truth),
        frame_s=tuple(float(t) for t in frame_s),
        psnr={name: float(f.mean()) for name, f in frames.items()},
        frame_psnr={name: tuple(f.tolist()) for name, f in frames.items()},
    )


def _masked(values: Float, mask: NDArray[np.bool_]) -> Float:
    return np.where(mask, values, 0.0)


def _per_step(error: Float, valid: NDArray[np.bool_]) -> tuple[float, ...]:
    """Error at each step; NaN at a step that never counts."""
    count = valid.sum(0)
    mean = error.mean(2).sum(0) / np.maximum(count, 1)
    return tuple(np.where(count > 0, mean, np.nan).tolist())


def _component(part: UnitColumns, columns: Mapping[str, Float], moved: Float, wanted: Float) -> ComponentScore:
    at = part.columns
    return ComponentScore(
        name=part.name,
        unit=part.unit,
        labels=part.labels,
        error={name: float(c[at].mean()) for name, c in columns.items()},
        column_error={name: tuple(c[at].tolist()) for name, c in columns.items()},
        amplitude_ratio=_ratio(moved[..., at], wanted[..., at]),
    )


def _ratio(moved: Float, wanted: Float) -> float:
    """Predicted motion over recorded motion; 1 where neither moves."""
    model, truth = float(moved.mean()), float(wanted.mean())
    return 1.0 if model < STILL and truth < STILL else model / max(truth, STILL)


def _resampled_means(excess: Float, weight: Float, episode: NDArray[np.str_]) -> Float:
    """(RESAMPLES, M) weighted means of `excess` (N, M); windows of an episode must be neighbours."""
    _, first, size = np.unique(episode, return_index=True, return_counts=True)
    rng = np.random.default_rng(SEED)
    means = np.empty((RESAMPLES, excess.shape[1]))
    for i in range(RESAMPLES):
        drawn = rng.integers(len(size), size=len(size))
        sizes = size[drawn]
        rows = first[drawn].repeat(sizes) + (rng.random(sizes.sum()) * sizes.repeat(sizes)).astype(np.int64)
        means[i] = excess[rows].sum(0) / weight[rows].sum()
    return means


def _beats(paired: Paired) -> bool:
    return paired.difference < 0 and paired.high < 0


def _gate_failure(score: ActionScore, name: str) -> str | None:
    """Why the model does not pass a gate; None when it does. Certain but tiny is no pass against standing still."""
    paired = score.paired[name]
    if _beats(paired):
        gain = 1 - score.error["model"] / score.error[name]
        if name != "stand_still" or gain >= LEAST_GAIN:
            return None
        return f"only {gain * 100:.1f} % better than standing still ({LEAST_GAIN * 100:.0f} % is wanted)"
    if paired.difference < 0:
        return f"not clearly better than {NAMES[name]}: the 95 % interval of the difference reaches {paired.high:+.2g}"
    return f"not better than {NAMES[name]}" + (f" {_short(score.error[name])}" if name == "base" else "")


def _told(score: ActionScore, names: Sequence[str], *, skip: Sequence[str]) -> list[str]:
    """Which others are beaten, level (the interval holds zero) or not beaten, worst first."""
    known = sorted((n for n in names if n in score.paired and n not in skip), key=lambda n: -score.error[n])
    groups = {
        "also beats": [n for n in known if _beats(score.paired[n])],
        "not clearly better than": [n for n in known if score.paired[n].difference < 0 and not _beats(score.paired[n])],
        "does not beat": [n for n in known if not score.paired[n].difference < 0],
    }
    return [f"{how} {_listed([f'{NAMES[n]} {_short(score.error[n])}' for n in g])}" for how, g in groups.items() if g]


def _short(value: float) -> str:
    """Three significant digits."""
    return f"{value:#.3g}" if 1e-4 <= abs(value) < 1000 else f"{value:.3g}"


def _percent(model: float, against: float) -> str:
    percent = round((model / against - 1) * 100) if against > 0 else None
    return "" if percent is None else f" ({percent:+d} %)" if percent else " (±0 %)"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _squared_error(truth: Frames, other: Frames) -> Float:
    return np.square(truth.astype(np.float32) - other.astype(np.float32)).mean((1, 2, 3), dtype=np.float64)
