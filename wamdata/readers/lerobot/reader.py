"""LeRobot v2.0, v2.1 and v3.0, read in place: metadata and rows with pyarrow, videos as handles.

Nothing is converted and nothing is written into the source. Row times are the log's own `timestamp`; a frame's time
is its container's time stamp, in v3 less the episode's start in the shared file, so that both are on one clock.
Pictures inside parquet files stay what they are.
"""

import dataclasses
from pathlib import PurePosixPath

import numpy as np

from schemas.episode import Episode, Finding, Text
from wamdata.readers.base import EpisodeRef, Listing, content_sha256
from wamdata.readers.lerobot.language import read_language
from wamdata.readers.lerobot.meta import EpisodeMeta, Info, VideoPlace, layout, load_episodes, load_info, load_tasks
from wamdata.readers.lerobot.mixes import where_they_lie
from wamdata.readers.lerobot.pictures import read_pictures
from wamdata.readers.lerobot.rows import Rows, read_rows
from wamdata.readers.lerobot.video import read_cameras
from wamdata.readers.tree import LFS_ADVICE, find_licence, first_names, is_description, lfs_pointers, stray_findings
from wamdata.source import Source

NAME = "lerobot"
VERSION = 1


def detect(source: Source) -> bool:
    """Whether `source` is a folder with the meta/info.json of a LeRobot set.

    Raises:
        DataError: there is a meta/info.json, but it cannot be read.
    """
    return source.has("meta/info.json") and bool(load_info(source).features)


def list_episodes(source: Source) -> Listing:
    """Every episode that the metadata names, from metadata alone; no parquet of rows and no video is opened.

    Raises:
        DataError: the metadata is missing, broken, or a Git-LFS pointer.
    """
    info = load_info(source)
    episodes, renamed = _as_named(source, load_episodes(source, info))
    episodes, moved = where_they_lie(source, info, episodes)
    licence = find_licence(source)
    refs = tuple(EpisodeRef(source, f"episode_{e.index:06d}", e.length, _place(e, licence)) for e in episodes)
    findings = [*renamed, *moved, *_meta_findings(source, info, episodes), *_file_findings(source, episodes)]
    hints = {
        "robot_type": info.robot_type,
        "fps": f"{info.fps:g}",
        "licence": licence,
        "version": info.version,
    }
    return Listing(NAME, refs, tuple(findings), hints)


def read(ref: EpisodeRef) -> Episode:
    """One episode as logged.

    Raises:
        DataError: its rows are missing, a Git-LFS pointer, unreadable, or out of order in time.
    """
    info = load_info(ref.source)
    index = ref.place["index"] if ref.place["is_shared"] else None
    rows = read_rows(ref.source.path(ref.place["data"]), ref.key, info.features, info.fps, index=index)
    texts, text_findings = _texts(ref, rows)
    places = {camera: VideoPlace(**place) for camera, place in ref.place["videos"].items()}
    cameras = read_cameras(ref.source, ref.key, info, places, rows.t_ns)
    pictures, unseen = read_pictures(ref.source, ref.key, ref.place["data"], rows)
    findings = [*rows.findings, *_row_findings(ref, rows), *text_findings, *cameras.findings, *unseen]
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams=rows.streams,
        videos=cameras.videos | pictures,
        texts=texts,
        session=ref.key,
        reader=f"{NAME}@{VERSION}",
        source_sha256=content_sha256(rows.streams, texts),
        rows=(0, len(rows.t_ns)),
        licence=ref.place["licence"],
        findings=tuple(findings),
    )


def _place(episode: EpisodeMeta, licence: str) -> dict[str, object]:
    return {
        "index": episode.index,
        "data": episode.data,
        "is_shared": episode.is_shared,
        "tasks": episode.tasks,
        "licence": licence,
        "videos": {camera: dataclasses.asdict(place) for camera, place in episode.videos.items()},
    }


def _as_named(source: Source, episodes: list[EpisodeMeta]) -> tuple[list[EpisodeMeta], list[Finding]]:
    """The episodes with `video/` for `videos/` where that is the folder the source has."""
    named = {place.path.split("/")[0] for e in episodes for place in e.videos.values()}
    if named != {"videos"} or source.has_folder("videos") or not source.has_folder("video"):
        return episodes, []
    moved = [
        dataclasses.replace(
            e,
            videos={
                camera: dataclasses.replace(place, path="video/" + place.path.removeprefix("videos/"))
                for camera, place in e.videos.items()
            },
        )
        for e in episodes
    ]
    message = "info.json says `videos/`, the folder is `video/`: taken from there"
    return moved, [Finding("folder_name", "warning", str(source), message)]


def _meta_findings(source: Source, info: Info, episodes: list[EpisodeMeta]) -> list[Finding]:
    """Where the metadata contradicts itself."""
    where, found = source.where("meta/info.json"), []
    for what, declared, listed in (
        ("total_episodes", info.total_episodes, len(episodes)),
        ("total_frames", info.total_frames, sum(e.length for e in episodes)),
    ):
        if declared is not None and declared != listed:
            message = f"{what} is {declared}, the list of episodes gives {listed}; the list is taken"
            found.append(Finding("count_mismatch", "warning", where, message))
    if not info.version.lstrip("v").startswith(layout(source)[1:]):
        message = f"codebase_version is {info.version}, the files lie as in {layout(source)}; the files are taken"
        found.append(Finding("version_mismatch", "warning", where, message))
    return found


def _file_findings(source: Source, episodes: list[EpisodeMeta]) -> list[Finding]:
    """Data files that are missing or were never fetched, and files that belong to no episode."""
    data = {e.data for e in episodes}
    present = source.files()
    names = set(present)
    missing = [e.data for e in episodes if e.data not in names]
    pointers = lfs_pointers(source, sorted(data & names))
    found = []
    if missing:
        message = f"{len(missing)} of {len(episodes)} episodes have no rows: {first_names(missing)}. Copy them again"
        found.append(Finding("missing_data", "warning", str(source), message))
    if pointers:
        message = (
            f"{len(pointers)} of {len(data)} data files are Git-LFS pointers: {first_names(pointers)}. {LFS_ADVICE}"
        )
        found.append(Finding("lfs_pointer", "warning", str(source), message))
    known = data | {place.path for e in episodes for place in e.videos.values()}
    strays = [(_stray_kind(name), name) for name in present if name not in known and not _is_known(name)]
    return found + stray_findings(strays, str(source))


def _is_known(name: str) -> bool:
    """Whether a file has its place in the layout without belonging to an episode."""
    path = PurePosixPath(name)
    in_meta = path.parts[0] == "meta" and path.suffix in (".json", ".jsonl", ".parquet") and path.name[0] != "."
    return in_meta or (len(path.parts) == 1 and is_description(name))


def _stray_kind(name: str) -> str:
    match PurePosixPath(name).suffix.lower():
        case ".parquet":
            return "parquet file of no episode"
        case ".mp4":
            return "video of no episode"
        case _:
            return "file of no episode"


def _row_findings(ref: EpisodeRef, rows: Rows) -> list[Finding]:
    found = []
    if len(rows.t_ns) != ref.rows:
        message = (
            f"{ref.place['data']}: {len(rows.t_ns)} rows, the list of episodes says {ref.rows}; the rows are taken"
        )
        found.append(Finding("count_mismatch", "warning", ref.key, message))
    return found


def _texts(ref: EpisodeRef, rows: Rows) -> tuple[tuple[Text, ...], list[Finding]]:
    """Instructions with the spans they hold for: per row, else the first one in the list of episodes.

    Those of the language columns (v3.1) come on top; where they hold tasks, they stand for all.
    """
    said, left = read_language(ref.source.path(ref.place["data"]), ref.key, rows)
    if any(text.level == "task" for text in said):
        return tuple(said), left
    tasks = load_tasks(ref.source)
    indices = rows.task_index
    if indices is not None and tasks and set(np.unique(indices).tolist()) <= tasks.keys():
        starts = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist()]
        spans = [(row, tasks[int(indices[row])]) for row in starts]
        origin = "task_index"
    else:
        spans = [(0, task) for task in ref.place["tasks"][:1]]
        origin = "meta/episodes"
    t_ns = rows.t_ns
    step = int(np.median(np.diff(t_ns))) if len(t_ns) > 1 else 1
    ends = [*(int(t_ns[row]) for row, _ in spans[1:]), int(t_ns[-1]) + step]
    texts = tuple(
        Text(text=str(text).strip(), start_ns=int(t_ns[row]), stop_ns=end, origin=origin)
        for (row, text), end in zip(spans, ends, strict=False)
        if text is not None and str(text).strip()
    )
    if len(texts) == len(spans) and texts:
        return (*texts, *said), left
    message = f"{len(spans) - len(texts)} of {len(spans)} instructions are blank" if spans else "no instruction"
    blank = Finding("blank_text", "warning", ref.key, f"{message}. Give one with `task:` in the recipe")
    return (*texts, *said), [*left, blank]
