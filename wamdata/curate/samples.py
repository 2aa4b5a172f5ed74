"""What is measured of a film five times a second: light, sharpness, motion, edges, and enough to know it again.

About a kilobyte a sample: 20 MB for an hour of film, whatever its size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Float32, Int64
from wamdata.extras import need

APART_NS = 200_000_000  # between two samples
HASH_EVERY = 3  # samples
COARSE, BLOCK = (48, 64), 4  # (height, width) on which motion is measured, and its blocks
TEXTURE = 8.0  # grey levels, deviation of a block that is no plain wall: beside it noise is small
FOCUS_BLOCK = 20  # pixels of a small frame


@dataclass(frozen=True)
class Samples:
    """(N,) samples of a film, in order.

    Args:
        index: frame of each.
        brightness: mean level.
        sharpness: of the middle one of the textured blocks; NaN where none is.
        camera: by how many levels the middle block changed since the sample before; 0 for the first.
        blocks: (N, 192) mean levels of 12 x 16 blocks.
        rows, columns: (N, height), (N, width) brightest level of each line of the small frame.
        hashes: (N,) uint64 perceptual hashes, where `is_hashed`.
    """

    index: Int64
    t_ns: Int64
    brightness: Float32
    sharpness: Float32
    camera: Float32
    blocks: Float32
    rows: NDArray[np.uint8]
    columns: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    is_hashed: NDArray[np.bool_]

    def of(self, first: int, stop: int) -> slice:
        """The samples that lie in frames [first, stop)."""
        low, high = np.searchsorted(self.index, [first, stop])
        return slice(int(low), int(high))


class Sampler:
    """Takes samples of frames that are shown to it one after the other."""

    def __init__(self) -> None:
        self._cv2 = need("cv2", for_what="measuring film", extra="curate")
        self._phash = need("imagehash", for_what="finding copies of film", extra="curate").phash
        self._image = need("PIL.Image", for_what="finding copies of film", extra="curate")
        self._due_ns: int | None = None
        self._coarse: Float32 | None = None
        self._rows: list[tuple] = []

    def see(self, index: int, t_ns: int, rgb: NDArray[np.uint8]) -> Float32:
        """Measure the next frame if it is time to; its mean levels over blocks in any case."""
        grey = self._cv2.cvtColor(rgb, self._cv2.COLOR_RGB2GRAY)
        coarse = self._cv2.resize(grey, COARSE[::-1], interpolation=self._cv2.INTER_AREA).astype(np.float32)
        blocks = _means(coarse, BLOCK)
        if self._due_ns is None or t_ns >= self._due_ns:
            self._due_ns = t_ns - t_ns % APART_NS + APART_NS
            self._measure(index, t_ns, grey, coarse, blocks)
        return blocks

    def samples(self) -> Samples:
        """All that were taken."""
        columns = list(zip(*self._rows, strict=True))
        kinds = (np.int64, np.int64, *[np.float32] * 4, np.uint8, np.uint8, np.uint64, np.bool_)
        return Samples(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))

    def _measure(self, index: int, t_ns: int, grey: NDArray[np.uint8], coarse: Float32, blocks: Float32) -> None:
        changed = 0.0 if self._coarse is None else float(np.median(_means(np.abs(coarse - self._coarse), 2 * BLOCK)))
        is_hashed = len(self._rows) % HASH_EVERY == 0
        bits = self._phash(self._image.fromarray(grey)).hash.ravel() if is_hashed else np.zeros(64, bool)
        self._coarse = coarse
        self._rows.append((
            index, t_ns, float(grey.mean()), self._sharpness(grey), changed, blocks.ravel(),
            grey.max(axis=1), grey.max(axis=0), int.from_bytes(np.packbits(bits).tobytes()), is_hashed,
        ))  # fmt: skip

    def _sharpness(self, grey: NDArray[np.uint8]) -> float:
        side = min(FOCUS_BLOCK, *grey.shape)
        level = self._cv2.GaussianBlur(grey, (3, 3), 0).astype(np.float32)  # noise has edges everywhere
        edges = self._cv2.Laplacian(level, self._cv2.CV_32F)
        variance = _means(level**2, side) - _means(level, side) ** 2
        textured = variance > TEXTURE**2
        if not textured.any():
            return float("nan")
        of_edges = _means(edges**2, side) - _means(edges, side) ** 2
        return float(np.median(of_edges[textured] / variance[textured]))


def _means(picture: Float32, side: int) -> Float32:
    """Means over square blocks; what is left at the right and the bottom is passed over."""
    height, width = (n // side * side for n in picture.shape)
    return picture[:height, :width].reshape(height // side, side, width // side, side).mean((1, 3))
