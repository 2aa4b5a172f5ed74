"""The reference's config.json: its sizes as a `DreamZeroConfig`, and one written from such.

The file is the reference's whole recipe, and only a tenth of it is the network's. The rest is written as the released
configurations have it. Sizes that the reference has in its code and not in this file (text width, head width, ...) are
written only where they differ from its defaults.
"""

from collections.abc import Mapping
from typing import Any, Literal

from adapt.backbones.dreamzero.config import PRESETS, DreamZeroConfig, Flavour
from adapt.backbones.dreamzero.names import LORA_TARGETS, VAES
from schemas.errors import DataError

Json = dict[str, Any]
Architecture = Literal["full", "lora"]

HEAD = "groot.vla.model.dreamzero.action_head.wan_flow_matching_action_tf.WANPolicyHead"
MODULES = "groot.vla.model.dreamzero.modules"
WAN = {"i2v": "./checkpoints/Wan2.1-I2V-14B-480P", "ti2v": "./checkpoints/Wan2.2-TI2V-5B"}
TEXT_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
IMAGE_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE_FILE = "Wan2.1_VAE.pth"  # the reference's recipe names this file for the 5B too
TARGETS = ",".join(dict.fromkeys(t.removeprefix("self_attn.").removeprefix("cross_attn.") for t in LORA_TARGETS))
CANVAS: dict[Flavour, tuple[int, int]] = {"i2v": (352, 640), "ti2v": (160, 320)}

DIT_KEYS = {  # ours: the reference's
    "dim": "dim",
    "ffn_dim": "ffn_dim",
    "heads": "num_heads",
    "layers": "num_layers",
    "in_dim": "in_dim",
    "out_dim": "out_dim",
    "freq_dim": "freq_dim",
    "eps": "eps",
    "chunks": "max_chunk_size",
    "latents_per_chunk": "num_frame_per_block",
    "steps": "num_action_per_block",
    "states_per_chunk": "num_state_per_block",
}
DEFAULT_KEYS = {  # arguments that the reference leaves at their defaults
    "patch": "patch_size",
    "text_dim": "text_dim",
    "text_len": "text_len",
    "action_dim": "action_dim",
    "state_dim": "max_state_dim",
    "head_width": "hidden_size",
}


def config_of(values: Mapping[str, Any]) -> DreamZeroConfig:
    """The network's sizes in a config.json.

    Raises:
        DataError: it is not DreamZero's, or its tokens fit no known canvas; names the key.
    """
    try:
        head = values["action_head_cfg"]["config"]
        dit = head["diffusion_model_cfg"]
        sizes = {ours: dit[theirs] for ours, theirs in DIT_KEYS.items() if theirs in dit}
        flavour: Flavour = dit["model_type"]
        for key in ("dim", "ffn_dim", "heads", "layers", "in_dim", "out_dim"):
            sizes[key] = dit[DIT_KEYS[key]]
        frame_tokens = dit["frame_seqlen"]
    except (KeyError, TypeError) as error:
        raise DataError(f"config.json: {error} is missing, so it is not DreamZero's. Give the sizes.") from None
    if flavour not in VAES:
        raise DataError(f"config.json: model_type {flavour!r} is not known. Known: {', '.join(VAES)}.")
    sizes |= {ours: dit[theirs] for ours, theirs in DEFAULT_KEYS.items() if theirs in dit}
    if "patch" in sizes:
        sizes["patch"] = tuple(sizes["patch"])
    canvas = (head.get("target_video_height"), head.get("target_video_width"))
    stride = 8 if flavour == "i2v" else 16
    config = DreamZeroConfig(
        flavour=flavour, vae_stride=stride, canvas=canvas if all(canvas) else CANVAS[flavour], **sizes
    )
    if config.frame_tokens != frame_tokens:
        raise DataError(
            f"config.json: frame_seqlen {frame_tokens} is not the {config.frame_tokens} tokens of a canvas of "
            f"{config.canvas[0]} x {config.canvas[1]}. Set target_video_height and target_video_width."
        )
    return config


def size_name(config: DreamZeroConfig) -> str:
    """`14b`, `5b`, another known size, or `other`."""
    return next((name for name, known in PRESETS.items() if known == config), "other")


def config_json(
    config: DreamZeroConfig,
    *,
    train_architecture: Architecture = "full",
    lora_rank: int = 4,
    lora_alpha: int = 4,
    lora_targets: str = TARGETS,
    wan: str | None = None,
) -> Json:
    """A config.json with every key that the reference writes.

    Args:
        wan: folder of the raw Wan files, as the machine that serves will see it; the reference downloads what it lacks.
    """
    head = _training_recipe() | {
        "_recursive_": False,
        "_target_": HEAD + "Config",
        "action_dim": config.action_dim,
        "action_horizon": config.steps,
        "diffusion_model_cfg": _dit(config, wan or WAN[config.flavour]),
        "lora_alpha": lora_alpha,
        "lora_rank": lora_rank,
        "lora_target_modules": lora_targets,
        "max_action_dim": config.action_dim,
        "max_state_dim": config.state_dim,
        "num_frame_per_block": config.latents_per_chunk,
        "num_frames": config.window_frames,
        "train_architecture": train_architecture,
    }
    head |= _encoders(config, wan or WAN[config.flavour])
    if config.flavour == "ti2v" or config.canvas != CANVAS["i2v"]:
        head |= {"target_video_height": config.canvas[0], "target_video_width": config.canvas[1]}
    return {
        "_attn_implementation_autoset": True,
        "action_dim": config.action_dim,
        "action_head_cfg": {"_convert_": "object", "_target_": HEAD, "config": head},
        "action_horizon": config.steps,
        "architectures": ["VLA"],
        "backbone_cfg": {"_target_": "groot.vla.model.dreamzero.backbone.identity.IdentityBackbone"},
        "hidden_size": 0,
        "model_dtype": "float32",
        "model_type": "vla",
        "resume_path": "/out",
        "transformers_version": "4.51.3",
    }


def for_serving(values: Json) -> Json:
    """A full checkpoint's config.json with the flags that keep the reference's servers from other weights."""
    outer = values["action_head_cfg"]
    head = outer["config"] | {
        "train_architecture": "full",
        "defer_lora_injection": False,
        "skip_component_loading": True,
    }
    return values | {"action_head_cfg": outer | {"config": head}}


def _dit(config: DreamZeroConfig, wan: str) -> Json:
    plain = DreamZeroConfig()
    dit: Json = {
        "_convert_": "object",
        "_target_": f"{MODULES}.wan_video_dit_action_casual_chunk.CausalWanModel",
        "diffusion_model_pretrained_path": wan,
        "frame_seqlen": config.frame_tokens,
        "model_type": config.flavour,
    }
    dit |= {theirs: getattr(config, ours) for ours, theirs in DIT_KEYS.items()}
    if config.flavour == "ti2v":
        dit["concat_first_frame_latent"] = False
    for ours, theirs in DEFAULT_KEYS.items():
        value = getattr(config, ours)
        if value != getattr(plain, ours):
            dit[theirs] = list(value) if isinstance(value, tuple) else value
    return dit


def _encoders(config: DreamZeroConfig, wan: str) -> Json:
    vae: Json = {"_convert_": "object", "_target_": f"{MODULES}.wan_video_vae.WanVideoVAE"}
    vae["vae_pretrained_path"] = f"{wan}/{VAE_FILE}"
    if config.flavour == "ti2v":
        vae |= {"_target_": vae["_target_"] + "38", "dim": VAES["ti2v"].dim, "z_dim": VAES["ti2v"].z}
    return {
        "image_encoder_cfg": {
            "_convert_": "object",
            "_target_": f"{MODULES}.wan_video_image_encoder.WanImageEncoder",
            "image_encoder_pretrained_path": f"{wan}/{IMAGE_FILE}",
        },
        "text_encoder_cfg": {
            "_convert_": "object",
            "_target_": f"{MODULES}.wan_video_text_encoder.WanTextEncoder",
            "text_encoder_pretrained_path": f"{wan}/{TEXT_FILE}",
        },
        "vae_cfg": vae,
    }


def _training_recipe() -> Json:
    """Settings of the reference's training and of modules it no longer has: equal in every released configuration."""
    return {
        "action_loss_embodiment_ids": [26, 17, 32],
        "add_pos_embed": True,
        "backbone_embedding_dim": 0,
        "backbone_features_projector_cfg": None,
        "decouple_video_action_noise": False,
        "expand_batch": None,
        "freeze_decode_layer": False,
        "hidden_size": 64,
        "init_lora_weights": "kaiming",
        "input_embedding_dim": 1536,
        "load_pretrained_det_decode_layer_path": None,
        "model_dtype": "float32",
        "noise_beta_alpha": 1.5,
        "noise_beta_beta": 1.0,
        "noise_s": 0.999,
        "num_inference_timesteps": 4,
        "num_timestep_buckets": 1000,
        "repa_coeff": 1.0,
        "repa_layer": 8,
        "tile_size_height": 34,
        "tile_size_width": 34,
        "tile_stride_height": 18,
        "tile_stride_width": 16,
        "tiled": False,
        "tune_diffusion_model": True,
        "tune_projector": True,
        "use_gradient_checkpointing": True,
        "use_vlln": True,
        "video_noise_beta_alpha": 3.0,
        "video_noise_beta_beta": 1.0,
        "vl_self_attention_cfg": {
            "_target_": "groot.vla.model.n1_5.modules.cross_attention_dit.SelfAttentionTransformer",
            "attention_head_dim": 64,
            "dropout": 0.2,
            "final_dropout": True,
            "num_attention_heads": 24,
            "num_layers": 4,
            "positional_embeddings": None,
        },
    }
