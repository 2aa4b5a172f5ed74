"""Keep-ranges that others have published: which rows of which episodes are worth learning from.

openpi's file for DROID (`droid_sample_ranges`) is a JSON object, `{"<recording folder>--<file>": [[start, stop],
...]}`, rows half-open, of the episodes it keeps; idle rows lie in no range. Rows outside feed nothing; an episode that
it does not name is left out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import permutations
from pathlib import Path

import numpy as np

from schemas.episode import Episode, UseSpan
from schemas.errors import DataError, UsageError

MAX_BYTES = 1_000_000_000
Ranges = Mapping[str, Sequence[Sequence[int]]]


def read_ranges(path: Path) -> Ranges:
    """The file, read once per process.

    Raises:
        UsageError: no such file, or it is no object of ranges.
    """
    if not path.is_file():
        raise UsageError(f"--keep-ranges {path}: no such file. Check the path.")
    stat = path.stat()
    if stat.st_size > MAX_BYTES:
        raise UsageError(f"--keep-ranges {path}: {stat.st_size / 1e9:.1f} GB of JSON. Give the file of ranges.")
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, size: int, mtime_ns: int) -> Ranges:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(map(_are_ranges, content.values())):
        raise UsageError(f'--keep-ranges {path}: wanted a JSON object of {{"episode": [[start, stop], ...]}}.')
    return content


def kept(episode: Episode, ranges: Ranges) -> Episode | None:
    """The episode with its rows outside the ranges taken from training; None where it is not named at all.

    Raises:
        DataError: a range lies outside the episode.
    """
    names = [episode.key, *episode.aliases, *(f"{a}--{b}" for a, b in permutations(episode.aliases, 2))]
    found = next((ranges[name] for name in names if name in ranges), None)
    if found is None:
        return None
    t_ns = next(iter(episode.streams.values())).t_ns if episode.streams else next(iter(episode.videos.values())).t_ns
    rows = len(t_ns)
    wanted = np.zeros(rows, bool)
    for start, stop in found:
        if not 0 <= start < stop <= rows + 1:  # RLDS keeps a last step, at which there is no action
            raise DataError(
                f"{episode.key}: keep-range [{start}, {stop}) of {rows} rows. The ranges are of other data."
            )
        wanted[start:stop] = True
    step = int(np.median(np.diff(t_ns))) if rows > 1 else 1
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~wanted, [False]]).astype(np.int8)))
    spans = tuple(
        UseSpan(int(t_ns[first]), int(t_ns[stop]) if stop < rows else int(t_ns[-1]) + step, ("none",))
        for first, stop in edges.reshape(-1, 2)
    )
    return replace(episode, use=(*episode.use, *spans))


def _are_ranges(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(r, list) and len(r) == 2 and all(isinstance(n, int) for n in r) for r in value
    )
