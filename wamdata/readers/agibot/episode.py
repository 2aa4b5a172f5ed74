"""One AgiBot World recording: rows, cameras and what is done at which frames; either half may lack."""

from typing import Any

import numpy as np

from schemas.episode import Episode, Finding, Footage, Int64, Text
from schemas.errors import DataError
from wamdata.readers.agibot.rows import rows_of
from wamdata.readers.base import EpisodeRef, content_sha256, no_instruction
from wamdata.readers.hdf5.file import opened, told
from wamdata.readers.hdf5.rows import Rows
from wamdata.readers.row_video import row_video
from wamdata.readers.tree import sha256_of_file


def read_episode(ref: EpisodeRef, *, reader: str) -> Episode:
    """The episode that `ref` names.

    Raises:
        DataError: as `agibot.read`.
    """
    rows, findings = _rows(ref)
    videos: dict[str, Footage] = {}
    for camera, name in ref.place["films"].items():
        video, noticed = row_video(ref.source, name, camera, ref.key, rows.t_ns if rows.streams else None)
        findings += noticed
        videos |= {camera: video} if video else {}
    if not rows.streams and not videos:
        raise DataError(f"{ref.source}: {ref.key}: neither rows nor a camera can be read. Copy the recording again.")
    if not ref.place["films"]:
        message = "no videos: download its part of `observations` and unpack it beside `proprio_stats`"
        findings.append(Finding("missing_video", "warning", ref.key, message))
    t_ns = rows.t_ns if rows.streams else max((v.t_ns for v in videos.values()), key=len)
    texts = _texts(ref.place, t_ns)
    if not texts:
        findings.append(no_instruction(ref.key, "`task_info` does not name it"))
    films = (ref.place["films"][camera] for camera in videos)
    parts = () if rows.streams else tuple(sha256_of_file(ref.source.path(name)).encode() for name in films)
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams=rows.streams,
        videos=videos,
        texts=texts,
        session=ref.place["session"],
        reader=reader,
        source_sha256=content_sha256(rows.streams, texts, *parts),
        rows=(0, len(t_ns)),
        licence=ref.place["licence"],
        findings=tuple(findings),
        counted_hz=rows.counted_hz,
    )


def _rows(ref: EpisodeRef) -> tuple[Rows, list[Finding]]:
    """The rows; none where the file is not there, which is told."""
    name: str = ref.place["rows"]
    where = ref.source.where(name)
    if name and not ref.source.has(name):
        raise DataError(f"{where}: missing. List the source again.")
    if name:
        with opened(ref.source.path(name), where) as file, told(where):
            rows = rows_of(file, name, ref.key, where)
        return rows, list(rows.findings)
    message = "no `proprio_stats.h5`, so it is film: download its part of `proprio_stats` for states and actions"
    return Rows(np.zeros(0, np.int64), {}, 0.0, ()), [Finding("missing_rows", "warning", ref.key, message)]


def _texts(place: dict[str, Any], t_ns: Int64) -> tuple[Text, ...]:
    """The task, and each step at its frames: frame i is row i."""
    stop_ns = int(t_ns[-1]) + (int(t_ns[-1] - t_ns[-2]) if len(t_ns) > 1 else 1)
    ends = [*t_ns.tolist(), stop_ns]
    texts = [Text(place["task"], int(t_ns[0]), stop_ns, origin="task_name")] if place["task"] else []
    for first, stop, words in place["steps"]:
        begin, end = max(first, 0), min(stop, len(t_ns))
        if words and begin < end:
            texts.append(Text(words, int(ends[begin]), int(ends[end]), "subtask", "action_text"))
    return tuple(texts)
