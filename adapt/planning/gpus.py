"""GPUs that a run may be planned for: memory, rates, and which one is here.

Rates are NVIDIA's data sheets', dense: the sparse figures that those print first are twice as high. GeForce cards
multiply 16 bits at half rate when they add in 32 bits, which training does, so that rate is given. How much of a rate
a step reaches is an assumption until a probe has measured it (`EXPECTED`).
"""

import re
from dataclasses import dataclass, replace

from schemas.errors import UsageError

# The share of the dense peak that a training step is expected to reach; an assumption, not a measurement. 0.45 to 0.8
# is the range of what is known of Wan's 14B: 0.51 is published of a generic LoRA trainer on an A800, 0.8 is what large
# products alone reach on an H200.
EXPECTED, SLOWEST, FASTEST = 0.5, 0.45, 0.8
CONTEXT_GB = 1.0  # CUDA itself, its libraries' workspaces and the kernels
FRAGMENTED = 0.03  # of the memory: what an allocator cannot use


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        memory_gb: 1e9 bytes that a process finds; of a class, the least among its cards.
        bf16_tflops, fp8_tflops: dense peak; None where the card has no fp8 products.
        bandwidth_gb_s: of its memory.
        pattern: of `torch.cuda.get_device_name`, any case.
    """

    name: str
    memory_gb: float
    bf16_tflops: float
    fp8_tflops: float | None
    bandwidth_gb_s: float
    pattern: str

    @property
    def usable_gb(self) -> float:
        """Memory for tensors, in 1e9 bytes."""
        return (self.memory_gb - CONTEXT_GB) * (1 - FRAGMENTED)


# NVIDIA's data sheets and architecture papers of each card; memory as the driver shows it, rounded down: GDDR6 with
# error correction shows a sixteenth less than is printed on the card. First match wins.
KNOWN = (
    Gpu("GB200", 186, 2500, 5000, 8000, r"GB200"),
    Gpu("B200", 180, 2250, 4500, 8000, r"B200"),
    Gpu("H200", 141, 989, 1979, 4800, r"H200|GH200.*144G"),
    Gpu("H100 NVL", 94, 835, 1671, 3900, r"H100 NVL"),
    Gpu("H100 PCIe", 80, 756, 1513, 2000, r"H100 PCIe"),
    Gpu("H100 SXM", 80, 989, 1979, 3350, r"H100|GH200"),
    Gpu("A100 40 GB", 40, 312, None, 1555, r"A100.*40GB"),
    Gpu("A100 80 GB", 80, 312, None, 1935, r"A100|A800"),
    Gpu("RTX PRO 6000 Blackwell", 96, 503, 1007, 1792, r"RTX PRO 6000"),
    Gpu("L40S", 47, 362, 733, 864, r"L40S"),
    Gpu("RTX 6000 Ada", 48, 364, 728, 960, r"RTX 6000 Ada"),
    Gpu("RTX A6000", 48, 155, None, 768, r"RTX A6000"),
    Gpu("A40", 47, 150, None, 696, r"A40\b"),
    Gpu("L4", 23, 121, 242, 300, r"L4\b"),
    Gpu("A10", 23, 125, None, 600, r"A10\b|A10G"),
    Gpu("RTX 5090", 33, 209, 419, 1792, r"RTX 5090\b"),
    Gpu("RTX 4090", 25, 165, 330, 1008, r"RTX 4090\b"),
    Gpu("RTX 3090", 25, 71, None, 936, r"RTX 3090\b"),
)
# What a number stands for: that much memory, and the speed of the card it is named after.
CLASSES = {"24": "RTX 4090", "32": "RTX 5090", "48": "L40S", "80": "H100 SXM", "141": "H200"}


def named(name: str) -> Gpu:
    """A GPU by what a user typed: a class (`80`, `80GB`), or a card's name or a part of it.

    Raises:
        UsageError: none is known by that name; says which there are.
    """
    wanted = re.sub(r"\s*(gb|gib|g)$", "", name.strip().lower())
    if wanted in CLASSES:
        card = next(g for g in KNOWN if g.name == CLASSES[wanted])
        return replace(card, name=f"{wanted} GB class (speed of {_article(card.name)})", memory_gb=float(wanted))
    found = [g for g in KNOWN if wanted == g.name.lower()] or [
        g for g in KNOWN if re.search(g.pattern, name, re.IGNORECASE) or (len(wanted) > 2 and wanted in g.name.lower())
    ]
    if found:
        return found[0]
    raise UsageError(
        f"GPU {name!r}: not known. Give a class ({', '.join(CLASSES)} GB) or one of: "
        f"{', '.join(g.name for g in KNOWN)}."
    )


def matched(device_name: str, memory_bytes: int) -> Gpu | None:
    """The table's entry of a device with the memory that it really has; None where the table does not know it."""
    for gpu in KNOWN:
        if re.search(gpu.pattern, device_name, re.IGNORECASE):
            return replace(gpu, memory_gb=memory_bytes / 1e9)
    return None


def at_hand() -> Gpu | None:
    """The first GPU of this machine; None without one.

    A card that the table does not know gets the speed of the slowest known card that has no more memory than it.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(0)
    return matched(facts.name, facts.total_memory) or unknown(facts.name, facts.total_memory)


def unknown(device_name: str, memory_bytes: int) -> Gpu:
    """A card outside the table: its own memory, and a cautious speed."""
    no_larger = [g for g in KNOWN if g.memory_gb * 1e9 <= memory_bytes] or [min(KNOWN, key=lambda g: g.memory_gb)]
    slow = min(no_larger, key=lambda g: g.bf16_tflops)
    name = f"{device_name} (speed taken from {_article(slow.name)})"
    return replace(slow, name=name, memory_gb=memory_bytes / 1e9, fp8_tflops=None)


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "AHLR" else f"a {name}"
