"""Raw pictures of a log, in any of the usual layouts, as RGB.

Bayer patterns are filled in from the nearest cell of each colour. Does not read YUV; depth is no picture.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wamdata.readers.messages.leaves import get

CHANNELS = {"rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA", "mono8": "L", "8UC1": "L", "8UC3": "BGR",
            "8UC4": "BGRA"}  # fmt: skip
BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
DEPTH = ("16UC1", "32FC1", "mono16", "16SC1", "64FC1")
MAX_PICTURE_BYTES = 512_000_000


def why_not(message: Any, length: int) -> str:
    """Why a raw picture cannot be used; "" if it can. Depth says `depth`."""
    coding, width, height, step = (get(message, n) for n in ("encoding", "width", "height", "step"))
    if coding in DEPTH:
        return "depth"
    if coding not in CHANNELS and coding not in BAYER:
        return f"encoding {coding!r} is not read (rgb8, bgr8, rgba8, bgra8, mono8 and bayer of 8 bits are)"
    if not all(isinstance(n, int) and n > 0 for n in (width, height)) or width * height * 3 > MAX_PICTURE_BYTES:
        return f"a size of {width} x {height}"
    row, used = _row(message), width * len(CHANNELS.get(coding, "L"))
    if row < used or row * (height - 1) + used > length:
        return f"{length} bytes in rows of {step} are too few for {width} x {height}"
    return ""


def to_rgb(message: Any, data: Any) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB of a picture that `why_not` has nothing against."""
    coding, width, height = (get(message, n) for n in ("encoding", "width", "height"))
    row, kind = _row(message), CHANNELS.get(coding, "L")
    flat = np.frombuffer(data, np.uint8)[: row * height]
    flat = np.pad(flat, (0, row * height - len(flat)))
    cells = flat.reshape(height, row)[:, : width * len(kind)].reshape(height, width, len(kind))
    if coding in BAYER:
        return _from_bayer(cells[..., 0], coding[6:10])
    if kind == "L":
        return np.repeat(cells, 3, axis=2)
    return np.ascontiguousarray(cells[..., 2::-1] if kind.startswith("BGR") else cells[..., :3])


def _row(message: Any) -> int:
    least = get(message, "width") * len(CHANNELS.get(get(message, "encoding"), "L"))
    step = get(message, "step")
    return step if isinstance(step, int) and step > 0 else least


def _from_bayer(cells: NDArray[np.uint8], pattern: str) -> NDArray[np.uint8]:
    height, width = cells.shape
    picture = np.empty((height, width, 3), np.uint8)
    y, x = np.indices((height, width)) // 2 * 2
    for channel, colour in enumerate("rgb"):
        down, right = divmod(pattern.index(colour), 2)
        picture[..., channel] = cells[np.minimum(y + down, height - 1), np.minimum(x + right, width - 1)]
    return picture
