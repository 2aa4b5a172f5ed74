"""Names and shapes of every tensor of a DreamZero checkpoint, in the reference's order, from the sizes alone.

A released checkpoint is the DiT and its three frozen encoders, each under its own prefix. The DiT's own names are the
*canonical* ones: raw Wan files use them bare, a wrapped (LoRA) module puts `base_model.model.` before them and a newer
peft `.base_layer` into them. Does not know tensors.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from adapt.backbones.dreamzero.config import DreamZeroConfig, Flavour

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

MODEL = "action_head.model."
TEXT = "action_head.text_encoder."
IMAGE = "action_head.image_encoder.model."
VAE = "action_head.vae.model."
WRAPPED = "base_model.model."
PARTS = {"model": MODEL, "text encoder": TEXT, "image encoder": IMAGE, "vae": VAE}

HEAD_MODULES = ("state_encoder", "action_encoder", "action_decoder")
LORA_TARGETS = (*(f"{a}.{p}" for a in ("self_attn", "cross_attn") for p in "qkvo"), "ffn.0", "ffn.2")
IMAGE_BRANCH = ("img_emb.", ".cross_attn.k_img.", ".cross_attn.v_img.", ".cross_attn.norm_k_img.")


@dataclass(frozen=True)
class TextSizes:
    """umt5 encoder; the defaults are umt5-xxl."""

    vocab: int = 256384
    dim: int = 4096
    dim_attn: int = 4096
    ffn: int = 10240
    heads: int = 64
    layers: int = 24
    buckets: int = 32


@dataclass(frozen=True)
class ImageSizes:
    """Vision tower of open-clip; the defaults are ViT-H/14. `tokens` counts the class token."""

    dim: int = 1280
    ffn: int = 5120
    out: int = 1024
    layers: int = 32
    patch: int = 14
    tokens: int = 257


@dataclass(frozen=True)
class VaeSizes:
    """Widths of the Wan VAEs: of the encoder's and the decoder's outermost stage, and latent channels."""

    dim: int = 96
    decoder_dim: int = 96
    z: int = 16


VAES: dict[Flavour, VaeSizes] = {"i2v": VaeSizes(), "ti2v": VaeSizes(dim=160, decoder_dim=256, z=48)}


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes of the three frozen encoders."""

    text: TextSizes
    image: ImageSizes
    vae: VaeSizes

    @classmethod
    def released(cls, flavour: Flavour) -> "EncoderSizes":
        """Those of the released checkpoints."""
        return cls(TextSizes(), ImageSizes(), VAES[flavour])


def dit_shapes(config: DreamZeroConfig) -> Shapes:
    """The diffusion transformer: 1317 tensors of the 14B, 997 of the 5B."""
    c, width, patch = config, config.head_width, config.patch[0] * config.patch[1] * config.patch[2]
    shapes: Shapes = {}
    for name, inside, outside in (
        ("state_encoder.layer1", c.state_dim, width),
        ("state_encoder.layer2", width, c.dim),
        ("action_encoder.W1", c.action_dim, c.dim),
        ("action_encoder.W2", 2 * c.dim, c.dim),
        ("action_encoder.W3", c.dim, c.dim),
        ("action_decoder.layer1", c.dim, width),
        ("action_decoder.layer2", width, c.action_dim),
    ):
        shapes |= {f"{name}.W": (1, inside, outside), f"{name}.b": (1, outside)}
    shapes |= affine("patch_embedding", (c.dim, c.in_dim, *c.patch))
    shapes |= affine("text_embedding.0", (c.dim, c.text_dim)) | affine("text_embedding.2", (c.dim, c.dim))
    shapes |= affine("time_embedding.0", (c.dim, c.freq_dim)) | affine("time_embedding.2", (c.dim, c.dim))
    shapes |= affine("time_projection.1", (6 * c.dim, c.dim))
    for index in range(c.layers):
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in block_shapes(c).items()}
    shapes |= {"head.modulation": (1, 2, c.dim)} | affine("head.head", (c.out_dim * patch, c.dim))
    shapes |= affine("img_emb.proj.0", (c.clip_dim,)) | affine("img_emb.proj.1", (c.clip_dim, c.clip_dim))
    return shapes | affine("img_emb.proj.3", (c.dim, c.clip_dim)) | affine("img_emb.proj.4", (c.dim,))


def block_shapes(config: DreamZeroConfig) -> Shapes:
    """One transformer block: 32 tensors."""
    dim, ffn = config.dim, config.ffn_dim
    shapes: Shapes = {"modulation": (1, 6, dim)}
    for attention in ("self_attn", "cross_attn"):
        for projection in "qkvo":
            shapes |= affine(f"{attention}.{projection}", (dim, dim))
        shapes |= {f"{attention}.{norm}.weight": (dim,) for norm in ("norm_q", "norm_k")}
        if attention == "self_attn":
            shapes |= affine("norm3", (dim,))
    shapes |= affine("cross_attn.k_img", (dim, dim)) | affine("cross_attn.v_img", (dim, dim))
    shapes |= {"cross_attn.norm_k_img.weight": (dim,)}
    return shapes | affine("ffn.0", (ffn, dim)) | affine("ffn.2", (dim, ffn))


def text_shapes(sizes: TextSizes | None = None) -> Shapes:
    """The text encoder: 242 tensors of umt5-xxl."""
    s = sizes or TextSizes()
    shapes: Shapes = {"token_embedding.weight": (s.vocab, s.dim)}
    for index in range(s.layers):
        block: Shapes = {"norm1": (s.dim,)} | {f"attn.{p}": (s.dim_attn, s.dim) for p in "qkv"}
        block |= {"attn.o": (s.dim, s.dim_attn), "norm2": (s.dim,)}
        block |= {"ffn.gate.0": (s.ffn, s.dim), "ffn.fc1": (s.ffn, s.dim), "ffn.fc2": (s.dim, s.ffn)}
        block |= {"pos_embedding.embedding": (s.buckets, s.heads)}
        shapes |= {f"blocks.{index}.{name}.weight": shape for name, shape in block.items()}
    return shapes | {"norm.weight": (s.dim,)}


def image_shapes(sizes: ImageSizes | None = None) -> Shapes:
    """The image encoder: 393 tensors of ViT-H/14, the head and the logit scale that nobody uses included."""
    s = sizes or ImageSizes()
    tower: Shapes = {"cls_embedding": (1, 1, s.dim), "pos_embedding": (1, s.tokens, s.dim), "head": (s.dim, s.out)}
    tower |= {"patch_embedding.weight": (s.dim, 3, s.patch, s.patch)} | affine("pre_norm", (s.dim,))
    for index in range(s.layers):
        block = affine("norm1", (s.dim,)) | affine("attn.to_qkv", (3 * s.dim, s.dim))
        block |= affine("attn.proj", (s.dim, s.dim)) | affine("norm2", (s.dim,))
        block |= affine("mlp.0", (s.ffn, s.dim)) | affine("mlp.2", (s.dim, s.ffn))
        tower |= {f"transformer.{index}.{name}": shape for name, shape in block.items()}
    tower |= affine("post_norm", (s.dim,))
    return {"log_scale": ()} | {f"visual.{name}": shape for name, shape in tower.items()}


def vae_shapes(flavour: Flavour, sizes: VaeSizes | None = None) -> Shapes:
    """The video VAE: 194 tensors of Wan2.1's (i2v), 196 of Wan2.2's (ti2v)."""
    s = sizes or VAES[flavour]
    pixels, top, decoder_top = (12 if flavour == "ti2v" else 3), 4 * s.dim, 4 * s.decoder_dim
    shapes = affine("encoder.conv1", (s.dim, pixels, 3, 3, 3)) | _down(flavour, s.dim)
    shapes |= _middle("encoder", top) | _vae_head("encoder", top, 2 * s.z)
    shapes |= affine("conv1", (2 * s.z, 2 * s.z, 1, 1, 1)) | affine("conv2", (s.z, s.z, 1, 1, 1))
    shapes |= affine("decoder.conv1", (decoder_top, s.z, 3, 3, 3)) | _middle("decoder", decoder_top)
    return shapes | _up(flavour, s.decoder_dim) | _vae_head("decoder", s.decoder_dim, pixels)


def checkpoint_shapes(config: DreamZeroConfig, encoders: EncoderSizes | None = None) -> Shapes:
    """A released checkpoint, whole: 2146 tensors of the 14B, 1828 of the 5B."""
    sizes = encoders or EncoderSizes.released(config.flavour)
    parts = {
        TEXT: text_shapes(sizes.text),
        IMAGE: image_shapes(sizes.image),
        VAE: vae_shapes(config.flavour, sizes.vae),
        MODEL: dit_shapes(config),
    }
    return {prefix + name: shape for prefix, shapes in parts.items() for name, shape in shapes.items()}


def fresh_names(config: DreamZeroConfig) -> list[str]:
    """The 14 tensors of the robot's heads, which no Wan checkpoint has."""
    return [name for name in dit_shapes(config) if is_head(name)]


def lora_shapes(config: DreamZeroConfig, *, rank: int, targets: Iterable[str] = LORA_TARGETS) -> Shapes:
    """The DiT with its LoRA, by canonical names, in the reference's order.

    Args:
        targets: endings of module names inside a block, such as `ffn.0`.
    """
    wanted, shapes = tuple(targets), dit_shapes(config)
    found: Shapes = {}
    for name, shape in shapes.items():
        found[name] = shape
        module, _, leaf = name.rpartition(".")
        is_last = leaf == "bias" and f"{module}.weight" in shapes
        if is_last and module.startswith("blocks.") and module.split(".", 2)[2] in wanted:
            outside, inside = shapes[f"{module}.weight"]
            found |= {lora_name(module, "A"): (rank, inside), lora_name(module, "B"): (outside, rank)}
    return found


def lora_only_shapes(config: DreamZeroConfig, *, rank: int, targets: Iterable[str] = LORA_TARGETS) -> Shapes:
    """What the reference's LoRA-only files hold, by canonical names: LoRA and heads (814 of the 14B, 614 of the 5B)."""
    shapes = lora_shapes(config, rank=rank, targets=targets)
    return {name: shape for name, shape in shapes.items() if is_head(name) or ".lora_" in name}


def lora_name(module: str, factor: str) -> str:
    """Canonical name of a module's LoRA factor `A` or `B`."""
    return f"{module}.lora_{factor}.default.weight"


def is_head(name: str) -> bool:
    return name.startswith(tuple(f"{head}." for head in HEAD_MODULES))


def is_image_branch(name: str) -> bool:
    """Whether a canonical name belongs to the branch for CLIP tokens, which Wan2.2-TI2V-5B has not."""
    return any(part in name for part in IMAGE_BRANCH)


def canonical(name: str) -> str:
    """The DiT's own name of a tensor, whatever wrapping it was saved in; encoder names come back unchanged."""
    bare = name.removeprefix(MODEL).removeprefix(WRAPPED).replace(".base_layer.", ".")
    for factor in ("A", "B"):
        if bare.endswith(f".lora_{factor}.weight"):
            return lora_name(bare.removesuffix(f".lora_{factor}.weight"), factor)
    return bare


def affine(name: str, shape: Shape) -> Shapes:
    """A weight, and a bias of its first dimension."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _down(flavour: Flavour, dim: int) -> Shapes:
    widths = [dim * m for m in (1, 1, 2, 4, 4)]
    shapes: Shapes = {}
    names = _vae_names(flavour, "encoder", "down")
    for stage in range(4):
        inside, outside = widths[stage], widths[stage + 1]
        for block in range(2):
            shapes |= _residual(next(names), outside if block else inside, outside)
        if stage < 3:
            name = next(names)
            shapes |= affine(f"{name}.resample.1", (outside, outside, 3, 3))
            if stage > 0:
                shapes |= affine(f"{name}.time_conv", (outside, outside, 3, 1, 1))
        next(names)
    return shapes


def _up(flavour: Flavour, dim: int) -> Shapes:
    """Wan2.1 halves the channels when it upsamples, Wan2.2 does not."""
    widths = [dim * m for m in (4, 4, 4, 2, 1)]
    halves = flavour == "i2v"
    shapes: Shapes = {}
    names = _vae_names(flavour, "decoder", "up")
    for stage in range(4):
        outside = widths[stage + 1]
        inside = widths[stage] // 2 if halves and stage else widths[stage]
        for block in range(3):
            shapes |= _residual(next(names), outside if block else inside, outside)
        if stage < 3:
            name = next(names)
            shapes |= affine(f"{name}.resample.1", (outside // 2 if halves else outside, outside, 3, 3))
            if stage < 2:
                shapes |= affine(f"{name}.time_conv", (2 * outside, outside, 3, 1, 1))
        next(names)
    return shapes


def _vae_names(flavour: Flavour, side: str, way: str) -> Iterator[str]:
    """Module names in order; each stage ends with one that is not used: Wan2.2 nests stages, Wan2.1 counts through."""
    per_stage = 3 if way == "down" else 4
    flat = 0
    for stage in range(4):
        used = per_stage if stage < 3 else per_stage - 1
        for index in range(used):
            inner = f"{stage}.{way}samples.{index}" if flavour == "ti2v" else f"{flat + index}"
            yield f"{side}.{way}samples.{inner}"
        flat += used
        yield ""


def _residual(name: str, inside: int, outside: int) -> Shapes:
    shapes: Shapes = {f"{name}.residual.0.gamma": (inside, 1, 1, 1)}
    shapes |= affine(f"{name}.residual.2", (outside, inside, 3, 3, 3))
    shapes |= {f"{name}.residual.3.gamma": (outside, 1, 1, 1)}
    shapes |= affine(f"{name}.residual.6", (outside, outside, 3, 3, 3))
    return shapes if inside == outside else shapes | affine(f"{name}.shortcut", (outside, inside, 1, 1, 1))


def _middle(side: str, width: int) -> Shapes:
    shapes = _residual(f"{side}.middle.0", width, width) | {f"{side}.middle.1.norm.gamma": (width, 1, 1)}
    shapes |= affine(f"{side}.middle.1.to_qkv", (3 * width, width, 1, 1))
    shapes |= affine(f"{side}.middle.1.proj", (width, width, 1, 1))
    return shapes | _residual(f"{side}.middle.2", width, width)


def _vae_head(side: str, width: int, out: int) -> Shapes:
    return {f"{side}.head.0.gamma": (width, 1, 1, 1)} | affine(f"{side}.head.2", (out, width, 3, 3, 3))
