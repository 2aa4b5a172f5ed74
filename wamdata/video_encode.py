"""Pictures as an mp4 that every browser plays."""

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace
from numpy.typing import NDArray


def encode_h264(frames: NDArray[np.uint8], fps: float) -> bytes:
    """(N, height, width, 3) uint8 RGB as H.264 in an mp4 whose index stands at the front.

    An odd height or width is made even by repeating the last row or column. Equal inputs give equal bytes.
    """
    assert frames.ndim == 4 and frames.shape[3] == 3 and frames.dtype == np.uint8 and len(frames), frames.shape
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"  # faststart moves the index afterwards and needs a real file
        with av.open(str(path), "w", options={"movflags": "faststart", "fflags": "+bitexact"}) as clip:
            # one thread: x264 writes other bytes on a machine with another number of cores
            options = {"preset": "veryfast", "crf": "20", "threads": "1"}
            stream = clip.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.height, stream.width, stream.pix_fmt = *padded.shape[1:3], "yuv420p"
            stream.codec_context.colorspace = Colorspace.ITU601.value  # untagged HD would be shown as BT.709
            for picture in padded:
                clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            clip.mux(stream.encode())
        return path.read_bytes()
