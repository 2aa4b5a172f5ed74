"""Training state on disk: atomic, verified, without pickle.

    step-000300/model.safetensors       trainable parameters, and how far their moving average is from them
    step-000300/optimizer.safetensors   the optimizer's state, AdamW's moments packed (`compact`)
    step-000300/curves.json             loss and held-out error so far
    step-000300/checkpoint.json         step, sha256 of every file; written last inside the partial folder

Eight bytes to a trained float32 parameter. A folder gets its final name only when it is whole, so a kill at any instant
leaves the previous checkpoint.
The random state needs no saving: every draw depends on (seed, epoch, window), the position on the step.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapt.training.compact import RATIO, ROOT, TOP, pack_moments, unpack_moments
from adapt.training.world import put, whole
from schemas.errors import DataError
from schemas.files import file_sha256, sync, write_atomic

MODEL, OPTIMIZER, RECORD = "model.safetensors", "optimizer.safetensors", "checkpoint.json"
KEPT = 2  # checkpoints kept besides the chosen one
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
MOMENTS = ("exp_avg", "exp_avg_sq")


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
    optimizer: dict[str, Tensor],
    extra: dict[str, bytes],
) -> Path:
    """Write `step-NNNNNN` below `folder`, atomically; older ones beyond KEPT go.

    Where the disk is full, older checkpoints but the newest make room.

    Raises:
        OSError: it could not be written; what was there before is there still.
    """
    return with_room(folder, lambda: _write(folder, step, tensors, optimizer, extra))


def with_room(folder: Path, write: Callable[[], Path]) -> Path:
    """What `write` returns; on a full disk it gets a second try after older checkpoints but the newest are gone."""
    try:
        return write()
    except OSError as error:
        clear_partials(folder)
        older = _folders(folder)[:-1]
        if error.errno not in FULL_DISK or not older:
            raise
        for old in older:
            shutil.rmtree(old)
    try:
        return write()
    except OSError:
        clear_partials(folder)
        raise


def _write(
    folder: Path, step: int, tensors: dict[str, Tensor], optimizer: dict[str, Tensor], extra: dict[str, bytes]
) -> Path:
    final = folder_of(folder, step)
    partial = folder / f"{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in ((MODEL, tensors), (OPTIMIZER, optimizer)):
        _save_file({n: t.detach().contiguous() for n, t in content.items()}, partial / name)
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


def newest(folder: Path, *, on_note: Callable[[str], None] = lambda words: None) -> tuple[Path, Checkpoint] | None:
    """The newest whole checkpoint; one that fails its hashes is set aside as `*.broken`, and the next one is tried.

    Raises:
        DataError: there are checkpoints and none is whole. Nothing begins again from nothing by itself.
    """
    found = _folders(folder)
    for path in reversed(found):
        try:
            record = Checkpoint.read(path / RECORD)
            if record.step == step_of(path) and _is_whole(path, record):
                return path, record
        except DataError:
            pass
        broken = path.with_name(path.name + ".broken")
        shutil.rmtree(broken, ignore_errors=True)
        os.replace(path, broken)
        on_note(f"{path}: is damaged and was set aside as {broken.name}")
    if found or list(folder.glob("step-*.broken")):
        raise DataError(f"{folder}: holds checkpoints and none is whole. Delete that folder to train from the start.")
    return None


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:06d}"


def step_of(path: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(path.name.removeprefix("step-"))


def _is_whole(path: Path, record: Checkpoint) -> bool:
    if not {MODEL, OPTIMIZER} <= record.files.keys():
        return False
    try:
        return all(file_sha256(path / name) == digest for name, digest in record.files.items())
    except OSError:
        return False


def load_model(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's model file."""
    return load_tensors(path / MODEL)


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer, names: dict[Tensor, str]) -> None:
    """Put an optimizer's state back, parameter by parameter. Weights are to be loaded afterwards."""
    tensors = load_tensors(path / OPTIMIZER)
    if tensors:
        _materialise(optimizer)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            saved = _unpacked(tensors, names[parameter])
            for key, own in list(state.items()):
                if key not in saved:  # a head that no sample had reached yet
                    del state[key]
                elif torch.is_tensor(own):
                    put(own, saved[key])
                else:
                    state[key] = type(own)(saved[key].item())


def settled(optimizer: torch.optim.Optimizer, names: dict[Tensor, str], *, keep: bool) -> dict[str, Tensor]:
    """An optimizer's state as it is saved, gathered from all ranks to the host; its live state becomes that.

    Of 8-bit moments these are codes, scales and tables as they are.

    Args:
        keep: return the tensors; ranks that do not write need none.
    """
    tensors: dict[str, Tensor] = {}
    for parameter, state in optimizer.state.items():
        packed = _packed({k: whole(torch.as_tensor(v).detach()) for k, v in state.items()})
        if RATIO in packed:
            for key, value in zip(MOMENTS, unpack_moments(packed), strict=True):
                put(state[key], value)
        if keep:
            tensors |= {f"{k}.{names[parameter]}": t.cpu().clone() for k, t in packed.items()}
    return tensors


def _packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not state.keys() >= set(MOMENTS):
        return dict(state)
    rest = {k: v for k, v in state.items() if k not in MOMENTS}
    return rest | pack_moments(*(state[k] for k in MOMENTS))


def _unpacked(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The state of one parameter by the optimizer's own keys."""
    found = {k.removesuffix(f".{name}"): t for k, t in tensors.items() if k.endswith(f".{name}")}
    found = {k: t for k, t in found.items() if "." not in k}  # another parameter's name may end with this one
    if RATIO not in found:
        return found
    packed = {k: found.pop(k) for k in (ROOT, TOP, RATIO)}
    return found | dict(zip(MOMENTS, unpack_moments(packed), strict=True))


def _materialise(optimizer: torch.optim.Optimizer) -> None:
    """Make an optimizer's state without changing a weight: one step at rate 0 with gradients of 0."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Make it again, or take another checkpoint.") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], *, about: dict[str, str] | None = None) -> Path:
    """One safetensors file, atomically.

    Args:
        about: kept in its header, read again by `read_about`.

    Raises:
        OSError: it could not be written; what was there before is there still.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        _save_file(tensors, partial, about)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return path


def read_about(path: Path) -> dict[str, str]:
    """What a file says of itself; nothing where it is missing, damaged or says nothing."""
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def clear_partials(folder: Path) -> None:
    """Remove what a kill or a full disk has left half-written."""
    for path in folder.glob("step-*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _save_file(tensors: dict[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """safetensors' writer, whose failures are no OSError; flushed, and read again as far as its header's sizes."""
    try:
        save_file(tensors, path, about)
        with safe_open(path, "pt") as file:
            assert len(file.keys()) == len(tensors), path
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.ENOSPC if "No space left" in str(error) else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None
    sync(path)


def _folders(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("step-*") if p.is_dir() and p.name.removeprefix("step-").isdigit()]
    return sorted(found, key=step_of)  # past step 999999 names do not sort by themselves
