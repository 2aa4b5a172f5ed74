"""What may be said of a model because of its scores.

The verdict has one gate: on held-out episodes the model must be better than standing still (and than the un-adapted
base, where there is one) by more than chance. Everything else is told, not gated. It is an offline verdict: passing
it says nothing about a robot in the loop.
"""

from collections.abc import Sequence

import numpy as np

from schemas.report import ActionScore, Paired, Verdict

BARELY_MOVES = 0.2
LEAST_GAIN = 0.05  # of standing still's error: an untrained model that twitches beats it by less, and surely
NAMES = {
    "stand_still": "standing still",
    "last_command": "last command",
    "mean": "mean motion",
    "ridge": "ridge",
    "ridge_state": "ridge on state",
    "base": "the un-adapted base",
}
TOLD = ("mean", "last_command", "ridge_state", "ridge")  # named in the reason, never gated on


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
