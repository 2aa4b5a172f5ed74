"""Logs -> shards, top to bottom.

    source --reader--> Episode --raw checks--> --mapping--> Trajectory --checks--> kept spans --> clips --> shards

A part is a few source episodes; `run_part` is one pure function from a part to shards and a record. Shard
names come from the part, so one worker and sixty-four write the same bytes. A part's record is written after
its shards; a rerun skips parts that have one. The manifest is written last. Every source episode ends in a
shard or among the rejects with a reason. Nothing is written into a source.
"""

import importlib.metadata
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from schemas.embodiment import Embodiment, load_embodiment
from schemas.episode import Episode, Finding, Text
from schemas.errors import DataError, UsageError
from schemas.manifest import FindingMeta, Manifest, Reject, ShardInfo
from schemas.recipe import IngestRecipe
from schemas.record import Record, sha256_of
from schemas.yaml_io import read_yaml, write_yaml
from wamdata.clips import cut_clip, keep_spans
from wamdata.cutting import cut_recording
from wamdata.executors import ExecutorName, run_parts
from wamdata.filters import check_raw, check_trajectory
from wamdata.fingerprint import source_fingerprint
from wamdata.index import chosen
from wamdata.keep_ranges import kept, read_ranges
from wamdata.labels import Labels, labelled, read_labels, why_dropped
from wamdata.lock import locked
from wamdata.mapping import map_episode, timed
from wamdata.readers import detect_reader
from wamdata.readers.base import EpisodeRef
from wamdata.readers.tree import sha256_of_file
from wamdata.shards import MANIFEST, ShardWriter, read_manifest
from wamdata.source import Source
from wamdata.split import assign_splits

RECIPE, STATE, PARTS = "recipe.yaml", "ingest.json", "parts"


@dataclass(frozen=True)
class Part:
    """A few episodes of one source and everything a worker needs to turn them into shards."""

    name: str
    reader: str
    refs: tuple[EpisodeRef, ...]
    prefix: str
    embodiment: Embodiment
    recipe: IngestRecipe
    labels: Labels
    out: Path


class PartRecord(Record):
    """A finished part: written after its shards, so its presence means they are whole.

    Args:
        recordings: as the source lists them; each is cut into one or more `episodes`.
    """

    shards: tuple[ShardInfo, ...]
    rejects: tuple[Reject, ...]
    findings: tuple[FindingMeta, ...]
    recordings: int
    episodes: int
    kept: int
    licences: tuple[str, ...]


class IngestState(Record):
    """What an output folder is being made from; a rerun with anything else is refused."""

    recipe_sha256: str
    embodiment_sha256: str
    cameras: tuple[tuple[str, str], ...]
    sources: tuple[tuple[str, str], ...]
    readers: dict[str, int]
    labels: tuple[str, ...] = ()

    def difference(self, other: "IngestState", *, complete: bool) -> str | None:
        """Which input differs, in words, or None.

        Complete shards hold the raw streams, so an edited robot file with the same cameras is mapped again at load.
        """
        if self.cameras != other.cameras:
            return "the robot's cameras"
        if self.embodiment_sha256 != other.embodiment_sha256 and not complete:
            return "the robot's YAML"
        if self.recipe_sha256 != other.recipe_sha256:
            return "the recipe"
        if self.labels != other.labels:
            return "the labels"
        if self.sources != other.sources:
            same_names = [n for n, _ in self.sources] == [n for n, _ in other.sources]
            changed = [n for n, content in other.sources if (n, content) not in self.sources]
            return f"the content of {changed[0]}" if same_names else "the list of sources"
        return None if self.readers == other.readers else "the reader's version"


@dataclass(frozen=True)
class Progress:
    """Where an ingest stands: for progress bars."""

    parts_done: int
    parts: int
    episodes_done: int
    episodes: int
    rejects: int
    bytes: int


def ingest(
    recipe: IngestRecipe,
    out: Path,
    *,
    executor: ExecutorName = "ray",
    address: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Shards and manifest of `recipe.sources` in `out`; finishes what an interrupted run left, repeats nothing.

    Raises:
        UsageError: `out` was made from something else, or another ingest is writing there.
        DataError: not a single episode could be used; says why.
    """
    embodiment = load_embodiment(recipe.robot)
    for source in map(Source.at, recipe.sources):
        if source.is_local and out.resolve().is_relative_to(Path(source.url).resolve()):
            raise UsageError(f"{out}: lies inside the source {source}, which is never written to. Give another --out.")
    state = ingest_state(recipe, embodiment)
    _refuse_other(out, state, recipe)
    if (out / MANIFEST).exists():
        return read_manifest(out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        parts, listed, licences = plan_parts(recipe, embodiment, out)
        state.write_json(out / STATE)  # first: it marks the folder as ours
        write_yaml(out / RECIPE, recipe)
        records = {p.name: r for p in parts if (r := _finished(out, p)) is not None}
        todo = [p for p in parts if p.name not in records]
        total = sum(len(p.refs) for p in parts)
        on_progress(_progress(records, parts, total))
        for name, record in run_parts(run_part, todo, executor=executor, address=address):
            records[name] = record
            on_progress(_progress(records, parts, total))
        manifest = _assemble([records[p.name] for p in parts], state, recipe, embodiment, total, listed, licences)
        if not manifest.samples:
            _clear(out)
            raise DataError(_nothing_usable(manifest))
        manifest.write_json(out / MANIFEST)
    return manifest


def ingest_state(recipe: IngestRecipe, embodiment: Embodiment) -> IngestState:
    """The identity of an ingest: recipe, robot, content of the sources, readers."""
    places = [Source.at(s) for s in recipe.sources]
    sources = tuple((s.name, source_fingerprint(s)) for s in places)
    readers = {m.NAME: m.VERSION for m in (detect_reader(s, recipe.reader) for s in places)}
    tables = (*recipe.labels, *([recipe.keep_ranges] if recipe.keep_ranges else []))
    named = recipe.model_dump(mode="json", exclude={"sources", "robot", "labels", "keep_ranges"})
    return IngestState(
        recipe_sha256=sha256_of(named),
        embodiment_sha256=embodiment.digest(),
        cameras=tuple((c.key, c.source) for c in embodiment.model_cameras),
        sources=sources,
        readers=readers,
        labels=tuple(sha256_of_file(Path(path)) for path in tables if Path(path).is_file()),
    )


def plan_parts(
    recipe: IngestRecipe, embodiment: Embodiment, out: Path
) -> tuple[list[Part], tuple[Finding, ...], tuple[str, ...]]:
    """The parts of an ingest, what the listings noticed, and the sources' licences."""
    chosen_refs: list[tuple[str, list[EpisodeRef]]] = []  # of each source, with its reader's name
    listed: list[EpisodeRef] = []
    findings: list[Finding] = []
    licences: list[str] = []
    for source in map(Source.at, recipe.sources):
        reader = detect_reader(source, recipe.reader)
        listing = reader.list_episodes(source)
        findings += [replace(f, message=source.without_place(f.message)) for f in listing.findings]
        licences.append(recipe.licence or listing.hints.get("licence", "unknown"))
        if not listing.episodes:
            raise DataError(f"{source}: read as {listing.reader}, but it lists no episode. Run `wam check {source}`.")
        listed += listing.episodes
        kept = list(listing.episodes)
        if recipe.where is not None:
            keys = chosen(source, reader, recipe.where)
            kept = [e for e in listing.episodes if e.key in keys]
            message = f"{len(kept)} of {len(listing.episodes)} episodes chosen by {recipe.where!r}"
            findings.append(Finding("where", "info", source.name, message))
        if not kept:
            raise UsageError(f"--where {recipe.where!r}: holds for no episode of {source}. Mend the condition.")
        chosen_refs.append((reader.NAME, kept))
    everyone = [ref for _, refs in chosen_refs for ref in refs]
    if recipe.keep_ranges is not None:
        read_ranges(Path(recipe.keep_ranges))  # refused before anything is read
    labels = read_labels([Path(p) for p in recipe.labels], listed, everyone)
    parts: list[Part] = []
    for name, kept in chosen_refs:
        prefix = re.sub(r"[^A-Za-z0-9]+", "-", kept[0].source.name).strip("-").lower()
        for at in range(0, len(kept), recipe.episodes_per_part):
            refs = tuple(kept[at : at + recipe.episodes_per_part])
            theirs = labels.only(refs)
            parts.append(Part(f"part-{len(parts):06d}", name, refs, prefix, embodiment, recipe, theirs, out))
    return parts, tuple(findings), tuple(dict.fromkeys(licences))


def run_part(part: Part) -> tuple[str, PartRecord]:
    """Turn a part's episodes into shards, then leave its record."""
    reader = detect_reader(part.refs[0].source, part.reader)
    writer = ShardWriter(part.out, part.name, shard_bytes=round(part.recipe.shard_mb * 1e6))
    rejects: list[Reject] = []
    findings: list[Finding] = []
    licences: list[str] = []
    episodes = 0
    for ref in part.refs:
        done = _ingest_recording(reader, ref, part, writer)
        episodes += done.episodes
        findings += done.findings
        rejects += done.rejects
        licences += done.licences
    record = PartRecord(
        shards=writer.close(),
        rejects=tuple(rejects),
        findings=tuple(_finding_meta(f) for f in findings),
        recordings=len(part.refs),
        episodes=episodes,
        kept=episodes - len({r.episode for r in rejects}),
        licences=tuple(dict.fromkeys(licences)),
    )
    record.write_json(_record_path(part.out, part.name))
    return part.name, record


@dataclass
class Done:
    """What came of a recording: every episode of it is in the shards or among the rejects."""

    episodes: int = 0
    findings: list[Finding] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)

    def reject(self, ref: EpisodeRef, key: str, reason: str, detail: str) -> None:
        detail = ref.source.without_place(detail)
        self.rejects.append(Reject(source=ref.source.name, episode=key, reason=reason, detail=detail))


def _ingest_recording(reader, ref: EpisodeRef, part: Part, writer: ShardWriter) -> Done:
    """Add the clips of a recording's episodes to the writer, or say why not."""
    done = Done()
    dropped = why_dropped(part.labels.of(ref))
    if dropped is not None:
        done.episodes = 1
        done.reject(ref, ref.key, "dropped", dropped)
        return done
    try:
        recording = _with_overrides(timed(reader.read(ref), part.embodiment), part)
        recording = labelled(recording, part.labels.of(ref))
        if part.recipe.keep_ranges is not None:
            chosen_rows = kept(recording, read_ranges(Path(part.recipe.keep_ranges)))
            if chosen_rows is None:
                done.episodes = 1
                done.reject(ref, ref.key, "no_keep_range", f"{Path(part.recipe.keep_ranges).name} does not name it")
                return done
            recording = chosen_rows
        episodes = cut_recording(recording, part.embodiment.episodes)
    except DataError as error:
        done.episodes = 1
        done.reject(ref, ref.key, "unreadable", str(error))
        return done
    for episode in episodes:
        _ingest_episode(episode, ref, part, writer, done)
    return done


def _ingest_episode(episode: Episode, ref: EpisodeRef, part: Part, writer: ShardWriter, done: Done) -> None:
    limits = part.recipe.filters
    done.episodes += 1
    checked = check_raw(episode, part.embodiment, limits)
    done.findings += [*(f for f in episode.findings if f.message not in {c.message for c in checked}), *checked]
    fatal = next((f for f in checked if f.severity == "error"), None)
    if fatal:
        done.reject(ref, episode.key, fatal.code, fatal.message)
        return
    try:
        trajectory = map_episode(episode, part.embodiment)
        done.findings += check_trajectory(trajectory, limits)
        spans = keep_spans(trajectory, limits, max_clip_s=part.recipe.max_clip_s)
        prefix = f"{part.prefix}_{episode.key}_{episode.source_sha256[:8]}"
        clips = [cut_clip(trajectory, a, b, prefix=prefix) for a, b in spans]
    except DataError as error:
        done.reject(ref, episode.key, "unmappable", str(error))
        return
    for clip in clips:
        writer.add(clip)
    done.licences.append(episode.licence)
    if not clips:
        done.reject(ref, episode.key, "nothing_kept", "no span of valid rows is long enough")


def _with_overrides(episode: Episode, part: Part) -> Episode:
    """The episode with the recipe's instruction and licence, its session under its source.

    Where the source lies is left out, so that shards are equal wherever it is mounted.
    """
    recipe, place = part.recipe, Source.at(episode.source)
    changes = {
        "source": place.name,
        "session": f"{part.prefix}/{episode.session}",
        "findings": tuple(replace(f, message=place.without_place(f.message)) for f in episode.findings),
    }
    if recipe.task is not None:
        stop = max((int(t[-1]) for t in episode.clocks), default=0) + 10**9
        start = min((int(t[0]) for t in episode.clocks), default=0)
        changes["texts"] = (Text(recipe.task, start, stop, "task", "--task"),)
    if recipe.licence is not None:
        changes["licence"] = recipe.licence
    return replace(episode, **changes)


def _finding_meta(finding: Finding) -> FindingMeta:
    return FindingMeta(code=finding.code, severity=finding.severity, where=finding.where, message=finding.message)


def _assemble(
    records: list[PartRecord],
    state: IngestState,
    recipe: IngestRecipe,
    embodiment: Embodiment,
    recordings: int,
    listed: tuple[Finding, ...],
    licences: tuple[str, ...],
) -> Manifest:
    shards = [s for r in records for s in r.shards]
    samples = [s for shard in shards for s in shard.samples]
    _refuse_doubled(samples)
    splits = assign_splits(samples, recipe.split)
    shards = [
        s.model_copy(update={"samples": tuple(m.model_copy(update={"split": splits[m.key]}) for m in s.samples)})
        for s in shards
    ]
    rejects = tuple(x for r in records for x in r.rejects)
    found = tuple(
        _finding_meta(f) for f in (*listed, *_duplicates(samples), *_one_recording(samples, embodiment))
    ) + tuple(f for r in records for f in r.findings)
    kept = sum(r.kept for r in records)
    assert sum(r.recordings for r in records) == recordings, "a recording was lost"
    return Manifest(
        fingerprint=state.digest(),
        embodiment=embodiment,
        split_rule=recipe.split,
        shards=tuple(shards),
        rejects=rejects,
        findings=found,
        source_episodes=sum(r.episodes for r in records),
        episodes=kept,
        seconds=round(sum(s.seconds for s in samples), 6),
        licences=tuple(dict.fromkeys([*(x for r in records for x in r.licences), *licences])),
        sources=tuple(Source.at(s).name for s in recipe.sources),
        tool=f"wamkit {importlib.metadata.version('wamkit')}",
    )


def _refuse_doubled(samples) -> None:
    seen: set[str] = set()
    for sample in samples:
        if sample.key in seen:
            raise UsageError(f"clip {sample.key!r} comes from two sources: the same data is given twice. Give it once.")
        seen.add(sample.key)


def _duplicates(samples) -> list[Finding]:
    """Episodes with equal content: they stay together in one split, and are named."""
    episodes: dict[str, dict[tuple[str, str], str]] = {}
    for sample in samples:
        episodes.setdefault(sample.content_sha256, {})[sample.session, sample.episode] = sample.episode
    found = []
    for alike in episodes.values():
        names = [name if len(set(alike.values())) > 1 else f"{at[0]} {name}" for at, name in alike.items()]
        if len(names) > 1:
            message = f"{', '.join(names[1:])} hold the same rows: kept in one split"
            found.append(Finding("duplicate", "warning", next(iter(alike.values())), message))
    return found


def _one_recording(samples, embodiment: Embodiment) -> list[Finding]:
    """Films of equal length may be the cameras of one recording, and then no part of it is really held out."""
    lengths: dict[tuple[int, float], list[str]] = {}
    for sample in samples if embodiment.is_action_free else ():
        lengths.setdefault((sample.rows, sample.seconds), []).append(sample.episode)
    return [
        Finding(
            "same_length",
            "warning",
            names[0],
            f"{len(names)} films are equally long ({', '.join(names[:3])}): if they are cameras of one recording, "
            "its held-out part is not independent",
        )
        for names in lengths.values()
        if len(names) > 1
    ]


def _nothing_usable(manifest: Manifest) -> str:
    reasons = Counter(r.reason for r in manifest.rejects)
    worst = reasons.most_common(1)[0][0]
    example = next(r for r in manifest.rejects if r.reason == worst)
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    return (
        f"none of {manifest.source_episodes} episodes of {', '.join(manifest.sources)} can be used ({counts}). "
        f"First: {example.episode}: {example.detail}"
    )


def _refuse_other(out: Path, state: IngestState, recipe: IngestRecipe) -> None:
    if not (out / STATE).exists():
        ours = (".lock", RECIPE, PARTS, f"{STATE}.partial", f"{RECIPE}.partial")
        strangers = [p.name for p in out.iterdir() if p.name not in ours] if out.is_dir() else []
        if strangers:
            raise UsageError(f"{out}: holds {strangers[0]!r} and is no ingest of ours. Give an empty or new folder.")
        return
    before = IngestState.read_json(out / STATE)
    what = before.difference(state, complete=(out / MANIFEST).exists())
    if what is None:
        return
    field = _changed_field(out, recipe) if what == "the recipe" else ""
    raise UsageError(
        f"{out}: was made with another input: {what}{field} changed. Give a new --out, or delete this folder."
    )


def _changed_field(out: Path, recipe: IngestRecipe) -> str:
    before = read_yaml(out / RECIPE, IngestRecipe).as_dict()
    now = recipe.as_dict()
    name = next(
        (k for k in now if k not in ("sources", "robot", "labels", "keep_ranges") and now[k] != before.get(k)), None
    )
    return f" ({name}: {before.get(name)!r} is now {now[name]!r})" if name else ""


def _clear(out: Path) -> None:
    """Take back what this ingest wrote, so that a mended call may use the same folder."""
    shutil.rmtree(out / PARTS, ignore_errors=True)
    for name in (STATE, RECIPE, ".lock"):
        (out / name).unlink(missing_ok=True)
    if not any(out.iterdir()):
        out.rmdir()


def _record_path(out: Path, name: str) -> Path:
    return out / PARTS / f"{name}.json"


def _finished(out: Path, part: Part) -> PartRecord | None:
    """A part's record if it has one and its shards are there."""
    path = _record_path(out, part.name)
    if not path.exists():
        return None
    record = PartRecord.read_json(path)
    files = [(out / s.name, s.bytes) for s in record.shards]
    return record if all(f.exists() and f.stat().st_size == size for f, size in files) else None


def _progress(records: dict[str, PartRecord], parts: list[Part], total: int) -> Progress:
    return Progress(
        parts_done=len(records),
        parts=len(parts),
        episodes_done=sum(r.recordings for r in records.values()),
        episodes=total,
        rejects=sum(len(r.rejects) for r in records.values()),
        bytes=sum(s.bytes for r in records.values() for s in r.shards),
    )
