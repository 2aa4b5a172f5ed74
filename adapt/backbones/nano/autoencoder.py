"""A linear video autoencoder fitted in closed form: one latent frame for the first frame, then one per `group` frames.

A group's latent has static channels, the principal components of the patches of its *last* frame, and motion channels,
those of how the earlier frames differ from it. A still picture therefore has zero motion channels, and repeating the
last frame is `hold`: keep the static channels, zero the motion. Does not look across patches and does not learn.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# B batch, F frames, T latent frames, C latent channels, h w cells, P numbers in a patch


@dataclass(frozen=True)
class Autoencoder:
    """Two orthonormal bases and their scales.

    Args:
        mean: (P,) of a frame's patch; static_basis: (P, C); motion_basis: ((group - 1) * P, C).
        static_scale, motion_scale: (C,), what a latent unit is worth.
    """

    patch: int
    group: int
    mean: Tensor
    static_basis: Tensor
    static_scale: Tensor
    motion_basis: Tensor
    motion_scale: Tensor

    @property
    def static_channels(self) -> int:
        return self.static_basis.shape[1]

    def encode(self, frames_BFHW3: Tensor) -> Tensor:
        """(B, 1 + n * group, H, W, 3) uint8 to latents (B, 1 + n, C, h, w)."""
        first, groups = _groups(_patches(frames_BFHW3, self.patch), self.group)
        last = torch.cat([first, groups[:, :, -1]], 1)
        static = (last - self.mean) @ self.static_basis / self.static_scale
        motion = _motion(groups) @ self.motion_basis / self.motion_scale
        motion = torch.cat([motion.new_zeros(len(motion), 1, *motion.shape[2:]), motion], 1)
        return torch.cat([static, motion], -1).permute(0, 1, 4, 2, 3).contiguous()

    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Latents to (B, F, H, W, 3) float in 0..1; latent frame 0 gives one frame, each other one `group` frames."""
        return self._decode(latents_BTChw, alone=True)

    def decode_groups(self, latents_BTChw: Tensor) -> Tensor:
        """Like `decode` for latent frames that all stand for a group: (B, T * group, H, W, 3)."""
        return self._decode(latents_BTChw, alone=False)

    def _decode(self, latents_BTChw: Tensor, *, alone: bool) -> Tensor:
        latents = latents_BTChw.permute(0, 1, 3, 4, 2)
        static, motion = latents.split([self.static_channels, self.motion_basis.shape[1]], -1)
        last = static * self.static_scale @ self.static_basis.T + self.mean
        moved = (motion * self.motion_scale @ self.motion_basis.T).unflatten(-1, (self.group - 1, -1)).movedim(-2, 2)
        groups = torch.cat([last[:, :, None] + moved, last[:, :, None]], 2).flatten(1, 2)
        return _pixels(groups[:, self.group - 1 :] if alone else groups, self.patch).clamp(0, 1)

    def to_tensors(self) -> dict[str, Tensor]:
        """What safetensors can hold; the inverse of `from_tensors`."""
        shape = torch.tensor([self.patch, self.group])
        return {"shape": shape} | {name: getattr(self, name).contiguous() for name in _TENSORS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        patch, group = tensors["shape"].tolist()
        return cls(patch, group, **{name: tensors[name] for name in _TENSORS})

    @property
    def fingerprint(self) -> str:
        """sha256 over names, shapes and values."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.to_tensors().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode() + tensor.numpy().tobytes())
        return digest.hexdigest()


_TENSORS = ("mean", "static_basis", "static_scale", "motion_basis", "motion_scale")


class AutoencoderFit:
    """Sums over patches, so that memory does not grow with the number of frames."""

    def __init__(self, *, patch: int, group: int) -> None:
        size = patch * patch * 3
        self.patch, self.group = patch, group
        self.count, self.motion_count = 0, 0
        self.total = torch.zeros(size, dtype=torch.float64)
        self.static = torch.zeros(size, size, dtype=torch.float64)
        self.motion = torch.zeros((group - 1) * size, (group - 1) * size, dtype=torch.float64)

    def add(self, frames_BFHW3: Tensor) -> None:
        """Take in windows of (B, 1 + n * group, H, W, 3) uint8."""
        first, groups = _groups(_patches(frames_BFHW3, self.patch), self.group)
        last = torch.cat([first, groups[:, :, -1]], 1).flatten(0, 3)
        motion = _motion(groups).flatten(0, 3)
        self.count += len(last)
        self.total += last.sum(0, dtype=torch.float64)
        self.static += (last.T @ last).double()
        self.motion_count += len(motion)
        self.motion += (motion.T @ motion).double()

    def finish(self, *, static_channels: int, motion_channels: int, whiten: float = 0.0) -> Autoencoder:
        """The autoencoder; `whiten` 1 gives every channel unit variance, 0 keeps the pixels' proportions."""
        mean = self.total / self.count
        static_basis, static_scale = _components(
            self.static / self.count - torch.outer(mean, mean), static_channels, whiten
        )
        motion_basis, motion_scale = _components(self.motion / max(self.motion_count, 1), motion_channels, whiten)
        return Autoencoder(self.patch, self.group, mean.float(), static_basis, static_scale, motion_basis, motion_scale)


def psnr(frames: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..1."""
    return float(-10 * torch.log10((frames - reference).square().mean().clamp_min(1e-10)))


def hold(latents: Tensor, static_channels: int) -> Tensor:
    """Latents (..., C, h, w) of a group that repeats the given latent frame's last frame."""
    still = latents.clone()
    still[..., static_channels:, :, :] = 0
    return still


def _components(covariance: Tensor, channels: int, whiten: float) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:channels].clamp_min(1e-8), vectors.flip(1)[:, :channels]
    sign = torch.where(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)  # eigh leaves it open
    std = values.sqrt()
    scale = std**whiten * std.square().mean().sqrt() ** (1 - whiten)
    return (vectors * sign).float().contiguous(), scale.float()


def _patches(frames_BFHW3: Tensor, patch: int) -> Tensor:
    """(B, F, H, W, 3) uint8 to (B, F, h, w, P) float in 0..1."""
    batch, frames, height, width, _ = frames_BFHW3.shape
    cells = frames_BFHW3.reshape(batch, frames, height // patch, patch, width // patch, patch, 3)
    return cells.permute(0, 1, 2, 4, 3, 5, 6).flatten(4).float() / 255


def _pixels(patches_BFhwP: Tensor, patch: int) -> Tensor:
    batch, frames, rows, columns, _ = patches_BFhwP.shape
    cells = patches_BFhwP.reshape(batch, frames, rows, columns, patch, patch, 3).permute(0, 1, 2, 4, 3, 5, 6)
    return cells.reshape(batch, frames, rows * patch, columns * patch, 3)


def _groups(patches_BFhwP: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The first frame (B, 1, h, w, P) and the groups after it (B, n, group, h, w, P)."""
    assert (patches_BFhwP.shape[1] - 1) % group == 0, "frames are not 1 + a multiple of group"
    return patches_BFhwP[:, :1], patches_BFhwP[:, 1:].unflatten(1, (-1, group))


def _motion(groups: Tensor) -> Tensor:
    """(B, n, h, w, (group - 1) * P): earlier frames less the last one."""
    return (groups[:, :, :-1] - groups[:, :, -1:]).movedim(2, 4).flatten(4)
