"""peft's LoRA linears with base product and adapter as one function: the same parameters, fewer passes over the output.

    y  = x W' + b,  then  y += s (x A') B'  inside the product's epilogue
    dX = dY W,      then  dX += s (dY B) A  likewise

peft adds the adapter in passes of its own: a product, a scaling, a sum, and casts between the two dtypes. Here x is
kept for the adapters' gradients (one tensor for q, k and v, which share it) with x A', and nothing of the output's
size. Adapters may be float32 on a 16-bit base: they are cast, which are small, and not x. Their gradients have their
own dtype.

Does not fuse an adapter with dropout, a variant such as DoRA, a bias of its own, nor one on an unknown kind of linear;
those stay peft's. Disabled, merged and several active adapters are computed by peft as before.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from adapt.backbones.dreamzero.frozen import Form, FrozenLinear, product, product_back


def fuse(model: nn.Module) -> int:
    """Fuse every adapter that can be, in place; how many they are."""
    from peft.tuners.lora.layer import Linear

    layers = [m for m in model.modules() if isinstance(m, Linear) and not isinstance(m, FusedForward) and can_fuse(m)]
    for layer in layers:
        layer.__class__ = _fused(type(layer))  # a bound method in `forward` would stay with the original in a copy
    return len(layers)


@lru_cache(maxsize=8)
def _fused(kind: type) -> type:
    return type(f"Fused{kind.__name__}", (FusedForward, kind), {})


def can_fuse(layer: nn.Module) -> bool:
    """Whether the adapters of a peft layer are plain: A, B and a scale on a frozen linear."""
    base = layer.get_base_layer()
    return (
        (type(base) is nn.Linear or isinstance(base, FrozenLinear))
        and not base.weight.requires_grad
        and not layer.lora_variant
        and all(isinstance(d, nn.Identity) or d.p == 0 for d in layer.lora_dropout.values())
        and all(m.bias is None for m in (*layer.lora_A.values(), *layer.lora_B.values()))
    )


class FusedForward:
    """The forward pass of a peft LoRA linear, to be put before its class."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        active = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(active) != 1 or args or kwargs:
            return super().forward(x, *args, **kwargs)
        base, name = self.get_base_layer(), active[0]
        form = base.form if isinstance(base, FrozenLinear) else Form("plain", tuple(base.weight.shape))
        return _Fused.apply(
            x,
            base.weight,
            getattr(base, "scale", None),
            base.bias,
            self.lora_A[name].weight,
            self.lora_B[name].weight,
            self.scaling[name],
            *form,
        )


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        stored: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
        weights: str,
        shape: tuple[int, int],
        fp8_matmul: bool,
    ) -> Tensor:
        form, rows = Form(weights, shape, fp8_matmul), x.flatten(0, -2)
        inner = rows @ a.to(x.dtype).t()
        out = product(rows, stored, scale, bias, form)
        out.addmm_(inner, b.to(x.dtype).t(), alpha=scaling)
        ctx.save_for_backward(x, stored, scale, a, b, inner)
        ctx.form, ctx.scaling = form, scaling
        return out.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, stored, scale, a, b, inner = ctx.saved_tensors
        rows, need = gradient.flatten(0, -2), ctx.needs_input_grad
        inner_gradient = rows @ b.to(rows.dtype)
        dx = da = db = None
        if need[0]:
            dx = product_back(rows, stored, scale, ctx.form)
            dx = dx.addmm_(inner_gradient, a.to(rows.dtype), alpha=ctx.scaling).unflatten(0, x.shape[:-1])
        if need[4]:
            da = summed(inner_gradient, x.flatten(0, -2), a.dtype).mul_(ctx.scaling)
        if need[5]:
            db = summed(rows, inner, b.dtype).mul_(ctx.scaling)
        return dx, None, None, rows.sum(0) if need[3] else None, da, db, None, None, None, None


def summed(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left' right in `dtype`, for (N, R) and (N, K): a GPU's float32 sums are not rounded on the way."""
    if left.is_cuda and left.dtype == torch.bfloat16 and dtype == torch.float32:
        return torch.mm(left.t(), right, out_dtype=torch.float32)
    return (left.t() @ right).to(dtype)
