"""The training loss of video and actions under flow matching.

Nothing here waits for the device: which samples have actions is known on the host, and levels are read from a table by
id. What is not a valid action entry is zeroed before noise is added, so it reaches neither the network nor a loss.

Does not draw the noise (`timesteps`), and does not judge the values it is given (`check_batch`, for the data side).
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

from adapt.backbones.dreamzero.schedule import Schedule, mix, training_schedule, velocity
from adapt.backbones.dreamzero.timesteps import Draws
from schemas.errors import DataError

Reduction = Literal["valid", "reference"]


@dataclass(frozen=True)
class Batch:
    """Samples of one length, T = 24 action rows to a chunk.

    Args:
        latents: (B, C, F, H, W) clean video latents.
        context: (B, L, text_dim) embedded prompts.
        has_action: of each sample; kept on the host.
        action: (B, T, A), normalised to -1..1; T may be 0 where no sample has actions.
        action_valid: (B, T, A) bool; false in padded dimensions and in rows past an episode's end.
        state: (B, chunks, S); None where no sample has one.
        y: (B, 4 + C, F, H, W) mask and first-frame latents; None where the flavour has none.
        clip: (B, 257, 1280) features of the first frame; None where the flavour has none.
    """

    latents: Tensor
    context: Tensor
    has_action: tuple[bool, ...]
    action: Tensor
    action_valid: Tensor
    state: Tensor | None = None
    y: Tensor | None = None
    clip: Tensor | None = None

    def to(self, device: torch.device | str) -> Self:
        tensors = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in tensors.items()})


@dataclass(frozen=True)
class Losses:
    """Scalars; `total` is the weighted sum that a step descends."""

    total: Tensor
    video: Tensor
    action: Tensor


class Prediction(Protocol):
    """Velocities: video (B, C, F, H', W') without the last line of an odd H or W, and actions (B, T, A) or None."""

    @property
    def video(self) -> Tensor: ...

    @property
    def action(self) -> Tensor | None: ...


class Network(Protocol):
    """The diffusion transformer as training calls it; timesteps are floats in 0..1000, (B, F) and (B, T)."""

    def __call__(
        self,
        noisy: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        clip: Tensor | None,
        y: Tensor | None,
        clean: Tensor,
        state: Tensor | None,
        action: Tensor | None,
        action_timestep: Tensor | None,
        has_action: tuple[bool, ...],
    ) -> Prediction: ...


def training_loss(
    model: Network,
    batch: Batch,
    draws: Draws,
    *,
    reduction: Reduction = "valid",
    video_weight: float = 1.0,
    action_weight: float = 1.0,
    of: tuple[int, int] | None = None,
) -> Losses:
    """Losses of one batch under these draws.

    Args:
        batch: where no sample has actions, action rows and a state give every head a gradient all the same: zeros.
        of: (samples, valid action rows) of a whole step, of which this batch is a part: its losses are then sums over
            this number and add up, over the parts, to the step's. By default the batch is the whole step. Not for
            `reference`.
        reduction: of the action loss. `valid` is a mean over the valid dimensions of each row, then over the rows that
            have any, of samples with actions. `reference` divides by all dimensions and all samples, as the public
            reference does, so a robot of 8 dimensions weighs a quarter of one of 32.
    """
    schedule = training_schedule(batch.latents.device)
    sigma = schedule.sigmas[draws.video_ids][:, None, :, None, None]
    action = valid_action(batch)
    rows = action.shape[1] > 0 and (any(batch.has_action) or batch.state is not None)
    prediction = model(
        mix(batch.latents, draws.video_noise, sigma),
        schedule.timesteps[draws.video_ids],
        batch.context,
        clip=batch.clip,
        y=batch.y,
        clean=batch.latents,
        state=batch.state,
        action=mix(action, draws.action_noise, schedule.sigmas[draws.action_ids][..., None]) if rows else None,
        action_timestep=schedule.timesteps[draws.action_ids] if rows else None,
        has_action=batch.has_action,
    )
    video = video_loss(prediction.video, batch.latents, draws, schedule=schedule)
    if of is not None:
        video = video * (len(batch.latents) / of[0])
    if rows:
        assert prediction.action is not None, "the network was given actions and predicted none"
    if rows and any(batch.has_action):
        count = None if of is None else of[1]
        action = action_loss(
            prediction.action, action, batch, draws, schedule=schedule, reduction=reduction, rows=count
        )
    else:
        action = torch.zeros_like(video) if prediction.action is None else 0 * prediction.action.float().sum()
    return Losses(video_weight * video + action_weight * action, video, action)


def valid_action(batch: Batch) -> Tensor:
    """(B, T, A) actions, 0 wherever they are not valid or their sample has none."""
    action = batch.action.masked_fill(~batch.action_valid, 0)
    return torch.stack([a if has else torch.zeros_like(a) for a, has in zip(action, batch.has_action, strict=True)])


def video_loss(predicted: Tensor, latents: Tensor, draws: Draws, *, schedule: Schedule) -> Tensor:
    """Weighted squared error, mean over samples and frames; a smaller prediction meets the target's top left."""
    height, width = predicted.shape[-2:]
    target = velocity(latents, draws.video_noise)[..., :height, :width]
    error = (predicted.float() - target.float()).square().mean((1, 3, 4))
    return (error * schedule.weights[draws.video_ids]).mean()


def action_loss(
    predicted: Tensor,
    action: Tensor,
    batch: Batch,
    draws: Draws,
    *,
    schedule: Schedule,
    reduction: Reduction,
    rows: int | None = None,
) -> Tensor:
    """Weighted squared error of the samples with actions, of which there must be one.

    Args:
        rows: valid rows to take the mean over; those of this batch by default.
    """
    real = [index for index, has in enumerate(batch.has_action) if has]
    predicted, target, valid, weight = (
        torch.stack([tensor[index] for index in real])
        for tensor in (
            predicted.float(),
            velocity(action, draws.action_noise).float(),
            batch.action_valid,
            schedule.weights[draws.action_ids],
        )
    )
    error = (predicted - target).square().masked_fill(~valid, 0)
    if reduction == "reference":
        return (error.mean(-1) * weight).mean() * (len(real) / len(batch.has_action))
    counted = valid.any(-1)
    row_error = error.sum(-1) / valid.sum(-1).clamp_min(1)
    total = (row_error * weight * counted).sum()
    return total / (counted.sum().clamp_min(1) if rows is None else max(rows, 1))


def check_batch(batch: Batch) -> None:
    """Refuse what the objective would take silently; reads values, so it belongs to the data side and not to a step.

    Raises:
        DataError: parts that do not fit each other, or a valid action entry outside -1..1; names the sample.
    """
    size = len(batch.latents)
    if len(batch.has_action) != size or len(batch.action) != size or batch.action_valid.shape != batch.action.shape:
        raise DataError(
            f"batch: {size} samples of latents, {len(batch.has_action)} of has_action, actions "
            f"{tuple(batch.action.shape)}, action_valid {tuple(batch.action_valid.shape)}. Give all of them one size."
        )
    if any(batch.has_action) and (batch.state is None or not batch.action.shape[1]):
        raise DataError(
            f"batch: sample {batch.has_action.index(True)} has actions, but the batch has no "
            f"{'states' if batch.state is None else 'action rows'}. Give them, or set its has_action to false."
        )
    for index, has in enumerate(batch.has_action):
        entries = batch.action[index][batch.action_valid[index]]
        if has and not bool((entries.abs() <= 1).all()):
            raise DataError(
                f"batch: actions of sample {index} reach from {entries.min().item():.4g} to "
                f"{entries.max().item():.4g}, wanted -1 to 1. Normalise with q99 or min_max, which clip, or "
                "recompute the statistics."
            )
