"""An instruction as a fixed vector: hashed words and word pairs. No vocabulary, nothing learned, nothing downloaded.

Equal words give equal parts of the vector in any process; it does not know that two words mean the same.
"""

import hashlib
import re

import torch
from torch import Tensor


def embed(text: str, width: int) -> Tensor:
    """(width,) of length 1; all zero for a text without words, which the model takes for no text."""
    words = re.findall(r"\w+", text.lower())
    vector = torch.zeros(width)
    for term in words + [" ".join(pair) for pair in zip(words, words[1:], strict=False)]:
        digest = hashlib.sha256(term.encode()).digest()
        vector[int.from_bytes(digest[:4], "little") % width] += 1.0 if digest[4] % 2 else -1.0
    if words and not vector.any():
        vector[0] = 1.0  # terms that cancel out are still a text
    return vector / vector.norm().clamp_min(1e-6)
