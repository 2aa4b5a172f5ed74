"""What a raw DROID recording says of itself: `metadata_*.json`, and the instructions that were written for it later."""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from schemas.errors import DataError
from wamdata.source import Source

MAX_JSON_BYTES = 500_000_000
SERIALS = {"wrist": "wrist_cam_serial", "varied_1": "ext1_cam_serial", "varied_2": "ext2_cam_serial"}
Outcome = Literal["success", "failure", "unknown"]


@dataclass(frozen=True)
class Said:
    """Of one recording.

    Args:
        serials: of the cameras, by the names that cameras have here.
        rows: that it declares, 0 where it does not.
    """

    uuid: str
    task: str
    outcome: Outcome
    session: str
    serials: dict[str, str]
    rows: int


def said_of(source: Source, folder: str, metadata: str | None) -> Said:
    """What a recording's metadata and its path say.

    Raises:
        DataError: the file is no JSON object.
    """
    content = read_object(source, metadata) if metadata else {}
    parts = [p.lower() for p in PurePosixPath(folder).parts]
    lab, date = _word(content, "lab"), _word(content, "date")
    uuid = _word(content, "uuid") or (PurePosixPath(metadata).stem.removeprefix("metadata_") if metadata else "")
    rows = content.get("trajectory_length")
    return Said(
        uuid=uuid,
        task=_word(content, "current_task"),
        outcome=_outcome(content.get("success"), parts),
        session=f"{lab}-{date}" if lab and date else "",
        serials={name: serial for name, field in SERIALS.items() if (serial := _word(content, field))},
        rows=rows if isinstance(rows, int) and rows > 0 else 0,
    )


def annotations(source: Source, name: str) -> dict[str, list[str]]:
    """Instructions by uuid, in their order, of an `aggregated-annotations-*.json`.

    Raises:
        DataError: it is no JSON object.
    """
    found = {}
    for uuid, entry in read_object(source, name).items():
        if isinstance(entry, dict):
            said = [_word(entry, f) for f in sorted(entry) if f.startswith("language_instruction")]
            found[uuid] = [line for line in dict.fromkeys(said) if line]
    return found


def read_object(source: Source, name: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: it is none, or absurdly large.
    """
    where = source.where(name)
    if source.size(name) > MAX_JSON_BYTES:
        raise DataError(f"{where}: {source.size(name) / 1e9:.1f} GB of JSON. Take the file away.")
    try:
        content = json.loads(source.path(name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not a whole JSON file. Copy it again from where it came from.") from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: holds no JSON object. Copy it again from where it came from.")
    return content


def _word(content: dict[str, Any], field: str) -> str:
    said = content.get(field)
    return " ".join(str(said).split()) if isinstance(said, str | int) and not isinstance(said, bool) else ""


def _outcome(success: Any, parts: list[str]) -> Outcome:
    if isinstance(success, bool):
        return "success" if success else "failure"
    named = {"success", "failure"} & set(parts)
    if len(named) != 1:
        return "unknown"
    return "success" if "success" in named else "failure"
