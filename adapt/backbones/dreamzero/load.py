"""Checkpoints into models: streamed, checked by name and shape before a byte is read, initialised only if absent.

Host memory peaks at the model and the file being read.
"""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.backbones.dreamzero.checkpoint import Change, Checkpoint, Lazy, unchanged
from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.frozen import freeze_linears, put
from adapt.backbones.dreamzero.lora_weights import LoraWeights, inner_lora, read_lora
from adapt.backbones.dreamzero.model import DreamZeroDiT
from adapt.backbones.dreamzero.names import MODEL, Shape, dit_shapes, is_head
from adapt.fingerprint import base_fingerprint
from schemas.errors import DataError, UsageError

HEAD_STD = 0.02  # the reference's CategorySpecificLinear


@dataclass(frozen=True)
class Loaded:
    """The form that weights are loaded in; see `load_dit`."""

    weights: str = "bf16"
    fp8_matmul: bool = False
    is_mapped: bool = False


def load_dit(
    checkpoint: Checkpoint,
    config: DreamZeroConfig | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    heads_seed: int = 0,
    weights: str = "bf16",
    fp8_matmul: bool = False,
    is_mapped: bool = False,
) -> DreamZeroDiT:
    """The DiT of a released checkpoint, merged if its LoRA lies beside its weights, or of raw Wan with fresh heads.

    What raw Wan has not (`checkpoint.fresh(config)`, for the caller to record) is drawn from `heads_seed`: heads as the
    reference draws them. Wan2.2-TI2V-5B has no branch for CLIP tokens either, which the reference leaves random. Here
    its values start at zero, so that the network's outputs are raw Wan's; it learns nothing until v_img is trained.

    Args:
        config: by default what the checkpoint says of itself.
        weights, fp8_matmul: form of the blocks' linears (`frozen`), into which each tensor goes as it is read.
        is_mapped: leave tensors of the right dtype in their files' memory maps, which processes share.

    Raises:
        UsageError: it holds a LoRA only.
        DataError: a tensor of the DiT is missing, of another shape, or not known; lists the first five.
    """
    form = Loaded(weights, fp8_matmul, is_mapped)
    return _load(checkpoint, config, device, dtype, heads_seed, unchanged, form)


def compose(
    base: Checkpoint,
    adapter: Checkpoint,
    *,
    base_named_by_user: bool,
    config: DreamZeroConfig | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[DreamZeroDiT, str]:
    """`base` with a LoRA merged into it (in float32, then cast), and how its base was checked, to print and record.

    Raises:
        UsageError: `base` is itself a LoRA; or the adapter records no base and the user did not name this one.
        DataError: the adapter records another base, or does not fit this one.
    """
    lora = read_lora(adapter)
    provenance = check_base(lora, base, adapter, base_named_by_user=base_named_by_user)
    sizes = config or base.config
    check_fit(lora, sizes, adapter)
    check_fresh(lora, base, sizes)
    return _load(base, sizes, device, dtype, lora.heads_seed or 0, lora.applied), provenance


def check_base(lora: LoraWeights, base: Checkpoint, adapter: Checkpoint, *, base_named_by_user: bool) -> str:
    """How an adapter's base was verified, in words; refuses every other base."""
    refuse_lora(base)
    got = checkpoint_fingerprint(base)
    if lora.base_sha256 is None:
        if not base_named_by_user:
            raise UsageError(
                f"{adapter.path}: does not record its base, and on another one it would act wrongly. "
                "Name the base that it was trained on with --base DIR."
            )
        return f"base not verifiable: the adapter records none; the user named {base.path.name} (sha256 {got[:12]})"
    if lora.base_sha256 != got:
        raise DataError(
            f"{base.path}: is not the base of {adapter.path} (sha256 {got[:12]}, wanted {lora.base_sha256[:12]}). "
            "Composed on another base it would act wrongly; give the right one."
        )
    return f"base verified: sha256 {got}"


def check_fit(lora: LoraWeights, config: DreamZeroConfig, adapter: Checkpoint) -> None:
    """Raise unless every factor and head has its place, and its shape, in a model of these sizes."""
    shapes = dit_shapes(config)
    for module, (a, b) in lora.factors.items():
        wanted = shapes.get(f"{module}.weight")
        if wanted != (b.shape[0], a.shape[1]):
            raise DataError(
                f"{adapter.path}: LoRA of {module} is for {(b.shape[0], a.shape[1])}, the base's is {wanted}. "
                "Give the adapter's own base."
            )
    for name, tensor in lora.heads.items():
        if shapes.get(name) != tuple(tensor.shape):
            raise DataError(
                f"{adapter.path}: {name} is {tuple(tensor.shape)}, the base has {shapes.get(name)}. "
                "Give the adapter's own base."
            )


def check_fresh(lora: LoraWeights | None, base: Checkpoint, config: DreamZeroConfig) -> None:
    """Raise unless all that raw Wan lacks is in the adapter, or can be drawn again as it was when it was trained."""
    left = [name for name in base.fresh(config) if lora is None or name not in lora.heads]
    if left and (lora is None or lora.heads_seed is None):
        raise DataError(
            f"{base.path}: raw Wan has no {left[0]} ({len(left)} such tensors), and the adapter neither holds them nor "
            "records the seed that they were drawn from (heads_seed). Give an adapter with heads, written by wamkit."
        )


def checkpoint_fingerprint(checkpoint: Checkpoint) -> str:
    """Identity of the DiT's weights as a base, whatever the prefix and the sharding; reads 128 KiB of a tensor.

    The dtype is part of it: the same weights in bfloat16 and in float32 are two bases. Of a LoRA beside its base it is
    the merged weights', which are all computed for it.
    """
    refuse_lora(checkpoint)
    return base_fingerprint(Lazy(checkpoint, checkpoint.part(MODEL), change=own_change(checkpoint)))


def own_change(checkpoint: Checkpoint) -> Change:
    """What makes a checkpoint's saved tensors its weights: its own LoRA merged in, if there is one beside them."""
    inner = inner_lora(checkpoint)
    return inner.applied if inner else unchanged


def refuse_lora(checkpoint: Checkpoint) -> None:
    """Raise if a checkpoint that should be a base holds a LoRA only."""
    if checkpoint.is_lora:
        raise UsageError(
            f"{checkpoint.path}: holds a LoRA ({checkpoint.kind}), which is no base. Give what it was trained on."
        )


def refuse_damage(checkpoint: Checkpoint, config: DreamZeroConfig, *, only_model: bool) -> None:
    """Raise unless every tensor is there, of its shape, and no other; with `only_model` encoders are not looked at."""

    def of_interest(name: str) -> bool:
        return not (only_model and name.startswith("action_head."))

    found = {
        "missing": checkpoint.missing(config),
        "unexpected": checkpoint.unexpected(config),
        "of another shape": checkpoint.misshapen(config),
    }
    wrong = {what: listed for what, names in found.items() if (listed := list(filter(of_interest, names)))}
    if wrong:
        told = "; ".join(f"{len(names)} {what}: {first_of(names)}" for what, names in wrong.items())
        raise DataError(f"{checkpoint.path}: {told}. Fetch the checkpoint again, or give the sizes that it has.")


def first_of(names: list[str]) -> str:
    """The first five of a list, and how many there are."""
    return ", ".join(names[:5]) + (f" (5 of {len(names)})" if len(names) > 5 else "")


def _load(
    checkpoint: Checkpoint,
    config: DreamZeroConfig | None,
    device: str | torch.device,
    dtype: torch.dtype,
    heads_seed: int,
    change: Change,
    form: Loaded = Loaded(),
) -> DreamZeroDiT:
    refuse_lora(checkpoint)
    config = config or checkpoint.config
    refuse_damage(checkpoint, config, only_model=True)
    with torch.device("meta"):
        model = freeze_linears(DreamZeroDiT(config), form.weights, fp8_matmul=form.fp8_matmul)
    own = own_change(checkpoint)
    for name, tensor in checkpoint.tensors(checkpoint.part(MODEL)):
        put(model, name, change(name, own(name, tensor)).to(device=device, dtype=dtype, copy=not form.is_mapped))
    shapes = dit_shapes(config)
    for name in checkpoint.fresh(config):
        put(model, name, change(name, drawn(name, shapes[name], heads_seed)).to(device=device, dtype=dtype))
    left = [n for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    assert not left, left[:5]
    return model


def drawn(name: str, shape: Shape, seed: int) -> Tensor:
    """A starting value of a tensor that raw Wan weights have not, float32; of each name its own, in any order."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    if is_head(name):
        return HEAD_STD * torch.randn(shape, generator=generator) if name.endswith(".W") else torch.zeros(shape)
    if ".v_img." in name or name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:  # gains of norms
        return torch.ones(shape)
    bound = math.sqrt(6 / (shape[0] + shape[1]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
