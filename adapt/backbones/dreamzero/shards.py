"""safetensors files as headers and byte ranges: read without a tensor, written one tensor at a time.

A file is an 8-byte little-endian length, a JSON header {name: {dtype, shape, data_offsets}} and the bytes. The
safetensors package can neither say where a file is cut off nor write more than memory holds, which is what this module
is for; tensors themselves are read with its `safe_open`. Imports no torch, so dtypes are words here: `bfloat16`.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from schemas.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
DTYPES = {  # code in a file to torch's name, in the order in which the safetensors package lays tensors out
    "I64": "int64",
    "F64": "float64",
    "F32": "float32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "I16": "int16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
ITEM_BYTES = {"int64": 8, "float64": 8, "float32": 4, "int32": 4, "bfloat16": 2, "float16": 2, "int16": 2}  # else 1
CODES = {dtype: code for code, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000  # the safetensors package refuses longer ones
COPY_BYTES = 16 << 20
Content: TypeAlias = "Tensor | Iterable[bytes]"
Progress = Callable[[int], None]


def ignore(num_bytes: int) -> None:
    """The progress that nobody watches."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file, unread.

    Args:
        dtype: torch's name of it, without `torch.`.
        start, stop: half-open range of its bytes in `file`.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def num_bytes(self) -> int:
        return self.stop - self.start

    def content(self) -> Iterator[bytes]:
        """Its bytes, a few megabytes at a time."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            left = self.num_bytes
            while left:
                piece = file.read(min(COPY_BYTES, left))
                if not piece:
                    raise DataError(f"{self.file}: ends early. Fetch the file again.")
                left -= len(piece)
                yield piece


@dataclass(frozen=True)
class Spec:
    """A tensor to be written; `dtype` is torch's name of it, without `torch.`."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * item_bytes(self.dtype)


def spec_of(tensor: "Tensor") -> Spec:
    """Spec of a tensor as it is."""
    return Spec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def item_bytes(dtype: str) -> int:
    """Bytes of one number."""
    return ITEM_BYTES.get(dtype, 1)


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries in the order of their bytes, and the metadata, of one safetensors file.

    Raises:
        DataError: it is cut off, is no safetensors file, or has a dtype that is not known.
    """
    again = "Fetch the file again."
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > MAX_HEADER:
            raise DataError(f"{path}: is no safetensors file. {again}")
        text = file.read(length)
    if len(text) < length:
        raise DataError(f"{path}: is cut off inside its header, at {size:,} bytes. {again}")
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        base = 8 + length
        entries = {name: _entry(path, name, values, base) for name, values in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: its header is damaged ({error}). {again}") from None
    wanted = max((entry.stop for entry in entries.values()), default=base)
    if size != wanted:
        raise DataError(f"{path}: has {size:,} bytes, its header says {wanted:,}. {again}")
    return dict(sorted(entries.items(), key=lambda item: item[1].start)), metadata


def _entry(path: Path, name: str, values: dict, base: int) -> Entry:
    if values["dtype"] not in DTYPES:
        raise DataError(f"{path}: {name} has dtype {values['dtype']}, which is not known. Save it as bfloat16.")
    start, stop = values["data_offsets"]
    entry = Entry(path, DTYPES[values["dtype"]], tuple(values["shape"]), base + start, base + stop)
    if entry.num_bytes != prod(entry.shape) * item_bytes(entry.dtype):
        raise DataError(f"{path}: {name} has {entry.num_bytes:,} bytes, not what its shape says. Fetch it again.")
    return entry


def plan_shards(num_bytes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names cut into files as huggingface_hub cuts them: in order, a new file where the next would pass `limit`."""
    shards: list[list[str]] = []
    current: list[str] = []
    filled = 0
    for name, size in num_bytes.items():
        if size > limit:
            shards.append([name])
            continue
        if filled + size > limit:
            shards.append(current)
            current, filled = [], 0
        current.append(name)
        filled += size
    return [*shards, current] if current else shards


def shard_file(stem: str, index: int, count: int) -> str:
    """File name of shard `index` (from 0) of `count`."""
    return f"{stem}{SUFFIX}" if count == 1 else f"{stem}-{index + 1:05d}-of-{count:05d}{SUFFIX}"


def write_file(
    path: Path,
    specs: Mapping[str, Spec],
    content: Callable[[str], Content],
    *,
    metadata: Mapping[str, str] | None = None,
    progress: Progress = ignore,
) -> None:
    """Write one file, byte-equal to the safetensors package's own, with one tensor in memory at a time.

    Args:
        content: a name's tensor (of the dtype and shape of its spec), or its bytes in pieces.
        progress: called with the number of bytes of each tensor written.
    """
    places = list(CODES)
    order = sorted(specs, key=lambda name: (places.index(specs[name].dtype), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name in order:
        spec = specs[name]
        stop = at + spec.num_bytes
        header[name] = {"dtype": CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            written = sum(file.write(piece) for piece in _pieces(content(name), specs[name], name))
            assert written == specs[name].num_bytes, name
            progress(written)
        file.flush()
        os.fsync(file.fileno())


def _pieces(content: Content, spec: Spec, name: str) -> Iterator[bytes | memoryview]:
    import torch

    if not isinstance(content, torch.Tensor):
        yield from content
        return
    assert spec_of(content) == spec, name
    if content.numel():
        yield memoryview(content.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def write_shards(
    folder: Path,
    specs: Mapping[str, Spec],
    content: Callable[[str], Content],
    *,
    shard_bytes: int,
    metadata: Mapping[str, str],
    stem: str = "model",
    progress: Progress = ignore,
) -> list[str]:
    """Write tensors in files of at most `shard_bytes`, then the index if there are several; the names of the files."""
    shards = plan_shards({name: spec.num_bytes for name, spec in specs.items()}, shard_bytes)
    files = [shard_file(stem, index, len(shards)) for index in range(len(shards))]
    for file, held in zip(files, shards, strict=True):
        write_file(folder / file, {name: specs[name] for name in held}, content, metadata=metadata, progress=progress)
    if len(files) > 1:
        places = {name: file for file, held in zip(files, shards, strict=True) for name in held}
        total = sum(spec.num_bytes for spec in specs.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / f"{stem}{SUFFIX}.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return files


def fresh_partial(out: Path) -> Path:
    """An empty folder beside `out` to write into; whatever a killed run left there is dropped."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial
