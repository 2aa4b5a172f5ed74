"""Encoded windows on disk, by key: webdataset shards that any number of writers add to.

    <name of its content>.tar        <key>.safetensors, <key>.json     plain webdataset; the json has the tensors' hash
    text-<prompt>.safetensors        what the text encoder made of a prompt, one file to a prompt

A shard is written under another name and renamed when it is whole, so a reader finds either all of it or nothing. What
is read is checked against its hash. A shard's name follows from its content, so nothing is ever overwritten by
something else, and a place that a reader knows stays right. Keys of windows name their encoders, prompts do not: runs
that share a store keep their texts apart.
"""

import contextlib
import hashlib
import io
import json
import os
import secrets
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from schemas.errors import DataError
from schemas.files import sync, write_atomic

Encoded = Mapping[str, Tensor]
FRAMES = "frames"
STALE_S = 3600


@dataclass
class Store:
    """A folder of shards, and where in them each key lies.

    Args:
        texts: folder of embedded prompts, of one text encoder alone; the shards' own by default.
    """

    folder: Path
    texts: Path | None = None
    _places: dict[str, tuple[Path, int, int, str]] = field(default_factory=dict, repr=False)
    _known: set[str] = field(default_factory=set, repr=False)
    _texts: dict[str, Encoded] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.texts = self.texts or self.folder
        _clear(self.folder)
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those that are not there yet, each once, in the order given."""
        return [k for k in dict.fromkeys(keys) if k not in self._places]

    def refresh(self) -> None:
        """Find what other writers have added."""
        with self._lock:
            for path in sorted(self.folder.glob("*.tar")):
                if path.name not in self._known:
                    self._places |= _places(path)
                    self._known.add(path.name)

    def add(self, encoded: Mapping[str, Encoded]) -> None:
        """Write one shard; keys that are there already are left out."""
        fresh = {key: tensors for key, tensors in encoded.items() if key not in self._places}
        if not fresh:
            return
        partial = self.folder / f"{secrets.token_hex(8)}.partial"
        try:
            name = _write_tar(partial, fresh)
            os.replace(partial, self.folder / f"{name}.tar")
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync(self.folder)
        self.refresh()

    def load(self, key: str) -> dict[str, Tensor]:
        """What was encoded under `key`.

        Raises:
            DataError: it is not there, or its content differs from its hash.
        """
        if key not in self._places:
            raise DataError(f"{self.folder}: holds no window {key}. Run the same command again to encode it.")
        path, offset, size, digest = self._places[key]
        try:
            with path.open("rb") as file:
                content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Delete it and run again.") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(f"{path}: window {key} differs from its sha256. Delete that file and run again.")
        return load(content)

    def add_texts(self, texts: Mapping[str, Encoded]) -> None:
        """Keep what the text encoder made, a file to a prompt."""
        for prompt, tensors in texts.items():
            write_atomic(self._text_path(prompt), save({k: v.contiguous() for k, v in tensors.items()}))

    def has_text(self, prompt: str) -> bool:
        return self._text_path(prompt).exists()

    def text(self, prompt: str) -> Encoded:
        """The embedding of a prompt; empty where the backbone has none."""
        if prompt not in self._texts:
            path = self._text_path(prompt)
            try:
                self._texts[prompt] = load(path.read_bytes()) if path.exists() else {}
            except (OSError, SafetensorError) as error:
                raise DataError(f"{path}: cannot be read ({error}). Delete it and run again.") from None
        return self._texts[prompt]

    def _text_path(self, prompt: str) -> Path:
        return self.texts / f"text-{hashlib.sha256(prompt.encode()).hexdigest()[:24]}.safetensors"

    @property
    def num_bytes(self) -> int:
        files = {*self.folder.glob("*.tar"), *self.texts.glob("text-*.safetensors")}
        return sum(p.stat().st_size for p in files)


def _places(path: Path) -> dict[str, tuple[Path, int, int, str]]:
    """Key -> (file, offset, size, hash) of a shard, from its headers and its small records."""
    offsets: dict[str, tuple[int, int]] = {}
    digests: dict[str, str] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if suffix == "json":
                    digests[key] = json.loads(tar.extractfile(member).read())["sha256"]
                else:
                    offsets[key] = member.offset_data, member.size
        return {key: (path, *offsets[key], digest) for key, digest in digests.items()}
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Delete it and run again.") from None


def _write_tar(path: Path, encoded: Mapping[str, Encoded]) -> str:
    """A name for the content that was written."""
    name = hashlib.sha256()
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for key, tensors in encoded.items():
                content = save({k: v.contiguous() for k, v in tensors.items()})
                digest = json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode()
                name.update(key.encode() + digest)
                for suffix, data in (("json", digest), ("safetensors", content)):
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
    return name.hexdigest()[:16]


def _clear(folder: Path) -> None:
    """Remove what killed writers have left; a living one takes seconds."""
    for path in folder.glob("*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def frames_of(tensors: dict[str, Tensor]) -> np.ndarray:
    """Take the judged frames out of what was encoded; none where they were not kept."""
    kept = tensors.pop(FRAMES, None)
    return np.zeros((0, 0, 0, 3), np.uint8) if kept is None else kept.numpy()


def as_frames(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames))
