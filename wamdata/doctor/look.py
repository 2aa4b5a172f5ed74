"""One cheap look at a camera: a picture about every second, small, and packets that are too short to show anything new.

Of a video, key frames are decoded, which stand alone; never less than two pictures of an episode, so that a single
far-away key frame costs its whole group once. Of pictures that a log keeps one by one, any can be had.
"""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from schemas.episode import Footage, Int64, Pictures
from wamdata.footage import frames
from wamdata.video import VideoInfo, open_video, probe_once, read_frames, to_ns, to_ticks

APART_S = 1.0  # between two pictures
HEIGHT, WIDTH = 72, 96
TINY = 0.1  # of a camera's middle packet: a frame that repeats the one before it is shorter
RUN_S = 0.5  # shortest run of such packets that is worth a second look


@dataclass(frozen=True)
class Look:
    """What was seen of one camera of an episode.

    Args:
        at: (K,) frames that were decoded, by their place in the episode.
        t_ns: (K,) their times.
        pictures: (K, HEIGHT, WIDTH, 3) uint8 RGB.
        quiet: spans [first, stop) of frames whose packets hold next to nothing.
    """

    at: Int64
    t_ns: Int64
    pictures: NDArray[np.uint8]
    quiet: tuple[tuple[int, int], ...]


def look_at(footage: Footage) -> Look:
    """A look at a camera.

    Raises:
        DataError: one of the frames cannot be decoded.
    """
    wanted = _every_second(footage.t_ns)
    quiet: tuple[tuple[int, int], ...] = ()
    if isinstance(footage, Pictures):
        if footage.is_key is not None:
            wanted = _on_keys(wanted, np.flatnonzero(footage.is_key))
        pictures = frames(footage, wanted, size=(HEIGHT, WIDTH))
    else:
        info = probe_once(footage.path)
        first, stop = footage.first_frame, footage.first_frame + len(footage.t_ns)
        wanted = _on_keys(wanted, np.flatnonzero(info.is_key[first:stop]))
        quiet = _quiet_spans(info.sizes[first:stop], info.is_key[first:stop], footage.t_ns)
        pictures = _pictures(footage.path, info, first + wanted)
    return Look(wanted, footage.t_ns[wanted], pictures, quiet)


def full(footage: Footage, indices: list[int]) -> NDArray[np.uint8]:
    """Frames at full size, for a second look."""
    if isinstance(footage, Pictures):
        return frames(footage, indices)
    return read_frames(footage.path, footage.first_frame + np.array(indices), info=probe_once(footage.path))


def _pictures(path: Path, info: VideoInfo, wanted: Int64) -> NDArray[np.uint8]:
    """(K, HEIGHT, WIDTH, 3) of frames at `wanted` places of a file.

    Key frames stand alone, so a decoder that waits for no others gives them in half the time; the colours are nearly
    right, which is enough to look at. What it does not give exactly is read the usual way.
    """
    quick = _key_pictures(path, info, wanted) if info.is_key[wanted].all() else None
    return quick if quick is not None else read_frames(path, wanted, size=(HEIGHT, WIDTH), info=info)


def _key_pictures(path: Path, info: VideoInfo, wanted: Int64) -> NDArray[np.uint8] | None:
    found = []
    try:
        with open_video(path) as (container, stream):
            stream.codec_context.thread_count = 1
            stream.codec_context.flags |= Flags.low_delay
            for t_ns in info.pts_ns[wanted]:
                container.seek(to_ticks(t_ns, stream.time_base), stream=stream)
                frame = next(container.decode(stream), None)
                if frame is None or frame.is_corrupt or to_ns(frame.pts, frame.time_base) != t_ns:
                    return None
                small = frame.reformat(width=WIDTH, height=HEIGHT, format="rgb24", interpolation="AREA")
                found.append(small.to_ndarray())
    except av.FFmpegError:
        return None
    return np.stack(found)


def _every_second(t_ns: Int64) -> Int64:
    """Frames about APART_S apart, the first and the last among them."""
    count = max(round((int(t_ns[-1]) - int(t_ns[0])) / 1e9 / APART_S), 1) + 1
    return np.unique(np.linspace(0, len(t_ns) - 1, min(count, len(t_ns))).round().astype(np.int64))


def _on_keys(wanted: Int64, keys: Int64) -> Int64:
    """Each wanted frame moved to the key frame at or before it; where there are none, first and last stay."""
    if not len(keys):
        return wanted[[0, -1]] if len(wanted) > 1 else wanted
    moved = keys[(np.searchsorted(keys, wanted, side="right") - 1).clip(0)]
    found = np.unique(moved)
    return found if len(found) > 1 or len(wanted) == 1 else np.unique([found[0], wanted[-1]])


def _quiet_spans(sizes: Int64, is_key: NDArray[np.bool_], t_ns: Int64) -> tuple[tuple[int, int], ...]:
    """Runs of packets, key frames among them passed over, that are tiny beside the camera's middle one."""
    leaning = sizes[~is_key]
    if not len(leaning):
        return ()
    tiny = is_key | (sizes < TINY * np.median(leaning))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], tiny, [False]]).astype(np.int8)))
    spans = []
    for first, stop in edges.reshape(-1, 2):
        long_enough = int(t_ns[stop - 1]) - int(t_ns[first]) >= RUN_S * 1e9
        if long_enough and not is_key[first:stop].all():
            spans.append((int(first), int(stop)))
    return tuple(spans)
