"""The picture nano sees: one view fills the canvas, two to four are tiled two to a row, in the embodiment's order.

Aspect ratios are not kept. Empty places stay black.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def view_size(views: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of each view on a canvas."""
    rows, columns = _grid(views)
    return canvas[0] // rows, canvas[1] // columns


def tile(views: Sequence[Frames], canvas: tuple[int, int]) -> Frames:
    """Views (F, h, w, 3) of `view_size` each as (F, H, W, 3)."""
    height, width = view_size(len(views), canvas)
    _, columns = _grid(len(views))
    picture = np.zeros((len(views[0]), *canvas, 3), np.uint8)
    for at, view in enumerate(views):
        assert view.shape[1:] == (height, width, 3), f"view is {view.shape[1:]}, wanted {(height, width, 3)}"
        top, left = at // columns * height, at % columns * width
        picture[:, top : top + height, left : left + width] = view
    return picture


def _grid(views: int) -> tuple[int, int]:
    """(rows, columns) of the tiling."""
    assert 1 <= views <= 4, f"nano tiles one to four views, not {views}"
    return (1 if views <= 2 else 2), (1 if views == 1 else 2)
