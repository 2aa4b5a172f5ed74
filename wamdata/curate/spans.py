"""A film divided: at its cuts, and where it is black or stands still for long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schemas.curate import CurateRules
from schemas.episode import Int64
from wamdata.curate.samples import Samples
from wamdata.doctor.pixels import BLACK_MAX, BLACK_MEAN

Kind = Literal["shot", "black", "static"]


@dataclass(frozen=True)
class Span:
    """Frames [first, stop) of a film."""

    first: int
    stop: int
    kind: Kind = "shot"


def spans_of(samples: Samples, cuts: list[int], t_ns: Int64, rules: CurateRules) -> list[Span]:
    """All spans of a film, in order and without gaps.

    Args:
        cuts: first frames of the shots behind the first.
        t_ns: (frames,) their times.
    """
    black = list(_black(samples, t_ns, rules))
    inside = [cut for cut in cuts if not any(b.first < cut < b.stop for b in black)]
    edges = sorted({0, len(t_ns), *inside, *(edge for b in black for edge in (b.first, b.stop))})
    starts = {b.first for b in black}
    found: list[Span] = []
    for first, stop in zip(edges[:-1], edges[1:], strict=True):
        if first in starts:
            found.append(Span(first, stop, "black"))
        else:
            found += _divided(Span(first, stop), list(_static(samples, first, stop, t_ns, rules)))
    return found


def seconds(first: int, stop: int, t_ns: Int64) -> float:
    """How long frames [first, stop) are shown; the last one of a film as long as they are on average."""
    if stop < len(t_ns):
        return int(t_ns[stop] - t_ns[first]) / 1e9
    step = int(t_ns[-1] - t_ns[0]) / max(len(t_ns) - 1, 1)
    return (int(t_ns[-1] - t_ns[first]) + step) / 1e9


def _black(samples: Samples, t_ns: Int64, rules: CurateRules) -> Iterator[Span]:
    dark = (samples.brightness < BLACK_MEAN) & (samples.rows.max(axis=1) < BLACK_MAX)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], dark, [False]]).astype(np.int8))).reshape(-1, 2)
    for low, high in ends:
        first = int(samples.index[low])
        stop = int(samples.index[high]) if high < len(dark) else len(t_ns)
        if seconds(first, stop, t_ns) >= rules.black_s:
            yield Span(first, stop, "black")


def _static(samples: Samples, first: int, stop: int, t_ns: Int64, rules: CurateRules) -> Iterator[Span]:
    """Stretches in which every picture is like the first one: slow motion adds up, and ends them."""
    here = samples.of(first, stop)
    index, blocks = samples.index[here], samples.blocks[here]
    anchor = 0
    for at in range(1, len(index) + 1):
        if at < len(index) and np.abs(blocks[at] - blocks[anchor]).max() < rules.static_level:
            continue
        low = first if anchor == 0 else int(index[anchor])
        high = stop if at == len(index) else int(index[at - 1]) + 1
        if rules.static_s and seconds(low, high, t_ns) >= rules.static_s:
            yield Span(low, high, "static")
        anchor = at


def _divided(shot: Span, static: list[Span]) -> Iterator[Span]:
    at = shot.first
    for each in static:
        if at < each.first:
            yield Span(at, each.first)
        yield each
        at = each.stop
    if at < shot.stop:
        yield Span(at, shot.stop)
