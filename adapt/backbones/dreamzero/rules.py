"""The reference's data rules: normalisers, padding, relative actions, image resizing, and which rows make a window.

Everything follows the dtype of its values, so float64 rows give float64 results. A chunk is 24 rows here, as in the
reference, which writes that number, the stride of 3 and the 8 frames out as literals. Statistics are one frozen
`Stats` per component; one with a leading axis of 24 has its own numbers for each step of a chunk.

Does not read logs: `relative_rows` and the window rule work on one episode at a time.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from itertools import takewhile, zip_longest
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.errors import DataError, UsageError

Mode = Literal["q99", "min_max", "mean_std", "scale", "binary"]
STEPS = 24
STRIDE = 3
FRAMES = STEPS // STRIDE
CROP = 0.95


@dataclass(frozen=True)
class Stats:
    """Statistics of a component, each (D,), or (24, D) with one row for every step of a chunk."""

    mean: Tensor
    std: Tensor
    min: Tensor
    max: Tensor
    q01: Tensor
    q99: Tensor

    def __post_init__(self) -> None:
        shapes = {f.name: tuple(getattr(self, f.name).shape) for f in fields(self)}
        if len(set(shapes.values())) > 1:
            raise DataError(f"statistics differ in shape: {shapes}. Compute them again.")


def normalize(values: Tensor, stats: Stats, *, mode: Mode) -> Tensor:
    """Values (..., T, D) as the model sees them; (T, D) with T a multiple of 24 where `stats` has a row for each step.

    `q99` and `min_max` map their range to -1..1 and clip. Where the range is empty, `min_max` gives 0, and `q99`
    and `mean_std` keep the raw value (clipped by `q99` only).
    """
    s = _for_rows(stats, values)
    match mode:
        case "q99":
            return _to_unit(values, s.q01, s.q99, empty=values).clamp(-1, 1)
        case "min_max":
            return _to_unit(values, s.min, s.max, empty=torch.zeros_like(values)).clamp(-1, 1)
        case "mean_std":
            flat = s.std == 0
            return torch.where(flat, values, (values - s.mean) / torch.where(flat, 1, s.std))
        case "scale":
            largest = torch.maximum(s.min.abs(), s.max.abs())
            return torch.where(largest == 0, 0, values / torch.where(largest == 0, 1, largest))
        case "binary":
            return (values > 0.5).to(values.dtype)
    raise UsageError(f"normaliser {mode!r}: not known. Give one of q99, min_max, mean_std, scale, binary.")


def denormalize(values: Tensor, stats: Stats, *, mode: Mode) -> Tensor:
    """Values in units again. As in the reference, a component with an empty range comes back as that range's value.

    Raises:
        UsageError: the mode is `scale`, which the reference cannot undo either.
    """
    s = _for_rows(stats, values)
    match mode:
        case "q99":
            return (values + 1) / 2 * (s.q99 - s.q01) + s.q01
        case "min_max":
            return (values + 1) / 2 * (s.max - s.min) + s.min
        case "mean_std":
            return values * s.std + s.mean
        case "binary":
            return (values > 0.5).to(values.dtype)
    raise UsageError(f"normaliser {mode!r} has no inverse. Normalise with q99, min_max or mean_std.")


def pad(values: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Values (..., D) with zeros behind them up to (..., width), and a bool mask of the same shape: True is real.

    Raises:
        DataError: D is over `width`. The reference does so for actions, but cuts a wider state off without a word.
    """
    if values.shape[-1] > width:
        raise DataError(f"{values.shape[-1]} channels, but the base has {width}. Drop components: `use: carry`.")
    mask = torch.ones_like(values, dtype=torch.bool)
    return F.pad(values, (0, width - values.shape[-1])), F.pad(mask, (0, width - values.shape[-1]))


def crop_and_resize(
    frames: Tensor, size: tuple[int, int] | None, *, crop: float = CROP, corner: tuple[int, int] | None = None
) -> Tensor:
    """Frames cut to a share of their height and width, then resized to `size`; uint8 by cutting off the fraction.

    Args:
        frames: (T, H, W, 3) uint8.
        size: (height, width), aspect ratio not kept; None leaves the cut-out as it is.
        crop: 0.95 in training and evaluation of the reference; 1.0 keeps the whole frame.
        corner: top and left of the cut-out; None centres it. Training draws one for all views and frames of a sample.

    Returns:
        (T, *size, 3) uint8.
    """
    height, width = int(frames.shape[1] * crop), int(frames.shape[2] * crop)
    top, left = corner or (round((frames.shape[1] - height) / 2), round((frames.shape[2] - width) / 2))
    if not (0 <= top <= frames.shape[1] - height and 0 <= left <= frames.shape[2] - width):
        raise UsageError(f"crop corner {top}, {left}: {height}x{width} does not fit there. Give a smaller one.")
    cut = frames[:, top : top + height, left : left + width]
    if size is None or size == (height, width):
        return cut.contiguous()
    resized = [_resize(part, size) for part in cut.split(16)]  # few at a time: float frames would fill the memory
    return torch.cat(resized)


def relative(actions: Tensor, state: Tensor) -> Tensor:
    """Actions (..., C * 24, D) minus the state at their chunk's first row, (..., C, D)."""
    return actions - _over_chunk(actions, state)


def absolute(actions: Tensor, state: Tensor) -> Tensor:
    """The inverse of `relative`."""
    return actions + _over_chunk(actions, state)


def relative_rows(actions: Tensor, state: Tensor) -> Tensor:
    """Every 24 rows of an episode relative to the state at the first: (L, D) and (L, D) to (L - 23, 24, D).

    An episode of less than 24 rows gives none. The reference's converter leaves the last anchor out.
    """
    if len(actions) < STEPS:
        return actions.new_zeros(0, STEPS, actions.shape[-1])
    windows = actions.unfold(0, STEPS, 1).transpose(1, 2)
    return windows - state[: len(windows), None]


def statistics(rows: Tensor) -> Stats:
    """Statistics over the first axis: (N, D), or (N, 24, D) for numbers of each step; quantiles interpolate.

    Raises:
        DataError: there is no row.
    """
    if not len(rows):
        raise DataError("statistics of no rows: every episode is shorter than a chunk. Give longer ones.")
    values = rows.numpy()
    q01, q99 = (torch.as_tensor(np.quantile(values.astype(np.float64), q, axis=0)) for q in (0.01, 0.99))
    return Stats(
        mean=torch.as_tensor(values.mean(0)),
        std=torch.as_tensor(values.std(0)),
        min=torch.as_tensor(values.min(0)),
        max=torch.as_tensor(values.max(0)),
        q01=q01,
        q99=q99,
    )


def mix(
    parts: Sequence[Stats],
    weights: Sequence[float],
    *,
    quantiles: Literal["min_max", "weighted_average"] = "min_max",
) -> Stats:
    """Statistics of a mixture: exact for mean and std; quantiles by the widest range, as the reference does."""
    if len(parts) != len(weights) or not parts or min(weights) < 0 or sum(weights) <= 0:
        raise UsageError(f"{len(parts)} statistics and weights {list(weights)}: give each one a share above zero.")
    share = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    each = {f.name: torch.stack([getattr(p, f.name) for p in parts]).double() for f in fields(Stats)}

    def average(values: Tensor) -> Tensor:
        return torch.tensordot(share, values, 1)

    mean = average(each["mean"])
    low, high = each["min"].amin(0), each["max"].amax(0)
    by_share = quantiles == "weighted_average"
    return Stats(
        mean=mean,
        std=(average(each["std"] ** 2 + each["mean"] ** 2) - mean**2).clamp(min=0).sqrt(),
        min=low,
        max=high,
        q01=average(each["q01"]) if by_share else each["q01"].amin(0),
        q99=average(each["q99"]) if by_share else each["q99"].amax(0),
    )


def reference_chunks(
    length: int,
    *,
    start: int,
    language_at: Callable[[int], Hashable],
    chunks: int = 4,
    reference_edge: bool = False,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First rows of the chunks that the reference takes around row `start`, and the rows of their video frames.

    Chunks are added in turn before and after the start, 24 rows apart, where they lie in the episode and their first
    row has the start's instruction. Eight frames to a chunk, three rows apart, and one frame after the last chunk.

    Args:
        length: rows of the episode.
        chunks: most chunks of a window.
        reference_edge: follow the reference to the letter at an episode's end: it also takes a chunk whose closing
            frame lies past the end, then drops this chunk and keeps its first frame as the closing one. Such a
            window has one chunk less, or none, even where there was room before the start. False never takes it.

    Returns:
        (n,) anchors in order and (8 n + 1,) frame rows; both empty where no chunk fits, where the reference raises.
    """
    if not 0 <= start < length:
        raise UsageError(f"start row {start}: the episode has {length} rows. Give one of 0..{length - 1}.")
    needed = STEPS if reference_edge else STEPS + 1  # rows from the anchor on, with the closing frame's row or not
    here = language_at(start)

    def fits(anchor: int) -> bool:
        return 0 <= anchor <= length - needed and language_at(anchor) == here

    before = list(takewhile(fits, range(start - STEPS, -1, -STEPS)))
    after = list(takewhile(fits, range(start + STEPS, length, STEPS)))
    outward = [a for pair in zip_longest(before, after) for a in pair if a is not None]
    anchors = sorted([*([start] if fits(start) else []), *outward][:chunks])
    if anchors and anchors[-1] + STEPS >= length:
        anchors.pop()
    frames = [a + step for a in anchors for step in range(0, STEPS, STRIDE)]
    return tuple(anchors), (*frames, anchors[-1] + STEPS) if anchors else ()


def _to_unit(values: Tensor, low: Tensor, high: Tensor, *, empty: Tensor) -> Tensor:
    flat = low == high
    return torch.where(flat, empty, 2 * (values - low) / torch.where(flat, 1, high - low) - 1)


def _for_rows(stats: Stats, values: Tensor) -> Stats:
    """Statistics in the values' dtype; those of each step of a chunk repeated for every chunk."""
    each = {f.name: getattr(stats, f.name).to(values) for f in fields(stats)}
    if each["mean"].ndim == 2:
        steps = len(each["mean"])
        if values.shape[-2] % steps:
            raise DataError(f"{values.shape[-2]} rows: statistics are for chunks of {steps}. Give whole chunks.")
        each = {name: value.repeat(values.shape[-2] // steps, 1) for name, value in each.items()}
    if each["mean"].shape[-1] != values.shape[-1]:
        wanted = each["mean"].shape[-1]
        raise DataError(f"{values.shape[-1]} channels, but statistics of {wanted}. Compute them for this component.")
    return Stats(**each)


def _over_chunk(actions: Tensor, state: Tensor) -> Tensor:
    if actions.shape[-2] != STEPS * state.shape[-2] or actions.shape[-1] != state.shape[-1]:
        raise DataError(
            f"actions {tuple(actions.shape)} and states {tuple(state.shape)}: wanted {STEPS} action rows "
            "to a state row and the same channels."
        )
    return state.repeat_interleave(STEPS, -2)


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, H, W, 3) uint8 to `size` by antialiased bilinear weights over values in 0..1, as torchvision does it."""
    unit = frames.permute(0, 3, 1, 2).float() / 255
    resized = F.interpolate(unit, size, mode="bilinear", antialias=True, align_corners=False)
    return (resized * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
