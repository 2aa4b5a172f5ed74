"""RLDS sets as tensorflow_datasets writes them, read in place and without tensorflow.

A source is one version of a data set, `bridge_dataset/1.0.0`, or a folder with several below it. features.json says
what a record holds; a record is an episode. An action belongs to the observation of its own step, so at the step that
`is_last` marks there is none: that step's row is left out of all streams, its pictures and its text stay. RLDS has no
clock: steps are counted at the rate known of the data set (`rates.py`), else at 10 Hz.

Limits: depth, video inside a step and embeddings of language are left out. A record is read whole into memory, and its
pictures again from the file when they are asked for. A remote file is fetched whole, though not for listing where
dataset_info.json counts its records. Riegeli and Parquet files of TFDS are not read.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from schemas.episode import Episode, Finding
from schemas.errors import DataError
from wamdata.readers.base import UNKNOWN_HZ, EpisodeRef, Listing, content_sha256, counted
from wamdata.readers.rlds.cameras import read_cameras
from wamdata.readers.rlds.example import parse_example
from wamdata.readers.rlds.features import FILE as FEATURES
from wamdata.readers.rlds.features import Layout, load_layout
from wamdata.readers.rlds.rates import known_rate_hz
from wamdata.readers.rlds.records import count_array_records, read_array_record, read_record, read_span, scan
from wamdata.readers.rlds.sets import INFO, RecordFile, RecordSet, find_sets, has_sets
from wamdata.readers.rlds.steps import STEPS, Steps, count_steps, read_streams, zero_first_action
from wamdata.readers.rlds.texts import outcome, paths, read_texts
from wamdata.readers.tree import LFS_ADVICE, find_licence, first_names, is_description, lfs_pointers, stray_findings
from wamdata.source import Source

NAME = "rlds"
VERSION = 1
COPY_AGAIN = "Copy it again"


@dataclass(frozen=True)
class _Found:
    """Records of one file.

    Args:
        places: (offset, length) of each, (-1, -1) of one that was counted and not looked at.
    """

    file: RecordFile
    places: list[tuple[int, int]]
    findings: list[Finding]


def detect(source: Source) -> bool:
    """Whether `source` is a folder with features.json, dataset_info.json and records beside them, at any depth."""
    return has_sets(source)


def list_episodes(source: Source) -> Listing:
    """Every record, from a pass over their lengths; none is parsed, so rows are 0 (unknown).

    Raises:
        DataError: a description is broken, says nothing of steps, or no file has a whole record.
        UsageError: the records are ArrayRecords, and their package is not installed.
    """
    sets = find_sets(source)
    licence = find_licence(source)
    refs, findings = [], []
    for one in sets:
        _require_steps(source, one)
        found = [_records(source, one, file) for file in one.files]
        findings += [finding for each in found for finding in each.findings] + _missing(source, one)
        refs += _refs(source, one, found, licence, prefix=_slug(one.folder) if len(sets) > 1 else "")
    if not refs:
        reason = findings[0].message if findings else "the files are empty"
        raise DataError(f"{source}: no whole record in its files ({reason}). {COPY_AGAIN}.")
    findings += [_no_clock(source, sets), *_strays(source, sets)]
    return Listing(NAME, tuple(refs), tuple(findings), _hints(sets, licence))


def read(ref: EpisodeRef) -> Episode:
    """One record as an episode.

    Raises:
        DataError: the record is missing, broken, or not what features.json says.
    """
    place, source = ref.place, ref.source
    where = f"{source.where(place['file'])}: {ref.key}"
    path = source.path(place["file"])
    data, offset = _data(ref, path, where)
    steps = _steps(load_layout(source, place["folder"]), data, where, ref)
    streams, left_out = read_streams(steps)
    cameras, camera_findings = read_cameras(steps, partial(_bytes, path, offset, data if offset < 0 else b""))
    if not streams and not cameras:
        raise DataError(f"{where}: neither numbers nor pictures in its steps. Drop the episode.")
    texts, text_findings = read_texts(source, place["folder"], steps)
    return Episode(
        source=str(source),
        key=ref.key,
        streams=streams,
        videos=cameras,
        texts=texts,
        session=_session(ref, steps),
        aliases=tuple(paths(steps)),
        reader=f"{NAME}@{VERSION}",
        source_sha256=content_sha256(streams, texts, *(() if streams else (data,))),
        rows=(0, steps.rows),
        outcome=outcome(steps),
        licence=place["licence"],
        findings=(*left_out, *zero_first_action(steps, streams), *camera_findings, *text_findings),
        counted_hz=place["hz"],
    )


# Listing


def _require_steps(source: Source, one: RecordSet) -> None:
    if not any(leaf.path.startswith(STEPS) for leaf in load_layout(source, one.folder).leaves):
        name = source.where(f"{one.folder}{FEATURES}")
        raise DataError(f"{name}: no `steps`, so the records are no episodes. Give an RLDS set, not any set of TFDS.")


def _records(source: Source, one: RecordSet, file: RecordFile) -> _Found:
    """The records of a file: looked for on this machine, taken from dataset_info.json of a remote one."""
    declared = one.declared.get(file.split, ())
    count = declared[file.shard] if len(declared) == file.shards and file.shard < len(declared) else None
    if not source.is_local and count is not None and 0 <= count <= source.size(file.name):
        return _Found(file, [(-1, -1)] * count, [])
    where = source.where(file.name)
    if lfs_pointers(source, [file.name]):
        return _Found(file, [], [Finding("lfs_pointer", "warning", where, f"a Git-LFS pointer. {LFS_ADVICE}")])
    path = source.path(file.name)
    places, reason = ([(-1, -1)] * count_array_records(path), "") if file.is_array_record else scan(path)
    findings = []
    if reason:
        message = f"{reason}; the {len(places)} records before it are read. {COPY_AGAIN}"
        findings.append(Finding("missing_data", "error", where, message))
    elif count is not None and count != len(places):
        message = f"{len(places)} records, {INFO} says {count}; the file is taken"
        findings.append(Finding("count_mismatch", "warning", where, message))
    return _Found(file, places, findings)


def _missing(source: Source, one: RecordSet) -> list[Finding]:
    """Shards that dataset_info.json counts and that are not there."""
    present = Counter(file.split for file in one.files)
    lacking = [
        f"{split} {len(shards) - present[split]} of {len(shards)}"
        for split, shards in sorted(one.declared.items())
        if present[split] < len(shards)
    ]
    if not lacking:
        return []
    message = f"files of these splits are not here: {first_names(lacking)}. Copy them too, or go on without"
    return [Finding("missing_data", "warning", source.where(f"{one.folder}{INFO}"), message)]


def _refs(source: Source, one: RecordSet, found: list[_Found], licence: str, *, prefix: str) -> list[EpisodeRef]:
    """Keys count within a file, so that one that is fetched later renames no episode."""
    stems = [_stem(each.file) for each in found]
    twice = {stem for stem, times in Counter(stems).items() if times > 1}
    common = {
        "folder": one.folder,
        "hz": known_rate_hz(one.name) or UNKNOWN_HZ,
        "licence": licence if licence != "unknown" else one.licence,
    }
    return [
        EpisodeRef(
            source,
            f"{prefix}{_slug(each.file.name) if stem in twice else stem}_{index:06d}",
            0,
            {"file": each.file.name, "split": each.file.split, "index": index, "offset": at, "length": size, **common},
        )
        for stem, each in zip(stems, found, strict=True)
        for index, (at, size) in enumerate(each.places)
    ]


def _stem(file: RecordFile) -> str:
    split = _slug(file.split).rstrip("_")
    return split if file.shards == 1 else f"{split}_{file.shard:05d}"


def _slug(name: str) -> str:
    """A name free of dots, slashes and spaces; of a folder with an underscore at its end."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)


def _no_clock(source: Source, sets: list[RecordSet]) -> Finding:
    rates = {one.name: known_rate_hz(one.name) for one in sets}
    said = ", ".join(f"{name} at {hz or UNKNOWN_HZ:g} Hz" + ("" if hz else " (a guess)") for name, hz in rates.items())
    message = f"RLDS has no time stamps; steps are counted: {said}. Set `native_hz` in the robot's file if it is not so"
    return Finding("no_clock", "info" if all(rates.values()) else "warning", str(source), message)


def _hints(sets: list[RecordSet], licence: str) -> dict[str, str]:
    names, versions = (sorted({getattr(one, field) for one in sets}) for field in ("name", "version"))
    licences = {one.licence for one in sets}
    stated = licences.pop() if licence == "unknown" and len(licences) == 1 else licence
    hints = {"dataset": ", ".join(names), "version": ", ".join(versions), "licence": stated}
    rates = {known_rate_hz(name) for name in names}
    rate = rates.pop() if len(rates) == 1 else None
    return hints | ({"fps": f"{rate:g}"} if rate else {})


def _strays(source: Source, sets: list[RecordSet]) -> list[Finding]:
    records = {file.name for one in sets for file in one.files}
    strays = [("file of no data set", n) for n in source.files() if n not in records and not _is_known(n)]
    return stray_findings(strays, str(source))


def _is_known(name: str) -> bool:
    file = PurePosixPath(name).name
    return is_description(name) or (file.endswith((".json", ".labels.txt")) and not file.startswith("."))


# Reading


def _data(ref: EpisodeRef, path: Path, where: str) -> tuple[bytes, int]:
    """The bytes of a record, and where they lie in its file; -1 of an ArrayRecord, which holds them compressed."""
    place = ref.place
    if ".array_record" in PurePosixPath(place["file"]).name:
        return read_array_record(path, place["index"], where), -1
    offset, length = place["offset"], place["length"]
    if offset < 0:
        places, reason = scan(path)
        if place["index"] >= len(places):
            raise DataError(f"{where}: not in the file, which has {len(places)} records {reason}. {COPY_AGAIN}.")
        offset, length = places[place["index"]]
    return read_record(path, offset, length, where), offset


def _bytes(path: Path, offset: int, data: bytes, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a record: of its file, or of `data` where the file holds them compressed."""
    return data[start:stop] if offset < 0 else read_span(path, offset + start, offset + stop)


def _steps(layout: Layout, data: bytes, where: str, ref: EpisodeRef) -> Steps:
    example = parse_example(data, where)
    count = count_steps(example, layout)
    last = example.ints("steps/is_last")
    rows = count - 1 if len(last) == count and last[-1] else count
    if not rows:
        raise DataError(f"{where}: a single step, and it is marked as the last: no action holds. Drop the episode.")
    bounds_ns = counted(count + 1, ref.place["hz"])
    return Steps(example, layout, ref.key, count, rows, bounds_ns[:-1], bounds_ns[1:])


def _session(ref: EpisodeRef, steps: Steps) -> str:
    """The folder that the recording lay in, else the episode by itself; splits share none but by chance of theirs."""
    lay = next(iter(paths(steps)), "").rstrip("/")
    folder = lay.rpartition("/")[0]
    if not folder:
        return ref.key
    return folder if ref.place["split"] == "train" else f"{ref.place['split']}:{folder}"
