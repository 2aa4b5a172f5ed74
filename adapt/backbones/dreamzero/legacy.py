"""Wan's original weights: the pickles they were published as, and how a library's model takes them by those names.

A DreamZero checkpoint keeps the names behind a prefix, so one map serves both. Nothing but the four files named here is
ever unpickled, and of them only tensors: a pickle that calls code is refused before the call.
"""

import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True)
class Source:
    """Where a library's parameter comes from.

    Args:
        name: the original tensor.
        part: which of `parts` equal slices of its first axis (after `lead`).
        lead: axes of length 1 that only the original has, in front.
    """

    name: str
    part: int = 0
    parts: int = 1
    lead: tuple[int, ...] = ()

    def shape(self, wanted: torch.Size) -> tuple[int, ...]:
        """Shape of the original, from the parameter's."""
        return (*self.lead, wanted[0] * self.parts, *wanted[1:])

    def of(self, original: Tensor) -> Tensor:
        """The parameter, from the original."""
        return original.reshape(original.shape[len(self.lead) :]).chunk(self.parts)[self.part]


SourceOf = Callable[[str], Source]


def original_shapes(model: nn.Module, source_of: SourceOf) -> dict[str, tuple[int, ...]]:
    """Original names and shapes that `model` needs; it may be on the meta device."""
    shapes = {}
    for name, parameter in model.state_dict().items():
        source = source_of(name)
        shapes[source.name] = source.shape(parameter.shape)
    return shapes


def fill(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    source_of: SourceOf,
    *,
    what: str,
    device: torch.device | str,
    dtype: torch.dtype,
    ignored: Iterable[str] = (),
) -> None:
    """Gives a model on the meta device its weights, and freezes it. What is of `device` and `dtype` is not copied.

    Args:
        what: the model's name in errors.
        ignored: original names that may be there and are not looked at.

    Raises:
        DataError: a tensor is missing, of another shape, or not known; says how many and names the first.
    """
    shapes = original_shapes(model, source_of)
    missing = sorted(shapes.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - shapes.keys() - set(ignored))
    if faults := [*_count(missing, "missing"), *_count(unknown, "not known")]:
        raise DataError(f"{what}: of {len(shapes)} tensors {', '.join(faults)}. Are these its weights, unprefixed?")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise DataError(f"{what}: {name!r} is {tuple(tensors[name].shape)}, wanted {shape}. Is the size right?")
    weights = {}
    for name in model.state_dict():
        source = source_of(name)
        weights[name] = source.of(tensors[source.name]).to(device=device, dtype=dtype)
    model.load_state_dict(weights, strict=True, assign=True)
    model.requires_grad_(False).eval()


def _count(names: list[str], fault: str) -> list[str]:
    return [f"{len(names)} {fault} (first {names[0]!r})"] if names else []
