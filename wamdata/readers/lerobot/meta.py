"""The metadata of a LeRobot set, v2.0, v2.1 and v3.0, in one shape.

Which layout a set has is told by its files, not by `codebase_version`: v2 lists its episodes in
`meta/episodes.jsonl`, one parquet and one mp4 per camera each; v3 in `meta/episodes/**/*.parquet`, where many
episodes share a file and each camera has its own file and start time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DataError, first_line
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer
from wamdata.source import Source

V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclass(frozen=True)
class Info:
    """`meta/info.json`, checked."""

    version: str
    robot_type: str
    fps: float
    features: dict[str, dict[str, Any]]
    data_path: str | None
    video_path: str | None
    chunks_size: int
    total_episodes: int | None
    total_frames: int | None

    @property
    def cameras(self) -> list[str]:
        return [name for name, f in self.features.items() if f.get("dtype") == "video"]


@dataclass(frozen=True)
class VideoPlace:
    """Where one camera's frames of an episode lie.

    Args:
        from_s, to_s: the episode's span in the file as declared; None in v2, where the file is the episode's own.
        next_s: where the next episode in the same file starts; None for the last.
    """

    path: str
    from_s: float | None = None
    to_s: float | None = None
    next_s: float | None = None


@dataclass(frozen=True)
class EpisodeMeta:
    """One line of the episode list.

    Args:
        is_shared: whether its file of rows holds those of other episodes too.
    """

    index: int
    length: int
    tasks: list[str]
    data: str
    videos: dict[str, VideoPlace] = field(default_factory=dict)
    is_shared: bool = False


def load_info(source: Source) -> Info:
    """`meta/info.json`.

    Raises:
        DataError: it is missing, a Git-LFS pointer, not JSON, or lacks `fps` or `features`.
    """
    path = source.path("meta/info.json")
    content = _json(path, _text(path))
    if not isinstance(content, dict) or not isinstance(content.get("features"), dict):
        raise DataError(f"{path}: no `features`. This is not the info.json of a LeRobot set.")
    fps = content.get("fps")
    if not isinstance(fps, int | float) or not fps > 0:
        raise DataError(f"{path}: fps is {fps!r}, wanted frames per second. Write the recording's rate there.")
    return Info(
        version=str(content.get("codebase_version", "unknown")),
        robot_type=str(content.get("robot_type") or "unknown"),
        fps=float(fps),
        features={name: f for name, f in content["features"].items() if isinstance(f, dict)},
        data_path=content.get("data_path"),
        video_path=content.get("video_path"),
        chunks_size=int(content.get("chunks_size") or 1000),
        total_episodes=content.get("total_episodes"),
        total_frames=content.get("total_frames"),
    )


def layout(source: Source) -> str:
    """`v2` or `v3`, from the files.

    Raises:
        DataError: there is no list of episodes.
    """
    if source.has("meta/episodes.jsonl"):
        return "v2"
    if source.has_folder("meta/episodes"):
        return "v3"
    raise DataError(f"{source}: neither meta/episodes.jsonl (v2) nor meta/episodes/ (v3). Copy the meta folder again.")


def load_episodes(source: Source, info: Info) -> list[EpisodeMeta]:
    """The list of episodes, in order of their index; no data file is opened.

    Raises:
        DataError: a metadata file is broken, a Git-LFS pointer, or names its files in an unknown way.
    """
    try:
        found = _episodes_v2(source, info) if layout(source) == "v2" else _episodes_v3(source, info)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{source}/meta: an episode lacks or garbles {error}. Copy the meta folder again.") from None
    return sorted(found, key=lambda episode: episode.index)


def load_tasks(source: Source) -> Mapping[int, str]:
    """Instruction per task index; empty when the set has no list of tasks. A file is read once per process."""
    for name in ("meta/tasks.parquet", "meta/tasks.jsonl"):
        if source.has(name):
            path = source.path(name)
            stat = path.stat()
            return _tasks_of(path, stat.st_size, stat.st_mtime_ns)
    return {}


@lru_cache(maxsize=8)
def _tasks_of(path: Path, size: int, mtime_ns: int) -> Mapping[int, str]:
    if path.suffix == ".jsonl":
        return {row["task_index"]: row["task"] for row in _json_lines(path) if {"task_index", "task"} <= row.keys()}
    rows = _rows(path)
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    # lerobot writes the text as the index of a pandas frame
    texts = columns.get("task") or columns.get("__index_level_0__") or []
    return dict(zip(columns.get("task_index", []), texts, strict=True))


def column_names(names: Any) -> list[str]:
    """Column names from whatever stands under `names` in info.json.

    Seen: a list, a list in a list, {"motors": [...]}, {"left": [...], "right": [...]}, {"x": 0, "y": 1}, null.
    Equal names below different keys get the key in front.
    """
    match names:
        case str():
            return [names]
        case dict() if names and all(isinstance(v, int) for v in names.values()):
            return sorted(names, key=names.__getitem__)
        case dict():
            groups = {str(key): column_names(value) for key, value in names.items()}
            flat = [name for group in groups.values() for name in group]
            if len(set(flat)) == len(flat):
                return flat
            return [f"{key}.{name}" for key, group in groups.items() for name in group]
        case list() | tuple():
            return [name for item in names for name in column_names(item)]
        case _:
            return []


def declared_size(feature: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of a video feature, whichever way round its shape stands; None when it does not say."""
    extra = feature.get("info") or feature.get("video_info") or {}
    if "video.height" in extra and "video.width" in extra:
        return int(extra["video.height"]), int(extra["video.width"])
    shape, names = feature.get("shape") or [], column_names(feature.get("names"))
    if len(shape) == len(names) and {"height", "width"} <= set(names):
        return int(shape[names.index("height")]), int(shape[names.index("width")])
    if len(shape) == 3:
        return (int(shape[1]), int(shape[2])) if shape[0] in (1, 3) else (int(shape[0]), int(shape[1]))
    return None


def _episodes_v2(source: Source, info: Info) -> list[EpisodeMeta]:
    found = []
    for row in _json_lines(source.path("meta/episodes.jsonl")):
        index = int(row["episode_index"])
        names = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        found.append(
            EpisodeMeta(
                index=index,
                length=int(row["length"]),
                tasks=_tasks(row.get("tasks")),
                data=_filled(info.data_path, V2_DATA, names),
                videos={
                    c: VideoPlace(_filled(info.video_path, V2_VIDEO, names | {"video_key": c})) for c in info.cameras
                },
            )
        )
    return found


def _episodes_v3(source: Source, info: Info) -> list[EpisodeMeta]:
    rows: list[dict[str, Any]] = []
    for name in source.files():
        if name.startswith("meta/episodes/") and name.endswith(".parquet"):
            rows += _rows(source.path(name), without="stats/")
    starts: dict[str, list[float]] = {}
    for row in rows:
        for camera in info.cameras:
            if row.get(f"videos/{camera}/from_timestamp") is not None:
                starts.setdefault(_video_v3(info, camera, row), []).append(row[f"videos/{camera}/from_timestamp"])
    found = []
    for row in rows:
        videos = {}
        for camera in info.cameras:
            from_s = row.get(f"videos/{camera}/from_timestamp")
            if from_s is not None:
                path = _video_v3(info, camera, row)
                next_s = min((s for s in starts[path] if s > from_s), default=None)
                videos[camera] = VideoPlace(path, from_s, row.get(f"videos/{camera}/to_timestamp"), next_s)
        data = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        found.append(
            EpisodeMeta(
                index=int(row["episode_index"]),
                length=int(row["length"]),
                tasks=_tasks(row.get("tasks")),
                data=_filled(info.data_path, V3_DATA, data),
                videos=videos,
                is_shared=True,
            )
        )
    return found


def _filled(template: str | None, default: str, names: dict[str, Any]) -> str:
    """A path; by the layout's own template where info.json gives that of another version."""
    try:
        return (template or default).format(**names)
    except KeyError:
        return default.format(**names)


def _tasks(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [task for task in value or [] if isinstance(task, str)]


def _video_v3(info: Info, camera: str, row: dict[str, Any]) -> str:
    place = {"chunk_index": row[f"videos/{camera}/chunk_index"], "file_index": row[f"videos/{camera}/file_index"]}
    return _filled(info.video_path, V3_VIDEO, place | {"video_key": camera})


def _rows(path: Path, *, without: str | None = None) -> list[dict[str, Any]]:
    """Rows of a small parquet file, without the columns that start with a prefix."""
    if is_lfs_pointer(path):
        raise DataError(f"{path}: a Git-LFS pointer, not the file itself. {LFS_ADVICE}")
    try:
        with pq.ParquetFile(path) as file:
            names = [n for n in file.schema_arrow.names if without is None or not n.startswith(without)]
            return file.read(columns=names).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as parquet ({first_line(error)}). Copy it again.") from None


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = [_json(path, line, number) for number, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: wanted one JSON object per line. Copy the meta folder again.")
    return rows


def _json(path: Path, text: str, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = error.lineno + first_line - 1
        raise DataError(f"{path}: not JSON (line {line}: {error.msg}). Mend it or copy it again.") from None


def _text(path: Path) -> str:
    try:
        if is_lfs_pointer(path):
            raise DataError(f"{path}: a Git-LFS pointer, not the file itself. {LFS_ADVICE}")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. Copy the meta folder again.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file. Copy the meta folder again.") from None
