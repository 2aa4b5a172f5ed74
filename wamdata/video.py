"""Frames of a video file by their place in presentation order.

The one idea: demuxing is some 200 times cheaper than decoding, so the time stamps of all frames are read first, and
a frame is known by its time stamp from then on. Nothing is counted while decoding, no frame rate is rounded.

Limits: one video stream per file, the one that FFmpeg finds best (cover pictures are passed over). Frames without a
time stamp, or two frames with the same one, are refused. Codecs and containers come with PyAV; FFmpeg libraries of
the system are never used.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from schemas.episode import Int64, freeze
from schemas.errors import DataError
from wamdata.packets import framing_of

Source = Path | bytes

SEEK_AHEAD = 16  # decoding on through fewer frames than this is cheaper than a seek, which empties the decoder
DECORD_CODECS = ("h264", "hevc", "vp9")  # decord 0.6 bundles an FFmpeg without AV1; its MPEG-4 frames come out of order
CODEC_OF_DECODER = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
BROKEN_FILE = "Copy it again, or drop the episode."


@dataclass(frozen=True)
class VideoInfo:
    """What a container says of its video stream.

    Args:
        rotation: degrees clockwise that a viewer must apply.
        pts_ns: (N,) time of each frame, strictly increasing.
        is_key: (N,) bool, whether decoding can start at the frame.
        average_fps: frames per second over the whole file; 0 for a single frame.
        has_open_gops: whether frames stand behind a key frame in the file that are shown before it.
        sizes: (N,) bytes of each frame's packet.
        damaged: (N,) bool, frames whose packet is not whole, and those behind it up to the next key frame.
    """

    codec: str
    width: int
    height: int
    rotation: int
    pts_ns: Int64
    is_key: NDArray[np.bool_]
    time_base: Fraction
    average_fps: float
    has_open_gops: bool
    sizes: Int64
    damaged: NDArray[np.bool_]

    def __post_init__(self) -> None:
        freeze(self.pts_ns, self.is_key, self.sizes, self.damaged)

    @property
    def num_frames(self) -> int:
        return len(self.pts_ns)


def probe(source: Source) -> VideoInfo:
    """Codec, size and the time of every frame; decodes one frame, which is where FFmpeg leaves the rotation.

    Raises:
        DataError: not a video, no video stream, no frames, or packets cut off by the end of the file.
    """
    with open_video(source) as (container, stream):
        shown: list[tuple[int, bool, int, bool]] = []
        is_whole, damaged = framing_of(codec_name(stream), stream.codec_context.extradata), False
        packets, key_pts, has_open_gops = 0, 0, False
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                packets += 1
                if packet.is_corrupt or packet.pts is None:
                    what = "is cut off by the end of the file" if packet.is_corrupt else "has no time stamp"
                    raise DataError(f"{label(source)}: video packet {packets - 1} {what}. {BROKEN_FILE}")
                key_pts = packet.pts if packet.is_keyframe else key_pts
                has_open_gops |= packet.pts < key_pts
                damaged &= not packet.is_keyframe
                damaged |= is_whole is not None and not is_whole(memoryview(packet))
                if not packet.is_discard:
                    shown.append((packet.pts, packet.is_keyframe, packet.size, damaged))
        except av.FFmpegError as error:
            raise DataError(
                f"{label(source)}: cannot be read behind packet {packets} ({_why(error)}). {BROKEN_FILE}"
            ) from None
        if not shown:
            raise DataError(f"{label(source)}: the video holds no frames. {BROKEN_FILE}")
        if stream.frames > packets:
            raise DataError(
                f"{label(source)}: cut off: {packets} of {stream.frames} frames are in the file. {BROKEN_FILE}"
            )
        shown.sort()
        pts_ns = np.array([to_ns(pts, stream.time_base) for pts, *_ in shown], np.int64)
        if (np.diff(pts_ns) == 0).any():
            at_s = pts_ns[:-1][np.diff(pts_ns) == 0][0] / 1e9
            raise DataError(f"{label(source)}: two frames share the time {at_s:.3f} s. Mux the file anew.")
        span = (shown[-1][0] - shown[0][0]) * stream.time_base
        return VideoInfo(
            codec=codec_name(stream),
            width=stream.width,
            height=stream.height,
            rotation=_rotation(container, stream),
            pts_ns=pts_ns,
            is_key=np.array([key for _, key, _, _ in shown], np.bool_),
            time_base=stream.time_base,
            average_fps=float((len(shown) - 1) / span) if span else 0.0,
            has_open_gops=has_open_gops,
            sizes=np.array([size for _, _, size, _ in shown], np.int64),
            damaged=np.array([bad for _, _, _, bad in shown], np.bool_),
        )


def read_frames(
    source: Source,
    indices: Sequence[int] | Int64,
    *,
    size: tuple[int, int] | None = None,
    rotate: int = 0,
    backend: Literal["pyav", "decord"] = "pyav",
    info: VideoInfo | None = None,
) -> NDArray[np.uint8]:
    """Frames as RGB, in the order asked for.

    Args:
        indices: presentation indices; may be unsorted and may repeat.
        size: (height, width) of the result, after `rotate`; area-averaged when shrinking. None keeps the file's.
        rotate: degrees clockwise, a multiple of 90. The container's own rotation is not applied.
        backend: `decord` reads H.264, HEVC and VP9 with the same pixels; what it cannot read exactly goes to PyAV.
        info: what `probe` gave for this file, to save probing again.

    Returns:
        (n, height, width, 3) uint8.

    Raises:
        DataError: a frame is outside the file or cannot be decoded; names the frame.
    """
    assert rotate % 90 == 0, rotate
    info = info or probe(source)
    wanted, inverse = np.unique(np.asarray(indices, np.int64), return_inverse=True)
    if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < info.num_frames:
        outside = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise DataError(f"{label(source)}: no frame {outside}, the video has {info.num_frames}.")
    height, width = (info.width, info.height) if rotate % 180 else (info.height, info.width)
    shape = size or (height, width)
    if not len(wanted):
        return np.zeros((0, *shape, 3), np.uint8)
    frames = _decode_with_decord(source, info, wanted) if backend == "decord" else None
    pictures = np.stack(list(as_rgb(frames or _decode(source, info, wanted), shape, rotate)))
    return pictures if np.array_equal(inverse, np.arange(len(wanted))) else pictures[inverse]


def probe_once(path: Path) -> VideoInfo:
    """`probe`, once per file and process: episodes may share one. A changed file is probed again."""
    stat = path.stat()
    return _probe_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _probe_once(path: Path, size: int, mtime_ns: int) -> VideoInfo:
    return probe(path)


def probe_whole(path: Path) -> VideoInfo:
    """As `probe`, of a video of which every packet is whole.

    Raises:
        DataError: also where one is not; names the first frame.
    """
    info = probe_once(path)
    refuse_damaged(info, 0, info.num_frames, str(path))
    return info


def refuse_damaged(info: VideoInfo, first: int, stop: int, where: str) -> None:
    """Nothing, unless one of the frames [first, stop) lies in a packet that is not whole, or leans on one.

    Raises:
        DataError: names the first such frame, counted from `first`.
    """
    bad = np.flatnonzero(info.damaged[first:stop])
    if len(bad):
        raise DataError(
            f"{where}: frame {bad[0]} of {stop - first} is damaged, and {len(bad) - 1} frames lean on it. {BROKEN_FILE}"
        )


@contextmanager
def open_video(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened container and its video stream; a file that cannot be opened is a `DataError`."""
    try:
        container = av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{label(source)}: not a readable video ({_why(error)}). {BROKEN_FILE}") from None
    with container:
        stream = container.streams.best("video")
        if stream is None:
            raise DataError(f"{label(source)}: holds no video stream. Take it out of the source.")
        if stream.codec_context is None:  # FFmpeg knows no decoder for what the header says
            raise DataError(f"{label(source)}: its codec is not known. {BROKEN_FILE}")
        yield container, stream


def to_ns(pts: int, time_base: Fraction) -> int:
    """A time stamp in ns, rounded half up, in whole numbers: floats lose frames in long recordings."""
    ticks = pts * time_base.numerator * 1_000_000_000
    return (2 * ticks + time_base.denominator) // (2 * time_base.denominator)


def to_ticks(t_ns: int, time_base: Fraction) -> int:
    """The time stamp that `to_ns` gave `t_ns` for."""
    return round(Fraction(int(t_ns), 1_000_000_000) / time_base)


def label(source: Source) -> str:
    """How a message names a source."""
    return f"{len(source)} bytes of video" if isinstance(source, bytes) else str(source)


def codec_name(stream: VideoStream) -> str:
    """The codec's own name, whichever decoder PyAV chose for it."""
    name = stream.codec_context.name
    return CODEC_OF_DECODER.get(name, name)


def _rotation(container: InputContainer, stream: VideoStream) -> int:
    try:
        container.seek(0)
        frame = next(container.decode(stream), None)
    except av.FFmpegError:  # read_frames names the broken frame to whoever needs it
        return 0
    return -frame.rotation % 360 if frame else 0


def _decode(source: Source, info: VideoInfo, wanted: Int64) -> Iterator[VideoFrame]:
    """The frames at `wanted` (increasing), each found by its time stamp."""
    keys = np.flatnonzero(info.is_key) if info.is_key.any() else np.zeros(1, np.int64)
    with open_video(source) as (container, stream):
        frames, at = container.decode(stream), -1
        for index in wanted:
            key = keys[max(np.searchsorted(keys, index, side="right") - 1, 0)]
            if key > at + SEEK_AHEAD:
                container.seek(to_ticks(info.pts_ns[key], stream.time_base), stream=stream)
                frames = container.decode(stream)
            found = _forward_to(frames, info.pts_ns[index], source, int(index))
            if found is None:  # the seek came down behind the frame: some containers index keys badly
                container.seek(0)
                frames = container.decode(stream)
                found = _forward_to(frames, info.pts_ns[index], source, int(index))
            if found is None or found.is_corrupt:
                raise DataError(f"{label(source)}: frame {index} cannot be decoded whole. {BROKEN_FILE}")
            at = index
            yield found


def _forward_to(frames: Iterator[VideoFrame], t_ns: int, source: Source, index: int) -> VideoFrame | None:
    """The frame at `t_ns`; None when decoding has passed it or has come to the end."""
    try:
        for frame in frames:
            now = to_ns(frame.pts, frame.time_base)
            if now >= t_ns:
                return frame if now == t_ns else None
    except av.FFmpegError as error:
        raise DataError(f"{label(source)}: frame {index} cannot be decoded ({_why(error)}). {BROKEN_FILE}") from None
    return None


def _decode_with_decord(source: Source, info: VideoInfo, wanted: Int64) -> list[VideoFrame] | None:
    """The frames at `wanted`, or None where decord would not give exactly those.

    decord turns rotated videos by itself, numbers frames its own way (so its time stamps must agree with ours), and
    after a seek into an open GOP returns frames that are not the ones asked for.
    """
    if info.codec not in DECORD_CODECS or info.rotation or info.has_open_gops:
        return None
    from decord import DECORDError, VideoReader, cpu

    try:
        reader = VideoReader(
            io.BytesIO(source) if isinstance(source, bytes) else str(source), ctx=cpu(0), num_threads=1
        )
        start_s = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        half_frame_s = 0.5 / info.average_fps if info.average_fps else np.inf
        if len(start_s) != info.num_frames or (np.abs(start_s - info.pts_ns / 1e9) > half_frame_s).any():
            return None
        pictures = reader.get_batch(wanted.tolist()).asnumpy()
    except DECORDError as error:
        first_line = str(error).splitlines()[0] if str(error) else "decord failed"
        raise DataError(f"{label(source)}: frames cannot be decoded ({first_line}). {BROKEN_FILE}") from None
    return [VideoFrame.from_ndarray(picture, "rgb24") for picture in pictures]


def as_rgb(frames: Iterable[VideoFrame], shape: tuple[int, int], rotate: int) -> Iterator[np.ndarray]:
    """Frames of one size as RGB arrays, turned clockwise by `rotate` degrees and then of `shape`."""
    height, width = shape[::-1] if rotate % 180 else shape
    graph = None
    for frame in frames:
        graph = graph or _converter(frame, height, width)
        graph.push(frame)
        yield np.rot90(graph.pull().to_ndarray(), -(rotate // 90))


def _converter(frame: VideoFrame, height: int, width: int) -> Graph:
    """A filter from frames like this one to RGB of a size.

    A filter, because PyAV's own conversion takes every video for limited-range BT.601: a red of 200 in a BT.709
    file (phones, most HD video) comes out as 185, and full-range AV1 is stretched.
    """
    shrinks = height <= frame.height and width <= frame.width and (height, width) != (frame.height, frame.width)
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        graph.add("scale", f"{width}:{height}" + (":flags=area" if shrinks else "")),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
