"""One small picture per instant from any number of cameras.

The views fill equal tiles of the canvas, row by row in the order given; a view is stretched to its tile, and a tile
without a view stays black. Resizing averages areas, so a small tile does not flicker.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def tile(views: Mapping[str, np.ndarray], canvas: tuple[int, int]) -> Tensor:
    """Views (F, H, W, 3) uint8, all of F frames, as one (F, *canvas, 3) uint8."""
    counts = {name: len(frames) for name, frames in views.items()}
    assert len(set(counts.values())) == 1, f"views differ in their number of frames: {counts}"
    rows, columns = grid(len(views))
    height, width = canvas[0] // rows, canvas[1] // columns
    picture = np.zeros((next(iter(counts.values())), *canvas, 3), np.uint8)
    for i, frames in enumerate(views.values()):
        top, left = i // columns * height, i % columns * width
        picture[:, top : top + height, left : left + width] = _resize(frames, height, width)
    return torch.from_numpy(picture)


def grid(num_views: int) -> tuple[int, int]:
    """(rows, columns) of tiles: one above the other for two views, then nearly square."""
    columns = 1 if num_views <= 2 else math.ceil(math.sqrt(num_views))
    return -(-num_views // columns), columns


def canvas_for(num_views: int) -> tuple[int, int]:
    """A (height, width) with 12 tokens for one view, 18 for two, 24 for three or four, by the default patch sizes."""
    return (48, 64) if num_views == 1 else (96, 48) if num_views == 2 else (64, 96)


def _resize(frames: np.ndarray, height: int, width: int) -> Tensor:
    if frames.shape[1:3] == (height, width):  # already of that size, as views decoded for this canvas are
        return torch.from_numpy(np.ascontiguousarray(frames))
    resized = []
    for start in range(0, len(frames), 16):  # few at a time: float frames of a long video would fill the memory
        part = torch.from_numpy(np.array(frames[start : start + 16])).permute(0, 3, 1, 2).float()
        resized.append(F.interpolate(part, size=(height, width), mode="area").round().to(torch.uint8))
    return torch.cat(resized).permute(0, 2, 3, 1)
