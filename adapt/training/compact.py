"""Training state in half its size: the average in 2 bytes and Adam's moments in 1 byte each, for a parameter's 4.

    average   its distance to the weight, in bfloat16
    root      sqrt(exp_avg_sq) as a share of the tensor's largest, on a scale of eight levels to a factor of two
    ratio     exp_avg / root, linearly: AdamW's next step in units of the learning rate, which cannot exceed `BOUND`

At every save the live state becomes what was written, so that a run that goes on and one that is resumed are equal.
Levels are found by comparing and undone by a look-up and one product: bit-equal on every device.
"""

import torch
from torch import Tensor

# |exp_avg| <= 2.35 sqrt(exp_avg_sq) for betas (0.9, 0.99), by Cauchy-Schwarz; rounding a root down adds 4.5 %.
BOUND = 2.5
PER_OCTAVE = 8
ROOT, TOP, RATIO = "root", "top", "ratio"
_LEVELS = (0.0, *(2.0 ** (-(255 - k) / PER_OCTAVE) for k in range(1, 256)))
_BOUNDS = (0.0, *(2.0 ** (-(254.5 - k) / PER_OCTAVE) for k in range(1, 255)))


def pack_average(average: Tensor, weight: Tensor) -> Tensor:
    return (average - weight).to(torch.bfloat16)


def unpack_average(packed: Tensor, weight: Tensor) -> Tensor:
    return weight + packed.to(weight.dtype)


def pack_moments(mean: Tensor, square: Tensor) -> dict[str, Tensor]:
    """AdamW's two moments, which must be finite; a root below 2^-31 of the largest counts as that, zero stays zero."""
    root = square.sqrt()
    top = root.amax() if root.numel() else root.new_zeros(())
    share = torch.where(top > 0, root / top, root)
    level = torch.bucketize(share, share.new_tensor(_BOUNDS), out_int32=True).to(torch.uint8)
    known = _root(level, top)
    ratio = torch.where(known > 0, mean / known * (127 / BOUND), torch.zeros_like(mean))
    return {ROOT: level, TOP: top, RATIO: ratio.round().clamp(-127, 127).to(torch.int8)}


def unpack_moments(packed: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and square, in the dtype of `top`."""
    root = _root(packed[ROOT], packed[TOP])
    return packed[RATIO].to(root.dtype) * (BOUND / 127) * root, root * root


def _root(level: Tensor, top: Tensor) -> Tensor:
    return top.new_tensor(_LEVELS)[level.to(torch.int32)] * top
