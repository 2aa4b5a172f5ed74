"""What a source holds, cheaply: enough to tell that it changed between two runs."""

import hashlib
from pathlib import Path

from schemas.errors import UsageError

EDGE_BYTES = 65536  # first and last 64 KiB of every file, as in a base's fingerprint


def source_fingerprint(source: Path) -> str:
    """sha256 over (name, size, first and last 64 KiB) of every file below `source`, in name order."""
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder. Check the path.")
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    total = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        total.update(f"{file.relative_to(source) if file != source else file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            total.update(content.read(EDGE_BYTES))
            if size > EDGE_BYTES:
                content.seek(max(size - EDGE_BYTES, EDGE_BYTES))
                total.update(content.read())
    return total.hexdigest()
