"""The processes that train together: who this one is, and what they must agree on.

Gradients are summed by one all-reduce over what is trained, not by DDP: adapters are small (0.2 to 0.7 GB), so there is
nothing to hide behind the backward pass, and ranks may hold different numbers of samples, even none, or samples without
actions, for which heads have no gradient. A step's losses are shares of the whole step's means, so sums are right.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from schemas.errors import WamError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process among `size`; one process alone by default.

    Args:
        is_sharded: the model is divided over the ranks (FSDP2), which sum gradients by themselves.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    is_sharded: bool = False

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Add up tensors over the ranks in place, many in one message."""
        if self.size == 1:
            return
        by_kind: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_kind.setdefault(tensor.dtype, []).append(tensor)
        for group in by_kind.values():
            flat = torch.cat([t.reshape(-1) for t in group])
            dist.all_reduce(flat)
            for tensor, part in zip(group, flat.split([t.numel() for t in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def numbers(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over the ranks; waits for all of them."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, mine: bool) -> bool:
        """Whether it is so for any rank; waits for all of them."""
        return mine if self.size == 1 else self.numbers([float(mine)])[0] > 0

    def told(self, value: Callable[[], float]) -> float:
        """A number that the first rank finds out for all; raises what `first` does."""
        found = [0.0]

        def find() -> None:
            found[0] = value()

        self.first(find)
        return self.numbers(found if self.is_main else [0.0])[0]

    def first(self, work: Callable[[], None]) -> None:
        """Done by the first rank, while the others wait.

        Raises:
            OSError, WamError: on every rank, if `work` raised one on the first; no rank goes on alone.
        """
        failure: OSError | WamError | None = None
        if self.is_main:
            try:
                work()
            except (OSError, WamError) as error:
                failure = error
        if self.any(failure is not None):
            raise failure or OSError(errno.EIO, "the first process could not do its part")

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


def join(device: torch.device | None = None) -> World:
    """The world that the launcher's environment describes (RANK, WORLD_SIZE, ...): gloo on the CPU, NCCL on GPUs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 and not dist.is_initialized():
        return World(device=device or torch.device("cpu"))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device is not None and device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), device or torch.device("cpu"))


def leave() -> None:
    """Part from the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """A tensor as one, gathered from its ranks where it is divided; every rank must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def put(target: Tensor, value: Tensor) -> None:
    """Copy a tensor, whole or divided like the target, into one that may be divided over the ranks."""
    if hasattr(target, "placements") and not hasattr(value, "placements"):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device, target.dtype), target.device_mesh, target.placements)
    target.copy_(value)
