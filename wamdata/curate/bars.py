"""Black bars beside or above the picture: lines at an edge that no frame of a shot ever lights up.

Found on small frames, then placed to the pixel on a few whole ones. A subtitle inside a bar makes it part of the
picture.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Footage
from wamdata.curate.samples import Samples
from wamdata.curate.small import shown_size
from wamdata.footage import frames

DARK = 24  # levels; black is 16 in video and 0 on screen, coding adds a little
NARROWEST = 0.02  # of the side
LOOKS = 4  # whole frames
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # colour reaches a pixel into a bar, being coded for two
AROUND = 2  # small lines on each side of an edge that are looked at again
LIT = 95  # per cent of a line's pixels: what a few of them do counts for nothing

Box = tuple[int, int, int, int]  # first column and row, width and height


def coarse_box(samples: Samples, here: slice) -> Box | None:
    """The picture inside its bars, in pixels of small frames; None without bars."""
    if here.start >= here.stop:
        return None
    top, bottom = _lit(samples.rows[here].max(axis=0))
    left, right = _lit(samples.columns[here].max(axis=0))
    height, width = samples.rows.shape[1], samples.columns.shape[1]
    if bottom <= top or right <= left or (left, top, right, bottom) == (0, 0, width, height):
        return None
    return left, top, right - left, bottom - top


def exact_box(footage: Footage, coarse: Box, small: tuple[int, int], first: int, stop: int) -> Box:
    """`coarse` in the camera's own pixels, as it is shown, from a few of frames [first, stop).

    Args:
        small: (height, width) of small frames.

    Raises:
        DataError: a frame cannot be decoded.
    """
    at = np.unique(np.linspace(first, stop - 1, LOOKS + 2).round().astype(np.int64)[1:-1])
    brightest = (frames(footage, at, rotate=footage.rotation) @ LUMA).max(axis=0)
    width, height = shown_size(footage)
    x, y, w, h = coarse
    columns = slice(round(x * width / small[1]), round((x + w) * width / small[1]))
    rows = slice(round(y * height / small[0]), round((y + h) * height / small[0]))
    top, bottom = _edges(np.percentile(brightest[:, columns], LIT, axis=1), y, y + h, small[0])
    left, right = _edges(np.percentile(brightest[rows], LIT, axis=0), x, x + w, small[1])
    return left, top, right - left, bottom - top


def _lit(brightest: NDArray[np.uint8]) -> tuple[int, int]:
    """Lines [first, stop) between the bars; all where a bar would be too narrow, none where all are dark."""
    lit = np.flatnonzero(brightest > DARK)
    if not len(lit):
        return 0, 0
    least = NARROWEST * len(brightest)
    first, stop = int(lit[0]), int(lit[-1]) + 1
    return first if first >= least else 0, stop if len(brightest) - stop >= least else len(brightest)


def _edges(levels: NDArray[np.float64], first: int, stop: int, small: int) -> tuple[int, int]:
    """The lit lines, where small lines [first, stop) are."""
    scale = len(levels) / small
    low = _near(levels, first, scale) if first else 0
    high = len(levels) - _near(levels[::-1], small - stop, scale) if stop < small else len(levels)
    return low, high


def _near(levels: NDArray[np.float64], coarse: int, scale: float) -> int:
    """The line near small line `coarse` that is lit most beside the one before it."""
    low, high = max(int((coarse - AROUND) * scale), 0), min(int((coarse + AROUND) * scale) + 1, len(levels))
    return low + 1 + int(np.diff(levels[low:high]).argmax())
