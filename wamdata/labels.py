"""Tables that say more of episodes than their log: words, spans, success, quality, operator, and what they may teach.

`episode` is the reader's key, its number, or the file that the episode lies in; `source` beside it tells equal keys of
two sources apart. Times are seconds from the episode's start; left out, they are its start and end. `task` and
`subtask` stand over the log's own words where they hold. `use` is `both`, `video` (clumsy or failed tries teach what
happens, not what to do), `none`, or `drop`, which leaves the episode out. A row with a `shot`, by whatever name, is a
span whose edges no clip crosses. What tables say adds up, and the strictest use holds. Every row must name an episode
and every episode must have a row: a table that fits half of a source is a mistake more often than a wish. A recording
that is cut into episodes is labelled before it is cut.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from schemas.episode import Episode, Text, UseSpan
from schemas.errors import DataError, UsageError
from wamdata.label_table import OUTCOMES, Label, read_table
from wamdata.readers.base import EpisodeRef
from wamdata.readers.tree import first_names

LOSSES = {"video": ("video",), "none": ("none",)}


@dataclass(frozen=True)
class Labels:
    """The rows of each episode, by (source name, key)."""

    rows: Mapping[tuple[str, str], tuple[Label, ...]] = field(default_factory=dict)

    def of(self, ref: EpisodeRef) -> tuple[Label, ...]:
        return self.rows.get((ref.source.name, ref.key), ())

    def only(self, refs: Iterable[EpisodeRef]) -> "Labels":
        """Those of some episodes: what a worker needs."""
        return Labels({place: self.rows[place] for r in refs if (place := (r.source.name, r.key)) in self.rows})


def read_labels(paths: Sequence[Path], listed: Sequence[EpisodeRef], chosen: Sequence[EpisodeRef]) -> Labels:
    """The tables, joined with episodes.

    Args:
        listed: the episodes that there are.
        chosen: those that must have a row.

    Raises:
        UsageError: a table cannot be read, or rows and episodes do not fit each other.
    """
    if not paths:
        return Labels()
    table = [label for path in paths for label in read_table(path)]
    known: dict[tuple[str, str], list[Label]] = {(ref.source.name, ref.key): [] for ref in listed}
    names = _names(listed)
    strangers = []
    for label in table:
        places = _places(label, names)
        if not places:
            strangers.append(label)
        for place in places:
            known[place].append(label)
    if strangers:
        first = strangers[0]
        raise UsageError(
            f"{first.place}: no episode {first.episode!r} ({len(strangers)} of {len(table)} rows name none); "
            f"the logs have {first_names([key for _, key in known])}. Mend them."
        )
    bare = [ref.key for ref in chosen if not known[ref.source.name, ref.key]]
    if bare:
        raise UsageError(
            f"--labels {', '.join(p.name for p in paths)}: {len(bare)} of {len(chosen)} episodes have no row "
            f"({first_names(bare)}). Add them, if only by name, or choose with --where."
        )
    return Labels({place: tuple(rows) for place, rows in known.items() if rows})


def why_dropped(labels: Iterable[Label]) -> str | None:
    """Which row leaves the episode out, and why, in words; None where none does."""
    for label in labels:
        if label.use == "drop":
            return f"{label.place}: {label.values.get('reason', 'use is drop')}"
    return None


def labelled(episode: Episode, labels: Sequence[Label]) -> Episode:
    """The episode with what its rows say of it.

    Raises:
        DataError: a span lies outside the episode, or is empty.
    """
    if not labels:
        return episode
    start, stop = extent(episode)
    said: list[Text] = []
    uses: list[UseSpan] = []
    seams: set[int] = set()
    changes: dict[str, Any] = {}
    for label in labels:
        first, last = _span(label, start, stop)
        for level in ("task", "subtask"):
            if level in label.values:
                said.append(Text(label.values[level], first, last, level, "labels"))
        if label.use in LOSSES:
            uses.append(UseSpan(first, last, LOSSES[label.use]))
        if "shot" in label.values:
            seams |= {first, last} - {start, stop}
        if "outcome" in label.values:
            changes["outcome"] = OUTCOMES[label.values["outcome"].lower()]
        changes |= {name: label.values[name] for name in ("quality", "operator") if name in label.values}
    kept = [t for t in episode.texts if not any(_covers(new, t) for new in said)]
    seams |= set(episode.seams)
    return replace(episode, texts=(*kept, *said), use=(*episode.use, *uses), seams=tuple(sorted(seams)), **changes)


def extent(episode: Episode) -> tuple[int, int]:
    """(start, stop) in ns of an episode, half-open: its last row lasts as long as the longest between two rows."""
    clocks = episode.clocks
    step = max(((int(t[-1]) - int(t[0])) // max(len(t) - 1, 1) for t in clocks), default=0)
    return min((int(t[0]) for t in clocks), default=0), max((int(t[-1]) for t in clocks), default=0) + max(step, 1)


def _covers(new: Text, old: Text) -> bool:
    return new.level == old.level and new.start_ns <= old.start_ns and new.stop_ns >= old.stop_ns


def _names(refs: Iterable[EpisodeRef]) -> dict[str, list[tuple[str, str]]]:
    """(source name, key) of the episodes that each name means: key, file, file without its folders."""
    names: dict[str, list[tuple[str, str]]] = {}
    for ref in refs:
        files = [v for v in ref.place.values() if isinstance(v, str) and "." in v]
        for name in {ref.key, *files, *(PurePosixPath(f).name for f in files)}:
            names.setdefault(name, []).append((ref.source.name, ref.key))
        number = _number(ref.key)
        if number is not None:
            names.setdefault(f"#{number}", []).append((ref.source.name, ref.key))
    return names


def _places(label: Label, names: Mapping[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The episodes of a row: one by key or number, all of a file by the file's name.

    Raises:
        UsageError: two sources have it.
    """
    name, source = label.episode, label.values.get("source")
    found = names.get(name) or (names.get(f"#{int(name)}", []) if name.isdigit() else [])
    places = [place for place in found if source in (None, place[0])]
    homes = list(dict.fromkeys(home for home, _ in places))
    by_file = "." in name
    if len(homes) > 1:
        raise UsageError(f"{label.place}: {name!r} is in {', '.join(homes)}. Add a column `source`.")
    if len(places) > 1 and not by_file:
        raise UsageError(f"{label.place}: {name!r} may be {first_names([key for _, key in places])}. Give the key.")
    return places


def _number(key: str) -> int | None:
    digits = key[len(key.rstrip("0123456789")) :]
    return int(digits) if digits else None


def _span(label: Label, start: int, stop: int) -> tuple[int, int]:
    first_s, last_s = label.seconds("start_s"), label.seconds("end_s")
    first = start if first_s is None else start + round(first_s * 1e9)
    last = stop if last_s is None else min(start + round(last_s * 1e9), stop)
    if not start <= first < last:
        length = (stop - start) / 1e9
        raise DataError(
            f"{label.place}: {first_s or 0:g} s to {last_s if last_s is not None else length:.6g} s is no span "
            f"of {label.episode!r}, which lasts {length:.2f} s. Mend the row."
        )
    return first, last
