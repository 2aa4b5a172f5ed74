"""Logs of every format, one module each, on which the contract suite runs by itself.

A module says which READER must know its logs; its SAMPLES are functions from an empty folder to the logs, by name. Real
bytes are taken from `tests/data`; what is made is made by the format's own writer, or by h5py, zarr and the like in the
documented layout, never by code of ours, so that the oracle is not our own reader. `tests/data/MAKING.md` says how.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One source of logs, made when it is needed."""

    name: str
    reader: str
    make: Callable[[Path], Path]


def all_samples() -> list[Sample]:
    """The samples of every module of this folder."""
    found = []
    for name in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"samples.{name}")
        found += [Sample(f"{name}-{sample}", module.READER, make) for sample, make in module.SAMPLES.items()]
    return found
