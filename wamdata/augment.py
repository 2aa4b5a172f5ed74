"""What varies between the copies of a training window: a crop, colours, and when it begins.

One draw holds for all frames and all views of a copy, in the reference's order (dreamzero.md 4.4): cut out a share of
height and width, resize, shift the colours, and only then back to uint8, by cutting off the fraction. Copy 0 is what
evaluation sees: cut as the backbone does, no colours, no shift. A draw depends on (seed, window, copy) alone.

Colours are torchvision's `ColorJitter`, its float path: gray is 0.2989 R + 0.587 G + 0.114 B, everything is clamped to
0..1 after each step, and the four steps come in a random order.

    brightness b    b x                                   b, c, s uniform in 1 - strength ... 1 + strength
    contrast c      c x + (1 - c) mean of the frame's gray
    saturation s    s x + (1 - s) gray of the pixel
    hue d           HSV with H moved by d of the circle   d uniform in -strength ... strength
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from wamdata.order import sample_seed

Uint8 = NDArray[np.uint8]
Plane = NDArray[np.float32]

GRAY = np.array([0.2989, 0.587, 0.114], np.float32)
FULL = 255 + 1e-4  # float32 makes 199.99998 of some whole numbers, which cutting off would turn into 199


@dataclass(frozen=True)
class Augmentation:
    """Strengths; the reference's by default. Zeros, a crop of 1 and no phase leave windows as they are.

    Args:
        crop: share of height and width that augmented copies keep. Plain windows are cut as their backbone evaluates:
            DreamZero keeps 0.95 from the centre, nano all of it.
        phase: begin up to a stride later.
    """

    crop: float = 0.95
    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.5
    hue: float = 0.08
    phase: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise UsageError(f"augment.crop is {self.crop:g}, wanted a share above 0, up to 1.")
        for name, most in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"augment.{name} is {getattr(self, name):g}, wanted 0 to {most:g}.")


@dataclass(frozen=True)
class Draw:
    """What one copy of a window gets.

    Args:
        corner: where the cut-out lies, top and left, each 0 (first place) up to, not including, 1; None centres it.
        brightness, contrast, saturation: factors; hue: part of the circle.
        order: of the four colour steps; none for a plain copy.
        phase: rows by which the window begins later.
    """

    crop: float
    corner: tuple[float, float] | None = None
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    order: tuple[str, ...] = ()
    phase: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, for a record of what was done."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def draw(augmentation: Augmentation, seed: int, window_id: str, copy: int, *, stride: int = 1) -> Draw:
    """The draw of one copy; copy 0 is plain.

    Args:
        window_id: of the window as it was before any phase.
        stride: rows between the starts of neighbouring windows; the phase is 0 ... stride - 1.
    """
    if copy == 0:
        return Draw(augmentation.crop)
    random = np.random.default_rng(sample_seed(seed, copy, f"augment/{window_id}"))
    top, left, brightness, contrast, saturation, hue, phase = random.random(7).tolist()
    order = random.permutation(tuple(_STEPS)).tolist()
    return Draw(
        crop=augmentation.crop,
        corner=(top, left),
        brightness=_between(1, augmentation.brightness, brightness),
        contrast=_between(1, augmentation.contrast, contrast),
        saturation=_between(1, augmentation.saturation, saturation),
        hue=_between(0, augmentation.hue, hue),
        order=tuple(order),
        phase=int(phase * stride) if augmentation.phase else 0,
    )


def apply(drawn: Draw, frames: Uint8, *, size: tuple[int, int] | None = None) -> Uint8:
    """Frames (F, H, W, 3) of one view, cut out, resized and coloured; the phase is the caller's to take.

    Args:
        size: (height, width) of the result; None is that of `frames`.
    """
    top, left, height, width = cut_out(drawn, frames.shape[1], frames.shape[2])
    cut = frames[:, top : top + height, left : left + width]
    size = size or frames.shape[1:3]
    down, across = _taps(height, size[0]), _taps(width, size[1])
    out = np.empty((len(frames), *size, 3), np.uint8)
    for at, frame in enumerate(cut):  # one at a time: a frame's planes stay in the processor's cache
        planes = np.ascontiguousarray(frame.transpose(2, 0, 1), np.float32) / np.float32(255)
        coloured = jitter(drawn, _resized(planes, down, across))
        out[at] = (coloured * np.float32(FULL)).astype(np.uint8).transpose(1, 2, 0)
    return out


def cut_out(drawn: Draw, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is kept of a frame."""
    kept = int(height * drawn.crop), int(width * drawn.crop)
    if min(kept) < 1:
        raise UsageError(f"augment.crop {drawn.crop:g} keeps no pixel of {height}x{width}. Give a larger share.")
    free = height - kept[0], width - kept[1]
    if drawn.corner is None:
        return round(free[0] / 2), round(free[1] / 2), *kept
    return int(drawn.corner[0] * (free[0] + 1)), int(drawn.corner[1] * (free[1] + 1)), *kept


def jitter(drawn: Draw, frame: Plane) -> Plane:
    """One frame's (3, H, W) float32 planes in 0..1 with the colours of a draw."""
    for name in drawn.order:
        step, neutral = _STEPS[name]
        value = getattr(drawn, name)
        if value != neutral:
            frame = step(frame, np.float32(value))
    return frame


def _brightness(frame: Plane, factor: np.float32) -> Plane:
    return np.clip(frame * factor, 0, 1)


def _contrast(frame: Plane, factor: np.float32) -> Plane:
    return np.clip(frame * factor + (1 - factor) * _gray(frame).mean(dtype=np.float32), 0, 1)


def _saturation(frame: Plane, factor: np.float32) -> Plane:
    return np.clip(frame * factor + (1 - factor) * _gray(frame), 0, 1)


def _hue(frame: Plane, turn: np.float32) -> Plane:
    """Value and saturation, which are the largest and the smallest channel, stay; the hue moves."""
    red, green, blue = frame
    high, low = frame.max(0), frame.min(0)
    spread = high - low
    safe = np.where(spread == 0, np.float32(1), spread)
    sixth = np.where(
        high == red,
        (green - blue) / safe,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixth += 6 * turn
    sixth -= 6 * np.floor(sixth / 6)
    out = np.empty_like(frame)
    np.clip(np.abs(sixth - 3) - 1, 0, 1, out=out[0])  # how much of the spread each channel has, by sixths of the circle
    np.clip(2 - np.abs(sixth - 2), 0, 1, out=out[1])
    np.clip(2 - np.abs(sixth - 4), 0, 1, out=out[2])
    out *= spread
    out += low
    return out


_STEPS: dict[str, tuple[Callable[[Plane, np.float32], Plane], float]] = {
    "brightness": (_brightness, 1.0),
    "contrast": (_contrast, 1.0),
    "saturation": (_saturation, 1.0),
    "hue": (_hue, 0.0),
}


def _gray(frame: Plane) -> Plane:
    return GRAY[0] * frame[0] + GRAY[1] * frame[1] + GRAY[2] * frame[2]


def _between(middle: float, strength: float, part: float) -> float:
    return middle + strength * (2 * part - 1)


def _taps(length: int, size: int) -> tuple[NDArray[np.int64], Plane]:
    """(size, n) places and weights that resize `length` samples: torch's antialiased bilinear weights.

    A triangle as wide as two samples of the coarser grid, around the middle of each new sample, cut at the edges.
    """
    scale = length / size
    reach = max(scale, 1.0)
    middle = scale * (np.arange(size) + 0.5)
    first = np.maximum(np.floor(middle - reach + 0.5), 0).astype(np.int64)
    stop = np.minimum(np.floor(middle + reach + 0.5), length).astype(np.int64)
    places = first[:, None] + np.arange((stop - first).max())
    weights = np.maximum(1 - np.abs((places + 0.5 - middle[:, None]) / reach), 0) * (places < stop[:, None])
    weights /= weights.sum(1, keepdims=True)
    return np.minimum(places, length - 1), weights.astype(np.float32)


def _resized(planes: Plane, down: tuple, across: tuple) -> Plane:
    """(3, h, w) planes along both axes; a size that does not change costs nothing and changes nothing."""
    for axis, (places, weights) in ((2, across), (1, down)):
        if places.shape == (planes.shape[axis], 1):
            continue
        shape = (-1, 1) if axis == 1 else (-1,)
        planes = sum(
            planes.take(places[:, tap], axis=axis) * weights[:, tap].reshape(shape) for tap in range(places.shape[1])
        )
    return planes
