"""A robot's states and actions as the base's channels, and back: relative, normalised, put into slots.

To the model: an action column that is relative has its state column at the chunk's first row taken off; every column is
normalised by its statistics; the columns go to the base's channels. From the model: the other way round. The numbers a
robot is sent are always absolute, in its own units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.backbones.dreamzero.rules import Mode, Stats, denormalize, normalize
from adapt.backbones.dreamzero.slots import (
    ACTION_CHANNELS,
    STATE_CHANNELS,
    Slots,
    columns,
    from_base,
    mask,
    to_base,
)
from schemas.errors import DataError


@dataclass(frozen=True)
class ActionSpace:
    """What a model must know of a robot's numbers.

    Args:
        state, action: statistics of the columns as the model sees them: of a relative action, after the subtraction.
        anchors: for each action column the state column that it is relative to, or None where it is absolute.
    """

    slots: Slots
    state: Stats
    action: Stats
    anchors: tuple[int | None, ...]
    mode: Mode = "q99"

    def __post_init__(self) -> None:
        widths = {"state": self.state.mean.shape[-1], "action": self.action.mean.shape[-1]}
        for name, slots in (("state", self.slots.state), ("action", self.slots.action)):
            if len(columns(slots)) != widths[name]:
                raise DataError(
                    f"{name}: statistics of {widths[name]} columns, slots for {len(columns(slots))}. Compute both for "
                    "the same robot."
                )
        odd = [a for a in self.anchors if a is not None and not 0 <= a < widths["state"]]
        if len(self.anchors) != widths["action"] or odd:
            raise DataError(
                f"actions: {len(self.anchors)} anchors {list(self.anchors)}, wanted {widths['action']} of state "
                f"columns 0..{widths['state'] - 1} or none."
            )

    def state_to_base(self, state: Tensor) -> Tensor:
        """(..., S) in the robot's units -> (..., 64) in the base's channels."""
        return to_base(normalize(state, self.state, mode=self.mode), self.slots.state, STATE_CHANNELS)

    def actions_to_base(self, actions: Tensor, state: Tensor) -> Tensor:
        """(..., C * steps, A) absolute, with states (..., C, S) at the chunks' first rows -> (..., C * steps, 32)."""
        relative = actions - self._anchor(actions, state)
        return to_base(normalize(relative, self.action, mode=self.mode), self.slots.action, ACTION_CHANNELS)

    def actions_from_base(self, values: Tensor, state: Tensor) -> Tensor:
        """(..., C * steps, 32) of the model -> (..., C * steps, A) absolute, in the robot's units."""
        relative = denormalize(from_base(values, self.slots.action), self.action, mode=self.mode)
        return relative + self._anchor(relative, state)

    @property
    def action_mask(self) -> Tensor:
        """(32,) bool: channels that this robot uses."""
        return mask(self.slots.action, ACTION_CHANNELS)

    def _anchor(self, actions: Tensor, state: Tensor) -> Tensor:
        """What relative columns are counted from, zero for the others; of the actions' shape."""
        steps, rest = divmod(actions.shape[-2], state.shape[-2])
        if rest or state.shape[-1] != self.state.mean.shape[-1]:
            raise DataError(
                f"actions {tuple(actions.shape)} with states {tuple(state.shape)}: wanted one state of "
                f"{self.state.mean.shape[-1]} columns to each chunk."
            )
        taken = state[..., [a or 0 for a in self.anchors]]
        relative = torch.tensor([a is not None for a in self.anchors], device=state.device)
        return torch.where(relative, taken, torch.zeros_like(taken)).repeat_interleave(steps, dim=-2).to(actions)
