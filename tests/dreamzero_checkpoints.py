"""Made-up DreamZero checkpoints of the tiny size: golden weights in the released layout, whole and cut to pieces."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from goldens import dit_weights, golden
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapt.backbones.dreamzero.config import DreamZeroConfig, preset
from adapt.backbones.dreamzero.config_json import config_json
from adapt.backbones.dreamzero.legacy import IMAGE_FILE, TEXT_FILE, VIDEO_FILES
from adapt.backbones.dreamzero.lora_weights import LoraWeights
from adapt.backbones.dreamzero.model import build
from adapt.backbones.dreamzero.names import (
    IMAGE,
    LORA_TARGETS,
    MODEL,
    TEXT,
    VAE,
    WRAPPED,
    dit_shapes,
    is_head,
    is_image_branch,
    lora_name,
)
from adapt.backbones.dreamzero.served import MEASURES, ServedRobot

TINY = preset("tiny")
ENCODERS = {TEXT: "encoder_t5", IMAGE + "visual.": "encoder_clip_vision", VAE: "encoder_vae16"}


def released_tensors() -> dict[str, Tensor]:
    """Every tensor of a tiny released checkpoint, float32."""
    tensors = {prefix + name: t for prefix, file in ENCODERS.items() for name, t in golden(file).under("w.")}
    tensors[IMAGE + "log_scale"] = torch.tensor(4.6)
    return tensors | {MODEL + name: tensor for name, tensor in dit_weights("dit_weights_i2v").items()}


def write_released(folder: Path, *, shards: int = 3, dtype: torch.dtype = torch.float32) -> Path:
    """A tiny released checkpoint: `shards` files, their index and config.json."""
    tensors = {name: tensor.to(dtype) for name, tensor in released_tensors().items()}
    return write_shards(folder, tensors, shards=shards, config=config_json(TINY))


def write_both(folder: Path, lora: LoraWeights) -> Path:
    """The reference's save without save_lora_only: base weights wrapped, LoRA beside them, heads as trained."""
    whole = released_tensors()
    tensors = {name: tensor for name, tensor in whole.items() if not name.startswith(MODEL)}
    for name, tensor in whole.items():
        if name.startswith(MODEL):
            bare = name.removeprefix(MODEL)
            tensors[MODEL + WRAPPED + bare] = lora.heads.get(bare, tensor)
    for module, factors in lora.factors.items():
        for letter, factor in zip("AB", factors, strict=True):
            tensors[MODEL + WRAPPED + lora_name(module, letter)] = factor
    alpha = round(lora.scale * lora.rank)
    config = config_json(TINY, train_architecture="lora", lora_rank=lora.rank, lora_alpha=alpha)
    return write_shards(folder, tensors, shards=3, config=config)


def write_wan(folder: Path, config: DreamZeroConfig = TINY, *, without: str = "") -> Path:
    """Raw Wan: the DiT without heads in two shards and the encoders as .pth, the CLIP text tower included.

    The 5B's has no branch for CLIP tokens. `without` leaves a .pth out.
    """
    is_5b = config.flavour == "ti2v"
    weights = dit_weights("dit_weights_ti2v" if is_5b else "dit_weights_i2v")
    kept = {n: t for n, t in weights.items() if not is_head(n) and not (is_5b and is_image_branch(n))}
    write_shards(folder, kept, shards=2, config=None, stem="diffusion_pytorch_model")
    clip = {f"visual.{name}": tensor for name, tensor in golden("encoder_clip_vision").under("w.")}
    clip |= {"log_scale": torch.tensor(4.6), "textual.token_embedding.weight": torch.zeros(3, 2)}
    files = {
        TEXT_FILE: dict(golden("encoder_t5").under("w.")),
        IMAGE_FILE: clip,
        VIDEO_FILES[is_5b]: dict(golden("encoder_vae38" if is_5b else "encoder_vae16").under("w.")),
    }
    for name, tensors in files.items():
        if name != without:
            torch.save(tensors, folder / name)
    return folder


def write_shards(
    folder: Path, tensors: Mapping[str, Tensor], *, shards: int, config: Mapping[str, Any] | None, stem: str = "model"
) -> Path:
    """Files with every n-th tensor each, written by the safetensors package."""
    folder.mkdir(parents=True)
    names = list(tensors)
    places = {}
    for k in range(shards):
        file = f"{stem}.safetensors" if shards == 1 else f"{stem}-{k + 1:05d}-of-{shards:05d}.safetensors"
        held = {name: tensors[name].contiguous() for name in names[k::shards]}
        save_file(held, folder / file, {"format": "pt"})
        places |= dict.fromkeys(held, file)
    if shards > 1:
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": places}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def change_file(path: Path, *, without: str | None = None, extra: Mapping[str, Tensor] | None = None) -> None:
    """Write one safetensors file again, with a tensor less or more."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items() if name != without}
    save_file(tensors | dict(extra or {}), path, {"format": "pt"})


def some_lora(
    config: DreamZeroConfig = TINY,
    *,
    rank: int = 4,
    scale: float = 1.0,
    seed: int = 0,
    base_sha256: str | None = None,
    targets: tuple[str, ...] = LORA_TARGETS,
) -> LoraWeights:
    """A LoRA with both factors non-zero, and changed heads; large enough to be seen in an output."""
    draw = torch.Generator().manual_seed(seed)
    factors, heads = {}, {}
    for name, shape in dit_shapes(config).items():
        module = name.removesuffix(".weight")
        if name.startswith("blocks.") and name.endswith(".weight") and module.split(".", 2)[2] in targets:
            outside, inside = shape
            factors[module] = (
                torch.randn(rank, inside, generator=draw) * inside**-0.5,
                torch.randn(outside, rank, generator=draw) * 0.1,
            )
        elif name.startswith(("state_encoder", "action_encoder", "action_decoder")):
            heads[name] = torch.randn(shape, generator=draw) * 0.05
    return LoraWeights(rank, scale, factors, heads, base_sha256)


def some_inputs(config: DreamZeroConfig = TINY, *, seed: int = 0) -> dict[str, Tensor]:
    """One training window of noise, for `DreamZeroDiT.forward`."""
    draw = torch.Generator().manual_seed(seed)
    (height, width), frames = config.latent_grid, config.window_latents
    rows = config.chunks * config.steps

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    inputs = {
        "noisy": noise(1, config.out_dim, frames, height, width),
        "timestep": torch.full((1, frames), 400.0),
        "context": noise(1, config.text_len, config.text_dim),
        "clip": noise(1, config.clip_tokens, config.clip_dim),
        "clean": noise(1, config.out_dim, frames, height, width),
        "state": noise(1, config.chunks * config.states_per_chunk, config.state_dim),
        "action": noise(1, rows, config.action_dim),
        "action_timestep": torch.full((1, rows), 400.0),
    }
    if config.flavour == "i2v":
        inputs["y"] = noise(1, config.conditioning_dim, frames, height, width)
    return inputs


def some_robot(tag: str = "yam", **changes: Any) -> ServedRobot:
    """Two arms of six joints and a gripper each, three cameras."""
    widths = {"left_joint_pos": 6, "left_gripper_pos": 1, "right_joint_pos": 6, "right_gripper_pos": 1}
    statistics = {
        group: {key: {m: [0.1 * k] * width for k, m in enumerate(MEASURES)} for key, width in widths.items()}
        for group in ("state", "action")
    }
    values = {
        "tag": tag,
        "video_keys": ("top", "left", "right"),
        "state_keys": tuple(widths),
        "action_keys": tuple(widths),
        "relative_keys": tuple(widths),
        "language_keys": ("annotation.task",),
        "resolution": (640, 480),
        "fps": 30.0,
        "statistics": statistics,
    }
    return ServedRobot(**(values | changes))


# What the golden encoders, tiny as they are, fit: their widths are no others' of the tiny size.
RUNNABLE = preset("tiny", text_dim=32, clip_dim=32, clip_tokens=5, layers=2)
WORDS = ("<pad>", "</s>", "<unk>", "▁pick", "▁up", "▁the", "▁cup", "▁&", "▁and")


def write_runnable(folder: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """A tiny released checkpoint whose parts fit each other, encoders and tokenizer included: runs work on it."""
    model = build(RUNNABLE, device="cpu", seed=seed)
    tensors = {name: t for name, t in released_tensors().items() if not name.startswith(MODEL)}
    tensors |= {MODEL + name: tensor.detach() for name, tensor in model.named_parameters()}
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    write_shards(folder, tensors, shards=3, config=config_json(RUNNABLE))
    write_tokenizer(folder / "tokenizer")
    return folder


def write_tokenizer(folder: Path) -> Path:
    """A T5 tokenizer of nine words, in the file layout of umt5-xxl's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    model = Tokenizer(models.Unigram([(word, -float(i)) for i, word in enumerate(WORDS)], unk_id=2))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    model.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", **names}))
    return folder
