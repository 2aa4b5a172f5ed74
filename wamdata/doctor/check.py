"""The data doctor: every episode of a source read, looked at and held against the others; nothing is written.

rows and video index -> filters      what `wam ingest` would say, and reject
a picture a second   -> pixels       black, blank, frozen            (`looks=False` leaves pictures alone)
all episodes         -> across       swapped and turned cameras, copies, spellings
many episodes' rows  -> pooled       the robot's file against the numbers
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from schemas.embodiment import Embodiment, load_embodiment
from schemas.episode import Episode, Finding, Trajectory
from schemas.errors import DataError
from schemas.recipe import Filters
from schemas.yaml_io import parse
from wamdata.cutting import cut_recording
from wamdata.doctor import offset, pixels
from wamdata.doctor.across import Glance, average, check_across
from wamdata.doctor.look import Look, look_at
from wamdata.doctor.pooled import EPISODES, check_pooled
from wamdata.draft import draft_embodiment
from wamdata.filters import check_raw, check_trajectory
from wamdata.index import chosen
from wamdata.labels import Labels, labelled, why_dropped
from wamdata.mapping import map_episode, timed
from wamdata.readers import detect_reader
from wamdata.readers.base import EpisodeRef, Reader
from wamdata.source import Source


@dataclass(frozen=True)
class Seen:
    """An episode as the doctor saw it.

    Args:
        looks: what its cameras showed, by name.
        trajectory: its rows in the robot's units; None where they could not be mapped.
    """

    key: str
    seconds: float
    findings: tuple[Finding, ...]
    episode: Episode | None = None
    trajectory: Trajectory | None = None
    looks: Mapping[str, Look] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        return not any(f.severity == "error" for f in self.findings)


@dataclass(frozen=True)
class CheckResult:
    """What was found in a source. `clean` episodes have no finding above `info`.

    Args:
        keys: recordings as the source lists them, which is what label tables name.
    """

    source: str
    reader: str
    robot: str
    keys: tuple[str, ...]
    episodes: int
    clean: int
    usable: int
    minutes: float
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> str:
        order = ("error", "warning", "info")
        return next((s for s in order if any(f.severity == s for f in self.findings)), "none")


def grouped(findings: Iterable[Finding]) -> list[tuple[str, str, list[Finding]]]:
    """(severity, code, findings), worst first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    order = {"error": 0, "warning": 1, "info": 2}
    return [(s, c, found) for (s, c), found in sorted(groups.items(), key=lambda item: order[item[0][0]])]


def check_source(
    source: Source,
    *,
    robot: str | None = None,
    reader: str = "auto",
    limits: Filters | None = None,
    where: str | None = None,
    labels: Callable[[tuple[EpisodeRef, ...]], Labels] = lambda refs: Labels(),
    looks: bool = True,
    offsets: bool = False,
    on_episode: Callable[[int, int], None] = lambda done, total: None,
    on_seen: Callable[[Seen], None] = lambda seen: None,
) -> CheckResult:
    """Findings over all episodes; with no `robot` the one that `wam robot draft` would write is used.

    Args:
        where: a condition in SQL over the source's index; other episodes are passed over.
        labels: what tables say of the listed episodes: those that they drop are passed over.
        offsets: measure how late each camera is, which decodes every frame of some episodes.
        on_seen: called with each episode, which is not kept after that.
    """
    limits = limits or Filters()
    module = detect_reader(source, reader)
    listing = module.list_episodes(source)
    embodiment = load_embodiment(robot) if robot else _drafted(source, reader)
    said = labels(listing.episodes)
    keys = chosen(source, module, where) if where is not None else {ref.key for ref in listing.episodes}
    refs = [ref for ref in listing.episodes if ref.key in keys and why_dropped(said.of(ref)) is None]
    every = max(1, -(-len(refs) // EPISODES))
    findings: list[Finding] = []
    glances: list[Glance] = []
    pool: list[Trajectory] = []
    flawed: dict[str, bool] = {}  # has a warning; of those that are usable
    episodes, seconds = 0, 0.0
    for done, ref in enumerate(refs, start=1):
        for seen in _of_recording(module, ref, embodiment, limits, said, looks=looks):
            seen = replace(seen, findings=tuple(_short(f, source) for f in seen.findings))
            episodes += 1
            seconds += seen.seconds
            findings += seen.findings
            if seen.is_usable:
                flawed[seen.key] = any(f.severity == "warning" for f in seen.findings)
            if seen.episode is not None:
                glances.append(_glance(seen.episode, seen.looks))
            if seen.trajectory is not None and (done - 1) % every == 0:
                pool.append(seen.trajectory)
            on_seen(seen)
        on_episode(done, len(refs))
    if flawed:  # others fit the robot's file: it is the episode that is amiss
        findings = [replace(f, fix="drop") if f.code == "unmappable" else f for f in findings]
    findings = [*_pointers(findings, source.name), *findings]
    later = [*check_across(glances), *check_pooled(pool, source.name)]
    later += _offsets(pool, source.name) if offsets else []
    for finding in later:
        if finding.severity != "info" and finding.where in flawed:
            flawed[finding.where] = True
    return CheckResult(
        source=str(source),
        reader=listing.reader,
        robot=embodiment.name if embodiment else "none",
        keys=tuple(ref.key for ref in refs),
        episodes=episodes,
        clean=sum(not bad for bad in flawed.values()),
        usable=len(flawed),
        minutes=seconds / 60,
        findings=tuple(dict.fromkeys([*(_short(f, source) for f in listing.findings), *findings, *later])),
    )


def _of_recording(
    module: Reader, ref: EpisodeRef, embodiment: Embodiment | None, limits: Filters, labels: Labels, *, looks: bool
) -> Iterator[Seen]:
    """Each episode of a recording, checked by itself."""
    try:
        recording = module.read(ref)
        if embodiment is not None:
            recording = labelled(timed(recording, embodiment), labels.of(ref))
        parts = cut_recording(recording, embodiment.episodes) if embodiment else [recording]
    except DataError as error:
        yield Seen(ref.key, 0.0, (Finding("unreadable", "error", ref.key, str(error), fix="drop"),))
        return
    for episode in parts:
        yield _of_episode(episode, embodiment, limits, looks=looks)


def _of_episode(episode: Episode, embodiment: Embodiment | None, limits: Filters, *, looks: bool) -> Seen:
    checked: list[Finding] = []
    trajectory = None
    if embodiment is not None:
        checked += check_raw(episode, embodiment, limits)
        try:
            trajectory = map_episode(episode, embodiment)
            checked += check_trajectory(trajectory, limits)
        except DataError as error:
            checked.append(Finding("unmappable", "error", episode.key, str(error)))
    told = {f.message for f in checked} | {f.code for f in checked if f.code == "blank_text"}
    found = [*(f for f in episode.findings if not {f.message, f.code} & told), *checked]
    has_robot = trajectory is not None and trajectory.state.shape[1] > 0
    seen: dict[str, Look] = {}
    for camera, footage in episode.videos.items() if looks else ():
        try:
            seen[camera] = look_at(footage)
            found += pixels.check(episode.key, camera, footage, seen[camera], trajectory if has_robot else None)
        except DataError as error:
            found.append(Finding("corrupt_video", "error", episode.key, f"{camera}: {error}", fix="drop"))
    found = list(dict.fromkeys(_with_fix(f) for f in found))
    return Seen(episode.key, episode.length_s, tuple(found), episode, trajectory if has_robot else None, seen)


def _pointers(findings: list[Finding], where: str) -> list[Finding]:
    """How many videos still lie with Git LFS, told once ahead of the episodes."""
    count = len({(f.where, f.message) for f in findings if f.code == "lfs_pointer"})
    if count < 2:
        return []
    message = f"{count} videos are Git-LFS pointers. Run `git lfs install && git lfs pull` in the source"
    return [Finding("lfs_pointer", "error", where, message, None, (("files", float(count)),))]


def _offsets(pool: list[Trajectory], where: str) -> Iterator[Finding]:
    for camera in pool[0].embodiment.model_cameras if pool else ():
        clocks = [t.episode.videos[camera.source].t_ns for t in pool if camera.source in t.episode.videos]
        steps = [float(np.median(np.diff(t_ns))) / 1e6 for t_ns in clocks if len(t_ns) > 1]
        if steps:
            yield offset.finding(offset.measure(pool, camera.source), camera.source, float(np.median(steps)), where)


def _short(finding: Finding, source: Source) -> Finding:
    """A finding that says where in the source, and not where the source lies."""
    return replace(finding, message=source.without_place(finding.message))


def _with_fix(finding: Finding) -> Finding:
    """An episode that ingest would reject is left out by a fix plan too, unless the robot's file or words are amiss."""
    amiss = ("unmappable", "no_camera", "blank_text")
    if finding.severity != "error" or finding.fix or finding.code in amiss:
        return finding
    return replace(finding, fix="drop")


def _glance(episode: Episode, looks: Mapping[str, Look]) -> Glance:
    views: dict[str, NDArray[np.float32]] = {name: average(look.pictures) for name, look in looks.items()}
    return Glance(episode.key, views, episode.texts, episode.source_sha256)


def _drafted(source: Source, reader: str) -> Embodiment | None:
    import yaml

    try:
        return parse(Embodiment, yaml.safe_load(draft_embodiment(source, reader=reader)), "draft")
    except DataError:
        return None
