"""Pictures that lie in an array of numbers, as (height, width, 3) uint8 RGB."""

import numpy as np

from schemas.episode import Coded
from wamdata.readers.hdf5.pictures import Look


def rgb_rows(rows: np.ndarray, look: Look) -> list[Coded]:
    """Pictures of a slice of rows.

    Args:
        rows: (n, height, width[, channels]) or (n, channels, height, width), uint8 or float.
        look: as `look_at` of the whole array gave it, of codec `raw`.
    """
    rows = rows[..., None] if rows.ndim == 3 else np.moveaxis(rows, 1, -1) if look.planes else rows
    if rows.dtype != np.uint8:
        scaled = np.nan_to_num(rows.astype(np.float32) * look.scale)
        rows = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    rows = np.repeat(rows, 3, axis=-1) if rows.shape[-1] == 1 else rows[..., :3]
    return list(np.ascontiguousarray(rows))
