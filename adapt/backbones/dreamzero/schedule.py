"""The flow-matching schedule: noise levels, timesteps and loss weights, and the path between data and noise.

x = (1 - sigma) clean + sigma noise; the network predicts noise - clean. A *level id* counts from pure noise (id 0,
sigma 1) towards data, so what is known by its id is read from a table and never searched. Formulas and numbers are of
the public reference, dreamzero0/dreamzero @ ab790c1, `FlowMatchScheduler` with shift 5 and 1000 training levels.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

LEVELS = 1000
SHIFT = 5.0


@dataclass(frozen=True)
class Schedule:
    """By level id: sigma in 0..1, timestep = 1000 sigma, and loss weight; each (levels,) float32."""

    sigmas: Tensor
    timesteps: Tensor
    weights: Tensor


@cache
def training_schedule(device: torch.device) -> Schedule:
    """The 1000 training levels on `device`, copied there once, so that no later step waits for the host."""
    sigmas = level_sigmas(LEVELS)
    timesteps = 1000 * sigmas
    return Schedule(*(part.to(device) for part in (sigmas, timesteps, loss_weights(timesteps))))


def level_sigmas(levels: int, *, shift: float = SHIFT) -> Tensor:
    """(levels,) sigmas falling from 1; the 0 that would follow the last is left out."""
    return shifted(torch.linspace(1, 0, levels + 1, device="cpu")[:-1], shift=shift)


def shifted(sigma: Tensor, *, shift: float) -> Tensor:
    """Sigmas moved towards 1; `shift` 1 leaves them."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def loss_weights(timesteps: Tensor) -> Tensor:
    """Loss weight of each timestep of a schedule: a bell around 500 that is 0 at its lowest and 1 on average."""
    bell = torch.exp(-2 * ((timesteps - 500) / 1000) ** 2)
    bell = bell - bell.min()
    return bell * (len(timesteps) / bell.sum())


def nearest_ids(schedule: Schedule, timestep: Tensor) -> Tensor:
    """Ids of the levels nearest to timesteps of any shape; a tie goes to the noisier level."""
    return (timestep[..., None] - schedule.timesteps).abs().argmin(-1)


def mix(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The point between data and noise at `sigma`, which broadcasts against both."""
    return (1 - sigma) * clean + sigma * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """What the network is to predict."""
    return noise - clean
