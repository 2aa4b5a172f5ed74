"""Instructions as numbers without a vocabulary or a download: every word has a fixed random direction.

Does not know meaning: "cup" and "mug" are as far apart as any two words. Enough to tell instructions apart.
"""

import hashlib
import re

import torch
from torch import Tensor


def embed(text: str, width: int) -> Tensor:
    """(width,) of unit length; all zero for a text without words, which the model reads as its null token."""
    words = re.findall(r"\w+", text.lower())
    if not words:
        return torch.zeros(width)
    total = torch.stack([_direction(w, width) for w in words]).sum(0)
    return total / total.norm().clamp_min(1e-6)


def _direction(word: str, width: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little") >> 1
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))
