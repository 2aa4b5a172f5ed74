"""The cameras of one LeRobot episode: which frames of which file, on the clock of the rows."""

from dataclasses import dataclass

import numpy as np

from schemas.episode import Finding, Int64, Video
from schemas.errors import DataError
from wamdata.readers.lerobot.meta import Info, VideoPlace, declared_size
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer
from wamdata.source import Source
from wamdata.video import VideoInfo, probe_once, refuse_damaged

SAME_RATE = 0.02  # a container's frame rate this close to the declared one is the same


@dataclass(frozen=True)
class Cameras:
    videos: dict[str, Video]
    findings: tuple[Finding, ...]


def read_cameras(source: Source, key: str, info: Info, places: dict[str, VideoPlace], t_ns: Int64) -> Cameras:
    """Every camera whose frames are there, and a finding for each one whose frames are not.

    Args:
        t_ns: (N,) times of the episode's rows.
    """
    videos: dict[str, Video] = {}
    findings: list[Finding] = []
    for camera in info.cameras:
        place = places.get(camera)
        if place is None:
            message = f"{camera}: the list of episodes names no file. Leave the camera out or drop the episode"
            findings.append(Finding("missing_video", "warning", key, message))
            continue
        video = _video(source, key, camera, place, info.fps, len(t_ns))
        if isinstance(video, Finding):
            findings.append(video)
            continue
        videos[camera] = video
        findings += _disagreements(video, key, camera, info, len(t_ns))
    return Cameras(videos, tuple(findings))


def _video(source: Source, key: str, camera: str, place: VideoPlace, fps: float, rows: int) -> Video | Finding:
    """The camera's frames, or why they cannot be had."""
    if not source.has(place.path):
        message = f"{camera}: {source.where(place.path)} is missing. Copy it, or drop the episode"
        return Finding("missing_video", "warning", key, message)
    path = source.path(place.path)
    if is_lfs_pointer(path):
        return Finding("lfs_pointer", "warning", key, f"{camera}: {path} is a Git-LFS pointer. {LFS_ADVICE}")
    try:
        info = probe_once(path)
    except DataError as error:
        return Finding("corrupt_video", "warning", key, f"{camera}: {error}")
    first, stop = _span(info, place, fps, rows)
    if first == stop:
        span = f"{place.from_s:.3f} s to {place.to_s or 0:.3f} s"
        message = f"{camera}: {path} holds no frames of {span}, it ends at {info.pts_ns[-1] / 1e9:.3f} s. Copy it again"
        return Finding("corrupt_video", "warning", key, message)
    try:
        refuse_damaged(info, first, stop, str(path))
    except DataError as error:
        return Finding("corrupt_video", "warning", key, f"{camera}: {error}")
    return Video(
        path=path,
        t_ns=info.pts_ns[first:stop] - round((place.from_s or 0.0) * 1e9),
        first_frame=first,
        codec=info.codec,
        width=info.width,
        height=info.height,
        rotation=info.rotation,
    )


def _span(info: VideoInfo, place: VideoPlace, fps: float, rows: int) -> tuple[int, int]:
    """Half-open span of the episode's frames, in presentation order.

    Declared ends are not trusted: some writers give the time of the last frame instead of its end. The span goes on
    for as long as the rows do, but never into the next episode. Bounds lie half a frame early, so that rounding in
    the declared times moves no frame across.
    """
    if place.from_s is None:
        return 0, info.num_frames
    stop_s = max(place.to_s or 0.0, place.from_s + rows / fps)
    if place.next_s is not None:
        stop_s = min(stop_s, place.next_s)
    bounds_ns = np.round((np.array([place.from_s, stop_s]) - 0.5 / fps) * 1e9)
    first, stop = np.searchsorted(info.pts_ns, bounds_ns)
    return int(first), int(stop)


def _disagreements(video: Video, key: str, camera: str, info: Info, rows: int) -> list[Finding]:
    """Where container, rows and info.json say different things; the container is taken at its word."""
    found = []
    frames = len(video.t_ns)
    if frames != rows:
        message = f"{camera}: {frames} frames for {rows} rows in {video.path}; frames are matched to rows by time"
        found.append(Finding("frame_count", "warning", key, message))
    fps = 1e9 / float(np.median(np.diff(video.t_ns))) if frames > 1 else info.fps
    if abs(fps / info.fps - 1) > SAME_RATE:
        message = f"{camera}: {video.path} runs at {fps:.3f} frames/s, info.json declares {info.fps:g}"
        found.append(Finding("fps_mismatch", "warning", key, message))
    declared = declared_size(info.features[camera])
    if declared and declared != (video.height, video.width):
        message = (
            f"{camera}: {video.path} is {video.width}x{video.height}, info.json declares {declared[1]}x{declared[0]}; "
            f"the file is taken at its word"
        )
        found.append(Finding("size_mismatch", "info", key, message))
    return found
