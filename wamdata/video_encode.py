"""Pictures as an mp4 that every browser plays."""

import itertools
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace
from numpy.typing import NDArray


def encode_h264(frames: Iterable[NDArray[np.uint8]], fps: float, *, crf: int = 20, gop: int = 250) -> bytes:
    """Frames, (height, width, 3) uint8 RGB each, as H.264 in an mp4 whose index stands at the front.

    An odd height or width is made even by repeating the last row or column. Equal inputs give equal bytes.

    Args:
        crf: constant quality, smaller is better.
        gop: most frames from one key frame to the next.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"  # faststart moves the index afterwards and needs a real file
        with av.open(str(path), "w", options={"movflags": "faststart", "fflags": "+bitexact"}) as clip:
            # one thread: x264 writes other bytes on a machine with another number of cores
            options = {"preset": "veryfast", "crf": str(crf), "g": str(gop), "threads": "1"}
            stream = clip.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
            stream.codec_context.colorspace = Colorspace.ITU601.value  # untagged HD would be shown as BT.709
            for picture in itertools.chain((first,), frames):
                assert picture.shape == (height, width, 3) and picture.dtype == np.uint8, picture.shape
                padded = np.pad(picture, pad, mode="edge") if pad[0][1] or pad[1][1] else picture
                clip.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), "rgb24")))
            clip.mux(stream.encode())
        return path.read_bytes()
