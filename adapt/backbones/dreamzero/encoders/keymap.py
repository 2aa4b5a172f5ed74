"""How a library's model takes Wan's original tensors: a map of names, checked to the last one.

A DreamZero checkpoint keeps the original names behind a prefix, so one map serves it and the published files alike.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from schemas.errors import DataError


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
