"""What each row of a clip may teach: the one place where use spans, control marks and outcomes become masks.

    a row in a span            feeds                     because
    ["video", "action"]        both
    ["video"], ["none"]        video; nothing            whoever curated the log said so
    no span at all             nothing                   spans list what may be used
    control is policy          video                     imitating a policy's commands teaches its failures again
    control is reset           nothing                   the robot is carried about, no task is being done
    outcome is failure         video                     what happened is true, but nobody should do it again

The strictest holds where several apply or spans overlap. Other controls (human, intervention, scripted) are imitated;
`imitated` says otherwise, and an empty set makes everything video. No row feeds its action alone: a window's video
cannot be masked row by row. Does not judge whether numbers can be trusted, which is a row's validity.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.episode import CONTROL_CODES, Int64
from schemas.errors import DataError, UsageError
from schemas.manifest import UseMeta
from wamdata.clips import Clip

IMITATED = frozenset({"human", "intervention", "scripted"})
LOSSES = {frozenset({"video", "action"}): (True, True), frozenset({"video"}): (True, False)}
NOTHING = frozenset({"none"})
ALWAYS = np.iinfo(np.int64)


class Feeds(NamedTuple):
    """(T,) bool each: rows that may feed the video loss, and the action loss; the second are among the first."""

    video: NDArray[np.bool_]
    action: NDArray[np.bool_]


def clip_feeds(clip: Clip, *, imitated: frozenset[str] = IMITATED) -> Feeds:
    """What the rows of a clip feed.

    A span that reaches an edge of the clip holds beyond it too: a robot file that changed may map rows a little
    outside the clip's first extent.

    Raises:
        DataError: a span names other losses, or a row a control code that is not known.
        UsageError: `imitated` names no control, or reset.
    """
    meta = clip.meta
    spans = [
        UseMeta(
            start_ns=ALWAYS.min if use.start_ns <= meta.start_ns else use.start_ns,
            stop_ns=ALWAYS.max if use.stop_ns >= meta.stop_ns else use.stop_ns,
            losses=use.losses,
        )
        for use in meta.use
    ]
    return row_feeds(clip.t_ns, clip.control, spans, meta.outcome, imitated=imitated, where=f"clip {clip.key}")


def row_feeds(
    t_ns: Int64,
    control: NDArray[np.uint8],
    use: Sequence[UseMeta],
    outcome: str,
    *,
    imitated: frozenset[str] = IMITATED,
    where: str = "rows",
) -> Feeds:
    """What rows at times (T,) under controls (T,), codes in `CONTROL_CODES`, feed; raises as `clip_feeds` does."""
    video, action = _by_span(t_ns, use, where)
    unknown = np.setdiff1d(control, list(CONTROL_CODES.values()))
    if len(unknown):
        known = ", ".join(f"{code} {name}" for name, code in CONTROL_CODES.items())
        raise DataError(f"{where}: control code {unknown[0]} is not known ({known}). Ingest again.")
    video &= control != CONTROL_CODES["reset"]
    action &= video & np.isin(control, [CONTROL_CODES[name] for name in _checked(imitated)])
    if outcome == "failure":
        action[:] = False
    return Feeds(video, action)


def at_times(feeds: Feeds, t_ns: Int64, grid_ns: Int64) -> Feeds:
    """`feeds` of rows at `t_ns`, at grid times: a time between two rows feeds what both of them do."""
    left = (np.searchsorted(t_ns, grid_ns, side="right") - 1).clip(0)
    right = np.searchsorted(t_ns, grid_ns, side="left").clip(max=len(t_ns) - 1)
    return Feeds(feeds.video[left] & feeds.video[right], feeds.action[left] & feeds.action[right])


def _by_span(t_ns: Int64, use: Sequence[UseMeta], where: str) -> Feeds:
    covered = np.zeros(len(t_ns), bool)
    video, action = np.ones(len(t_ns), bool), np.ones(len(t_ns), bool)
    for span in use:
        inside = (t_ns >= span.start_ns) & (t_ns < span.stop_ns)
        allowed = _allowed(span, where)
        covered |= inside
        video &= ~inside | allowed[0]
        action &= ~inside | allowed[1]
    return Feeds(video & covered, action & covered)


def _allowed(span: UseMeta, where: str) -> tuple[bool, bool]:
    losses = frozenset(span.losses)
    if losses == NOTHING:
        return False, False
    if losses not in LOSSES:
        raise DataError(f'{where}: use {list(span.losses)}, wanted ["video", "action"], ["video"] or ["none"].')
    return LOSSES[losses]


def _checked(imitated: frozenset[str]) -> list[str]:
    allowed = CONTROL_CODES.keys() - {"reset"}
    odd = sorted(imitated - allowed)
    if odd:
        raise UsageError(f"imitate {odd[0]!r}: wanted some of {', '.join(sorted(allowed))}.")
    return sorted(imitated)
