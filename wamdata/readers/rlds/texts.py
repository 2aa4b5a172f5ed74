"""Instructions of one record, with the spans they hold for, and how the recording ended."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np

from schemas.episode import Finding, Text
from wamdata.readers.rlds.features import Layout, Leaf
from wamdata.readers.rlds.steps import STEPS, Steps, is_spelt, read_values
from wamdata.source import Source

WORDS = ("instruction", "natural_language", "task", "language_text")
NOT_TEXT = ("_id", "_path", "_index")
METADATA = "episode_metadata/"
Outcome = Literal["success", "failure", "unknown"]


def read_texts(source: Source, folder: str, steps: Steps) -> tuple[tuple[Text, ...], list[Finding]]:
    """Every instruction, in order of the leaves' paths; one that another leaf says of the same span is not repeated."""
    found: dict[tuple[str, int, int], Text] = {}
    said, runs, blank = np.zeros(steps.count, bool), 0, 0
    for leaf in _instructions(steps.layout):
        for text, start, stop in _runs(_strings(source, folder, steps, leaf), steps.count):
            runs, blank = runs + 1, blank + (not text)
            if text:
                span = int(steps.t_ns[start]), int(steps.ends_ns[stop - 1])
                found.setdefault((text, *span), Text(text, *span, origin=leaf.path))
                said[start:stop] = True
    if said.all():
        return tuple(found.values()), []
    message = f"{blank} of {runs} instructions are blank" if runs else "no instruction"
    advice = f"{message}. Give one with `task:` in the recipe"
    return tuple(found.values()), [Finding("blank_text", "warning", steps.key, advice)]


def outcome(steps: Steps) -> Outcome:
    """From the folder of the recording (DROID's `.../success/...`), a `success` flag, or a last reward of 1."""
    for path in paths(steps):
        parts = set(path.lower().split("/"))
        if len(parts & {"success", "failure"}) == 1:
            return "success" if "success" in parts else "failure"
    flag = next((values[-1] for leaf in _flags(steps.layout) if len(values := steps.example.ints(leaf.path))), None)
    if flag is not None:
        return "success" if flag else "failure"
    is_terminal = steps.example.ints("steps/is_terminal")
    if not len(is_terminal) or not is_terminal[-1]:
        return "unknown"
    reward = read_values(steps, "steps/reward")
    is_sparse = reward is not None and reward.shape[1] == 1 and np.isin(reward, (0, 1)).all()
    return "success" if is_sparse and reward[-1, 0] == 1 else "unknown"


def paths(steps: Steps) -> list[str]:
    """Where the recording lay, as its metadata say: `file_path` before others."""
    texts = (steps.example.texts(leaf.path) for leaf in _paths(steps.layout))
    return [text[0].decode("utf-8", "replace") for text in texts if text and text[0]]


@lru_cache(maxsize=16)
def _paths(layout: Layout) -> tuple[Leaf, ...]:
    named = [
        leaf for leaf in layout.leaves if leaf.path.startswith(METADATA) and "path" in leaf.name and _is_text(leaf)
    ]
    return tuple(sorted(named, key=lambda leaf: leaf.name != "file_path"))


@lru_cache(maxsize=16)
def _flags(layout: Layout) -> tuple[Leaf, ...]:
    """Leaves that say whether the recording succeeded."""
    return tuple(
        leaf
        for leaf in layout.leaves
        if leaf.name in ("success", "is_success") and leaf.path.startswith((METADATA, STEPS))
        if leaf.dtype == "bool" and leaf.shape == () and leaf.encoding == "none"
    )


@lru_cache(maxsize=16)
def _instructions(layout: Layout) -> tuple[Leaf, ...]:
    """Leaves that say what to do, those of the steps first."""
    named = [leaf for leaf in layout.leaves if any(w in leaf.name for w in WORDS) and not leaf.name.endswith(NOT_TEXT)]
    found = [leaf for leaf in named if _is_text(leaf) or leaf.kind == "classLabel" or is_spelt(leaf)]
    return tuple(sorted((f for f in found if f.levels < 2), key=lambda leaf: not leaf.path.startswith(STEPS)))


def _is_text(leaf: Leaf) -> bool:
    return leaf.dtype == "string" and leaf.shape in ((), (1,)) and leaf.encoding == "none"


def _strings(source: Source, folder: str, steps: Steps, leaf: Leaf) -> list[str]:
    """The leaf's value in each step, or the only one of the episode; none where it has neither."""
    wanted = steps.count if leaf.path.startswith(STEPS) else 1
    if _is_text(leaf):
        coded = steps.example.texts(leaf.path)
        found = {content: " ".join(content.decode("utf-8", "replace").split()) for content in set(coded)}
        strings = [found[content] for content in coded]
    elif is_spelt(leaf):
        codes = steps.example.ints(leaf.path)
        rows = codes.reshape(wanted, -1) if len(codes) == wanted * leaf.shape[0] else []
        strings = [bytes(row[(row > 0) & (row < 256)].astype(np.uint8)).decode("utf-8", "replace") for row in rows]
    else:
        names = _names(source, folder, leaf)
        strings = [names.get(int(number), "") for number in steps.example.ints(leaf.path)]
    return strings if len(strings) == wanted else []


def _names(source: Source, folder: str, leaf: Leaf) -> dict[int, str]:
    """What the numbers of a class label mean, from the file that TFDS writes beside the records."""
    name = f"{folder}{leaf.path.replace('/', '-')}.labels.txt"
    if not source.has(name):
        return {}
    lines = source.path(name).read_text(encoding="utf-8", errors="replace").split("\n")
    return dict(enumerate(line.strip() for line in lines if line.strip()))


def _runs(strings: list[str], count: int) -> Iterator[tuple[str, int, int]]:
    """(text, first step, stop) of each run of equal strings; a single one holds for all steps."""
    if len(strings) == 1:
        yield strings[0], 0, count
        return
    starts = [row for row in range(len(strings)) if row == 0 or strings[row] != strings[row - 1]]
    for start, stop in pairwise([*starts, len(strings)]):
        yield strings[start], start, stop
