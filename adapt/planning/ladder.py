"""Which rung of the memory ladder a step takes: the best that fits, the next one down, or why none does.

Best first. Weights come before everything else, because they alone change what is computed: 16 bits, fp8, then nf4.
With the same weights, 32-bit moments come before 8-bit ones; with the same moments, what computes least again comes
first: nothing, elementwise work alone, whole blocks (as few as the memory asks for), and last with their inputs in host
memory. Does not know a model: a `Cost` says what a rung takes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from adapt.planning.gpus import EXPECTED, KNOWN, Gpu
from adapt.planning.rung import Rung
from schemas.errors import UsageError

SATURATED = 14_000  # tokens at which a GPU's products no longer gain from a larger micro-batch
WEIGHTS = ("bf16", "fp8", "nf4")
ADAMS = ("adamw", "adamw8bit")
SHARDS = (2, 4, 8, 16)
DIVIDED = {"weights": "bf16", "optimizer": "adamw"}  # FSDP2 cuts neither quantised weights nor 8-bit moments
LEAST_GAIN = 0.98  # the next rung down takes at most this share, or it would run out of memory again


class Operations(Protocol):
    """Of one sample: all that are done, and those of them in the blocks' frozen linears."""

    @property
    def done(self) -> float: ...

    @property
    def linear(self) -> float: ...


class Cost(Protocol):
    """What the ladder asks of a model; `dreamzero.cost.DreamZeroCost` is one."""

    @property
    def blocks(self) -> int: ...

    @property
    def tokens(self) -> int: ...

    def flops(self, rung: Rung) -> Operations: ...

    def bytes(self, rung: Rung, *, ranks: int = 1) -> dict[str, int]: ...

    def host_bytes(self, rung: Rung) -> int: ...

    def unpacked_bytes(self, rung: Rung) -> float: ...


@dataclass(frozen=True)
class Choice:
    """A rung and what it takes.

    Args:
        bytes: on one GPU at the peak of a step, by part; `host_bytes` in host memory.
        headroom: bytes that stay free.
        accumulation: micro-batches of a step on each GPU.
        seconds_per_step: at `EXPECTED` of the GPU's peak; an assumption until it is measured.
        ranks: GPUs that the frozen base is divided over; 1 is a copy on each.
        reasons: why not a better rung, one sentence each.
    """

    rung: Rung
    bytes: dict[str, int]
    host_bytes: int
    headroom: int
    accumulation: int
    seconds_per_step: float
    ranks: int
    reasons: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


def ladder(cost: Cost, *, fixed: Mapping[str, Any] | None = None) -> Iterator[Rung]:
    """All rungs, best first, that have the fixed fields; micro-batch 1 unless that is fixed.

    Raises:
        UsageError: the fixed fields exclude each other.
    """
    fixed = {k: v for k, v in (fixed or {}).items() if v is not None}
    if fixed.get("fp8_matmul"):
        fixed.setdefault("weights", "fp8")
    kinds = ("full", "offload") if fixed.get("selective_blocks") else ("keep", "selective", "full", "offload")
    base = _rung(Rung(fused_lora=True), {k: v for k, v in fixed.items() if k != "selective_blocks"})
    for weights in _options(fixed, "weights", WEIGHTS):
        for optimizer in _options(fixed, "optimizer", ADAMS):
            for activations in _options(fixed, "activations", kinds):
                mixed = activations in ("full", "offload")
                most = cost.blocks - 1 if mixed else 0
                for blocks in _options(fixed if mixed else {}, "selective_blocks", range(most, -1, -1)):
                    chosen = {"activations": activations, "selective_blocks": blocks}
                    yield replace(base, weights=weights, optimizer=optimizer, **chosen)


def choose(
    cost: Cost,
    gpu: Gpu,
    *,
    batch: int,
    world: int = 1,
    shard: bool = False,
    fixed: Mapping[str, Any] | None = None,
    alternatives: Mapping[str, Cost] | None = None,
) -> Choice:
    """The best rung that fits.

    Args:
        batch: samples of a step, over all GPUs.
        world: GPUs; the frozen base is divided over them, in 16 bits, with `shard`, or where a copy fits none of them.
        fixed: fields of the rung that the user has settled; None leaves a field open.
        alternatives: smaller models to name where nothing fits.

    Raises:
        UsageError: nothing fits; says what is missing, and what would fit.
    """
    if batch % world:
        raise UsageError(f"batch {batch} over {world} GPUs: wanted a multiple of {world}. Give another batch.")
    given = {k: v for k, v in (fixed or {}).items() if v is not None}
    if given.get("fp8_matmul") and not gpu.fp8_tflops:
        raise UsageError(f"{gpu.name}: has no fp8 products. Leave fp8_matmul out; fp8 weights alone work.")
    divided = DIVIDED | given
    found = _first_fit(cost, gpu, batch // world, divided if shard else given, world if shard else 1)
    if found is None and not shard and world > 1 and divided["weights"] == "bf16":
        found = _first_fit(cost, gpu, batch // world, divided, world)
    if found is None:
        fixed = divided if shard else given
        raise UsageError(refusal(cost, gpu, fixed=fixed, ranks=world if shard else 1, alternatives=alternatives))
    return found


def _first_fit(cost: Cost, gpu: Gpu, each: int, fixed: Mapping[str, Any], ranks: int) -> Choice | None:
    """The best rung that fits, the base on every GPU or divided over `ranks` of them; None where there is none."""
    passed: list[Rung] = []
    for rung in ladder(cost, fixed=fixed):
        if sum(cost.bytes(rung, ranks=ranks).values()) <= gpu.usable_gb * 1e9:
            if not fixed.get("micro_batch"):
                rung = _widened(rung, cost, gpu, each=each, ranks=ranks)
            return _choice(rung, cost, gpu, each=each, ranks=ranks, passed=passed)
        passed.append(rung)
    return None


def lower(rung: Rung, cost: Cost, *, fixed: Mapping[str, Any] | None = None, ranks: int = 1) -> Rung | None:
    """The next rung down that takes clearly less, after a step ran out of memory; None at the bottom."""
    if rung.micro_batch > 1 and not (fixed or {}).get("micro_batch"):
        return replace(rung, micro_batch=rung.micro_batch // 2)
    had = sum(cost.bytes(rung, ranks=ranks).values())
    below = False
    for other in ladder(cost, fixed=dict(fixed or {}) | {"micro_batch": rung.micro_batch}):
        other = replace(other, compile=rung.compile, fused_lora=rung.fused_lora)
        if below and sum(cost.bytes(other, ranks=ranks).values()) <= LEAST_GAIN * had:
            return other
        below = below or _place(other) == _place(rung)
    return None


def seconds(cost: Cost, rung: Rung, gpu: Gpu, *, samples: int, share: float = EXPECTED) -> float:
    """Seconds of so many samples on one GPU that reaches `share` of its dense peak.

    fp8 products run at the fp8 rate, float32 at half of the 16-bit one; unpacking weights costs their way through
    memory. Traffic between GPUs and to the host is taken to be hidden.
    """
    flops = cost.flops(rung)
    rate = gpu.bf16_tflops * 1e12 * share * (0.5 if rung.weights == "float32" else 1)
    linear_rate = gpu.fp8_tflops * 1e12 * share if rung.fp8_matmul and gpu.fp8_tflops else rate
    unpacking = cost.unpacked_bytes(rung) / (gpu.bandwidth_gb_s * 1e9 * rung.micro_batch)
    return samples * ((flops.done - flops.linear) / rate + flops.linear / linear_rate + unpacking)


def refusal(
    cost: Cost,
    gpu: Gpu,
    *,
    fixed: Mapping[str, Any] | None = None,
    ranks: int = 1,
    alternatives: Mapping[str, Cost] | None = None,
) -> str:
    """One line: what is missing in GB, and what would fit."""
    rung, needed = _least(cost, fixed=fixed, ranks=ranks)
    missing = needed / 1e9 - gpu.usable_gb
    over = f" divided over {ranks} GPUs" if ranks > 1 else ""
    ways = []
    if fixed and any(fixed.values()):
        free, least = _least(cost, fixed=None, ranks=ranks)
        if least <= gpu.usable_gb * 1e9:
            ways.append(f"leave {', '.join(k for k, v in fixed.items() if v)} open ({free.words})")
    larger = [g for g in KNOWN if g.usable_gb * 1e9 >= needed]
    if larger:
        card = min(larger, key=lambda g: g.memory_gb)
        ways.append(f"a GPU of {card.memory_gb:.0f} GB or more ({card.name})")
    for name, other in (alternatives or {}).items():
        least = _least(other, fixed=None, ranks=1)[1]
        if least <= gpu.usable_gb * 1e9:
            ways.append(f"{name}, which needs {least / 1e9:.1f} GB")
    for n in SHARDS:
        divided = _least(cost, fixed=DIVIDED, ranks=n)[1]
        if n > ranks and divided <= gpu.usable_gb * 1e9:
            ways.append(f"the base divided over {n} such GPUs (`shard`), {divided / 1e9:.1f} GB on each")
            break
    return (
        f"{gpu.name}: {gpu.usable_gb:.1f} of its {gpu.memory_gb:.0f} GB can be used, and the smallest way of training"
        f"{over} ({rung.words}) needs {needed / 1e9:.1f}: {missing:.1f} GB are missing. "
        f"What fits: {'; '.join(ways) or 'nothing that is known here'}."
    )


def _least(cost: Cost, *, fixed: Mapping[str, Any] | None, ranks: int) -> tuple[Rung, int]:
    """The rung that takes fewest bytes, and how many."""
    sizes = ((rung, sum(cost.bytes(rung, ranks=ranks).values())) for rung in ladder(cost, fixed=fixed))
    return min(sizes, key=lambda pair: pair[1])


def _widened(rung: Rung, cost: Cost, gpu: Gpu, *, each: int, ranks: int) -> Rung:
    """The rung with the smallest micro-batch that keeps the GPU busy, or the largest that fits."""
    for size in range(2, each + 1):
        if rung.micro_batch * cost.tokens >= SATURATED:
            break
        wider = replace(rung, micro_batch=size)
        if each % size == 0 and sum(cost.bytes(wider, ranks=ranks).values()) <= gpu.usable_gb * 1e9:
            rung = wider
    return rung


def _choice(rung: Rung, cost: Cost, gpu: Gpu, *, each: int, ranks: int, passed: list[Rung]) -> Choice:
    if each % rung.micro_batch:
        raise UsageError(
            f"micro-batch {rung.micro_batch}: {each} samples on each GPU do not divide into it. "
            "Give a divisor of that number."
        )
    sizes = cost.bytes(rung, ranks=ranks)
    return Choice(
        rung=rung,
        bytes=sizes,
        host_bytes=cost.host_bytes(rung),
        headroom=round(gpu.usable_gb * 1e9) - sum(sizes.values()),
        accumulation=each // rung.micro_batch,
        seconds_per_step=seconds(cost, rung, gpu, samples=each),
        ranks=ranks,
        reasons=tuple(_reasons(rung, cost, gpu, ranks, passed)),
    )


def _reasons(rung: Rung, cost: Cost, gpu: Gpu, ranks: int, passed: list[Rung]) -> Iterator[str]:
    """For each field that a better rung had otherwise, the nearest such rung and what it would need."""
    for field in ("weights", "optimizer", "activations"):
        better = [r for r in passed if getattr(r, field) != getattr(rung, field)]
        if better:
            near = min(better, key=lambda r: sum(cost.bytes(r, ranks=ranks).values()))
            needed = sum(cost.bytes(near, ranks=ranks).values()) / 1e9
            yield f"{getattr(near, field)} {field} would need {needed:.1f} GB of {gpu.usable_gb:.1f}"
    if rung.selective_blocks:
        yield f"the memory holds the products of {rung.selective_blocks} of {cost.blocks} blocks; the others run twice"
    if rung.micro_batch * cost.tokens >= SATURATED:
        yield f"{rung.micro_batch * cost.tokens:,} tokens in a micro-batch keep a GPU busy: more would only need memory"


def _place(rung: Rung) -> tuple[str, str, str, int]:
    return rung.weights, rung.optimizer, rung.activations, rung.selective_blocks


def _options(fixed: Mapping[str, Any], field: str, otherwise: Any) -> Any:
    return [fixed[field]] if field in fixed else otherwise


def _rung(base: Rung, fixed: Mapping[str, Any]) -> Rung:
    try:
        return replace(base, **fixed)
    except (TypeError, ValueError) as error:
        raise UsageError(f"hardware: {error} Change the recipe's hardware settings.") from None
