"""Where the episodes of a replay buffer begin and end, as `meta/episode_ends` says."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from schemas.episode import Finding
from schemas.errors import DataError
from wamdata.readers.zarr.buffer import Buffer, told

MAX_EPISODES = 1_000_000


@dataclass(frozen=True)
class Spans:
    """Half-open spans of rows by number of episode, for those that are covered."""

    spans: dict[int, tuple[int, int]]
    rows: int
    findings: tuple[Finding, ...]


def spans_of(buffer: Buffer, where: str) -> Spans:
    """The episodes of a buffer.

    Raises:
        DataError: the list of ends is no list of numbers, or none of the episodes is covered by rows.
    """
    ends = _ends(buffer, where)
    lengths = Counter(len(a) for a in buffer.arrays.values() if a.shape)
    rows = max(lengths, key=lambda n: (lengths[n], n), default=0)
    starts = np.concatenate([[0], ends[:-1]])
    is_rising, is_inside = ends > starts, ends <= rows
    starts = np.maximum.accumulate(starts)  # behind an end that falls back, nothing is read twice
    spans = {int(i): (int(starts[i]), int(ends[i])) for i in np.flatnonzero(is_rising & is_inside & (starts < ends))}
    if not spans:
        raise DataError(f"{where}: {len(ends)} episodes end at {_few(ends)}, and there are {rows} rows. Copy it again.")
    findings = []
    if not is_rising.all():
        message = f"`episode_ends` does not rise at {int(np.argmin(is_rising))}: {int((~is_rising).sum())} left out"
        findings.append(Finding("bad_ends", "warning", where, message))
    if not is_inside.all():
        message = f"{int((~is_inside).sum())} of {len(ends)} episodes end behind the last of {rows} rows: left out"
        findings.append(Finding("count_mismatch", "warning", where, message))
    elif (rest := rows - int(ends.max())) > 0:
        message = f"the last {rest} of {rows} rows belong to no episode: left out"
        findings.append(Finding("count_mismatch", "warning", where, message))
    return Spans(spans, rows, tuple(findings))


def _ends(buffer: Buffer, where: str) -> np.ndarray:
    array = buffer.meta["episode_ends"]
    if len(array.shape) != 1 or array.dtype.kind not in "iu" or not 0 < len(array) <= MAX_EPISODES:
        raise DataError(f"{where}: `meta/episode_ends` is {array.dtype} {array.shape}, no list of ends. Copy it again.")
    with told(f"{where}: meta/episode_ends"):
        return array[:].astype(np.int64)


def _few(ends: np.ndarray) -> str:
    return ", ".join(str(e) for e in ends[:3]) + (", ..." if len(ends) > 3 else "")
