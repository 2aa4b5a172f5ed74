"""A picture of what the model is given: one real mosaic, its cells named, and the exact prompt below it."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.backbones.dreamzero.rules import crop_and_resize
from adapt.backbones.dreamzero.views import Mosaic, prompt, tile, unit_size

CANVAS = (352, 640)
BORDER = "#ffb000"
SCALE = 1.5  # pixels of the picture to one of the canvas
LINE = 128  # letters


def preview_png(
    frames: Mapping[str, Tensor | NDArray],
    mosaic: Mosaic,
    instruction: str,
    path: Path,
    *,
    canvas: tuple[int, int] = CANVAS,
    frame: int = 0,
) -> None:
    """Write a PNG of one frame's mosaic, cropped and resized as for evaluation, with the prompt under it.

    Args:
        frames: by camera key, (T, h, w, 3) uint8 of the camera's own size.
        canvas: (height, width) in pixels.
        frame: which of the T.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    size = unit_size(mosaic, canvas)
    views = {
        key: crop_and_resize(torch.as_tensor(frames[key])[frame : frame + 1], size)
        for key in mosaic.keys
        if key in frames
    }
    picture = tile(views, mosaic)[0].numpy()
    text = textwrap.wrap(prompt(mosaic, instruction), LINE)
    height, width = canvas[0] * SCALE, canvas[1] * SCALE
    head, foot = 34, 46 + 21 * len(text)
    whole = head + height + foot
    figure = Figure(figsize=((width + 40) / 100, whole / 100), dpi=100, facecolor="white")
    axes = figure.add_axes((20 / (width + 40), foot / whole, width / (width + 40), height / whole))
    axes.imshow(picture, interpolation="nearest", extent=(0, canvas[1], canvas[0], 0), aspect="auto")
    axes.set_axis_off()
    for cell in mosaic.cells:
        left, top = cell.columns[0] * size[1], cell.rows[0] * size[0]
        wide, high = (cell.columns[1] - cell.columns[0]) * size[1], (cell.rows[1] - cell.rows[0]) * size[0]
        axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=BORDER, linewidth=1.5, clip_on=False))
        label = f"{cell.view.key} · {cell.place}" if cell.view else f"no camera · {cell.place}"
        box = {"facecolor": "#101214", "edgecolor": "none", "alpha": 0.75, "pad": 3}
        axes.text(left + 5, top + 6, label, va="top", color="white", fontsize=9, bbox=box)
    title = f"style {mosaic.style}, canvas {canvas[1]} × {canvas[0]}, each view resized to {size[1]} × {size[0]}"
    left_edge = 20 / (width + 40)
    figure.text(left_edge, 1 - 22 / whole, title, fontsize=10, color="#1b1d20")
    figure.text(left_edge, (foot - 22) / whole, "prompt", fontsize=9, color="#63686e")
    words = "\n".join(text).replace("$", r"\$")  # a dollar would start a formula
    figure.text(left_edge, (foot - 32) / whole, words, fontsize=10, color="#1b1d20", va="top", linespacing=1.4)
    figure.savefig(path)
