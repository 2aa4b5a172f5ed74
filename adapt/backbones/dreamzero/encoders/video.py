"""Video to latents and back: Wan's causal VAE, of version 2.1 (14B) or 2.2 (5B), from diffusers.

The first frame becomes one latent frame, every 4 frames after it another. diffusers gives the posterior; its mode,
normalised by a fixed mean and deviation for each channel, is what the diffusion transformer sees. Does not tile and
does not sample.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from adapt.backbones.dreamzero.encoders.keymap import Source, SourceOf, fill, original_shapes
from schemas.errors import DataError

FRAMES_PER_LATENT = 4
MASK_CHANNELS = 4  # one for each video frame of a latent frame
TEMPORAL_DOWNSAMPLE = (False, True, True)

# fmt: off
MEAN_16 = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
STD_16 = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
MEAN_48 = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
    -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
    -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
    -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
STD_48 = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
    0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
    0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
    0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
    0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on


@dataclass(frozen=True)
class VideoConfig:
    """Sizes of a Wan VAE.

    Args:
        base_dim: channels of the encoder's first stage; `decoder_base_dim` those of the decoder's last.
        z_dim: channels of a latent frame.
        dim_mult: each stage's channels, in `base_dim`s; every stage but the last halves the picture.
        res_blocks: residual blocks of an encoder stage; the decoder's have one more.
        residual: stages have a shortcut around them, as in Wan2.2.
        patch: side in pixels of the squares that are folded into channels first.
        mean, std: of each latent channel, for normalising.
    """

    base_dim: int = 96
    decoder_base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    residual: bool = False
    patch: int = 1
    mean: tuple[float, ...] = MEAN_16
    std: tuple[float, ...] = STD_16

    @property
    def stride(self) -> int:
        """Pixels of one latent cell's side."""
        return self.patch * 2 ** (len(self.dim_mult) - 1)


WAN21 = VideoConfig()
WAN22 = VideoConfig(base_dim=160, decoder_base_dim=256, z_dim=48, residual=True, patch=2, mean=MEAN_48, std=STD_48)
TINY_WAN21 = replace(WAN21, base_dim=4, decoder_base_dim=4)
TINY_WAN22 = replace(WAN22, base_dim=4, decoder_base_dim=4)

RESNET = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
RESAMPLER = {"resample.1": "resample.1", "time_conv": "time_conv"}
ATTENTION = {"norm": "norm", "to_qkv": "to_qkv", "proj": "proj"}
ENDS = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}
LATENT_ENDS = {"quant_conv": "conv1", "post_quant_conv": "conv2"}
Part = tuple[str, str, Mapping[str, str]]


def to_model_range(frames: Tensor) -> Tensor:
    """uint8 pixels of any layout as float32 in [-1, 1]."""
    return frames.float() / 255 * 2 - 1


def normalise(latents: Tensor, config: VideoConfig) -> Tensor:
    """(B, z, F, h, w) posterior modes as the diffusion transformer's latents, float32."""
    mean, std = _statistics(config, latents.device)
    return (latents.float() - mean) / std


def denormalise(latents: Tensor, config: VideoConfig) -> Tensor:
    """Undoes `normalise`, in float32."""
    mean, std = _statistics(config, latents.device)
    return latents.float() * std + mean


def _statistics(config: VideoConfig, device: torch.device) -> Tensor:
    return torch.tensor((config.mean, config.std), device=device).view(2, 1, -1, 1, 1, 1)


def shapes(config: VideoConfig) -> dict[str, tuple[int, ...]]:
    """Original names and shapes of the VAE's tensors."""
    return original_shapes(_empty(config), _source_of(config))


@dataclass(frozen=True)
class VideoEncoder:
    """A frozen VAE. Dropping the last reference frees it."""

    model: nn.Module
    config: VideoConfig

    @classmethod
    def load(
        cls,
        tensors: Mapping[str, Tensor],
        config: VideoConfig,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> Self:
        """The VAE with weights of original names (`encoder.conv1.weight`, ...).

        Raises:
            DataError: a tensor is missing, of another shape, or not known.
        """
        model = _empty(config)
        fill(model, tensors, _source_of(config), what="video encoder", device=device, dtype=dtype)
        return cls(model, config)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Normalised latents of a batch of videos.

        Args:
            frames: (B, 3, T, H, W) in [-1, 1], T = 1 + 4k, H and W multiples of the stride.

        Returns:
            (B, z, 1 + k, H / stride, W / stride) float32.

        Raises:
            DataError: T, H or W is not such a number.
        """
        _check(frames, self.config)
        posterior = self.model.encode(frames.to(self.model.device, self.model.dtype)).latent_dist
        return normalise(posterior.mode(), self.config)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, 3, 1 + 4k, H, W) float32 pixels in [-1, 1], clamped, of (B, z, 1 + k, h, w) normalised latents."""
        modes = denormalise(latents.to(self.model.device), self.config)
        return self.model.decode(modes.to(self.model.dtype)).sample.float()

    def first_frame(self, frame: Tensor, *, frames: int) -> Tensor:
        """What the 14B is told of a video's first frame: a mask, and the latents of that frame followed by mid grey.

        All latent frames are computed: the convolutions' caches carry the first frame through the next 28 latent
        frames, so in a window of 33 video frames none of the grey ones is the same for two videos.

        Args:
            frame: (B, 3, H, W) in [-1, 1].
            frames: video frames in all, 1 + 4k.

        Returns:
            (B, 4 + z, 1 + k, h, w) float32; the mask comes first, 1 at latent frame 0.
        """
        video = frame.new_zeros(*frame.shape[:2], frames, *frame.shape[2:])
        video[:, :, 0] = frame
        latents = self.encode(video)
        mask = latents.new_zeros(latents.shape[0], MASK_CHANNELS, *latents.shape[2:])
        mask[:, :, 0] = 1
        return torch.cat([mask, latents], dim=1)


def _check(frames: Tensor, config: VideoConfig) -> None:
    if frames.ndim != 5 or frames.shape[1] != 3 or frames.shape[2] % FRAMES_PER_LATENT != 1:
        raise DataError(f"video of shape {tuple(frames.shape)}: wanted (B, 3, T, H, W) with T = 1, 5, 9, ... frames.")
    height, width = frames.shape[3:]
    if height % config.stride or width % config.stride:
        raise DataError(f"video of {height}x{width} pixels: wanted multiples of {config.stride}. Resize the canvas.")


def _empty(config: VideoConfig) -> nn.Module:
    """The VAE on the meta device: shapes without weights."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        return AutoencoderKLWan(
            base_dim=config.base_dim,
            decoder_base_dim=config.decoder_base_dim,
            z_dim=config.z_dim,
            dim_mult=list(config.dim_mult),
            num_res_blocks=config.res_blocks,
            temperal_downsample=list(TEMPORAL_DOWNSAMPLE),
            is_residual=config.residual,
            in_channels=3 * config.patch**2,
            out_channels=3 * config.patch**2,
            patch_size=config.patch if config.patch > 1 else None,
            scale_factor_spatial=config.stride,
        )


def _source_of(config: VideoConfig) -> SourceOf:
    """Which original tensor a parameter of diffusers' VAE is."""
    names = dict(LATENT_ENDS)
    for ours, original, table in _parts(config):
        names |= {f"{ours}.{mine}": f"{original}.{theirs}" for mine, theirs in table.items()}

    def source_of(name: str) -> Source:
        module, _, leaf = name.rpartition(".")
        return Source(f"{names[module]}.{leaf}")

    return source_of


def _parts(config: VideoConfig) -> Iterator[Part]:
    """(path in diffusers, original path, names inside) of every part of the VAE."""
    for side in ("encoder", "decoder"):
        yield side, side, ENDS
        yield f"{side}.mid_block.resnets.0", f"{side}.middle.0", RESNET
        yield f"{side}.mid_block.attentions.0", f"{side}.middle.1", ATTENTION
        yield f"{side}.mid_block.resnets.1", f"{side}.middle.2", RESNET
    yield from _stages(config, side="encoder", way="down", res_blocks=config.res_blocks)
    yield from _stages(config, side="decoder", way="up", res_blocks=config.res_blocks + 1)


def _stages(config: VideoConfig, *, side: str, way: str, res_blocks: int) -> Iterator[Part]:
    """Stages of residual blocks, each but the last with a resampler at its end.

    Wan2.2 counts blocks within a stage. Wan2.1 counts them through all stages, as diffusers does for its encoder only.
    """
    last = len(config.dim_mult) - 1
    flat = 0
    for stage in range(last + 1):
        for block in range(res_blocks + (stage < last)):
            is_resampler = block == res_blocks
            stage_path = f"{side}.{way}_blocks.{stage}"
            if config.residual:
                ours = f"{stage_path}.{way}sampler" if is_resampler else f"{stage_path}.resnets.{block}"
                original = f"{side}.{way}samples.{stage}.{way}samples.{block}"
            else:
                within = f"{stage_path}.{way}samplers.0" if is_resampler else f"{stage_path}.resnets.{block}"
                ours = within if side == "decoder" else f"{side}.{way}_blocks.{flat}"
                original = f"{side}.{way}samples.{flat}"
            yield ours, original, RESAMPLER if is_resampler else RESNET
            flat += 1
