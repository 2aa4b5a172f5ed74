"""Backbones by name. Imports no torch: a finished run must be recognised in a moment."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from schemas.errors import UsageError
from schemas.recipe import TimeBase

if TYPE_CHECKING:
    from adapt.backbones.base import Backbone


@dataclass(frozen=True)
class BackboneInfo:
    """What can be said of a backbone before it is loaded.

    Args:
        module: where its `BACKBONE` class lies.
        version: changes when equal inputs give other results.
    """

    name: str
    module: str
    version: int
    time_base: TimeBase
    derived_state: tuple[str, ...]
    about: str

    def load(self) -> "type[Backbone]":
        """The backbone's class; imports torch."""
        return import_module(self.module).BACKBONE


KNOWN = {
    "nano": BackboneInfo(
        name="nano",
        module="adapt.backbones.nano.backbone",
        version=1,
        time_base=TimeBase(chunk_s=0.8, video_fps=10.0),
        derived_state=("velocity",),
        about="a small real WAM, trained in full from a seed on the CPU; no pretrained base ships yet",
    ),
    "dreamzero": BackboneInfo(
        name="dreamzero",
        module="adapt.backbones.dreamzero.backbone",
        version=1,
        time_base=TimeBase(chunk_s=1.6, video_fps=5.0),
        derived_state=(),
        about="NVIDIA's DreamZero, 14B and 5B: LoRA on a pretrained base, heads in full",
    ),
}


def backbone_info(name: str) -> BackboneInfo:
    """Facts of a backbone by name.

    Raises:
        UsageError: there is none of that name; says which there are.
    """
    if name in KNOWN:
        return KNOWN[name]
    raise UsageError(f"backbone {name!r}: not known. Give one of: {', '.join(KNOWN)}.")
