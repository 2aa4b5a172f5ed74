"""Encoders out of checkpoints: a released one holds their tensors, raw Wan has .pth files beside it.

Only the encoder that is asked for is read. On the CPU and in the files' own dtype its weights stay mapped from disk.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor

from adapt.backbones.dreamzero.checkpoint import Checkpoint
from adapt.backbones.dreamzero.config import Flavour
from adapt.backbones.dreamzero.encoders import Encoders
from adapt.backbones.dreamzero.encoders.image import TINY_VIT, VIT_H14, ImageConfig, ImageEncoder
from adapt.backbones.dreamzero.encoders.text import TextConfig, TextEncoder, tokenize
from adapt.backbones.dreamzero.encoders.video import WAN21, WAN22, VideoConfig, VideoEncoder
from adapt.backbones.dreamzero.legacy import IMAGE_FILE, TEXT_FILE, VIDEO_FILES, read_pth
from adapt.backbones.dreamzero.names import IMAGE, TEXT, VAE, EncoderSizes
from adapt.backbones.dreamzero.sizes import encoder_sizes
from schemas.errors import DataError, UsageError

NAMES = {VAE: "video encoder", TEXT: "text encoder", IMAGE: "image encoder"}
VIDEO_FILE: dict[Flavour, str] = dict(zip(("i2v", "ti2v"), VIDEO_FILES, strict=True))


def load_encoders(
    checkpoint: Checkpoint,
    *,
    tokenizer: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    pth: Path | None = None,
) -> Encoders:
    """All three, and the tokenizer; `load_video`, `load_text` and `load_image` load one.

    Args:
        tokenizer: folder of umt5-xxl's tokenizer.
        pth: folder of .pth files that are not beside the checkpoint; Wan2.2 comes without the image encoder's.

    Raises:
        UsageError: an encoder is neither in the checkpoint nor beside it.
        DataError: tensors of one are missing, of another shape, or not known.
    """
    return Encoders(
        video=load_video(checkpoint, device=device, dtype=dtype, pth=pth),
        text=load_text(checkpoint, device=device, dtype=dtype, pth=pth),
        image=load_image(checkpoint, device=device, dtype=dtype, pth=pth),
        tokenize=partial(tokenize, tokenizer_path=tokenizer, max_tokens=checkpoint.config.text_len),
    )


def load_video(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    pth: Path | None = None,
) -> VideoEncoder:
    """The video encoder alone; see `load_encoders`."""
    tensors = encoder_tensors(checkpoint, VAE, pth=pth)
    return VideoEncoder.load(_bare(tensors, VAE), _video_config(tensors), device=device, dtype=dtype)


def load_text(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    pth: Path | None = None,
) -> TextEncoder:
    """The text encoder alone; see `load_encoders`."""
    tensors = encoder_tensors(checkpoint, TEXT, pth=pth)
    s = _sizes(tensors).text
    config = TextConfig(s.vocab, s.dim, s.dim_attn, s.ffn, s.heads, s.layers, s.buckets)
    return TextEncoder.load(_bare(tensors, TEXT), config, device=device, dtype=dtype)


def load_image(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    pth: Path | None = None,
) -> ImageEncoder:
    """The image encoder alone; see `load_encoders`."""
    tensors = encoder_tensors(checkpoint, IMAGE, pth=pth)
    return ImageEncoder.load(_bare(tensors, IMAGE), _image_config(tensors), device=device, dtype=dtype)


def encoder_tensors(checkpoint: Checkpoint, prefix: str, *, pth: Path | None = None) -> dict[str, Tensor]:
    """Tensors of one encoder by whole names, mapped from disk.

    Args:
        prefix: `names.VAE`, `names.TEXT` or `names.IMAGE`.
        pth: a second folder in which to look for the .pth file.

    Raises:
        UsageError: it is neither in the checkpoint nor beside it.
    """
    if held := checkpoint.part(prefix):
        return dict(checkpoint.tensors(held))
    what, own = NAMES[prefix], checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    if checkpoint.is_lora:
        raise UsageError(f"{checkpoint.path}: a LoRA, which has no {what}. Give the base that it was trained on.")
    file = {TEXT: TEXT_FILE, IMAGE: IMAGE_FILE}.get(prefix) or VIDEO_FILE[checkpoint.config.flavour]
    folders = [own] if pth is None else [own, pth]
    for folder in folders:
        if (folder / file).exists():
            return {prefix + name: tensor for name, tensor in read_pth(folder / file).items()}
    raise UsageError(
        f"{checkpoint.path}: has no {what}, and there is no {file} in {' or '.join(map(str, folders))}. "
        "Give the raw Wan folder that has it."
    )


def _bare(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _sizes(tensors: Mapping[str, Tensor]) -> EncoderSizes:
    """Sizes told from an encoder's tensors; those of the released one where a telling tensor is missing."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return encoder_sizes(shapes, EncoderSizes.released("i2v"))


def _video_config(tensors: Mapping[str, Tensor]) -> VideoConfig:
    s = _sizes(tensors).vae
    nested = any(name.startswith(f"{VAE}encoder.downsamples.0.downsamples.") for name in tensors)
    known = WAN22 if nested else WAN21
    if s.z != known.z_dim:
        raise DataError(f"video encoder: {s.z} latent channels, wanted {known.z_dim}. Is it Wan's?")
    return replace(known, base_dim=s.dim, decoder_base_dim=s.decoder_dim)


def _image_config(tensors: Mapping[str, Tensor]) -> ImageConfig:
    """Tensors do not tell the number of heads: it is that of the known tower of this width."""
    s = _sizes(tensors).image
    for known in (VIT_H14, TINY_VIT):
        if known.width == s.dim:
            side = isqrt(s.tokens - 1) * s.patch
            return replace(
                known, layers=s.layers, mlp_ratio=s.ffn // s.dim, patch=s.patch, image_size=side, out_dim=s.out
            )
    raise DataError(f"image encoder: width {s.dim}, wanted {VIT_H14.width}. Is it open-clip's ViT-H/14?")
