"""Findings as a label table: what to drop, what to trim, what to use for its video alone. `wam ingest --labels` obeys.

Every episode gets a row, so that the table is also the list of what was looked at; sources stay as they are. A missing
instruction is a row whose `task` waits to be filled in.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from schemas.episode import Finding
from wamdata.label_table import TO_FILL_IN


def fix_plan(keys: Sequence[str], findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Rows of a label table, for `wamdata.label_table.write_table`.

    Args:
        keys: all recordings; findings on other things, such as the source as a whole, make no row.
    """
    by_key: dict[str, list[Finding]] = {}
    for finding in findings:
        by_key.setdefault(finding.where, []).append(finding)
    return [row for key in keys for row in _rows(key, by_key.get(key, []))]


def _rows(key: str, findings: list[Finding]) -> list[dict[str, Any]]:
    drop = next((f for f in findings if f.fix == "drop"), None)
    if drop is not None:
        return [{"episode": key, "use": "drop", "reason": _reason(drop)}]
    rows: list[dict[str, Any]] = []
    if any(f.code == "blank_text" and f.severity == "error" for f in findings):
        rows.append({"episode": key, "task": TO_FILL_IN, "reason": "no instruction"})
    for finding in findings:
        if finding.fix in ("none", "video"):
            first, last = finding.span_s or ("", "")
            span = {name: round(at, 3) if at != "" else "" for name, at in (("start_s", first), ("end_s", last))}
            rows.append({"episode": key, **span, "use": finding.fix, "reason": _reason(finding)})
    return rows or [{"episode": key}]


def _reason(finding: Finding) -> str:
    return f"{finding.code}: {finding.message}"
