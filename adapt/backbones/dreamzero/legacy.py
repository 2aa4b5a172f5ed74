"""Wan's encoders as they were published: pickles, of which nothing but the four files named here is ever unpickled.

Of those only tensors: a pickle that calls code is refused before the call.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from schemas.errors import DataError

TEXT_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
IMAGE_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VIDEO_FILES = ("Wan2.1_VAE.pth", "Wan2.2_VAE.pth")
PICKLES = (TEXT_FILE, IMAGE_FILE, *VIDEO_FILES)
WRAPPERS = ("model_state", "state_dict")


def read_pth(path: Path) -> dict[str, Tensor]:
    """Tensors of one of Wan's published pickles by their original names, mapped from disk rather than read.

    Of the CLIP file only the picture tower is kept (`visual.*` and `log_scale`): its text tower is not used.

    Raises:
        DataError: the file is missing, is not one of `PICKLES`, cannot be read, or holds anything but tensors.
    """
    if path.name not in PICKLES:
        raise DataError(f"{path}: not unpickled, only {', '.join(PICKLES)} are. Give the weights as .safetensors.")
    if not path.is_file():
        raise DataError(f"{path}: no such file. Download it from the Wan release it belongs to.")
    try:
        content = torch.load(path, weights_only=True, mmap=zipfile.is_zipfile(path), map_location="cpu")
    except (UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: not a file of plain tensors ({reason}). Download it again.") from error
    tensors = _unwrapped(content)
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise DataError(f"{path}: wanted names and tensors, got something else. Download it again.")
    has_towers = any(name.startswith("visual.") for name in tensors)
    return {n: t for n, t in tensors.items() if not has_towers or n.startswith("visual.") or n == "log_scale"}


def _unwrapped(content: object) -> object:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            return content[wrapper]
    return content
