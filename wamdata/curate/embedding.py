"""Shots that show the same in other pictures, by the embeddings of an image model; on demand, since it needs one.

An encoder is any function from pictures to vectors; `clip_encoder` makes one of a CLIP folder on this disk. Nothing is
fetched, and weights are read as safetensors alone.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Float32, Footage
from schemas.errors import UsageError, first_line
from wamdata.curate.small import small_size
from wamdata.extras import need
from wamdata.footage import frames

Encoder = Callable[[NDArray[np.uint8]], Float32]  # (n, height, width, 3) RGB -> (n, width of the embedding)
LOOKS = 3  # pictures of a shot


def embedding_of(footage: Footage, first: int, stop: int, encoder: Encoder) -> Float32:
    """The mean direction of a few of frames [first, stop), of length one.

    Raises:
        DataError: a frame cannot be decoded.
    """
    at = np.linspace(first, stop - 1, LOOKS + 2).round().astype(np.int64)[1:-1]
    vectors = encoder(frames(footage, at, size=small_size(footage), rotate=footage.rotation))
    mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
    return mean / np.linalg.norm(mean)


def clip_encoder(folder: Path) -> Encoder:
    """The picture side of a CLIP model as transformers saves it.

    Raises:
        UsageError: the folder holds none.
    """
    if not folder.is_dir():
        raise UsageError(f"--embed {folder}: no such folder. Give one of a CLIP model, as transformers saves it.")
    transformers = need("transformers", for_what="embedding film")
    torch = need("torch", for_what="embedding film")
    try:
        model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        processor = transformers.CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"--embed {folder}: holds no CLIP model ({first_line(error)}). Save it again.") from None

    def encode(pictures: NDArray[np.uint8]) -> Float32:
        inputs = processor(images=list(pictures), return_tensors="pt")
        with torch.no_grad():
            return model.get_image_features(**inputs).numpy()

    return encode
