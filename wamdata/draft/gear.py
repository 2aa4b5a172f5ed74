"""GEAR-LeRobot's `meta/modality.json` as the draft: its slices are the components, its names their names.

Units, grippers and what commands are still come from the numbers: the file does not tell them. See dreamzero.md 4.1 for
the layout; `original_key` names another column than `observation.state` and `action`.
"""

import json
from typing import Any

from schemas.episode import Episode
from schemas.errors import DataError
from wamdata.draft.components import KINDS, Guess, part_of, side_of
from wamdata.draft.units import unit_of
from wamdata.source import Source

FILE = "meta/modality.json"
DEFAULTS = {"state": "observation.state", "action": "action"}


def modality_of(source: Source) -> dict[str, Any] | None:
    """The file's content; None where there is none.

    Raises:
        DataError: it is no JSON object.
    """
    if source.is_file or not source.has(FILE):
        return None
    try:
        content = json.loads(source.path(FILE).read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DataError(f"{source.where(FILE)}: holds no JSON object. Mend it, or take it away.")
    return content


def gear_guesses(what: str, modality: dict[str, Any], episodes: list[Episode], where: str) -> list[Guess]:
    """Components of `state` or `action` as the slices say.

    Raises:
        DataError: a slice lies outside its column, or names a column that the log has not.
    """
    found = []
    for name, entry in (modality.get(what) or {}).items():
        stream = entry.get("original_key") or DEFAULTS[what]
        rows = next((e.streams[stream] for e in episodes if stream in e.streams), None)
        if rows is None:
            raise DataError(f"{where}: {what}.{name} is of {stream!r}, which the log has not. Mend the file.")
        width = rows.values.shape[1]
        first, stop = entry.get("start", 0), entry.get("end", width)
        if not (isinstance(first, int) and isinstance(stop, int) and 0 <= first < stop <= width):
            raise DataError(f"{where}: {what}.{name} is [{first}, {stop}) of {stream!r}, which has {width}. Mend it.")
        columns, part = tuple(range(first, stop)), part_of(name)
        kind = KINDS.get(part, "joint")
        joints = tuple(rows.columns[c] for c in columns) if rows.columns else ()
        unit = unit_of(rows.values[:, list(columns)], part, kind, joints)
        reason = f"columns {first} to {stop - 1} of {stream!r}, as {FILE} says"
        found.append(Guess(name, part, kind, side_of(name), unit, stream, columns, joints, reason))
    return found
