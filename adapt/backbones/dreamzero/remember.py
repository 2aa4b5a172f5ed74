"""What a block keeps between its forward and its backward pass, and what it computes again.

`keep`       all that autograd asks for
`selective`  the outputs of products with frozen weights and of attention; all elementwise work is done again
`full`       the block's input; everything is done again
`offload`    as `full`, with the input in host memory, fetched back one block ahead

All four give the same numbers. `selective` watches the operations that a block runs: a product is told by its weight's
shape, so any form of frozen weight and LoRA fused or not are treated alike. Two outputs are not kept: attention to the
first image, so short that doing it again is cheaper than keeping it, and the block's last product, whose value no
gradient asks for. In a compiled block PyTorch's own selective checkpointing follows the same rule, in one graph.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from adapt.backbones.dreamzero.config import DreamZeroConfig

Kind = Literal["keep", "selective", "full", "offload"]
Fate = Literal["again", "kept", "shape", "done"]

aten = torch.ops.aten
PRODUCTS = {aten.mm.default: 1, aten.addmm.default: 2, aten._scaled_mm.default: 1}
ATTENTION = {
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_varlen_attn",
    "flex_attention",
}
IN_PLACE = (aten.addmm_.default, aten.add_.Tensor)


@dataclass(frozen=True)
class Rule:
    """Which of a block's operations are kept.

    Args:
        last_asked: whether a gradient asks for the block's last product: when the block's gates train.
    """

    dim: int
    ffn_dim: int
    image_tokens: int
    last_asked: bool = False

    def fate(self, operation: Any, args: tuple[Any, ...]) -> Fate:
        """`kept`: its output; `shape`: how large it is; `done`: in place, where it changed a kept one."""
        if operation in PRODUCTS:
            weight = tuple(args[PRODUCTS[operation]].shape)
            if weight == (self.ffn_dim, self.dim):
                return "kept" if self.last_asked else "shape"
            return "kept" if weight in ((self.dim, self.dim), (self.dim, self.ffn_dim)) else "again"
        if operation in IN_PLACE:
            return "done"
        if operation.__name__.split(".")[0] in ATTENTION:
            return "again" if args[1].ndim == 4 and args[1].shape[2] == self.image_tokens else "kept"
        return "again"


def rule_of(config: DreamZeroConfig, *, last_asked: bool) -> Rule:
    return Rule(config.dim, config.ffn_dim, config.clip_tokens, last_asked)


def selectively(function: Callable[..., Tensor], rule: Rule, *args: Any) -> Tensor:
    """`function(*args)`, of which autograd keeps the arguments and what the rule says."""
    if torch.compiler.is_compiling():
        contexts = partial(create_selective_checkpoint_contexts, partial(_policy, rule))
    else:
        contexts = partial(_watchers, rule)
    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts)


def _policy(
    rule: Rule, context: SelectiveCheckpointContext, operation: Any, *args: Any, **kwargs: Any
) -> CheckpointPolicy:
    """The rule for PyTorch's own, whose graph drops by itself what no gradient asks for."""
    kept = rule.fate(operation, args) in ("kept", "shape")
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _watchers(rule: Rule) -> tuple[TorchDispatchMode, TorchDispatchMode]:
    kept: deque[tuple[Any, Any]] = deque()
    return _Keep(rule, kept), _Recall(rule, kept)


class _Watch(TorchDispatchMode):
    def __init__(self, rule: Rule, kept: deque[tuple[Any, Any]]) -> None:
        super().__init__()
        self.rule, self.kept = rule, kept

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True


class _Keep(_Watch):
    """Runs everything, and keeps outputs in order."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        match self.rule.fate(func, args):
            case "kept":
                self.kept.append((func, _without_history(out)))
            case "shape":
                self.kept.append((func, partial(torch.empty, out.shape, dtype=out.dtype, device=out.device)))
        return out


class _Recall(_Watch):
    """Hands kept outputs out in the same order, and does the rest again."""

    last: Any = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        fate = self.rule.fate(func, args)
        if fate == "done" and _share(args[0], self.last):
            return args[0]
        if fate in ("again", "done"):
            return func(*args, **(kwargs or {}))
        if not self.kept:
            raise RuntimeError("a selective block's kept outputs are gone: only one backward pass is possible.")
        operation, out = self.kept.popleft()
        assert operation is func, f"the block ran {func} where it had run {operation}"
        self.last = out() if isinstance(out, partial) else out
        return self.last


def _share(a: Tensor, b: Any) -> bool:
    return isinstance(b, Tensor) and a.untyped_storage()._cdata == b.untyped_storage()._cdata


def _without_history(out: Any) -> Any:
    """Outputs cut from their graphs, which would otherwise hold each other in memory."""
    if isinstance(out, Tensor):
        return out.detach()
    return type(out)(_without_history(o) for o in out) if isinstance(out, tuple | list) else out


def fully(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """`function(*args)`, of which autograd keeps the arguments."""
    return checkpoint(function, *args, use_reentrant=False)


# Offload


class HostShelf:
    """Block inputs in host memory during one forward and backward pass; a side stream carries them on a GPU.

    The backward pass asks for them last first. Whichever is asked for, the one before it is sent for, so that it comes
    while a block is being computed. Host memory is pinned where there is a GPU. Works the same on a CPU, in turn.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.held: list[Tensor] = []
        self.coming: dict[int, tuple[Tensor, Any]] = {}

    def offloaded(self, function: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
        """`function(x, *args)`, of which autograd keeps the other arguments, and x here."""
        place = x.untyped_storage()._cdata

        def pack(tensor: Tensor) -> Any:
            is_input = tensor.untyped_storage()._cdata == place and tensor.shape == x.shape
            return self._put_away(tensor) if is_input else tensor

        def unpack(packed: Any) -> Tensor:
            return self._fetched(packed) if isinstance(packed, int) else packed

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return checkpoint(function, x, *args, use_reentrant=False)

    def _put_away(self, tensor: Tensor) -> int:
        place = "meta" if self.device.type == "meta" else "cpu"
        host = torch.empty(tensor.shape, dtype=tensor.dtype, device=place, pin_memory=self.stream is not None)
        if self.stream is None:
            host.copy_(tensor)
        else:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self.stream)  # its memory is not given away before the copy is done
        self.held.append(host)
        return len(self.held) - 1

    def _fetched(self, index: int) -> Tensor:
        if index not in self.coming:
            self._send_for(index)
        tensor, event = self.coming.pop(index)
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)
        if index and index - 1 not in self.coming:
            self._send_for(index - 1)
        return tensor

    def _send_for(self, index: int) -> None:
        host = self.held[index]
        if self.stream is None:
            self.coming[index] = (host.to(self.device), None)
            return
        tensor = torch.empty_like(host, device=self.device)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))  # what this memory was before is done with
        with torch.cuda.stream(self.stream):
            tensor.copy_(host, non_blocking=True)
        tensor.record_stream(self.stream)
        self.coming[index] = (tensor, self.stream.record_event())
