"""Another policy's predicted commands as a file, so that it is judged on the same windows as the model.

A table with one row per predicted step, as json-lines (`.jsonl`), parquet or npz (equally long arrays):

    {"episode": "episode_000012", "row": 24, "step": 0, "action": [0.12, -0.4, 1.0]}
    {"episode": "episode_000012", "row": 24, "step": 1, "action": [0.13, -0.4, 1.0]}

`episode` is the episode's name as the report lists it, or the clip's key where an episode was cut into several clips.
`row` is where the chunk begins, in rows of the clip at the report's action rate; in its place `t_s` may give the
seconds since the clip's first row. `step` counts from 0 within the chunk. `action` holds absolute commands in the
adapter's units and column order. Every step of every judged window must be there once, and nothing else.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapt.scoring.baselines import ActionWindows, Float
from schemas.errors import DataError, UsageError

SLACK_ROWS = 0.25  # how far `t_s` may lie from a row
COLUMNS = ("episode", "step", "action")


@dataclass(frozen=True)
class Predictions:
    """Predicted steps as read; `line` names a row in messages.

    Args:
        row: (M,) rows of the clip, or (M,) seconds where `in_seconds`.
        action: M rows, whose widths are checked when they are placed.
    """

    path: Path
    name: str
    episode: Sequence[str]
    row: Sequence[float]
    step: Sequence[int]
    action: Sequence[Sequence[float]]
    in_seconds: bool
    line: str

    def at(self, clip_keys: Sequence[str], windows: ActionWindows, *, action_hz: float) -> Float:
        """(N, K, A) commands of these windows; steps that do not count may be absent and are then held at zero.

        Raises:
            DataError: the first row of the file that belongs to no window or is malformed, or a step that is missing.
        """
        _, steps, width = windows.action.shape
        places, found = _places(clip_keys, windows), np.full(windows.action.shape, np.nan)
        filled = np.zeros(windows.valid.shape, bool)
        for number in range(len(self.episode)):
            n = self._place(number, places, action_hz)
            k, action = self.step[number], np.asarray(self.action[number], dtype=np.float64)
            if not (float(k).is_integer() and 0 <= k < steps):
                raise self._wrong(number, f"step {k!r}, wanted 0 to {steps - 1}")
            if action.shape != (width,):
                raise self._wrong(number, f"action of {action.size} numbers, wanted {width}")
            if not np.isfinite(action).all():
                raise self._wrong(number, "an action that is not finite")
            if filled[n, int(k)]:
                raise self._wrong(number, f"step {k} of this chunk a second time")
            found[n, int(k)], filled[n, int(k)] = action, True
        absent = np.argwhere(windows.valid & ~filled)
        if len(absent):
            n, k = absent[0]
            raise DataError(
                f"{self.path}: holds no step {k} of episode {str(windows.episode[n])!r} at row {windows.start[n]}. "
                f"Predict every judged window ({len(windows)} of them, {steps} steps each)."
            )
        return np.nan_to_num(found, nan=0.0)

    def _place(self, number: int, places: dict[tuple[str, int], int], action_hz: float) -> int:
        value, episode = float(self.row[number]), str(self.episode[number])
        row = value * action_hz if self.in_seconds else value
        if not np.isfinite(row) or abs(row - round(row)) > (SLACK_ROWS if self.in_seconds else 0):
            what = f"t_s {value:g} lies between rows" if self.in_seconds else f"row {value:g} is no whole number"
            raise self._wrong(number, f"{what} at {action_hz:g} Hz")
        place = places.get((episode, round(row)))
        if place is None:
            known = sorted(r for name, r in places if name == episode)
            told = f"they begin at rows {', '.join(map(str, known[:4]))}, ..." if known else "it is not judged"
            raise self._wrong(number, f"no judged window of episode {episode!r} at row {round(row)} ({told})")
        return place

    def _wrong(self, number: int, what: str) -> DataError:
        first = 1 if self.line == "line" else 0
        return DataError(f"{self.path}: {self.line} {number + first}: {what}. Mend the file; its format is documented.")


def read_predictions(path: Path) -> Predictions:
    """The table in `path`, by its suffix.

    Raises:
        UsageError: another suffix.
        DataError: it cannot be read, or lacks a column.
    """
    readers = {".jsonl": _from_jsonl, ".parquet": _from_parquet, ".npz": _from_npz}
    if path.suffix not in readers:
        raise UsageError(f"{path}: no predictions. Give a file that ends in {', '.join(readers)}.")
    try:
        table = readers[path.suffix](path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). Check the path.") from None
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: is no {path.suffix[1:]} file ({error}). Write it again.") from None
    lacking = [c for c in COLUMNS if c not in table] + ["row or t_s"] * (not {"row", "t_s"} & table.keys())
    if lacking:
        raise DataError(f"{path}: has no column {lacking[0]!r} (it has {', '.join(table) or 'none'}). Add it.")
    where = "row" if "row" in table else "t_s"
    sizes = {name: len(table[name]) for name in (*COLUMNS, where)}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{path}: columns differ in length: {sizes}. Write one row per step.")
    line = "line" if path.suffix == ".jsonl" else "row"
    columns = {"episode": table["episode"], "row": table[where], "step": table["step"], "action": table["action"]}
    return Predictions(path, f"policy {path.stem}", **columns, in_seconds=where == "t_s", line=line)


def _places(clip_keys: Sequence[str], windows: ActionWindows) -> dict[tuple[str, int], int]:
    """(clip key, row) and, where that is unambiguous, (episode, row) -> window."""
    clips_of: dict[str, set[str]] = {}
    for key, episode in zip(clip_keys, windows.episode, strict=True):
        clips_of.setdefault(str(episode), set()).add(key)
    found = {}
    for n, (key, episode) in enumerate(zip(clip_keys, windows.episode, strict=True)):
        row = int(windows.start[n])
        if len(clips_of[str(episode)]) == 1:
            found[str(episode), row] = n
        found[key, row] = n
    return found


def _from_jsonl(path: Path) -> dict[str, list[Any]]:
    rows = list(_json_rows(path))
    names = list(rows[0]) if rows else []
    for number, row in enumerate(rows, start=1):
        absent = [name for name in names if name not in row]
        if absent:
            raise DataError(f"{path}: line {number}: has no {absent[0]!r}, which line 1 has. Mend the file.")
    return {name: [row[name] for row in rows] for name in names}


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: is no JSON ({error}). Mend the file.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number}: is no JSON object. Mend the file.")
        yield row


def _from_parquet(path: Path) -> dict[str, list[Any]]:
    from pyarrow import parquet

    return parquet.read_table(path).to_pydict()


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}
