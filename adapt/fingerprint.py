"""The identity of a base: which weights an adapter was trained on, whatever files they came in."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

EDGE_BYTES = 65536


def base_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the sorted (name, dtype, shape, first and last 64 KiB) of the un-adapted tensors."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        total.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{tuple(tensor.shape)}\0".encode())
        content = tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else None
        if content is not None:
            total.update(content[:EDGE_BYTES].tobytes())
            total.update(content[max(EDGE_BYTES, len(content) - EDGE_BYTES) :].tobytes())
    return total.hexdigest()
