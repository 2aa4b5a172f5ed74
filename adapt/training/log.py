"""What training says of itself, step by step: one JSON line each in `train/log.jsonl`; read while it is written.

A run that is resumed repeats steps since its last checkpoint: of a step the last line holds. Imports no torch.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

LOG = "log.jsonl"


@dataclass
class LogWriter:
    """Appends lines, each with one write; on a full disk lines are left out, as training matters more."""

    path: Path
    _file: IO[bytes] | None = field(default=None, repr=False)
    _is_torn: bool = field(default=False, repr=False)

    def write(self, values: dict[str, Any]) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._is_torn = _ends_torn(self.path)
            self._file = self.path.open("ab", buffering=0)
        line = b"\n" * self._is_torn + json.dumps(_finite(values)).encode() + b"\n"
        try:
            self._is_torn = self._file.write(line) < len(line)
        except OSError:
            self._is_torn = True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass
class LogReader:
    """Reads lines that were added since it last looked."""

    path: Path
    _at: int = 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                try:
                    values = json.loads(line)
                except ValueError:  # torn by a kill or a full disk
                    continue
                yield values


def read_log(path: Path) -> dict[int, dict[str, Any]]:
    """The newest line of every step, in order."""
    lines: dict[int, dict[str, Any]] = {}
    for line in LogReader(path).new():
        if "step" in line:
            lines[line["step"]] = line
    return dict(sorted(lines.items()))


def _ends_torn(path: Path) -> bool:
    """Whether the last line was cut off."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: null stands for what is not known yet."""
    return {
        k: _finite(v) if isinstance(v, dict) else None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in values.items()
    }
