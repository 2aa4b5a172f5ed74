"""The samplers of inference: UniPC of order 2 and Euler, and the choice of which steps to compute at all.

A step is a sum of tensors whose coefficients follow from the sigmas alone, so a sampler works them out once, in double
precision on the host, holds no tensor, and can serve any number of robots: what belongs to one run is its `State`.

    sampler = UniPC()
    state = sampler.start(noise)
    for timestep in sampler.timesteps:
        x, state = sampler.step(network(state.x, timestep), state)

UniPC is Zhao et al. 2023 (arXiv 2302.04867) in its bh2 form on the predicted data, the last step at order 1, for a
network that predicts noise - data. Numbers are of the public reference, dreamzero0/dreamzero @ ab790c1.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from adapt.backbones.dreamzero.schedule import SHIFT
from schemas.errors import UsageError

STEPS = 16
FIRST_SIGMA = 0.999  # before the shift, of UniPC alone: the first of 1000 levels below pure noise
FLASH_END_SIGMA = 0.8  # where `decoupled` models stop denoising video

# dreamzero.md 6.3.8: which of 16 steps the reference computes when it may compute so many.
COMPUTED = {
    5: (0, 1, 2, 7, 12),
    6: (0, 1, 5, 10, 14, 15),
    7: (0, 1, 2, 6, 10, 14, 15),
    8: (0, 1, 2, 6, 10, 13, 14, 15),
}


@dataclass(frozen=True)
class State:
    """One run of a sampler.

    Args:
        x: the sample to give the network next, in the dtype it was started with.
        exact: `x` in at least float32.
        step: steps done.
        before: the corrected sample that the last step started from; None before the first.
        clean: predicted data of the last two steps, newest first.
    """

    x: Tensor
    exact: Tensor
    step: int = 0
    before: Tensor | None = None
    clean: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class UniPC:
    """UniPC over `steps` levels.

    Args:
        shift: how far the levels lean towards noise.
        end_sigma: noise left at the end; the levels are squeezed to stop there.
    """

    steps: int = STEPS
    shift: float = SHIFT
    end_sigma: float = 0.0

    def __post_init__(self) -> None:
        check_sampler(self.steps, end_sigma=self.end_sigma)

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """`steps` + 1 noise levels, the last one `end_sigma`."""
        levels = spaced(self.steps, first=FIRST_SIGMA, shift=self.shift)
        squeeze = (levels[0] - self.end_sigma) / levels[0]
        return tuple(self.end_sigma + squeeze * level for level in levels)

    @cached_property
    def timesteps(self) -> tuple[int, ...]:
        """What the network is told at each step."""
        return tuple(int(1000 * sigma) for sigma in self.sigmas[:-1])

    def start(self, x: Tensor) -> State:
        """The run that begins with this noise."""
        return begin(x)

    def step(self, model_output: Tensor, state: State) -> tuple[Tensor, State]:
        """The next sample, and the run as it then is. The last step's sample is the result."""
        i = state.step
        clean = state.exact - self.sigmas[i] * model_output.to(state.exact.dtype)
        sample = state.exact
        if state.before is not None:
            sample = combine(self.corrections[i], (state.before, clean, *state.clean))
        history = (clean, *state.clean[:1])
        exact = combine(self.predictions[i], (sample, *history))
        x = exact.to(state.x.dtype)
        return x, State(x, exact, i + 1, sample, history)

    @cached_property
    def predictions(self) -> tuple[tuple[float, ...], ...]:
        """Coefficients of each step: of the sample, then of the predicted data, newest first."""
        return tuple(predictor(self.sigmas, i, order=self.order(i)) for i in range(self.steps))

    @cached_property
    def corrections(self) -> tuple[tuple[float, ...], ...]:
        """Coefficients of each step's correction of the step before; the first has none."""
        return ((), *(corrector(self.sigmas, i, order=self.order(i - 1)) for i in range(1, self.steps)))

    def order(self, i: int) -> int:
        return min(2, i + 1, self.steps - i)


@dataclass(frozen=True)
class Euler:
    """Straight steps between `steps` levels, from pure noise to data; the same calls as `UniPC`."""

    steps: int = STEPS
    shift: float = SHIFT

    def __post_init__(self) -> None:
        check_sampler(self.steps, end_sigma=0.0)

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """`steps` + 1 noise levels from 1 to 0."""
        return spaced(self.steps, first=1.0, shift=self.shift)

    @cached_property
    def timesteps(self) -> tuple[float, ...]:
        """What the network is told at each step."""
        return tuple(1000 * sigma for sigma in self.sigmas[:-1])

    def start(self, x: Tensor) -> State:
        """The run that begins with this noise."""
        return begin(x)

    def step(self, model_output: Tensor, state: State) -> tuple[Tensor, State]:
        """The next sample, and the run as it then is. The last step's sample is the result."""
        i = state.step
        exact = state.exact + (self.sigmas[i + 1] - self.sigmas[i]) * model_output.to(state.exact.dtype)
        x = exact.to(state.x.dtype)
        return x, State(x, exact, i + 1)


def computed_steps(count: int, *, steps: int = STEPS) -> tuple[bool, ...]:
    """Whether each step runs the network; one that does not takes the last prediction again.

    Args:
        count: network runs to spend. There are choices for 5, 6, 7 and 8 runs in 16 steps; otherwise every step runs.
    """
    if steps != STEPS or count not in COMPUTED:
        return (True,) * steps
    return tuple(step in COMPUTED[count] for step in range(steps))


def skip_after(previous: Tensor, current: Tensor) -> int:
    """Steps to skip after two action predictions (B, T, A) in a row: the more alike they are, the more.

    The sample of a batch that changed most decides. Reads a value, so it waits for the device.
    """
    alike = torch.cosine_similarity(previous.float().flatten(1), current.float().flatten(1)).min().item()
    if alike > 0.95:
        return 4
    return 2 if alike > 0.93 else 0


def check_sampler(steps: int, *, end_sigma: float) -> None:
    if steps < 1 or not 0 <= end_sigma < FIRST_SIGMA:
        raise UsageError(
            f"sampler: {steps} steps to end at sigma {end_sigma}; wanted at least 1 step and an end from 0 to below "
            f"{FIRST_SIGMA}. Change one of them."
        )


def spaced(steps: int, *, first: float, shift: float) -> tuple[float, ...]:
    """`steps` + 1 sigmas from `first` to 0, evenly spaced and then shifted towards 1."""
    even = [first * (1 - i / steps) for i in range(steps + 1)]
    return tuple(shift * sigma / (1 + (shift - 1) * sigma) for sigma in even)


def begin(x: Tensor) -> State:
    return State(x, x.to(torch.promote_types(x.dtype, torch.float32)))


def combine(coefficients: tuple[float, ...], tensors: tuple[Tensor, ...]) -> Tensor:
    """The sum of the first tensors, each times its coefficient."""
    total = coefficients[0] * tensors[0]
    for coefficient, tensor in zip(coefficients[1:], tensors[1:], strict=False):
        total = total + coefficient * tensor
    return total


def predictor(sigmas: tuple[float, ...], i: int, *, order: int) -> tuple[float, ...]:
    """Coefficients that carry level `i` to `i + 1`: of the sample and of the data predicted at `i` and `i - 1`."""
    keep, gain, h = transition(sigmas, i)
    if order == 1:
        return keep, gain
    slope = 0.5 * gain / ratio(sigmas, i, h=h)
    return keep, gain - slope, slope


def corrector(sigmas: tuple[float, ...], i: int, *, order: int) -> tuple[float, ...]:
    """Coefficients that redo the step from level `i - 1` to `i`, now that the data are also predicted at `i`.

    Of the sample at `i - 1` and of the data predicted at `i`, `i - 1` and `i - 2`.
    """
    keep, gain, h = transition(sigmas, i - 1)
    if order == 1:
        return keep, 0.5 * gain, 0.5 * gain
    r = ratio(sigmas, i - 1, h=h)
    phi = math.expm1(-h)
    phi2 = -phi / h - 1
    phi3 = -phi2 / h - 0.5
    b1, b2 = phi2 / phi, 2 * phi3 / phi
    old = (b2 - b1) / (r - 1)  # the two weights solve old + new = b1, r old + new = b2
    new = b1 - old
    return keep, gain * new, gain * (1 - new - old / r), gain * old / r


def transition(sigmas: tuple[float, ...], i: int) -> tuple[float, float, float]:
    """From level `i` to the next: what is kept of the sample, what is added of the data, and the log-SNR step."""
    h = log_snr(sigmas[i + 1]) - log_snr(sigmas[i])
    return sigmas[i + 1] / sigmas[i], -(1 - sigmas[i + 1]) * math.expm1(-h), h


def ratio(sigmas: tuple[float, ...], i: int, *, h: float) -> float:
    """The log-SNR step back from level `i` in units of the step ahead."""
    return (log_snr(sigmas[i - 1]) - log_snr(sigmas[i])) / h


def log_snr(sigma: float) -> float:
    """Log of signal over noise; infinite without noise."""
    return math.log((1 - sigma) / sigma) if sigma else math.inf
