"""Sizes told from the names and shapes of tensors, for files that do not say them."""

from collections.abc import Mapping
from math import prod

from adapt.backbones.dreamzero.config import PRESETS, DreamZeroConfig, Flavour
from adapt.backbones.dreamzero.config_json import CANVAS
from adapt.backbones.dreamzero.names import IMAGE, TEXT, VAE, EncoderSizes, ImageSizes, Shape, TextSizes, VaeSizes
from schemas.errors import DataError


def config_from_shapes(shapes: Mapping[str, Shape]) -> DreamZeroConfig:
    """Sizes told from canonical names and shapes, for files that come without a config.json.

    The number of heads and the canvas cannot be seen: they are those of the known size with the same widths, else heads
    are 128 wide, as in every Wan, and the canvas is the flavour's.

    Raises:
        DataError: a tensor that would tell is missing.
    """
    try:
        dim, in_dim, *patch = shapes["patch_embedding.weight"]
        seen = {
            "dim": dim,
            "in_dim": in_dim,
            "patch": tuple(patch),
            "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
            "layers": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
            "out_dim": shapes["head.head.weight"][0] // prod(patch),
            "freq_dim": shapes["time_embedding.0.weight"][1],
            "text_dim": shapes["text_embedding.0.weight"][1],
        }
    except (KeyError, ValueError) as error:
        raise DataError(f"the model's sizes cannot be told without {error}. Add config.json or that tensor.") from None
    if "img_emb.proj.1.weight" in shapes:
        seen["clip_dim"] = shapes["img_emb.proj.1.weight"][1]
    if "state_encoder.layer1.W" in shapes:
        _, seen["state_dim"], seen["head_width"] = shapes["state_encoder.layer1.W"]
    if "action_encoder.W1.W" in shapes:
        seen["action_dim"] = shapes["action_encoder.W1.W"][1]
    for known in PRESETS.values():
        if all(getattr(known, key) == value for key, value in seen.items()):
            return known
    flavour: Flavour = "ti2v" if seen["in_dim"] == seen["out_dim"] else "i2v"
    if dim % 128:
        raise DataError(f"width {dim} is no multiple of 128, so its heads cannot be told. Give the sizes.")
    return DreamZeroConfig(
        flavour=flavour, heads=dim // 128, canvas=CANVAS[flavour], vae_stride=8 if flavour == "i2v" else 16, **seen
    )


def encoder_sizes(shapes: Mapping[str, tuple[int, ...]], otherwise: EncoderSizes) -> EncoderSizes:
    """Sizes of encoders told from their tensors; `otherwise` for an encoder whose telling tensors are not all there."""

    def text() -> TextSizes:
        vocab, dim = shapes[f"{TEXT}token_embedding.weight"]
        buckets, heads = shapes[f"{TEXT}blocks.0.pos_embedding.embedding.weight"]
        attention, ffn = shapes[f"{TEXT}blocks.0.attn.q.weight"][0], shapes[f"{TEXT}blocks.0.ffn.fc1.weight"][0]
        return TextSizes(vocab, dim, attention, ffn, heads, _count(shapes, f"{TEXT}blocks."), buckets)

    def image() -> ImageSizes:
        tower = f"{IMAGE}visual."
        dim, out = shapes[f"{tower}head"]
        ffn, patch = shapes[f"{tower}transformer.0.mlp.0.weight"][0], shapes[f"{tower}patch_embedding.weight"][-1]
        tokens = shapes[f"{tower}pos_embedding"][1]
        return ImageSizes(dim, ffn, out, _count(shapes, f"{tower}transformer."), patch, tokens)

    def vae() -> VaeSizes:
        encoder, decoder = shapes[f"{VAE}encoder.conv1.weight"][0], shapes[f"{VAE}decoder.conv1.weight"][0]
        return VaeSizes(encoder, decoder // 4, shapes[f"{VAE}conv2.weight"][0])

    found = {}
    for name, tell in (("text", text), ("image", image), ("vae", vae)):
        try:
            found[name] = tell()
        except KeyError:
            found[name] = getattr(otherwise, name)
    return EncoderSizes(**found)


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in shapes if name.startswith(prefix))
