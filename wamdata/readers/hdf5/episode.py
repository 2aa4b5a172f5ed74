"""One episode of an HDF5 file: its rows, cameras and instruction, and what the file says of how it ended."""

import math
from pathlib import Path
from typing import Any, Literal

from schemas.episode import Episode, Finding, Footage, Int64, Text
from schemas.errors import DataError
from schemas.hdf5_layout import CameraPlace, Hdf5Layout
from wamdata.readers.base import EpisodeRef, content_sha256, no_instruction
from wamdata.readers.hdf5.file import datasets, find, first_of, is_whole, look_up
from wamdata.readers.hdf5.layout import is_glob, matches, natural
from wamdata.readers.hdf5.pictures import Look, look_at, pictures
from wamdata.readers.hdf5.rows import MAX_ROWS, Rows, is_stream, read_rows, times_of, unwritten
from wamdata.readers.tree import first_names, sha256_of_file

OUTCOMES: dict[str, Literal["success", "failure"]] = {
    "success": "success", "true": "success", "failure": "failure", "false": "failure",
}  # fmt: skip


def read_episode(ref: EpisodeRef, layout: Hdf5Layout, path: Path, file: Any, *, reader: str) -> Episode:
    """The episode that `ref` names, of an open file.

    Raises:
        DataError: as `hdf5.read`.
    """
    name = ref.place["path"]
    where = f"{ref.source.where(name)}: {ref.key}"
    group = find(file, f"/{ref.place['group']}", where)
    if not hasattr(group, "keys"):
        raise DataError(f"{where}: no group {ref.place['group']!r} in the file. List the source again.")
    found = {p: d for p, d in datasets(group, where).items() if not matches(p, layout.leave_out)}
    looks, unread = _looks(found, layout, where)
    rest = {p: d for p, d in found.items() if p not in looks and p not in unread}
    numbers = {p: d for p, d in rest.items() if is_stream(d)}
    unread |= {p: "neither rows nor pictures" for p, d in rest.items() if p not in numbers and _is_array(d)}
    wanted = {p: d for p, d in numbers.items() if matches(p, layout.streams) or p == layout.main}
    cut = [p for p in looks if not is_whole(found[p])]
    looks = {p: look for p, look in looks.items() if p not in cut}
    lengths = [len(found[p]) for p in looks]
    rows = read_rows(group, wanted, lengths, layout, name=name, key=ref.key, where=where)
    videos, video_findings = _videos(ref, path, found, looks, layout, rows.t_ns)
    texts = _texts(group, layout, name, rows.t_ns, where)
    blank = no_instruction(ref.key)
    findings = [*rows.findings, *video_findings, *([unwritten(cut, ref.key)] if cut else [])]
    findings += [*_unread_findings(unread, ref.key), *([] if texts else [blank])]
    parts = () if rows.streams else (f"{sha256_of_file(path)} {ref.place['group']}".encode(),)
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams=rows.streams,
        videos=videos,
        texts=texts,
        session=_session(group, ref, layout, name, where),
        reader=reader,
        source_sha256=content_sha256(rows.streams, texts, *parts),
        rows=(0, len(rows.t_ns)),
        outcome=_outcome(group, layout, name, rows, where),
        licence=ref.place["licence"],
        findings=tuple(findings),
        counted_hz=rows.counted_hz,
    )


def _looks(found: dict[str, Any], layout: Hdf5Layout, where: str) -> tuple[dict[str, Look], dict[str, str]]:
    """The cameras, and datasets of pictures that cannot be used, with the reason."""
    looks: dict[str, Look] = {}
    unread: dict[str, str] = {}
    for path, dataset in found.items():
        camera = _camera(path, layout)
        look = look_at(dataset, path, camera or CameraPlace(source=path), f"{where}: {path}") if dataset.shape else None
        if isinstance(look, Look) and camera:
            looks[path] = look
        elif isinstance(look, str):
            unread[path] = look
        elif look is None and camera and not is_glob(camera.source):
            unread[path] = f"{dataset.dtype} {dataset.shape} does not look like pictures"
    return looks, unread


def _camera(path: str, layout: Hdf5Layout) -> CameraPlace | None:
    return next((c for c in layout.cameras if matches(path, (c.source,))), None)


def _videos(
    ref: EpisodeRef, path: Path, found: dict[str, Any], looks: dict[str, Look], layout: Hdf5Layout, t_ns: Int64
) -> tuple[dict[str, Footage], list[Finding]]:
    """The cameras' pictures at the times of the rows, or at their own."""
    name = ref.place["path"]
    videos: dict[str, Footage] = {}
    findings = []
    for camera, look in looks.items():
        frames, place = len(found[camera]), _camera(camera, layout)
        where = f"{ref.source.where(name)}: {ref.key}: {camera}"
        if place and place.times:
            stamps = find(found[camera].file, f"/{ref.place['group']}/{place.times}", where)
            at_ns = times_of(stamps, min(frames, MAX_ROWS), place.unit, where)
        else:
            at_ns = t_ns[:frames].copy()
            if frames != len(t_ns):
                message = f"{camera}: {frames} frames for {len(t_ns)} rows: matched from the first on"
                findings.append(Finding("frame_count", "warning", ref.key, message))
        videos[camera] = pictures(path, found[camera].name, look, at_ns, ref.source.where(name))
    return videos, findings


def _is_array(dataset: Any) -> bool:
    return dataset.dtype.kind in "biufc" and bool(dataset.shape)


def _unread_findings(unread: dict[str, str], key: str) -> list[Finding]:
    reasons: dict[str, list[str]] = {}
    for path, reason in unread.items():
        reasons.setdefault(reason, []).append(path)
    return [
        Finding("unread_pictures", "info", key, f"{first_names(paths)}: {reason}, left out")
        for reason, paths in reasons.items()
    ]


def _texts(group: Any, layout: Hdf5Layout, name: str, t_ns: Int64, where: str) -> tuple[Text, ...]:
    """The instruction, from the first place that has one."""
    for place in layout.texts:
        said = look_up(group, place, name, where)
        lines = [_words(s, is_name=place.file is not None) for s in (said if isinstance(said, list) else [said])]
        if any(lines):
            return _spans(lines, t_ns, "file name" if place.file else str(place.source))
    return ()


def _spans(lines: list[str], t_ns: Int64, origin: str) -> tuple[Text, ...]:
    """One instruction per row holds for as long as it stays the same; of any other number the first counts."""
    lines = lines if len(lines) == len(t_ns) else [line for line in lines if line][:1]
    step = int(t_ns[-1] - t_ns[-2]) if len(t_ns) > 1 else 1
    starts = [row for row, line in enumerate(lines) if row == 0 or line != lines[row - 1]]
    ends = [*(int(t_ns[row]) for row in starts[1:]), int(t_ns[-1]) + step]
    spans = [(lines[row], int(t_ns[row]), end) for row, end in zip(starts, ends, strict=True)]
    return tuple(Text(line, start, end, origin=origin) for line, start, end in spans if line)


def _words(said: Any, *, is_name: bool) -> str:
    """An instruction in plain words; of a file's name, underscores are spaces."""
    return " ".join((said.replace("_", " ") if is_name else said).split()) if isinstance(said, str) else ""


def _session(group: Any, ref: EpisodeRef, layout: Hdf5Layout, name: str, where: str) -> str:
    """The episode itself, or what the file says that it shares with others; below its file if that holds many."""
    said = first_of(group, layout.session, name, where)
    said = said if isinstance(said, list) or said is None else [said]
    if not said:
        return ref.key
    shared = "-".join(sorted({str(s) for s in said}, key=natural))
    return shared if layout.episodes == "/" else f"{ref.place['file_key']}/{shared}"


def _outcome(
    group: Any, layout: Hdf5Layout, name: str, rows: Rows, where: str
) -> Literal["success", "failure", "unknown"]:
    """What the file says; a reward of 1 at the end is a success, and none says nothing."""
    said = first_of(group, layout.success, name, where)
    said = said[-1] if isinstance(said, list) and said else said
    if isinstance(said, str) and said.lower() in OUTCOMES:
        return OUTCOMES[said.lower()]
    if isinstance(said, int | float) and math.isfinite(said):
        return "success" if said >= 1 else "failure"
    reward = rows.streams.get(layout.reward or "")
    return "success" if reward is not None and reward.values[-1, 0] >= 1 else "unknown"
