"""Made-up films whose cuts, motion and bars are known, written by PyAV."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
HEIGHT, WIDTH = 180, 320


def scene(seed: int, count: int, *, pan: float = 1.0, moves: bool = True) -> Iterator[Picture]:
    """Frames of a patchwork, fine on coarse, that the camera pans over by pixels a frame; a square moves in it."""
    rng = np.random.default_rng(seed)
    tint, width = rng.uniform(0.3, 1.0, 3), WIDTH + int(abs(pan) * count)
    canvas = np.zeros((HEIGHT, width, 3))
    for side, share in ((60, 0.6), (10, 0.4)):
        patches = rng.uniform(30, 250, (HEIGHT // side, width // side + 1, 1)) * tint * share
        canvas += np.kron(patches, np.ones((side, side, 1)))[:, :width]
    canvas = canvas.astype(np.uint8)
    phase = rng.uniform(0, 6.3, 2)
    for at in range(count):
        left = int(abs(pan) * at)
        picture = canvas[:, left : left + WIDTH].copy()
        if moves:
            y, x = (0.5 + 0.4 * np.sin(phase + at / np.array([17.0, 11.0]))) * (HEIGHT - 40, WIDTH - 40)
            picture[int(y) : int(y) + 40, int(x) : int(x) + 40] = 255 - np.round(255 * tint)
        yield picture


def write(
    path: Path, pictures: Iterable[Picture], *, fps: float = 30, times_s: list[float] | None = None, crf: int = 18
) -> Path:
    """A film of pictures, at `fps` or at times of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": str(crf)})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 90_000)
        for at, picture in enumerate(pictures):
            if at == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts = round((times_s[at] if times_s else at / fps) * 90_000)
            frame.time_base = Fraction(1, 90_000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return path


def black(count: int) -> Iterator[Picture]:
    return (np.zeros((HEIGHT, WIDTH, 3), np.uint8) for _ in range(count))


def smaller(pictures: Iterable[Picture], by: int) -> Iterator[Picture]:
    return (
        p.reshape(p.shape[0] // by, by, p.shape[1] // by, by, 3).mean((1, 3)).round().astype(np.uint8) for p in pictures
    )


def blurred(pictures: Iterable[Picture], sigma: float) -> Iterator[Picture]:
    import cv2

    return (cv2.GaussianBlur(p, (0, 0), sigma) for p in pictures)
