"""Small parts of the network, with the reference's parameter names."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square norm over the full width, all heads together."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class PatchEmbedding(nn.Module):
    """(B, C, F, H, W) -> (B, F * rows * columns, dim): a convolution whose kernel is its stride, as one matrix.

    A last odd row or column is left out.
    """

    def __init__(self, in_dim: int, dim: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, in_dim, *patch))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, latents_BCFHW: Tensor) -> Tensor:
        _, _, time, height, width = self.weight.shape
        rows, columns = latents_BCFHW.shape[3] // height, latents_BCFHW.shape[4] // width
        whole = latents_BCFHW[..., : rows * height, : columns * width]
        patches = whole.unflatten(4, (columns, width)).unflatten(3, (rows, height)).unflatten(2, (-1, time))
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(1, 3).flatten(2)
        return F.linear(patches, self.weight.flatten(1), self.bias)


def unpatch(tokens_BND: Tensor, patch: tuple[int, int, int], grid: tuple[int, int]) -> Tensor:
    """(B, F * rows * columns, patch * C) -> (B, C, F, H, W)."""
    time, height, width = patch
    cells = tokens_BND.unflatten(2, (time, height, width, -1)).unflatten(1, (-1, *grid))
    return cells.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


class RobotLinear(nn.Module):
    """A linear layer stored as W (1, in, out), b (1, out): the reference's "category-specific" layer, one category.

    Computes in its own dtype: heads may be trained in float32 on a base of 16 bits.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(1, in_dim, out_dim))
        self.b = nn.Parameter(torch.zeros(1, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.W.dtype) @ self.W[0] + self.b[0]


class RobotMLP(nn.Module):
    """Two layers with a ReLU between: the state encoder and the action decoder."""

    def __init__(self, in_dim: int, width: int, out_dim: int) -> None:
        super().__init__()
        self.layer1 = RobotLinear(in_dim, width)
        self.layer2 = RobotLinear(width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(F.relu(self.layer1(x)))


class ActionEncoder(nn.Module):
    """Noisy actions (B, T, A) at timesteps (B, T) in [0, 1000] -> (B, T, dim)."""

    def __init__(self, action_dim: int, dim: int) -> None:
        super().__init__()
        self.W1 = RobotLinear(action_dim, dim)
        self.W2 = RobotLinear(2 * dim, dim)
        self.W3 = RobotLinear(dim, dim)

    def forward(self, action: Tensor, timestep: Tensor) -> Tensor:
        embedded = self.W1(action)
        time = sine_cosine(timestep, embedded.shape[-1]).to(embedded.dtype)
        return self.W3(F.silu(self.W2(torch.cat((embedded, time), dim=-1))))


class ImageEmbedding(nn.Module):
    """CLIP features (B, 257, 1280) -> (B, 257, dim)."""

    def __init__(self, clip_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(clip_dim),
            nn.Linear(clip_dim, clip_dim),
            nn.GELU(),
            nn.Linear(clip_dim, dim),
            nn.LayerNorm(dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.proj(features)


def cosine_sine(timestep: Tensor, dim: int) -> Tensor:
    """(..., dim) float64 [cosines | sines] with frequencies 10000^(-i / (dim / 2)): of Wan's time embedding."""
    half = dim // 2
    frequency = torch.arange(half, dtype=torch.float64, device=timestep.device).div(-half)
    angle = timestep.double()[..., None] * torch.pow(10000.0, frequency)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def sine_cosine(timestep: Tensor, dim: int) -> Tensor:
    """(..., dim) float32 [sines | cosines]: of the action encoder."""
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=timestep.device)
    angle = timestep.float()[..., None] * torch.exp(steps * (-math.log(10000.0) / half))
    return torch.cat((angle.sin(), angle.cos()), dim=-1)
