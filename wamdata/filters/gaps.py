"""Holes in time, seen on the raw streams: alignment would paper over them."""

import numpy as np

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Finding, Int64
from schemas.recipe import Filters


def check(episode: Episode, embodiment: Embodiment, limits: Filters) -> list[Finding]:
    clocks = {name: s.t_ns for name, s in episode.streams.items()} | {n: v.t_ns for n, v in episode.videos.items()}
    used = {c.source for c in (*embodiment.model_state, *embodiment.model_action, *embodiment.model_cameras)}
    found = []
    for name, t_ns in clocks.items():
        at = widest_gap(t_ns)
        if name not in used or at is None:
            continue
        start_s, gap_s = at
        if gap_s > limits.max_gap_s:
            found.append(
                Finding(
                    "gap",
                    "warning",
                    episode.key,
                    f"{name} has a {gap_s:.2f} s gap at {start_s:.2f} s (allowed {limits.max_gap_s:g} s): "
                    "clips are cut there, no window crosses it",
                )
            )
    return found


def widest_gap(t_ns: Int64) -> tuple[float, float] | None:
    """Start and length, in seconds, of the longest time between neighbours; None for fewer than two."""
    if len(t_ns) < 2:
        return None
    steps = np.diff(t_ns)
    at = int(np.argmax(steps))
    return (int(t_ns[at]) - int(t_ns[0])) / 1e9, int(steps[at]) / 1e9
