"""A base divided over the ranks (FSDP2), for GPUs that it does not fit: each holds a part of every block.

Block after block is moved to the device and cut, so the device never holds more than its parts and one block; on the
host the base stays mapped from its files.
"""

from torch import nn

from adapt.backbones.base import Backbone
from adapt.world import World
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
        fully_shard(module, mesh=mesh)
        module.set_gradient_divide_factor(1.0)  # a rank's losses are its share of the step's means: sums, not means
    if root is not model:  # peft calls `forward` itself, past the hooks that gather the weights
        register_fsdp_forward_method(root, "forward")
    for method in backbone.entries:
        register_fsdp_forward_method(root, method)
    for method in getattr(backbone, "block_entries", ()):
        for block in root.blocks:
            register_fsdp_forward_method(block, method)
    return model
