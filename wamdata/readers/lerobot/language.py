"""The language columns of LeRobot v3.1: annotations that hold from a time on, and events that happen in a row.

`language_persistent` is a list of {role, content, style, timestamp, camera, tool_calls} and stands in every row alike;
`language_events` is the same without a timestamp and stands in the row where it happens. Of both, what tells the robot
what to do is taken: the styles of INSTRUCTIONS, and entries without a style. Plans, memories, answers to questions and
what the robot itself says are left out and counted.
"""

from collections import Counter
from pathlib import Path

from schemas.episode import Finding, Int64, Text
from wamdata.readers.lerobot.rows import Rows, read_column

PERSISTENT, EVENTS = "language_persistent", "language_events"
INSTRUCTIONS = {"task": "task", "instruction": "task", "": "task", "subtask": "subtask"}


def read_language(path: Path, key: str, rows: Rows) -> tuple[list[Text], list[Finding]]:
    """The instructions of these columns with the spans they hold for, and what was left out."""
    said: dict[tuple[str, int, str], str] = {}
    other: set[tuple[str, int, str]] = set()
    for name in (PERSISTENT, EVENTS):
        if name not in rows.columns:
            continue
        cells = read_column(path, name, rows.first, rows.first + len(rows.t_ns))
        for row, cell in enumerate(cells):
            for entry in cell or []:
                _note(entry, _time(entry, name, rows.t_ns, row), name, said, other)
    texts = _spans(said, rows.t_ns)
    counts = Counter(style for style, _, _ in other)
    left = ", ".join(f"{n} {style}" for style, n in sorted(counts.items()))
    message = f"language columns hold other things than instructions, left out: {left}"
    return texts, [Finding("language_left_out", "info", key, message)] if left else []


def _time(entry: dict, name: str, t_ns: Int64, row: int) -> int:
    at = entry.get("timestamp") if name == PERSISTENT else None
    return int(t_ns[row]) if at is None else max(round(at * 1e9), int(t_ns[0]))


def _note(
    entry: dict, at_ns: int, name: str, said: dict[tuple[str, int, str], str], other: set[tuple[str, int, str]]
) -> None:
    style, content = entry.get("style") or "", " ".join((entry.get("content") or "").split())
    if not content:
        return
    if style not in INSTRUCTIONS or entry.get("role") == "assistant":
        other.add((style or "said by the robot", at_ns, content))
        return
    said[INSTRUCTIONS[style], at_ns, content] = name


def _spans(said: dict[tuple[str, int, str], str], t_ns: Int64) -> list[Text]:
    """Each instruction until the next one of its level, or the end."""
    end = int(t_ns[-1]) + (int(t_ns[-1] - t_ns[-2]) if len(t_ns) > 1 else 1)
    texts = []
    for level in ("task", "subtask"):
        mine = sorted((at, content, name) for (what, at, content), name in said.items() if what == level)
        for at, content, name in mine:
            stop = next((later for later, _, _ in mine if later > at), end)
            if at < stop:
                texts.append(Text(content, at, stop, level, name))
    return texts
