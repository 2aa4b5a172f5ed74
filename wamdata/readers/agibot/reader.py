"""AgiBot World, alpha and beta: `task_info`, `observations` and `proprio_stats` side by side, each by task and episode.

Rows are at the time stamps of `proprio_stats.h5`; frame i of a camera shows row i. The task's name holds for the whole
episode, each `action_text` for its frames. A recording of which one half was downloaded is read as far as it is there.

Limits: depth, tactile pictures, calibrations and tar files are left alone. Of the sets of 2026, whose trees differ,
nothing is known here.
"""

from typing import Any

from schemas.episode import Episode, Finding
from schemas.errors import DataError, UsageError
from wamdata.readers.agibot.episode import read_episode
from wamdata.readers.agibot.tree import Tree, entries, said_of, tree_of
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.naming import keys_of
from wamdata.readers.tree import find_licence, first_names, is_description, stray_findings
from wamdata.source import Source

NAME = "agibot"
VERSION = 1
UNPACK = "Unpack them where they lie (`tar -xf`)"


def detect(source: Source) -> bool:
    """Whether `source` holds `proprio_stats` or `observations` by task and episode, or what they are packed in."""
    if source.is_file:
        return False
    tree = tree_of(source)
    return bool(tree.recordings) or bool(tree.tars and tree.tasks)


def list_episodes(source: Source) -> Listing:
    """Every recording of which rows or a video are there; no video and no HDF5 file is opened.

    Raises:
        UsageError: everything is still packed.
        DataError: there is no recording.
    """
    tree = tree_of(source)
    if not tree.recordings and tree.tars:
        raise UsageError(
            f"{source}: {len(tree.tars)} tar files and no recording ({first_names(list(tree.tars))}). {UNPACK}."
        )
    if not tree.recordings:
        raise DataError(f"{source}: holds no recording of AgiBot World. Give the folder above `observations`.")
    said, findings = _said(source, tree)
    licence = find_licence(source)
    keys = keys_of({"/".join(p): "/".join(part for part in p if part) for p in tree.recordings})
    refs = []
    for place, recording in tree.recordings.items():
        mine = {"films": dict(sorted(recording.films.items())), "rows": recording.rows, "licence": licence}
        mine |= {"session": "/".join(part for part in place if part)} | said_of(said.get(place, {}))
        refs.append(EpisodeRef(source, keys["/".join(place)], 0, mine))
    if tree.tars:
        message = f"{len(tree.tars)} tar files, left out: {first_names(list(tree.tars))}. {UNPACK}"
        findings.append(Finding("not_unpacked", "warning", str(source), message))
    strays = [("file of no recording", n) for n in tree.strays if not is_description(n)]
    hints = {"licence": licence, "robot_type": "agibot_g1", "fps": "30"}
    return Listing(NAME, tuple(refs), (*findings, *stray_findings(strays, str(source))), hints)


def read(ref: EpisodeRef) -> Episode:
    """One recording as logged.

    Raises:
        DataError: `proprio_stats.h5` is damaged, or nothing of the recording can be read.
    """
    return read_episode(ref, reader=f"{NAME}@{VERSION}")


def _said(source: Source, tree: Tree) -> tuple[dict[tuple[str, str, str], dict[str, Any]], list[Finding]]:
    """What `task_info` says, by recording."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    findings = []
    for (root, task), name in tree.tasks.items():
        try:
            listed = entries(source, name)
        except DataError as error:
            findings.append(Finding("bad_metadata", "warning", source.where(name), str(error)))
            continue
        found |= {(root, task, episode): entry for episode, entry in listed.items()}
        absent = [e for e in listed if (root, task, e) not in tree.recordings]
        if absent:
            message = f"{len(absent)} of {len(listed)} episodes of `task_info` are not here: {first_names(absent)}"
            findings.append(Finding("missing_episodes", "info", source.where(name), message))
    return found, findings
