"""`windows.npz`, beside `report.json`: the error of every method on every judged window, so that reports pair up.

    window (N,) str "clip key@row"   episode (N,) str   start, past, steps (N,) int   method (M,) str
    error (M, N) float32: mean over action columns, summed over the window's `steps` that count
    sha256 () str: which windows these are, from their names, rate and recorded commands

Plain arrays alone: read without unpickling.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from adapt.scoring.baselines import ActionWindows, Float
from schemas.errors import DataError

WINDOWS = "windows.npz"


@dataclass(frozen=True)
class WindowErrors:
    """What `windows.npz` holds; `error` by method, (N,) each."""

    window: NDArray[np.str_]
    episode: NDArray[np.str_]
    start: NDArray[np.int64]
    past: NDArray[np.int64]
    steps: NDArray[np.int64]
    error: Mapping[str, Float]
    sha256: str

    @classmethod
    def of(
        cls,
        clip_keys: Sequence[str],
        windows: ActionWindows,
        error: Mapping[str, Float],
        past: NDArray[np.int64],
        *,
        action_hz: float,
    ) -> Self:
        """From summed errors (N,) by method and the clip of each window."""
        names = np.array([f"{k}@{s}" for k, s in zip(clip_keys, windows.start, strict=True)])
        recorded = np.where(windows.valid[..., None], windows.action, 0.0).astype(np.float32)
        order = np.argsort(names)
        digest = hashlib.sha256(f"{action_hz:.6g} {recorded.shape}".encode())
        digest.update("\n".join(names[order]).encode())
        digest.update(windows.valid[order].tobytes())
        digest.update(recorded[order].tobytes())
        return cls(names, windows.episode, windows.start, past, windows.valid.sum(1), error, digest.hexdigest())

    def to_bytes(self) -> bytes:
        out = io.BytesIO()
        np.savez_compressed(
            out,
            window=self.window,
            episode=self.episode,
            start=self.start,
            past=self.past,
            steps=self.steps,
            method=np.array(list(self.error)),
            error=np.stack(list(self.error.values())).astype(np.float32),
            sha256=np.array(self.sha256),
        )
        return out.getvalue()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DataError where the file cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as held:
                error = dict(zip(held["method"].tolist(), held["error"], strict=True))
                rest = {name: held[name] for name in ("window", "episode", "start", "past", "steps")}
                return cls(**rest, error=error, sha256=str(held["sha256"]))
        except (OSError, ValueError, KeyError, EOFError) as failure:
            raise DataError(f"{path}: cannot be read ({failure}). Judge again.") from None
