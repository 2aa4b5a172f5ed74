"""`like:` in an embodiment file: say a second arm, or an action, by naming what it resembles.

    - {name: left_arm, like: state.left_arm, from: action}            one entry, the rest taken over
    - {like: left_*, side: right, replace: {left: right}}             one entry per match above it, renamed

Works on plain mappings before validation.
"""

from fnmatch import fnmatchcase
from typing import Any

# Fields that mean something else in an action than in the state it resembles.
_NOT_TAKEN_OVER = ("use",)


def expand_like(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with every `like` of its cameras, state and action replaced by full entries."""
    expanded = dict(content)
    for section in ("cameras", "state", "action"):
        entries = content.get(section)
        if not isinstance(entries, list | tuple):
            continue
        done: list[Any] = []
        for entry in entries:
            if isinstance(entry, dict) and "like" in entry:
                done += _expand_entry(entry, done, expanded)
            else:
                done.append(entry)
        expanded[section] = done
    return expanded


def _expand_entry(entry: dict[str, Any], above: list[Any], content: dict[str, Any]) -> list[dict[str, Any]]:
    changes = {k: v for k, v in entry.items() if k not in ("like", "replace")}
    replace = entry.get("replace", {})
    pattern = str(entry["like"])
    section, _, name = pattern.rpartition(".")
    if section not in ("", "cameras", "state", "action"):
        raise ValueError(f"like: {pattern!r}: name an entry above, or one as state.NAME")
    if not isinstance(replace, dict):
        raise ValueError("replace: wanted a mapping such as {left: right}")
    pool = (content.get(section) or []) if section else above
    matches = [e for e in pool if isinstance(e, dict) and fnmatchcase(str(e.get("name", e.get("role", ""))), name)]
    if not matches:
        raise ValueError(f"like: {pattern!r} matches no entry above it")
    if "name" in changes and len(matches) > 1:
        raise ValueError(f"like: {pattern!r} matches {len(matches)} entries but gives one name")
    if section:
        matches = [{k: v for k, v in m.items() if k not in _NOT_TAKEN_OVER} for m in matches]
    return [_renamed(m, replace) | changes for m in matches]


def _renamed(value: Any, replace: dict[str, str]) -> Any:
    """`value` with every string in it rewritten by `replace`."""
    match value:
        case str():
            for old, new in replace.items():
                value = value.replace(old, new)
            return value
        case dict():
            return {k: _renamed(v, replace) for k, v in value.items()}
        case list() | tuple():
            return [_renamed(v, replace) for v in value]
        case _:
            return value
