"""Frames of a camera, whatever holds them: a span of a video file, or pictures that a log keeps one by one.

JPEG and PNG pictures and a codec's packets become an mp4 as they are, byte for byte; only raw pixels are encoded.
"""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from schemas.embodiment import Camera
from schemas.episode import Footage, Int64, Pictures
from schemas.errors import DataError
from wamdata.video import as_rgb, read_frames
from wamdata.video_cut import cut_packets
from wamdata.video_encode import encode_h264

RAW_CRF = 16  # H.264 quality for raw pixels: about 45 dB on camera pictures, a twentieth of their bytes
RAW_GOP = 24  # a window of training starts anywhere; see benchmarks of clip reading by distance of key frames
TICKS = Fraction(1, 90_000)
# FFmpeg's names of the readers that take bare pictures and packets.
BARE_FORMAT = {"mjpeg": "jpeg_pipe", "png": "png_pipe", "h264": "h264", "hevc": "hevc"}


def cut(footage: Footage, first: int, stop: int) -> tuple[bytes, int]:
    """Frames [first, stop) of a camera as a plain mp4, and the index of `first` in it. Equal inputs, equal bytes.

    Raises:
        DataError: there are no such frames, or one of them is broken.
    """
    if not isinstance(footage, Pictures):
        return cut_packets(footage.path, footage.first_frame + first, footage.first_frame + stop)
    if not 0 <= first < stop <= len(footage.t_ns):
        raise DataError(f"no frames [{first}, {stop}), the log has {len(footage.t_ns)} of this camera.")
    if footage.codec == "raw":
        rate = 1e9 / float(np.median(np.diff(footage.t_ns))) if len(footage.t_ns) > 1 else 1.0
        return encode_h264(_raw(footage, first, stop), rate, crf=RAW_CRF, gop=RAW_GOP), 0
    key = _key_before(footage, first)
    return _mux(footage, range(key, stop)), first - key


def shard_codec(footage: Footage) -> str:
    """Codec of what `cut` gives."""
    return "h264" if footage.codec == "raw" else footage.codec


def mended(pictures: NDArray[np.uint8], camera: Camera) -> NDArray[np.uint8]:
    """(..., height, width, 3) pixels as the robot's file says they should be, after its rotation."""
    if camera.flip != "none":
        pictures = np.flip(pictures, axis=-2 if camera.flip == "horizontal" else -3)
    return np.ascontiguousarray(pictures[..., ::-1] if camera.channels == "bgr" else pictures)


def frames(
    footage: Footage, indices: Sequence[int] | Int64, *, size: tuple[int, int] | None = None, rotate: int = 0
) -> NDArray[np.uint8]:
    """(n, height, width, 3) uint8 RGB, in the order asked for; arguments as in `read_frames`.

    Raises:
        DataError: a frame is not there or cannot be decoded.
    """
    if not isinstance(footage, Pictures):
        return read_frames(footage.path, footage.first_frame + np.asarray(indices, np.int64), size=size, rotate=rotate)
    wanted, inverse = np.unique(np.asarray(indices, np.int64), return_inverse=True)
    if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(footage.t_ns):
        raise DataError(f"no frame {wanted[0] if wanted[0] < 0 else wanted[-1]}, the log has {len(footage.t_ns)}.")
    shape = size or ((footage.width, footage.height) if rotate % 180 else (footage.height, footage.width))
    if not len(wanted):
        return np.zeros((0, *shape, 3), np.uint8)
    if footage.codec == "raw":
        raw = (VideoFrame.from_ndarray(footage.load(int(i), int(i) + 1)[0], "rgb24") for i in wanted)
        return np.stack(list(as_rgb(raw, shape, rotate)))[inverse]
    if footage.is_key is None:
        mp4, places = _mux(footage, wanted), np.arange(len(wanted))
    else:
        key = _key_before(footage, int(wanted[0]))
        mp4, places = _mux(footage, range(key, int(wanted[-1]) + 1)), wanted - key
    return read_frames(mp4, places[inverse], size=size, rotate=rotate)


def _key_before(pictures: Pictures, index: int) -> int:
    if pictures.is_key is None:
        return index
    keys = np.flatnonzero(pictures.is_key[: index + 1])
    if not len(keys):
        raise DataError(f"no key frame at or before frame {index}: the recording starts inside a group. Trim it.")
    return int(keys[-1])


def _mux(pictures: Pictures, wanted: Sequence[int] | Int64) -> bytes:
    """The frames `wanted` (increasing) as an mp4, on their own clock."""
    coded = list(_load(pictures, wanted))
    file = io.BytesIO()
    try:
        # Several packets, so that a codec's parameters are found where its first packet lacks them.
        bare = coded[0] if pictures.is_key is None else b"".join(coded)
        with (
            av.open(io.BytesIO(bare), format=BARE_FORMAT[pictures.codec]) as source,
            av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as clip,
        ):
            track = clip.add_stream_from_template(source.streams.video[0], opaque=True)
            track.time_base = TICKS
            shown = _ticks(pictures.t_ns[np.asarray(wanted)])
            for index, content, at, stays in zip(
                wanted, coded, shown, np.diff(shown, append=shown[-1] + 1), strict=True
            ):
                packet = av.Packet(content)
                packet.pts = packet.dts = int(at)
                packet.duration = int(stays)  # a single frame without one would count as cut away
                packet.time_base, packet.stream = TICKS, track
                packet.is_keyframe = pictures.is_key is None or bool(pictures.is_key[index])
                clip.mux(packet)
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise DataError(
            f"frame {wanted[0]}: not a readable {pictures.codec} picture ({error}). Drop the episode."
        ) from None
    return file.getvalue()


def _ticks(t_ns: Int64) -> Int64:
    """Times from the first one on, in ticks, strictly increasing."""
    ticks = np.round((t_ns - t_ns[0]) * (TICKS.denominator / 1e9)).astype(np.int64)
    steps = np.arange(len(ticks))
    return np.maximum.accumulate(ticks - steps) + steps


def _load(pictures: Pictures, wanted: Sequence[int] | Int64) -> Iterator[bytes]:
    if isinstance(wanted, range):
        loaded = enumerate(pictures.load(wanted.start, wanted.stop), start=wanted.start)
    else:
        loaded = ((int(i), pictures.load(int(i), int(i) + 1)[0]) for i in wanted)
    for index, content in loaded:
        if not len(content):
            raise DataError(f"frame {index} is empty. Drop the episode, or trim it there.")
        yield bytes(content)


def _raw(pictures: Pictures, first: int, stop: int, batch: int = 32) -> Iterator[NDArray[np.uint8]]:
    for at in range(first, stop, batch):
        yield from pictures.load(at, min(at + batch, stop))
