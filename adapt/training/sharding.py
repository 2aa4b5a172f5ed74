"""A base divided over the ranks (FSDP2), for GPUs that it does not fit: each holds a part of every block.

Block after block is moved to the device and cut, so the device never holds more than its parts and one block; on the
host the base stays mapped from its files.
"""

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

from torch import nn

from adapt.backbones.base import Backbone
from adapt.training.world import World
from schemas.errors import UsageError


def divide(model: nn.Module, backbone: Backbone, world: World) -> nn.Module:
    """`model` with its blocks, and then the rest, divided over all ranks.

    Raises:
        UsageError: quantised weights, which FSDP2 cannot cut.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    odd = next((n for n, p in model.named_parameters() if not p.dtype.is_floating_point or p.element_size() == 1), None)
    if odd is not None:
        raise UsageError(f"{odd}: quantised weights cannot be divided over GPUs. Give weights bf16, or one GPU.")
    mesh = init_device_mesh(world.device.type, (world.size,))
    # Not hasattr: peft's wrappers have every attribute of the model inside them.
    root = next(m for m in model.modules() if "blocks" in dict(m.named_children()))
    for module in (*root.blocks, root):
        # Of the root too: what stayed gathered after judging would be the weights from before they changed.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.set_gradient_divide_factor(1.0)  # a rank's losses are its share of the step's means: sums, not means
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    entrance = _Entrance()
    for method in ("forward", *backbone.entries):
        plain = _as_tree(getattr(root, method))
        setattr(root, method, plain)
        if root is not model or method != "forward":  # peft calls `forward` itself, past the hooks of a call
            register_fsdp_forward_method(root, method)
        setattr(root, method, entrance.only(getattr(root, method), plain))
    for method in getattr(backbone, "block_entries", ()):
        for block in root.blocks:
            register_fsdp_forward_method(block, method)
    return model


def _as_tree(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method`, whose result FSDP2 can look into for the tensors that the backward pass begins with."""
    from torch.utils._pytree import SUPPORTED_NODES, register_dataclass

    def call(*arguments: Any, **named: Any) -> Any:
        found = method(*arguments, **named)
        if is_dataclass(found) and type(found) not in SUPPORTED_NODES:
            register_dataclass(type(found))
        return found

    return call


class _Entrance:
    """Weights are gathered where the model is entered; a method that another one calls finds them there.

    Without it FSDP2 takes the inner call's end for that of the whole forward pass, and frees weights too early.
    """

    def __init__(self) -> None:
        self._is_inside = False

    def only(self, gathered: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self._is_inside:
                return plain(*arguments, **named)
            self._is_inside = True
            try:
                return gathered(*arguments, **named)
            finally:
                self._is_inside = False

        return call
