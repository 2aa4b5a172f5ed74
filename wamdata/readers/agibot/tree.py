"""Which recordings an AgiBot World folder holds: three trees side by side, each by task and episode.

task_info/task_327.json
observations/327/648642/videos/head_color.mp4
proprio_stats/327/648642/proprio_stats.h5
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import DataError
from wamdata.source import Source

_FILM = re.compile(r"(?:(.*)/)?observations/([^/]+)/([^/]+)/videos/([^/]+)\.mp4")
_ROWS = re.compile(r"(?:(.*)/)?proprio_stats/([^/]+)/([^/]+)/proprio_stats\.h5")
_TASK = re.compile(r"(?:(.*)/)?task_info/task_([^/]+)\.json")
_TAR = re.compile(r"(?:.*/)?(?:observations|proprio_stats|parameters|task_info)/.*\.tar(?:\.gz)?")
_OURS = re.compile(r"(?:.*/)?(?:observations|proprio_stats|parameters|task_info)/.*")
DEPTH = "depth"

Place = tuple[str, str, str]  # root, task, episode


@dataclass
class Recording:
    """One episode's files.

    Args:
        films: by camera.
        rows: its `proprio_stats.h5`, "" where it is not there.
    """

    films: dict[str, str] = field(default_factory=dict)
    rows: str = ""


@dataclass(frozen=True)
class Tree:
    """What a folder holds.

    Args:
        tasks: file of `task_info` by root and task.
    """

    recordings: dict[Place, Recording]
    tasks: dict[tuple[str, str], str]
    tars: tuple[str, ...]
    strays: tuple[str, ...]


def tree_of(source: Source) -> Tree:
    """What the names of its files say; none is opened."""
    recordings: dict[Place, Recording] = {}
    tasks: dict[tuple[str, str], str] = {}
    tars, strays = [], []
    for name in source.files():
        if found := _FILM.fullmatch(name):
            root, task, episode, camera = found.groups()
            recording = recordings.setdefault((root or "", task, episode), Recording())
            if DEPTH not in camera:
                recording.films[camera] = name
        elif found := _ROWS.fullmatch(name):
            recordings.setdefault((found[1] or "", found[2], found[3]), Recording()).rows = name
        elif found := _TASK.fullmatch(name):
            tasks[found[1] or "", found[2]] = name
        elif _TAR.fullmatch(name):
            tars.append(name)
        elif not _OURS.fullmatch(name):
            strays.append(name)
    return Tree(dict(sorted(recordings.items())), tasks, tuple(tars), tuple(strays))


def entries(source: Source, name: str) -> dict[str, dict[str, Any]]:
    """What a file of `task_info` says, by episode.

    Raises:
        DataError: it is no list of episodes.
    """
    try:
        content = json.loads(source.path(name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DataError(
            f"{source.where(name)}: not a whole JSON file. Copy it again from where it came from."
        ) from None
    if not isinstance(content, list):
        raise DataError(f"{source.where(name)}: holds no list of episodes. Copy it again from where it came from.")
    return {str(e["episode_id"]): e for e in content if isinstance(e, dict) and "episode_id" in e}


def said_of(entry: dict[str, Any]) -> dict[str, Any]:
    """Plain values of an entry: `task`, and `steps` as [first frame, frame behind the last, words]."""
    task = entry.get("task_name")
    label = entry.get("label_info")
    listed = label.get("action_config") if isinstance(label, dict) else None
    steps = []
    for step in listed if isinstance(listed, list) else []:
        values = [step.get(f) for f in ("start_frame", "end_frame", "action_text")] if isinstance(step, dict) else []
        if len(values) == 3 and all(isinstance(v, int) for v in values[:2]) and isinstance(values[2], str):
            steps.append([values[0], values[1], " ".join(values[2].split())])
    return {"task": " ".join(task.split()) if isinstance(task, str) else "", "steps": steps}
