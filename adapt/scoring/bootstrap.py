"""95 % intervals over held-out windows: whole episodes are drawn again, then windows of each.

Each resample draws as many episodes as there are, then as many windows as each drawn episode has, both with
replacement: neighbouring windows of one episode are alike, so windows alone would give too narrow an interval.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from adapt.scoring.baselines import Float
from schemas.report import Measure, Paired

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
SEED = 0


def paired(
    model: Float, others: Float, weight: Float, episode: NDArray[np.str_], start: NDArray[np.int64]
) -> tuple[Paired, ...]:
    """Model minus each other on the same windows.

    Args:
        model: (N,) summed error of each window; others: (N, M); weight: (N,) steps that count.
        episode, start: (N,) what the windows are.
    """
    order = np.lexsort((start, episode))
    weight = weight[order].astype(np.float64)
    excess = model[order][:, None] - others[order]
    excess = np.where(np.isfinite(excess), excess, np.nan)
    draws = resampled_means(excess, weight, episode[order])
    low, high = np.percentile(draws, INTERVAL, axis=0)
    return tuple(
        Paired(
            difference=float(excess[:, i].sum() / weight.sum()),
            low=float(low[i]),
            high=float(high[i]),
            share_better=float((excess[:, i] < 0).mean()),
        )
        for i in range(excess.shape[1])
    )


def measure_ratios(
    parts: Sequence[tuple[Float, Float, str]], episode: NDArray[np.str_], start: NDArray[np.int64]
) -> tuple[Measure, ...]:
    """sum(numerator) / sum(denominator) with its interval, for each (numerator (N,), denominator (N,), reason).

    Args:
        parts: `reason` says why there is no value where the denominator adds up to nothing.
    """
    if not parts:
        return ()
    order = np.lexsort((start, episode))
    above = np.stack([p[0] for p in parts], 1)[order].astype(np.float64)
    below = np.stack([p[1] for p in parts], 1)[order].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        times = _times_drawn(episode[order])
        draws = (times @ above) / (times @ below)
        found = []
        for i, (_, _, reason) in enumerate(parts):
            total, known = below[:, i].sum(), draws[:, i][np.isfinite(draws[:, i])]
            if not total > 0:
                found.append(Measure.missing(reason))
                continue
            low, high = np.percentile(known, INTERVAL) if len(known) else (np.nan, np.nan)
            found.append(Measure.of(float(above[:, i].sum() / total), float(low), float(high)))
    return tuple(found)


def resampled_means(values: Float, weight: Float, episode: NDArray[np.str_]) -> Float:
    """(RESAMPLES, M) weighted means of `values` (N, M); windows of an episode must be neighbours."""
    return np.stack([values[rows].sum(0) / weight[rows].sum() for rows in _drawn(episode)])


def _times_drawn(episode: NDArray[np.str_]) -> Float:
    """(RESAMPLES, N) how often each window is in each resample."""
    return np.stack([np.bincount(rows, minlength=len(episode)) for rows in _drawn(episode)]).astype(np.float64)


def _drawn(episode: NDArray[np.str_]) -> Iterator[NDArray[np.int64]]:
    """The windows of each resample, the same at every call."""
    _, first, size = np.unique(episode, return_index=True, return_counts=True)
    rng = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(size), size=len(size))
        sizes = size[drawn]
        yield first[drawn].repeat(sizes) + (rng.random(sizes.sum()) * sizes.repeat(sizes)).astype(np.int64)
