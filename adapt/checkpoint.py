"""Training state on disk: atomic, verified, without pickle.

    step-000300/model.safetensors       trainable parameters only, and their moving average
    step-000300/optimizer.safetensors   exp_avg.<name>, exp_avg_sq.<name>
    step-000300/curves.json             loss and held-out error so far
    step-000300/checkpoint.json         step, sha256 of every file; written last inside the partial folder

A folder gets its final name only when it is whole, so a kill at any instant leaves the previous checkpoint.
The random state needs no saving: every draw depends on (seed, epoch, window), the position on the step.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import DataError
from schemas.files import file_sha256, sync, write_atomic

MODEL, OPTIMIZER, RECORD = "model.safetensors", "optimizer.safetensors", "checkpoint.json"
KEPT = 2  # checkpoints kept besides the chosen one


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds."""

    step: int
    files: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DataError if the record is missing or damaged."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error}). Take another checkpoint.") from None


def save(
    folder: Path,
    step: int,
    tensors: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    names: dict[Tensor, str],
    extra: dict[str, bytes],
) -> Path:
    """Write `step-NNNNNN` below `folder`, atomically; older ones beyond KEPT go."""
    final = folder / f"step-{step:06d}"
    partial = folder / f"{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({n: t.detach().contiguous() for n, t in tensors.items()}, partial / MODEL)
    save_file(_optimizer_tensors(optimizer, names), partial / OPTIMIZER)
    for name in (MODEL, OPTIMIZER):
        sync(partial / name)
    for name, content in extra.items():
        write_atomic(partial / name, content)
    files = {name: file_sha256(partial / name) for name in (MODEL, OPTIMIZER, *extra)}
    write_atomic(partial / RECORD, json.dumps({"step": step, "files": files}, indent=1).encode())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    sync(folder)
    for old in _folders(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def newest(folder: Path) -> tuple[Path, Checkpoint] | None:
    """The newest whole checkpoint; one that fails its hashes is set aside as `*.broken` and the next one tried."""
    for path in reversed(_folders(folder)):
        try:
            record = Checkpoint.read(path / RECORD)
            if all((path / n).exists() and file_sha256(path / n) == h for n, h in record.files.items()):
                return path, record
        except DataError:
            pass
        broken = path.with_name(path.name + ".broken")
        shutil.rmtree(broken, ignore_errors=True)
        os.replace(path, broken)
    return None


def load_model(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's model file."""
    return load_tensors(path / MODEL)


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer, names: dict[Tensor, str]) -> None:
    """Put an optimizer's state back, parameter by parameter."""
    tensors = load_tensors(path / OPTIMIZER)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            if f"step.{name}" in tensors:
                keys = ("step", "exp_avg", "exp_avg_sq")
                optimizer.state[parameter] = {k: tensors[f"{k}.{name}"].clone() for k in keys}


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Make it again, or take another checkpoint.") from None


def _optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[Tensor, str]) -> dict[str, Tensor]:
    tensors = {}
    for parameter, state in optimizer.state.items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{names[parameter]}"] = torch.as_tensor(state[key]).detach().contiguous()
    return tensors


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if p.is_dir() and p.suffix == "")
