"""Physical units to what the model sees, and back.

State: zero mean, unit spread. State history: differences to earlier states, divided by their own rms, so zero means
not moving. Actions: the difference to the state at the chunk's start where the command has such a state, else the
difference to the training mean; divided by a scale per column, with no shift, so zero means standing still. Scales have
a floor, so that a joint that never moved does not turn its sensor noise into signal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

SCALE_FLOOR = 0.1  # of the root mean square over the columns of a kind
SMALLEST = 1e-6  # when nothing moves at all
ABSOLUTE = -1  # in `relative_columns`: the command has no state to be relative to


@dataclass(frozen=True)
class Normalizer:
    """Shifts and scales; S state columns, A action columns, L lags, K steps.

    Args:
        state_mean, state_scale: (S,); history_scale: (L, S).
        action_mean: (A,), zero for relative columns; action_scale: (K, A).
        relative_columns: (A,) int64, the state column that a command is relative to, or `ABSOLUTE`.
    """

    state_mean: Tensor
    state_scale: Tensor
    history_scale: Tensor
    action_mean: Tensor
    action_scale: Tensor
    relative_columns: Tensor

    @classmethod
    def fit(
        cls, *, state: Tensor, history: Tensor, action: Tensor, action_valid: Tensor, relative_columns: Tensor
    ) -> Self:
        """From chunks of the training split: state (N, S), history (N, L, S), action (N, K, A), valid (N, K)."""
        lags = state[:, None] - history
        action_mean = _mean(action, action_valid) * (relative_columns == ABSOLUTE)
        deviation = action - _origin(state, action_mean, relative_columns)
        return cls(
            state_mean=state.mean(0),
            state_scale=_floored(state.std(0, correction=0)),
            history_scale=_floored(lags.square().mean(0).sqrt()),
            action_mean=action_mean,
            action_scale=_floored(_rms(deviation, action_valid)),
            relative_columns=relative_columns,
        )

    def state_to_model(self, state: Tensor) -> Tensor:
        """(..., S) states."""
        return (state - self.state_mean) / self.state_scale

    def history_to_model(self, history: Tensor, *, state: Tensor) -> Tensor:
        """Earlier states (..., L, S) and the present one (..., S) to scaled differences."""
        return (state[..., None, :] - history) / self.history_scale

    def actions_to_model(self, action: Tensor, *, state: Tensor) -> Tensor:
        """Absolute commands (..., K, A) of a chunk that starts in `state` (..., S)."""
        return (action - _origin(state, self.action_mean, self.relative_columns)) / self.action_scale

    def actions_from_model(self, action: Tensor, *, state: Tensor) -> Tensor:
        """The inverse of `actions_to_model`."""
        return action * self.action_scale + _origin(state, self.action_mean, self.relative_columns)

    def last_action_to_model(self, last_action: Tensor, *, state: Tensor) -> Tensor:
        """The command (..., A) before the chunk, as if it were the chunk's first."""
        origin = _origin(state, self.action_mean, self.relative_columns)[..., 0, :]
        return (last_action - origin) / self.action_scale[0]

    def to_tensors(self) -> dict[str, Tensor]:
        """What safetensors can hold; the inverse of `from_tensors`."""
        return {field.name: getattr(self, field.name).contiguous() for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})


def _origin(state: Tensor, action_mean: Tensor, relative_columns: Tensor) -> Tensor:
    """(..., 1, A): what a model action of zero means."""
    held = state[..., relative_columns.clamp_min(0)]
    return torch.where(relative_columns == ABSOLUTE, action_mean, held)[..., None, :]


def _mean(values_NKA: Tensor, valid_NK: Tensor) -> Tensor:
    return values_NKA[valid_NK].mean(0)


def _rms(values_NKA: Tensor, valid_NK: Tensor) -> Tensor:
    """(K, A) over the valid rows; a step that is never valid gets the scale of all steps."""
    squares = values_NKA.square() * valid_NK[..., None]
    counts = valid_NK.sum(0)[:, None]
    overall = squares.sum((0, 1)) / valid_NK.sum().clamp_min(1)
    return torch.where(counts > 0, squares.sum(0) / counts.clamp_min(1), overall).sqrt()


def _floored(scale: Tensor) -> Tensor:
    typical = scale.square().mean(-1, keepdim=True).sqrt()
    return scale.clamp_min(SMALLEST).maximum(SCALE_FLOOR * typical)
