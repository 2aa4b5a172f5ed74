"""An episode too short to hold a single chunk teaches nothing."""

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Finding
from schemas.recipe import Filters


def check(episode: Episode, embodiment: Embodiment, limits: Filters) -> list[Finding]:
    clocks = [s.t_ns for s in episode.streams.values()] or [v.t_ns for v in episode.videos.values()]
    longest_s = max(((int(t[-1]) - int(t[0])) / 1e9 for t in clocks if len(t)), default=0.0)
    if longest_s >= limits.min_s:
        return []
    message = f"lasts {longest_s:.2f} s (at least {limits.min_s:g} s). Lower filters.min_s or leave it out"
    return [Finding("too_short", "error", episode.key, message)]
