"""The cameras of an episode of plain arrays: videos, folders of numbered pictures, and arrays of pictures."""

import functools
from dataclasses import replace

import numpy as np

from schemas.episode import Coded, Finding, Footage, Int64, Pictures
from schemas.errors import DataError
from wamdata.readers.arrays.files import arrays_in, told
from wamdata.readers.arrays.rows import Table
from wamdata.readers.base import EpisodeRef
from wamdata.readers.hdf5.pictures import Look
from wamdata.readers.naming import natural
from wamdata.readers.pixels import rgb_rows
from wamdata.readers.row_video import row_video
from wamdata.readers.tree import first_names
from wamdata.readers.video.picture_folders import Sequence, find_sequences, pictures_of
from wamdata.source import Source


def read_cameras(ref: EpisodeRef, table: Table) -> tuple[dict[str, Footage], list[Finding]]:
    """Every camera; frame i shows row i where there are rows."""
    videos: dict[str, Footage] = {}
    findings: list[Finding] = []
    t_ns = table.t_ns if table.streams else None
    for name in ref.place["films"]:
        camera = _camera(ref, name.rsplit(".", 1)[0])
        video, noticed = row_video(ref.source, name, camera, ref.key, t_ns)
        findings += noticed
        videos |= {camera: video} if video else {}
    sequences = find_sequences(tuple(ref.place["pictures"]))
    for sequence in sorted(sequences, key=lambda s: natural(s.folder)):
        camera = _camera(ref, sequence.folder) or "pictures"
        try:
            videos[camera] = _at_rows(pictures_of(ref.source, sequence), sequence, t_ns)
        except DataError as error:
            findings.append(Finding("corrupt_pictures", "warning", ref.key, f"{camera}: {error}"))
            continue
        findings += _count(camera, len(sequence.names), t_ns, ref.key)
    if loose := sorted(set(ref.place["pictures"]) - {n for s in sequences for n in s.names}):
        message = f"{len(loose)} pictures of no numbered sequence, left alone: {first_names(loose)}"
        findings.append(Finding("stray_file", "info", ref.key, message))
    for name, (look, frames) in table.looks.items():
        at_ns = table.t_ns[:frames]
        load = functools.partial(_load, ref.source, *table.files[name], look)
        videos[name] = Pictures(at_ns.copy(), look.codec, look.width, look.height, load)
        findings += _count(name, frames, table.t_ns, ref.key)
    return videos, findings


def _camera(ref: EpisodeRef, name: str) -> str:
    """A camera's name: its path below the episode's folder."""
    return name.removeprefix(ref.place["path"]).strip("/")


def _at_rows(pictures: Pictures, sequence: Sequence, t_ns: Int64 | None) -> Pictures:
    """Pictures at the times of the rows that their numbers count; at their own where there are no rows."""
    if t_ns is None:
        return pictures
    numbers = np.array(sequence.numbers, np.int64)
    steps = np.diff(numbers)
    at = np.arange(len(numbers)) if sequence.is_timed else np.rint((numbers - numbers[0]) / np.median(steps))
    inside = int((at < len(t_ns)).sum())
    return replace(pictures, t_ns=t_ns[at[:inside].astype(np.int64)])


def _count(camera: str, frames: int, t_ns: Int64 | None, key: str) -> list[Finding]:
    if t_ns is None or frames == len(t_ns):
        return []
    message = f"{camera}: {frames} frames for {len(t_ns)} rows: matched from the first on"
    return [Finding("frame_count", "warning", key, message)]


def _load(source: Source, name: str, member: str, look: Look, first: int, stop: int) -> list[Coded]:
    """Pictures [first, stop) of an array."""
    where = source.where(name)
    with told(where):
        return rgb_rows(arrays_in(source.path(name), where)[member][first:stop], look)
