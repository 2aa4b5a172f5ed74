"""Statistics over training rows whose action counts: exact, mergeable, relative as training is.

Rows are kept (an hour of a 26-column robot at 30 Hz is 11 MB; relative actions per step 24 times that), so
quantiles are exact and any split, merged in any order, gives the same numbers.
"""

from collections.abc import Iterable

import numpy as np

from schemas.embodiment import Embodiment
from schemas.episode import Float32
from schemas.errors import DataError
from schemas.recipe import TimeBase
from schemas.stats import Moments, Statistics
from wamdata.windows import Rows


class Accumulator:
    """Rows of a fixed width, in any order."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        self._rows.append(np.asarray(rows, np.float32))

    def merge(self, other: "Accumulator") -> None:
        self._rows += other._rows

    def moments(self) -> Moments:
        """Mean, std, min, max and exact q01, q99 per column; sums in float64 over sorted rows: order is no matter."""
        if not any(len(rows) for rows in self._rows):
            raise DataError(
                "no rows to take statistics of: the training split is empty, or no action in it may be imitated. "
                "Ingest more episodes, or look at their use, control and outcome."
            )
        rows = np.sort(np.concatenate(self._rows).astype(np.float64), axis=0)
        q01, q99 = np.quantile(rows, [0.01, 0.99], axis=0)
        return Moments(
            count=len(rows),
            mean=tuple(rows.mean(axis=0)),
            std=tuple(rows.std(axis=0)),
            min=tuple(rows[0]),
            max=tuple(rows[-1]),
            q01=tuple(q01),
            q99=tuple(q99),
        )


def relative_chunks(rows: Rows, embodiment: Embodiment, steps: int) -> Float32:
    """(N, K, A) commands of every whole chunk, relative to the state at its start where the embodiment says so.

    Whole: every action of the chunk counts.
    """
    count = len(rows) - steps + 1
    if count <= 0:
        return np.zeros((0, steps, embodiment.action_width), np.float32)
    starts = np.arange(count)
    index = starts[:, None] + np.arange(steps)
    whole = rows.action_counts[index].all(axis=1)
    return relative_to_state(rows.action[index], rows.state[starts], embodiment)[whole]


def relative_to_state(action: Float32, state: Float32, embodiment: Embodiment) -> Float32:
    """(N, K, A) absolute commands minus the (N, S) state at the chunk's start, for relative columns."""
    columns = np.array(embodiment.relative_columns(), np.int64)
    if not len(columns) or not state.shape[1]:
        return action
    anchor = np.where(columns >= 0, state[:, np.maximum(columns, 0)], 0.0)
    return (action - anchor[:, None, :]).astype(np.float32)


def statistics(clips: Iterable[Rows], embodiment: Embodiment, time_base: TimeBase) -> Statistics:
    """Statistics of the given clips' rows whose action counts; call with the training split only.

    States are those of the same rows: where a policy wanders or a reset carries the robot must not widen the range
    that commands are normalised by.

    Raises:
        DataError: there is no such row, or no whole chunk of them.
    """
    state, action, relative = Accumulator(), Accumulator(), [Accumulator() for _ in range(time_base.steps)]
    pooled = Accumulator()
    for rows in clips:
        counts = rows.usable if embodiment.is_action_free else rows.action_counts
        state.add(rows.state[counts])
        action.add(rows.action[counts])
        chunks = relative_chunks(rows, embodiment, time_base.steps)
        pooled.add(chunks.reshape(-1, chunks.shape[-1]))
        for step in range(time_base.steps):
            relative[step].add(chunks[:, step])
    return Statistics(
        embodiment_sha256=embodiment.digest(),
        action_hz=time_base.action_hz,
        state=state.moments(),
        action=action.moments(),
        relative=pooled.moments(),
        relative_step=tuple(a.moments() for a in relative),
    )
