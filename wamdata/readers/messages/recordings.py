"""Which files make one recording: as a ROS 2 bag's metadata.yaml says, or by the numbers of a split bag's parts.

talker/metadata.yaml, talker_0.mcap, talker_1.mcap    one recording, `talker`
night_0.bag, night_1.bag                              one, `night`: a bag that was split while it was recorded
episode_0.mcap, episode_1.mcap                        two: the word before the number says that each is whole
fold_the_shirt.mcap, pour.mcap                        two
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import yaml

from schemas.episode import Finding
from schemas.errors import DataError
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.messages.bag import PACKED, Opener
from wamdata.readers.naming import keys_of, natural
from wamdata.readers.tree import find_licence, first_names, is_description, stray_findings
from wamdata.source import Source

METADATA = "metadata.yaml"
MAX_METADATA_BYTES = 10_000_000
ADJOINING_NS = 1_000_000_000  # parts of a split bag follow each other; between two recordings lies a pause
_NUMBERED = re.compile(r"(.+)_(\d+)$")


@dataclass(frozen=True)
class Recording:
    """Files that were recorded in one go, in time.

    Args:
        name: path of its folder or first file, without suffix; "" for the source itself.
        missing: files that its metadata names and that are not there.
    """

    name: str
    files: tuple[str, ...]
    missing: tuple[str, ...] = ()


def bag_suffix(name: str) -> str:
    """A file's suffix, of a compressed file that of what is in it: `.db3` for `a.db3.zstd`."""
    path = PurePosixPath(name)
    return (PurePosixPath(path.stem).suffix if path.suffix.lower() in PACKED else path.suffix).lower()


def candidates(source: Source, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the files that have one of these suffixes; a lone file of this machine may have any."""
    if source.is_file and source.is_local:
        return [source.name]
    return [n for n in source.files() if bag_suffix(n) in suffixes and not PurePosixPath(n).name.startswith("._")]


def find_recordings(source: Source, names: list[str], opener: Opener) -> list[Recording]:
    """Every recording among these files, in order."""
    found, left = [], list(names)
    for folder in sorted({PurePosixPath(n).parent.as_posix() for n in names}):
        told = _of_metadata(source, "" if folder == "." else folder, left)
        if told is not None:
            found.append(told)
            left = [n for n in left if n not in told.files]
    return sorted([*found, *_by_number(left, source, opener)], key=lambda r: natural(r.files[0]))


def list_recordings(source: Source, reader: str, names: list[str], format: str, opener: Opener) -> Listing:
    """A listing with one episode per recording; of numbered files the first and last times are read, no message."""
    recordings, licence = find_recordings(source, names, opener), find_licence(source)
    keys, refs = keys_of({r.files[0]: r.name or source.name for r in recordings}), []
    for recording in recordings:
        key = keys[recording.files[0]]
        place = {"files": list(recording.files), "missing": list(recording.missing), "licence": licence}
        refs.append(EpisodeRef(source, key, 0, place | {"session": recording.name or source.name}))
    known = {f for r in recordings for f in r.files}
    known |= {n for n in source.files() if PurePosixPath(n).name == METADATA}
    strays = [("other file", n) for n in source.files() if n not in known and not is_description(n)]
    findings = stray_findings(strays, str(source)) + [_joined(r, source) for r in recordings if len(r.files) > 1]
    return Listing(reader, tuple(refs), tuple(findings), {"format": format, "licence": licence})


def _joined(recording: Recording, source: Source) -> Finding:
    message = f"{len(recording.files)} files are parts of one recording: {first_names(list(recording.files))}"
    return Finding("split_recording", "info", str(source), message)


def _of_metadata(source: Source, folder: str, names: list[str]) -> Recording | None:
    """The recording that a folder's metadata.yaml describes; None where it has none that can be read."""
    place = f"{folder}/{METADATA}" if folder else METADATA
    if source.is_file or not source.has(place) or source.size(place) > MAX_METADATA_BYTES:
        return None
    try:
        said: Any = yaml.safe_load(source.path(place).read_text(errors="replace"))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    bag = said.get("rosbag2_bagfile_information") if isinstance(said, dict) else None
    paths = bag.get("relative_file_paths") if isinstance(bag, dict) else None
    if not isinstance(paths, list) or not paths:
        return None
    wanted = [PurePosixPath(str(p)).name for p in paths]
    wanted = [f"{folder}/{name}" if folder else name for name in wanted]
    there = tuple(w for w in wanted if w in names)
    return Recording(folder, there, tuple(w for w in wanted if w not in names)) if there else None


def _by_number(names: list[str], source: Source, opener: Opener) -> list[Recording]:
    groups: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        numbered = _NUMBERED.match(_stem(path))
        same = f"{(path.parent / numbered[1]).as_posix()}{bag_suffix(name)}" if numbered else name
        groups.setdefault(same, []).append(name)
    found = []
    for files in groups.values():
        files.sort(key=natural)
        path = PurePosixPath(files[0])
        numbered = _NUMBERED.match(_stem(path))
        if len(files) > 1 and numbered and _are_parts(files, numbered[1], source, opener):
            found.append(Recording((path.parent / numbered[1]).as_posix(), tuple(files)))
        else:
            found += [Recording(_without_suffix(file), (file,)) for file in files]
    return found


def _are_parts(files: list[str], prefix: str, source: Source, opener: Opener) -> bool:
    """Whether numbered files are parts of one recording: they bear their folder's name, or follow without a pause."""
    if prefix == (PurePosixPath(files[0]).parent.name or source.name):
        return True
    spans = [_span(source, name, opener) for name in files] if source.is_local else []
    return bool(spans) and all(
        a is not None and b is not None and abs(b[0] - a[1]) < ADJOINING_NS for a, b in pairwise(spans)
    )


def _span(source: Source, name: str, opener: Opener) -> tuple[int, int] | None:
    try:
        return opener(source.path(name), source.where(name)).span_ns()
    except DataError:
        return None


def _stem(path: PurePosixPath) -> str:
    return PurePosixPath(path.stem).stem if path.suffix.lower() in PACKED else path.stem


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_name(_stem(path)).as_posix()
