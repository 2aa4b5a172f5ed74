"""What a report shows beside its numbers: held-out episodes, videos, frames. Labels and units come from the scores."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Chunk:
    """One prediction: absolute actions (K, A) from row `start` of the episode on."""

    start: int
    action: Floats


@dataclass(frozen=True)
class Example:
    """One held-out episode: what was commanded and what was predicted.

    Args:
        t_s: (T,) time of each row; truth: (T, A) recorded commands, columns in the order of the scores.
        predictions: by method, chunks in the order of their starts; a chunk may run past the last row.
    """

    name: str
    t_s: Floats
    truth: Floats
    predictions: dict[str, tuple[Chunk, ...]]

    def __post_init__(self) -> None:
        assert self.truth.shape[:1] == self.t_s.shape, self.name
        for chunk in (c for chunks in self.predictions.values() for c in chunks):
            assert chunk.action.shape[1] == self.truth.shape[1] and 0 <= chunk.start < len(self.t_s), self.name


@dataclass(frozen=True)
class Figures:
    """Everything drawn from more than the report record.

    Args:
        videos: H.264 mp4 bytes by caption.
        contact_sheet: (H, W, 3) made by `contact_sheet`, or None without video.
    """

    examples: tuple[Example, ...] = ()
    videos: dict[str, bytes] = field(default_factory=dict)
    contact_sheet: Image | None = None


def contact_sheet(truth: Image, predicted: Image, *, columns: int = 6, gap: int = 6) -> Image:
    """Recorded frames (F, H, W, 3) with the predicted frame under each, `columns` pairs to a row, on white."""
    assert truth.shape == predicted.shape and truth.dtype == predicted.dtype == np.uint8
    count, height, width, _ = truth.shape
    rows = -(-count // columns)
    pair_height = 2 * height + gap // 3
    sheet = np.full((rows * (pair_height + gap) - gap, min(columns, count) * (width + gap) - gap, 3), 255, np.uint8)
    for i, (top, bottom) in enumerate(zip(truth, predicted, strict=True)):
        y, x = (i // columns) * (pair_height + gap), (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = top
        sheet[y + pair_height - height : y + pair_height, x : x + width] = bottom
    return sheet
