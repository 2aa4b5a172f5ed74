"""How like the recorded frames predicted frames are: PSNR, SSIM, and LPIPS where its weights are at hand."""

import contextlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adapt.scoring.baselines import Float
from schemas.report import VideoScore

if TYPE_CHECKING:
    from torch import nn

Frames = NDArray[np.uint8]

PSNR_CAP_DB = 100.0  # equal frames; keeps means finite
SIDE, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LPIPS_AT_ONCE = 16
LPIPS_SIDE = 32  # AlexNet's fourth layer has no cell left below this


def score_video(
    truth: Frames, predictions: Mapping[str, Frames], *, frame_s: Sequence[float], perceptual: bool = False
) -> VideoScore:
    """Likeness of each prediction (N, F, H, W, 3): `model`, `copy_last`, and `ceiling`, the latents decoded again.

    Args:
        frame_s: F times of the frames after the last known one, in seconds.
        perceptual: also measure LPIPS, if its weights are at hand.
    """
    assert len(frame_s) == truth.shape[1]
    missing: dict[str, str] = {}
    noise = {name: psnr(truth, frames).mean(0) for name, frames in predictions.items()}
    likeness: dict[str, Float] = {}
    if min(truth.shape[2:4]) < SIDE:
        missing["ssim"] = f"frames of {truth.shape[3]} x {truth.shape[2]} are smaller than its window of {SIDE}"
    else:
        likeness = {name: ssim(truth, frames).mean(0) for name, frames in predictions.items()}
    distance: dict[str, float] = {}
    if perceptual:
        network = lpips_network()
        if isinstance(network, str) or min(truth.shape[2:4]) < LPIPS_SIDE:
            missing["lpips"] = network if isinstance(network, str) else f"frames are smaller than {LPIPS_SIDE} pixels"
        else:
            distance = {name: lpips(network, truth, frames) for name, frames in predictions.items()}
    return VideoScore(
        windows=len(truth),
        frame_s=tuple(float(t) for t in frame_s),
        psnr={name: float(f.mean()) for name, f in noise.items()},
        frame_psnr={name: tuple(f.tolist()) for name, f in noise.items()},
        ssim={name: float(f.mean()) for name, f in likeness.items()},
        frame_ssim={name: tuple(f.tolist()) for name, f in likeness.items()},
        lpips=distance,
        unmeasured=missing,
    )


def psnr(truth: Frames, other: Frames) -> Float:
    """(N, F) peak signal-to-noise ratio in dB of frames (N, F, H, W, 3) uint8; equal frames give `PSNR_CAP_DB`."""
    assert truth.shape == other.shape and truth.dtype == other.dtype == np.uint8
    noise = np.stack([_squared_error(t, o) for t, o in zip(truth, other, strict=True)])
    with np.errstate(divide="ignore"):
        return np.minimum(20 * np.log10(255.0) - 10 * np.log10(noise), PSNR_CAP_DB)


def ssim(truth: Frames, other: Frames) -> Float:
    """(N, F) structural similarity of frames (N, F, H, W, 3) uint8, each side at least `SIDE`; 1 for equal frames.

    Wang, Bovik, Sheikh and Simoncelli 2004, equation 13 on luma: means, variances and covariance under a Gaussian
    window of 11 x 11 and sigma 1.5, (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)) with
    C1 = (0.01 * 255)^2 and C2 = (0.03 * 255)^2, averaged over every place where the window lies inside the picture.
    """
    assert truth.shape == other.shape and truth.dtype == other.dtype == np.uint8
    return np.stack([_ssim(_luma(t), _luma(o)) for t, o in zip(truth, other, strict=True)])


def _ssim(x: Float, y: Float) -> Float:
    """(F,) of luma (F, H, W)."""
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    both = _blurred(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return (above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean((1, 2))


def _blurred(values: Float) -> Float:
    """(F, H - 10, W - 10): each place's mean under the Gaussian window."""
    at = np.arange(SIDE) - SIDE // 2
    weight = np.exp(-(at**2) / (2 * SIGMA**2))
    weight /= weight.sum()
    for axis in (1, 2):
        size = values.shape[axis] - SIDE + 1
        values = sum(w * np.take(values, range(i, i + size), axis) for i, w in enumerate(weight))
    return values


def _luma(frames: Frames) -> Float:
    return frames.astype(np.float64) @ np.array(LUMA)


def lpips_network() -> "nn.Module | str":
    """LPIPS on AlexNet (Zhang et al. 2018), or why it is not there; nothing is downloaded."""
    import torch

    if importlib.util.find_spec("lpips") is None:
        return "the lpips package is not installed"
    weights = Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
    if not weights.exists():
        return f"AlexNet's weights ({weights.name}) are not in torch's hub folder"
    import lpips

    with contextlib.redirect_stdout(io.StringIO()):
        return lpips.LPIPS(net="alex", verbose=False).eval()


def lpips(network: "nn.Module", truth: Frames, other: Frames) -> float:
    """Mean distance over all frames (N, F, H, W, 3) uint8; lower is better."""
    import torch

    flat_truth, flat_other = truth.reshape(-1, *truth.shape[2:]), other.reshape(-1, *other.shape[2:])
    found = []
    for low in range(0, len(flat_truth), LPIPS_AT_ONCE):
        pair = (flat[low : low + LPIPS_AT_ONCE] for flat in (flat_truth, flat_other))
        images = [torch.from_numpy(p.copy()).movedim(-1, 1).float() / 127.5 - 1 for p in pair]
        with torch.no_grad():
            found.append(network(*images).flatten())
    return float(torch.cat(found).mean())


def copy_last(last: Frames, num_frames: int) -> Frames:
    """(N, F, H, W, 3): the last known frame (N, H, W, 3) shown again F times; a view."""
    return np.broadcast_to(last[:, None], (len(last), num_frames, *last.shape[1:]))


def _squared_error(truth: Frames, other: Frames) -> Float:
    return np.square(truth.astype(np.float32) - other.astype(np.float32)).mean((1, 2, 3), dtype=np.float64)
