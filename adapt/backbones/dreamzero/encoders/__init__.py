"""DreamZero's frozen encoders (video, text, image) from diffusers and transformers, loading the original keys."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from adapt.backbones.dreamzero.encoders.image import ImageEncoder
from adapt.backbones.dreamzero.encoders.text import TextEncoder
from adapt.backbones.dreamzero.encoders.video import VideoEncoder


@dataclass(frozen=True)
class Encoders:
    """The three of one checkpoint, and its tokenizer.

    Args:
        tokenize: (B,) prompts to ids and mask, each (B, L); see `text.tokenize`.
    """

    video: VideoEncoder
    text: TextEncoder
    image: ImageEncoder
    tokenize: Callable[[list[str]], tuple[Tensor, Tensor]]

    def embed(self, prompt: str) -> Tensor:
        """(1, L, dim) of one prompt."""
        return self.text.encode(*self.tokenize([prompt]))
