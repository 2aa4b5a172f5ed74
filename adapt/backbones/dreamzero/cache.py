"""Keys and values of the video a policy has seen, so that a decision costs one chunk and not a whole window."""

import torch
from torch import Tensor

from adapt.backbones.dreamzero.config import DreamZeroConfig


class KVCache:
    """Rotated keys and values of clean video tokens in every block, in one buffer each, made once and written in place.

    A call sees the newest `window_latents` frames of what is held and what it brings; only `commit` keeps what was
    brought. Actions and states are never kept.

    Args:
        frames: most latent frames that will be held; a whole window by default, after which the oldest go.
    """

    @torch.inference_mode(False)  # a session begun in inference mode may go on outside it
    def __init__(
        self,
        config: DreamZeroConfig,
        *,
        batch: int,
        frame_tokens: int,
        device: torch.device,
        dtype: torch.dtype,
        frames: int | None = None,
    ) -> None:
        self.frame_tokens = frame_tokens
        self.most = config.window_latents * frame_tokens
        held = self.most if frames is None else frames * frame_tokens
        brought = config.latents_per_chunk * frame_tokens + config.steps + config.states_per_chunk
        shape = (config.layers, 2, batch, held + brought, config.heads, config.head_dim)
        self._buffer = torch.empty(shape, device=device, dtype=dtype)
        self._held = 0

    @property
    def frames(self) -> int:
        """Latent frames held."""
        return self._held // self.frame_tokens

    def visible_frames(self, frames: int) -> int:
        """Held frames that a call with `frames` new ones sees."""
        return min(self.frames, self.most // self.frame_tokens - frames)

    def extended(self, layer: int, keys: Tensor, values: Tensor, *, video: int) -> tuple[Tensor, Tensor]:
        """Keys and values of what is held and visible, followed by a call's own.

        Args:
            video: how many of the call's tokens are video; those count against the window.
        """
        stop = self._held + keys.shape[1]
        start = max(0, self._held + video - self.most)
        held = self._buffer[layer]
        held[0, :, self._held : stop], held[1, :, self._held : stop] = keys, values
        return held[0, :, start:stop], held[1, :, start:stop]

    def commit(self, video: int) -> None:
        """Keep the video tokens that the last call brought; the oldest fall out of the window."""
        self._held += video
        surplus = self._held - self.most
        if surplus > 0:
            for layer in self._buffer:
                layer[:, :, : self.most] = layer[:, :, surplus : self._held].clone()
            self._held = self.most

    def rewind(self, frames: int) -> None:
        """Forget all but the oldest `frames` held."""
        self._held = frames * self.frame_tokens

    def layer(self, index: int) -> Tensor:
        """(2, B, tokens, heads, head width) held by one block."""
        return self._buffer[index, :, :, : self._held]
