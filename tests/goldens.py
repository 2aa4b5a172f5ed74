"""Golden fixtures of the public DreamZero reference, and the account of which of their entries a test has read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

GOLDENS = Path(__file__).parent / "data" / "dreamzero"
READ: dict[str, set[str]] = {}


class Golden:
    """One safetensors fixture. Weights are stored as bfloat16 and come back as float32; every read is noted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._file = safe_open(GOLDENS / f"{name}.safetensors", "pt")
        self._keys = list(self._file.keys())
        self._read = READ.setdefault(name, set())

    def __getitem__(self, key: str) -> Tensor:
        self._read.add(key)
        tensor = self._file.get_tensor(key)
        return tensor.float() if tensor.dtype == torch.bfloat16 else tensor

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def keys(self) -> list[str]:
        return list(self._keys)

    def raw(self, key: str) -> Tensor:
        """The tensor in its stored dtype."""
        self._read.add(key)
        return self._file.get_tensor(key)

    def under(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        """Entries whose key starts with `prefix`, which is cut off."""
        for key in self._keys:
            if key.startswith(prefix):
                yield key.removeprefix(prefix), self[key]


def golden(name: str) -> Golden:
    return Golden(name)


def golden_json(name: str) -> dict[str, Any]:
    READ.setdefault(f"{name}.json", set()).add("all")
    return json.loads((GOLDENS / f"{name}.json").read_text())


def dit_weights(name: str) -> dict[str, Tensor]:
    """Weights of a DiT fixture; the 5B's lack `img_emb`, which is the 14B fixture's (see the fixtures' README)."""
    weights = dict(golden(name).under(""))
    if name == "dit_weights_ti2v":
        weights |= {k: v for k, v in golden("dit_weights_i2v").under("") if k.startswith("img_emb.")}
    return weights


def assert_close(got: Tensor, want: Tensor, *, atol: float, name: str = "") -> None:
    """Equal shapes, and no entry further apart than `atol`."""
    assert got.shape == want.shape, f"{name}: {tuple(got.shape)} against {tuple(want.shape)}"
    worst = (got.double() - want.double()).abs().max().item() if got.numel() else 0.0
    assert worst <= atol, f"{name}: differs by {worst:.2e}, allowed {atol:.0e}"
