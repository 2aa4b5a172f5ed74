"""The data doctor, small: every episode of a source read and checked, nothing written.

Reads rows and video indexes, decodes no pixel. Does not yet look for freezes, swapped cameras or drift.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from schemas.embodiment import Embodiment, load_embodiment
from schemas.episode import Episode, Finding
from schemas.errors import DataError
from schemas.recipe import Filters
from schemas.yaml_io import parse
from wamdata.cutting import cut_recording
from wamdata.draft import draft_embodiment
from wamdata.filters import check_raw, check_trajectory
from wamdata.mapping import map_episode, timed
from wamdata.readers import detect_reader
from wamdata.source import Source


@dataclass(frozen=True)
class CheckResult:
    """What was found in a source. `clean` episodes have no finding above `info`."""

    source: str
    reader: str
    episodes: int
    clean: int
    usable: int
    minutes: float
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> str:
        order = ("error", "warning", "info")
        return next((s for s in order if any(f.severity == s for f in self.findings)), "none")


def check_source(
    source: Source,
    *,
    robot: str | None = None,
    reader: str = "auto",
    limits: Filters | None = None,
    on_episode: Callable[[int, int], None] = lambda done, total: None,
) -> CheckResult:
    """Findings over all episodes; with no `robot` the one that `wam robot draft` would write is used."""
    limits = limits or Filters()
    module = detect_reader(source, reader)
    listing = module.list_episodes(source)
    embodiment = load_embodiment(robot) if robot else _drafted(source, reader)
    findings = list(listing.findings)
    clean = usable = episodes = 0
    seconds = 0.0
    for done, ref in enumerate(listing.episodes, start=1):
        for found, length_s in _of_recording(module, ref, embodiment, limits):
            episodes += 1
            seconds += length_s
            usable += not any(f.severity == "error" for f in found)
            clean += not any(f.severity != "info" for f in found)
            findings += dict.fromkeys(found)
        on_episode(done, len(listing.episodes))
    return CheckResult(
        str(source), listing.reader, episodes, clean, usable, seconds / 60, tuple(dict.fromkeys(findings))
    )


def _of_recording(module, ref, embodiment: Embodiment | None, limits: Filters) -> Iterator[tuple[list[Finding], float]]:
    """Findings and seconds of each episode of a recording."""
    try:
        recording = module.read(ref)
        parts = cut_recording(recording, embodiment.episodes) if embodiment else [recording]
    except DataError as error:
        yield [Finding("unreadable", "error", ref.key, str(error))], 0.0
        return
    for episode in parts:
        checked = _checks(episode, embodiment, limits)
        yield (
            [*(f for f in episode.findings if f.message not in {c.message for c in checked}), *checked],
            episode.length_s,
        )


def _checks(episode: Episode, embodiment: Embodiment | None, limits: Filters) -> list[Finding]:
    if embodiment is None:
        return []
    episode = timed(episode, embodiment)
    found = list(check_raw(episode, embodiment, limits))
    try:
        found += check_trajectory(map_episode(episode, embodiment), limits)
    except DataError as error:
        found.append(Finding("unmappable", "error", episode.key, str(error)))
    return found


def _drafted(source: Source, reader: str) -> Embodiment | None:
    import yaml

    try:
        return parse(Embodiment, yaml.safe_load(draft_embodiment(source, reader=reader)), "draft")
    except DataError:
        return None
