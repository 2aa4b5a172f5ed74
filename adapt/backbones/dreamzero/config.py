"""Sizes of a DreamZero model, and the ones that exist.

Every number is of the public reference, dreamzero0/dreamzero @ ab790c1: its action head's YAML files and the defaults
of its `CausalWanModel`. A *chunk* is what the reference calls a block of frames: 24 control steps, 8 video frames, 2
latent frames, 24 action tokens and 1 state token. *Block* means a transformer block here.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self

Flavour = Literal["i2v", "ti2v"]


@dataclass(frozen=True)
class DreamZeroConfig:
    """Sizes of the diffusion transformer, of its token sequence, and of the canvas it sees.

    Args:
        flavour: `i2v` (Wan2.1) gets the first frame's latents as extra channels, `ti2v` (Wan2.2) does not.
        in_dim: channels into the patch embedding; i2v: 16 noisy latents, 4 mask, 16 first-frame latents.
        out_dim: channels of a latent frame.
        head_width: hidden width of the state encoder and the action decoder.
        canvas: (height, width) in pixels of the tiled views, as training sees them.
        vae_stride: pixels of one latent cell's side; time is always 4 frames to a latent.
        chunks: most chunks in a training window; also how much clean history a query sees (`chunks * latents_per_chunk
            + 1` frames), which the reference calls max_chunk_size and local_attn_size.
    """

    flavour: Flavour = "i2v"
    dim: int = 5120
    ffn_dim: int = 13824
    heads: int = 40
    layers: int = 40
    in_dim: int = 36
    out_dim: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    clip_dim: int = 1280
    clip_tokens: int = 257
    eps: float = 1e-6
    action_dim: int = 32
    state_dim: int = 64
    head_width: int = 1024
    canvas: tuple[int, int] = (352, 640)
    vae_stride: int = 8
    chunks: int = 4
    latents_per_chunk: int = 2
    steps: int = 24
    states_per_chunk: int = 1

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.head_dim % 2:
            raise ValueError(f"dim {self.dim} over {self.heads} heads: wanted an even width for each head.")
        if self.patch[0] != 1:
            raise ValueError(f"patch {self.patch}: tokens of one latent frame are wanted, so 1 in time.")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def conditioning_dim(self) -> int:
        """Channels that the first frame adds to every latent frame: 4 mask + `out_dim` latents, or none."""
        return self.in_dim - self.out_dim

    @property
    def latent_grid(self) -> tuple[int, int]:
        """(height, width) of a latent frame."""
        return self.canvas[0] // self.vae_stride, self.canvas[1] // self.vae_stride

    @property
    def frame_tokens(self) -> int:
        """Video tokens of one latent frame (the reference's frame_seqlen): 880 for the 14B, 50 for the 5B."""
        height, width = self.latent_grid
        return (height // self.patch[1]) * (width // self.patch[2])

    @property
    def window_latents(self) -> int:
        """Latent frames of a whole training window, the first one included."""
        return 1 + self.chunks * self.latents_per_chunk

    @property
    def window_frames(self) -> int:
        """Video frames of a whole training window."""
        return 1 + 4 * self.chunks * self.latents_per_chunk

    def as_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        if odd := sorted(values.keys() - known):
            raise ValueError(f"dreamzero config: {odd[0]!r} is not known. Known: {', '.join(sorted(known))}.")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


PRESETS = {
    "14b": DreamZeroConfig(),
    "5b": DreamZeroConfig(
        flavour="ti2v",
        dim=3072,
        ffn_dim=14336,
        heads=24,
        layers=30,
        in_dim=48,
        out_dim=48,
        canvas=(160, 320),
        vae_stride=16,
    ),
    # The reference was timed at this size: 60 tokens to a frame, 1,180 in all.
    "mini": DreamZeroConfig(dim=512, ffn_dim=1408, heads=4, layers=8, canvas=(96, 160)),
    # The size of the parity fixtures: head width 32, so that RoPE splits unevenly into 12, 10 and 10.
    "tiny": DreamZeroConfig(
        dim=128, ffn_dim=256, heads=4, layers=3, text_dim=48, text_len=16, head_width=48, canvas=(32, 48)
    ),
    "tiny-5b": DreamZeroConfig(
        flavour="ti2v",
        dim=128,
        ffn_dim=256,
        heads=4,
        layers=2,
        in_dim=48,
        out_dim=48,
        text_dim=48,
        text_len=16,
        head_width=48,
        canvas=(64, 96),
        vae_stride=16,
    ),
}


def preset(name: str, **changes: Any) -> DreamZeroConfig:
    """A known size by name, with some fields changed.

    Raises:
        ValueError: there is none of that name; says which there are.
    """
    if name not in PRESETS:
        raise ValueError(f"size {name!r}: not known. Give one of: {', '.join(PRESETS)}.")
    return replace(PRESETS[name], **changes)
