"""Every number that shapes a nano model; two models with equal configs have equal tensors."""

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class NanoConfig:
    """Shapes, widths and the objective's constants of one nano model.

    Args:
        chunks, steps, frames_per_chunk: the time base; a window has `chunks * frames_per_chunk + 1` frames.
        group: video frames per latent frame; divides `frames_per_chunk`.
        lags: rows of state history that arrive as velocity features; 0 for a model that sees the present state only.
        last_command: whether the state token also holds the last command.
        canvas: (height, width) of the tiled picture; a multiple of `patch * token_patch`.
        patch: side in pixels of one latent cell; token_patch: side in latent cells of one token.
        static_channels, motion_channels: latent channels for a group's last frame and for how it moved before.
        shift: how far training and denoising lean towards high noise; 1 is uniform.
        video_spread: rms change of a latent from the frame before its chunk.
        sigma_floor: below this noise level the velocity loss stops growing.
        hide_video: probability that a training sample's actions see no video, so that `act` can do without.
        state_noise, context_noise: standard deviation of the noise on state features and clean latents in training.
        change_floor: the video loss is relative to how much a chunk changes, plus this; 1 is a latent's variance.
    """

    state_width: int
    action_width: int
    chunks: int = 4
    steps: int = 24
    frames_per_chunk: int = 8
    group: int = 4
    lags: int = 4
    last_command: bool = False
    canvas: tuple[int, int] = (48, 64)
    patch: int = 8
    token_patch: int = 2
    static_channels: int = 96
    motion_channels: int = 16
    width: int = 128
    depth: int = 3
    heads: int = 4
    ffn_ratio: int = 2
    text_width: int = 64
    shift: float = 3.0
    sigma_floor: float = 1.0
    video_spread: float = 0.7
    video_weight: float = 0.3
    hide_video: float = 0.3
    text_dropout: float = 0.1
    state_noise: float = 0.1
    context_noise: float = 0.3
    change_floor: float = 0.05

    def __post_init__(self) -> None:
        cell = self.patch * self.token_patch
        assert self.frames_per_chunk % self.group == 0, "frames_per_chunk is not a multiple of group"
        assert self.canvas[0] % cell == 0 and self.canvas[1] % cell == 0, f"canvas is not a multiple of {cell}"
        assert self.width % self.heads == 0, "width is not a multiple of heads"

    @property
    def channels(self) -> int:
        return self.static_channels + self.motion_channels

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of a latent frame in cells."""
        return self.canvas[0] // self.patch, self.canvas[1] // self.patch

    @property
    def latents_per_chunk(self) -> int:
        return self.frames_per_chunk // self.group

    @property
    def num_latents(self) -> int:
        """Latent frames of a whole window, the first one included."""
        return 1 + self.chunks * self.latents_per_chunk

    @property
    def tokens_per_latent(self) -> int:
        return self.grid[0] * self.grid[1] // self.token_patch**2

    @property
    def token_width(self) -> int:
        """Numbers in one video token."""
        return self.channels * self.token_patch**2

    @property
    def state_features(self) -> int:
        """Numbers in one state token."""
        return self.state_width * (1 + self.lags) + self.action_width * self.last_command

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"canvas": list(self.canvas)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields | {"canvas": tuple(fields["canvas"])})


def tiny(*, state_width: int = 5, action_width: int = 3, chunks: int = 3, last_command: bool = False) -> NanoConfig:
    """A config for tests: a forward pass takes milliseconds."""
    return NanoConfig(
        state_width=state_width,
        action_width=action_width,
        chunks=chunks,
        steps=4,
        frames_per_chunk=4,
        lags=2,
        last_command=last_command,
        canvas=(16, 24),
        patch=4,
        static_channels=6,
        motion_channels=2,
        width=32,
        depth=2,
        heads=2,
        ffn_ratio=2,
        text_width=16,
    )
