"""Two real steps, measured, and where they part from what was planned: a formula alone is no plan."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DRIFT = 0.1  # plan and probe may differ by so much without a word


@dataclass(frozen=True)
class Planned:
    """What a step was planned to take on one device; None where nobody planned it.

    Args:
        bytes: at its peak, without an optimizer's state, which a probe has not.
        flops: operations that are done.
        steps: of the run.
    """

    steps: int
    seconds: float | None = None
    bytes: int | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Probe:
    """Two real steps, measured.

    Args:
        seconds: of the second; the first one warmed up.
        peak_bytes: most that was allocated on the GPU; None on a CPU.
        flops: operations of one step.
    """

    seconds: float
    peak_bytes: int | None
    flops: float


def probe(step: Callable[[], None], *, device: Any, has_flops: bool = True) -> Probe:
    """What a step costs: one that warms up and is counted, and one that is timed.

    The steps are real: take them before a state is restored, or on a copy of what they change.

    Args:
        device: a torch device, or its name.
        has_flops: count operations; not possible where blocks are compiled, whose insides no counter sees.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = torch.device(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    flops = 0.0
    if has_flops:
        with FlopCounterMode(display=False) as counter:
            step()
        flops = float(counter.get_total_flops())
    else:
        step()
    if on_gpu:
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    if on_gpu:
        torch.cuda.synchronize(device)
    taken = time.perf_counter() - started
    return Probe(taken, torch.cuda.max_memory_allocated(device) if on_gpu else None, flops)


def agree(planned: Planned, probe: Probe) -> list[str]:
    """Where a probe of a whole step is more than a tenth off the plan, one sentence each; empty where it is not."""
    pairs = [
        ("operations of a step", planned.flops, probe.flops, 1e12, "TFLOP"),
        ("memory at the peak", planned.bytes, probe.peak_bytes, 1e9, "GB"),
        ("a step", planned.seconds, probe.seconds, 1, "s"),
    ]
    found = []
    for what, wanted, measured, unit, name in pairs:
        if wanted and measured and abs(measured / wanted - 1) > DRIFT:
            hours = f", training {probe.seconds * planned.steps / 3600:.1f} h" if name == "s" else ""
            found.append(
                f"{what}: {measured / unit:.3g} {name} measured, {wanted / unit:.3g} planned "
                f"({measured / wanted - 1:+.0%}){hours}"
            )
    return found
