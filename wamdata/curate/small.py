"""Every frame of a camera once, small, in order: what all detectors share.

Holds one frame at a time of a video, and up to MOST of pictures that a log keeps one by one.
"""

from collections.abc import Iterator

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from schemas.episode import Footage, Int64, Pictures, Video
from schemas.errors import DataError, first_line
from wamdata.footage import frames
from wamdata.video import BROKEN_FILE, as_rgb, open_video, probe, to_ns, to_ticks

LONG_SIDE = 320  # pixels
FEWEST, MOST = 64, 256  # pictures loaded at once: whole groups of a codec where they are not longer


def shown_size(footage: Footage) -> tuple[int, int]:
    """(width, height) as a viewer sees it."""
    size = (footage.width, footage.height)
    return size[::-1] if footage.rotation % 180 else size


def small_size(footage: Footage) -> tuple[int, int]:
    """(height, width) of its small frames: never larger than the camera's own."""
    width, height = shown_size(footage)
    scale = min(1.0, LONG_SIDE / max(width, height))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def small_frames(footage: Footage) -> Iterator[NDArray[np.uint8]]:
    """Each frame as (height, width, 3) uint8 RGB of `small_size`, turned as it is to be shown.

    Raises:
        DataError: a frame cannot be decoded; names it.
    """
    return _of_pictures(footage) if isinstance(footage, Pictures) else _of_video(footage)


def _of_video(video: Video) -> Iterator[NDArray[np.uint8]]:
    info = probe(video.path)
    wanted = info.pts_ns[video.first_frame : video.first_frame + len(video.t_ns)]
    with open_video(video.path) as (container, stream):
        stream.thread_type = "AUTO"
        keys = np.flatnonzero(info.is_key[: video.first_frame + 1])
        if video.first_frame and len(keys):
            container.seek(to_ticks(info.pts_ns[keys[-1]], stream.time_base), stream=stream)
        try:
            shown = _only(container.decode(stream), wanted, str(video.path))
            yield from as_rgb(shown, small_size(video), video.rotation)
        except av.FFmpegError as error:
            raise DataError(f"{video.path}: cannot be decoded ({first_line(error)}). {BROKEN_FILE}") from None


def _only(decoded: Iterator[VideoFrame], wanted: Int64, where: str) -> Iterator[VideoFrame]:
    """The frames at the times `wanted`, which are in order."""
    at = 0
    for frame in decoded:
        now = to_ns(frame.pts, frame.time_base)
        if now < wanted[at]:
            continue
        if now > wanted[at] or frame.is_corrupt:
            break
        yield frame
        at += 1
        if at == len(wanted):
            return
    raise DataError(f"{where}: frame {at} of {len(wanted)} cannot be decoded whole. {BROKEN_FILE}")


def _of_pictures(pictures: Pictures) -> Iterator[NDArray[np.uint8]]:
    for first, stop in _batches(pictures):
        yield from frames(pictures, range(first, stop), size=small_size(pictures), rotate=pictures.rotation)


def _batches(pictures: Pictures) -> Iterator[tuple[int, int]]:
    count = len(pictures.t_ns)
    keys = np.arange(count) if pictures.is_key is None else np.flatnonzero(pictures.is_key)
    first = 0
    while first < count:
        next_key = np.searchsorted(keys, first + FEWEST)
        stop = min(int(keys[next_key]) if next_key < len(keys) else count, first + MOST)
        yield first, stop
        first = stop
