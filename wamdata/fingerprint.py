"""What a source holds, cheaply: enough to tell that it changed between two runs."""

import hashlib

from wamdata.source import Source

EDGE_BYTES = 65536  # first and last 64 KiB of every file, as in a base's fingerprint


def source_fingerprint(source: Source) -> str:
    """sha256 over (name, size, first and last 64 KiB) of every file of `source`, in name order.

    Of a remote source, over (name, size, version in the store): nothing is fetched for it.
    """
    total = hashlib.sha256()
    for name in source.require().files():
        size = source.size(name)
        total.update(f"{name}\0{size}\0{source.version(name)}".encode())
        if not source.is_local:
            continue
        with source.path(name).open("rb") as content:
            total.update(content.read(EDGE_BYTES))
            if size > EDGE_BYTES:
                content.seek(max(size - EDGE_BYTES, EDGE_BYTES))
                total.update(content.read())
    return total.hexdigest()
