"""Frozen linears of the blocks in 8 or 4 bits: stored so, computed in the model's dtype, with a gradient for the input.

`fp8`   float8_e4m3fn, one scale to an output channel, a power of two
`int8`  symmetric, one scale to an output channel, a bfloat16 number
`nf4`   bitsandbytes' NormalFloat in blocks of 64 with a float32 maximum each (QLoRA, Dettmers et al. 2023)

bfloat16 holds the scales of `fp8` and `int8`, so a dequantised weight is rounded once at most; floating point loses
nothing by a power of two. No input is kept for the backward pass, where the weight is dequantised again. int8 has no
library under it: it differs from `fp8` in a dtype and a rounding, and libraries' weight-only int8 has the same error.

With `fp8_matmul` the products are of fp8 numbers too: activations row by row, with a scale of their own each time. The
gradient of the input sums over output channels, each with its own weight scale, which no scale of the product's rows
or columns can stand for; so they are multiplied into the gradient, exactly, before it is rounded. Both products then
use the same stored weight, which the GPU wants transposed for the second: that is done on the fly, one byte a weight.
Without a GPU the same numbers are multiplied in float32.

Does not train what it freezes, nor merge adapters into it.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schemas.errors import UsageError

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
NF4_BLOCK = 64
STORED = {"fp8": FP8, "int8": torch.int8, "nf4": torch.uint8}
PLAIN = ("float32", "bf16")
BLOCK_LINEARS = (
    *(f"self_attn.{p}" for p in "qkvo"),
    *(f"cross_attn.{p}" for p in ("q", "k", "v", "o", "k_img", "v_img")),
    "ffn.0",
    "ffn.2",
)


class Form(NamedTuple):
    """How a weight of `shape` (out, in) is stored; `plain` as it is."""

    weights: str
    shape: tuple[int, int]
    fp8_matmul: bool = False


class FrozenLinear(nn.Linear):
    """A linear layer with a stored weight and `scale`, neither of which trains or follows `.to(dtype)`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        weights: str,
        *,
        bias: bool,
        fp8_matmul: bool,
        device: Any,
        dtype: Any,
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self.form = Form(weights, (out_features, in_features), fp8_matmul)
        packed, scale = packed_shapes(self.form)
        self.weight = nn.Parameter(torch.empty(packed, dtype=STORED[weights], device=device), requires_grad=False)
        self.register_buffer("scale", torch.empty(scale, dtype=torch.float32, device=device))
        bias_values = torch.empty(out_features, dtype=dtype, device=device)
        self.register_parameter("bias", nn.Parameter(bias_values, requires_grad=False) if bias else None)

    def forward(self, input: Tensor) -> Tensor:
        return _Product.apply(input, self.weight, self.scale, self.bias, *self.form)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in) that the layer stands for."""
        return dequantised(self.weight, self.scale, self.form, dtype)

    def set_weight(self, weight: Tensor) -> None:
        """Take over a weight (out, in), on its own device."""
        values, scale = quantised(weight, self.form)
        self.weight = nn.Parameter(values, requires_grad=False)
        self.scale = scale

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weights={self.form.weights}, fp8_matmul={self.form.fp8_matmul}"

    def _apply(self, fn: Any, recurse: bool = True) -> "FrozenLinear":
        """A change of dtype would undo the storage, and round the scale; a change of device is followed."""

        def keeping(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        weight, scale = keeping(self.weight.data), keeping(self.scale)
        super()._apply(fn, recurse)
        self.weight, self.scale = nn.Parameter(weight, requires_grad=False), scale
        return self


def freeze_linears(
    model: nn.Module, weights: str, *, fp8_matmul: bool = False, names: Iterable[str] = BLOCK_LINEARS
) -> nn.Module:
    """The same model with these linears of its blocks frozen in another form, one after the other, before LoRA.

    On the meta device nothing is read: `put` then fills a model tensor by tensor. In `float32` and `bf16` nothing
    changes, nor where a linear already has this form.

    Args:
        fp8_matmul: multiply in fp8 as well.
        names: endings of module names inside a block.

    Raises:
        UsageError: the form needs a package that is not installed, or a GPU that this is not; or a linear is already
            frozen in another form, or has LoRA.
    """
    if weights in PLAIN:
        return model
    if weights not in STORED:
        raise UsageError(f"weights {weights!r}: not known. Give one of: {', '.join((*PLAIN, *STORED))}.")
    if weights == "nf4":
        bitsandbytes()
    for block in model.blocks:
        for name in names:
            path, _, leaf = name.rpartition(".")
            parent = block.get_submodule(path)
            setattr(parent, leaf, frozen(getattr(parent, leaf), weights, fp8_matmul=fp8_matmul, name=name))
    return model


def frozen(linear: nn.Module, weights: str, *, fp8_matmul: bool, name: str) -> FrozenLinear:
    """One linear in its frozen form."""
    if isinstance(linear, FrozenLinear) and linear.form.weights == weights:
        linear.form = linear.form._replace(fp8_matmul=fp8_matmul)
        refuse_fp8_matmul(linear)
        return linear
    if type(linear) is not nn.Linear:
        raise UsageError(f"{name}: a {type(linear).__name__} cannot be frozen in {weights}. Freeze before LoRA, once.")
    held = linear.weight
    layer = FrozenLinear(
        linear.in_features,
        linear.out_features,
        weights,
        bias=linear.bias is not None,
        fp8_matmul=fp8_matmul,
        device="meta",
        dtype=held.dtype,
    )
    if linear.bias is not None:
        layer.bias = nn.Parameter(linear.bias.data, requires_grad=False)
    if not held.is_meta:
        layer.set_weight(held.data)
    refuse_fp8_matmul(layer)
    return layer


def refuse_fp8_matmul(layer: FrozenLinear) -> None:
    """Raise where the weight lies on a GPU without fp8 products, or its sides do not suit them."""
    if not layer.form.fp8_matmul:
        return
    if layer.form.weights != "fp8":
        raise UsageError(f"fp8 products of {layer.form.weights} weights: give weights 'fp8'.")
    if any(side % 16 for side in layer.form.shape):
        raise UsageError(f"fp8 products of a weight {layer.form.shape}: its sides must be multiples of 16.")
    if layer.weight.is_cuda and torch.cuda.get_device_capability(layer.weight.device) < (8, 9):
        raise UsageError("this GPU has no fp8 products (compute capability 8.9 or later has). Leave fp8_matmul off.")


@torch.no_grad()
def put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Give a parameter its values: a frozen linear's weight in its own form, everything else as it is.

    What a checkpoint's tensors are streamed through: beside the model there is never more than one of them.
    """
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(module, FrozenLinear) and leaf == "weight":
        module.set_weight(tensor)
        refuse_fp8_matmul(module)
    else:
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=not isinstance(module, FrozenLinear)))


def settle_adapters(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Everything that trains in `dtype`, in place. peft gives an adapter the dtype of its base, be it fp8's.

    Call it before training: values that went through fp8 on the way would stay rounded.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    return model


def frozen_bytes(model: nn.Module) -> int:
    """Bytes of all that does not train: stored weights, scales and the rest, a storage once; on any device."""
    tensors = [p for p in model.parameters() if not p.requires_grad] + list(model.buffers())
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


# Numbers


def quantised(weight: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """A weight (out, in) in its stored form, and its scale."""
    if weight.is_meta:
        packed, scale = packed_shapes(form)
        return weight.new_empty(packed, dtype=STORED[form.weights]), weight.new_empty(scale, dtype=torch.float32)
    match form.weights:
        case "fp8":
            return rounded_rows(weight.float())
        case "int8":
            wide = weight.float()
            scale = above_in_bfloat16(wide.abs().amax(dim=1, keepdim=True) / 127)
            return (wide / scale).round().to(torch.int8), scale
        case "nf4":
            bitsandbytes()
            quantise = torch.ops.bitsandbytes.quantize_4bit.default
            packed, scale = quantise(weight.contiguous(), NF4_BLOCK, "nf4", torch.uint8)
            return packed, scale.float()
    raise AssertionError(form.weights)


def dequantised(stored: Tensor, scale: Tensor, form: Form, dtype: torch.dtype) -> Tensor:
    """The weight (out, in) in `dtype`."""
    if form.weights == "nf4":
        unpack = torch.ops.bitsandbytes.dequantize_4bit.default
        direct = dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else torch.float32
        return unpack(stored, scale, NF4_BLOCK, "nf4", form.shape, direct).to(dtype)
    return stored.to(dtype) * scale.to(dtype)


def packed_shapes(form: Form) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the stored weight and of its scale."""
    if form.weights != "nf4":
        return form.shape, (form.shape[0], 1)
    count = math.prod(form.shape)
    return ((count + 1) // 2, 1), (-(-count // NF4_BLOCK),)


def rounded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) in fp8, and the float32 powers of two (N, 1) by which its rows were divided.

    Nothing is clamped: what is infinite or no number becomes no number, and is not hidden.
    """
    scale = power_of_two_above(x.abs().amax(dim=1, keepdim=True).float() / FP8_MAX)
    return (x * scale.reciprocal().to(x.dtype)).to(FP8), scale


def power_of_two_above(x: Tensor) -> Tensor:
    """The smallest power of two that is at least x > 0, at least 2^-100; 1 where x is 0."""
    mantissa, exponent = torch.frexp(x)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent).clamp(min=-100)
    return torch.where(x == 0, 1.0, torch.ldexp(torch.ones_like(x), exponent))


def above_in_bfloat16(x: Tensor) -> Tensor:
    """The smallest bfloat16 number that is at least x >= 0, as float32; 1 where x is 0."""
    near = x.to(torch.bfloat16).float()
    up = (near.view(torch.int32) + 0x10000).view(torch.float32)
    return torch.where(x == 0, 1.0, torch.where(near < x, up, near))


# Products


def product(x: Tensor, stored: Tensor, scale: Tensor | None, bias: Tensor | None, form: Form) -> Tensor:
    """x (N, in) times the weight, plus bias: (N, out) in x's dtype."""
    if form.weights == "plain":
        return F.linear(x, stored, bias)
    if form.fp8_matmul:
        return fp8_product(x, stored.t(), scale.t(), bias)
    return F.linear(x, dequantised(stored, scale, form, x.dtype), bias)


def product_back(gradient: Tensor, stored: Tensor, scale: Tensor | None, form: Form) -> Tensor:
    """The gradient (N, in) of `product`'s input from that of its output, (N, out)."""
    if form.weights == "plain":
        return gradient @ stored
    if form.fp8_matmul:
        ones = torch.ones(1, form.shape[1], dtype=torch.float32, device=gradient.device)
        turned = stored.t().contiguous().t() if stored.is_cuda else stored
        return fp8_product(gradient * scale.t().to(gradient.dtype), turned, ones, None)
    return gradient @ dequantised(stored, scale, form, gradient.dtype)


def fp8_product(x: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, K), rounded to fp8 row by row, times an fp8 matrix (K, M) with scales (1, M): (N, M) in x's dtype.

    On a GPU the matrix must be stored column by column.
    """
    rounded, row_scale = rounded_rows(x)
    if x.is_cuda:
        out = torch._scaled_mm(rounded, columns, scale_a=row_scale, scale_b=scale, bias=bias, out_dtype=torch.bfloat16)
        return out.to(x.dtype)
    wide = torch.promote_types(x.dtype, torch.float32)
    out = (rounded.to(wide) @ columns.to(wide)) * row_scale * scale
    return (out if bias is None else out + bias).to(x.dtype)


class _Product(torch.autograd.Function):
    """Keeps the stored weight and its scale, which exist anyway, and no input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        stored: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        weights: str,
        shape: tuple[int, int],
        fp8_matmul: bool,
    ) -> Tensor:
        form = Form(weights, shape, fp8_matmul)
        ctx.save_for_backward(stored, scale)
        ctx.form = form
        return product(x.flatten(0, -2), stored, scale, bias, form).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        stored, scale = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        dx = product_back(rows, stored, scale, ctx.form).unflatten(0, gradient.shape[:-1])
        return dx, None, None, rows.sum(0) if ctx.needs_input_grad[3] else None, None, None, None


def bitsandbytes() -> None:
    """Load the package that has nf4's kernels.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "weights 'nf4': bitsandbytes is not installed. Run: pip install \"wamkit[quant]\", or give weights 'fp8'."
        ) from error
