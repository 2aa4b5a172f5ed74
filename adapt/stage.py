"""Stages of a run: one folder each, whose `stage.json` is written last and holds the fingerprint of what it read.

Same fingerprint: skipped. Another: refused with the field that changed. `ls run/` shows the state. Imports
neither torch nor peft nor ray, so that a finished run is recognised in a moment.
"""

from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.record import Record, sha256_of

STARTED, DONE = "inputs.json", "stage.json"


class Stage(Record):
    """A finished stage: what it was made from, and what later stages want to know of it."""

    name: str
    inputs: dict[str, Any]
    facts: dict[str, Any] = {}

    @property
    def fingerprint(self) -> str:
        return sha256_of([self.name, self.inputs])


def finished(folder: Path, name: str, inputs: dict[str, Any]) -> Stage | None:
    """The finished stage in `folder`, or None if it has yet to be made or finished.

    Raises:
        UsageError: it was made, or begun, from other inputs; names the first that differs.
    """
    path = folder / DONE if (folder / DONE).exists() else folder / STARTED
    if not path.exists():
        return None
    stage = Stage.read_json(path)
    wanted = Stage(name=name, inputs=inputs)
    if stage.fingerprint == wanted.fingerprint:
        return stage if path.name == DONE else None
    field = next((k for k in {**inputs, **stage.inputs} if inputs.get(k) != stage.inputs.get(k)), "name")
    field, before, now = _innermost(field, stage.inputs.get(field), inputs.get(field))
    raise UsageError(
        f"{folder}: was made by another recipe ({field} was {before}, is now {now}). "
        "Give a new --out, or delete that folder and those after it."
    )


def begin(folder: Path, name: str, inputs: dict[str, Any]) -> None:
    """Note what a stage is being made from, so that a half-made one is not continued under another recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    Stage(name=name, inputs=inputs).write_json(folder / STARTED)


def finish(folder: Path, name: str, inputs: dict[str, Any], facts: dict[str, Any] | None = None) -> Stage:
    """Mark a stage as complete."""
    stage = Stage(name=name, inputs=inputs, facts=facts or {})
    stage.write_json(folder / DONE)
    return stage


def _innermost(field: str, before: Any, now: Any) -> tuple[str, str, str]:
    """The first difference below a field, down through tables: whole ones look alike when they are cut short."""
    if isinstance(before, dict) and isinstance(now, dict):
        key = next((k for k in {**now, **before} if before.get(k) != now.get(k)), None)
        if key is not None:
            return _innermost(f"{field}.{key}", before.get(key), now.get(key))
    return field, _short(before), _short(now)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
