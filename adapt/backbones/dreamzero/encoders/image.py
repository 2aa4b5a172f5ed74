"""A picture to features: open-clip's ViT-H/14 without its last block, from transformers.

The whole tiled canvas is squeezed into a square; its aspect ratio is not kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones.dreamzero.encoders.keymap import Source, fill, original_shapes

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageConfig:
    """Sizes of a CLIP vision tower. `out_dim` is the width of the projection that is not used here."""

    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_ratio: int = 4
    patch: int = 14
    image_size: int = 224
    out_dim: int = 1024
    eps: float = 1e-5

    @property
    def tokens(self) -> int:
        """Features of a picture: one for the whole, one for each patch."""
        return 1 + (self.image_size // self.patch) ** 2


VIT_H14 = ImageConfig()
TINY_VIT = replace(VIT_H14, width=32, layers=3, heads=4, image_size=28, out_dim=16)

LAYERS = "vision_model.encoder.layers."
ENDS = {
    "vision_model.embeddings.class_embedding": Source("visual.cls_embedding", lead=(1, 1)),
    "vision_model.embeddings.position_embedding.weight": Source("visual.pos_embedding", lead=(1,)),
    "vision_model.embeddings.patch_embedding.weight": Source("visual.patch_embedding.weight"),
    "vision_model.pre_layrnorm.weight": Source("visual.pre_norm.weight"),
    "vision_model.pre_layrnorm.bias": Source("visual.pre_norm.bias"),
    "vision_model.post_layernorm.weight": Source("visual.post_norm.weight"),
    "vision_model.post_layernorm.bias": Source("visual.post_norm.bias"),
}
LAYER = {
    "layer_norm1": Source("norm1"),
    "self_attn.q_proj": Source("attn.to_qkv", part=0, parts=3),
    "self_attn.k_proj": Source("attn.to_qkv", part=1, parts=3),
    "self_attn.v_proj": Source("attn.to_qkv", part=2, parts=3),
    "self_attn.out_proj": Source("attn.proj"),
    "layer_norm2": Source("norm2"),
    "mlp.fc1": Source("mlp.0"),
    "mlp.fc2": Source("mlp.2"),
}


def unused(config: ImageConfig) -> dict[str, tuple[int, ...]]:
    """Original names and shapes of what a checkpoint holds and no feature depends on."""
    return {"log_scale": (), "visual.head": (config.width, config.out_dim)}


def shapes(config: ImageConfig) -> dict[str, tuple[int, ...]]:
    """Original names and shapes of the image encoder's tensors, the unused ones included."""
    return unused(config) | original_shapes(_empty(config), _source_of)


def resize(images: Tensor, config: ImageConfig) -> Tensor:
    """(B, 3, H, W) pictures as (B, 3, size, size) float32: bicubic, without antialiasing, as the reference has it."""
    size = (config.image_size, config.image_size)
    return F.interpolate(images.float(), size=size, mode="bicubic", align_corners=False)


def preprocess(images: Tensor, config: ImageConfig) -> Tensor:
    """(B, 3, H, W) pictures in [-1, 1] as the (B, 3, size, size) float32 that the tower takes."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return (resize(images, config) * 0.5 + 0.5 - mean) / std


@dataclass(frozen=True)
class ImageEncoder:
    """A frozen vision tower. Dropping the last reference frees it."""

    model: nn.Module
    config: ImageConfig

    @classmethod
    def load(
        cls,
        tensors: Mapping[str, Tensor],
        config: ImageConfig,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> Self:
        """The tower with weights of original names (`visual.transformer.0.attn.to_qkv.weight`, ...).

        Raises:
            DataError: a tensor is missing, of another shape, or not known; the `unused` ones may come or not.
        """
        model = _empty(config)
        fill(model, tensors, _source_of, what="image encoder", device=device, dtype=dtype, ignored=unused(config))
        # Not in the weights, so it is still on the meta device.
        model.vision_model.embeddings.position_ids = torch.arange(config.tokens, device=device)[None]
        return cls(model, config)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Features of a batch of pictures after all blocks but the last.

        Args:
            images: (B, 3, H, W) in [-1, 1].

        Returns:
            (B, tokens, width) in the encoder's dtype; 257 tokens, the whole picture's first.
        """
        pixels = preprocess(images.to(self.model.device), self.config).to(self.model.dtype)
        return self.model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]


def _empty(config: ImageConfig) -> nn.Module:
    """The tower on the meta device: shapes without weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = CLIPVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.width * config.mlp_ratio,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch,
        hidden_act="gelu",
        layer_norm_eps=config.eps,
    )
    with torch.device("meta"):
        return CLIPVisionModel(sizes)


def _source_of(name: str) -> Source:
    """Which original tensor, or third of one, a parameter of transformers' tower is."""
    if name in ENDS:
        return ENDS[name]
    number, _, inner = name.removeprefix(LAYERS).partition(".")
    module, _, leaf = inner.rpartition(".")
    return replace(LAYER[module], name=f"visual.transformer.{number}.{LAYER[module].name}.{leaf}")
