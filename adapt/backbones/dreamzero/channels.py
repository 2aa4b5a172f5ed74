"""Heads for servers that know no slots: the reference joins a robot's components from channel 0 on, in file order.

Which channel carries which column is a matter of three weights: the state encoder's first, the action encoder's first
and the action decoder's last. Reordered, a model that was trained on slots gives, on columns packed from channel 0, the
numbers that it gave on its slots; the base's own channels come after them. Exact, and no other tensor changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from adapt.backbones.dreamzero.slots import ACTION_CHANNELS, STATE_CHANNELS, Slot, Slots, columns
from schemas.errors import DataError

# Tensor, the axis of its channels, and whose they are.
REORDERED = (
    ("state_encoder.layer1.W", 1, "state"),
    ("action_encoder.W1.W", 1, "action"),
    ("action_decoder.layer2.W", 2, "action"),
    ("action_decoder.layer2.b", 1, "action"),
)


def file_order(slots: Sequence[Slot], channels: int) -> list[int]:
    """For each channel of the server's order, the channel of training: the robot's columns first, then the rest."""
    used = columns(slots)
    return used + [channel for channel in range(channels) if channel not in set(used)]


def in_file_order(heads: Mapping[str, Tensor], slots: Slots) -> dict[str, Tensor]:
    """Heads that were trained on `slots`, for columns packed from channel 0 on.

    Raises:
        DataError: a head is missing.
    """
    orders = {
        "state": file_order(slots.state, STATE_CHANNELS),
        "action": file_order(slots.action, ACTION_CHANNELS),
    }
    changed = dict(heads)
    for name, axis, whose in REORDERED:
        if name not in heads:
            raise DataError(f"the adapter has no {name}, so its channels cannot be put into file order. Train heads.")
        changed[name] = heads[name].index_select(axis, _index(orders[whose], heads[name])).contiguous()
    return changed


def is_file_order(slots: Slots) -> bool:
    """Whether the slots are what a server does by itself."""
    return all(columns(part) == list(range(len(columns(part)))) for part in (slots.state, slots.action))


def slots_as_dict(slots: Slots) -> dict[str, Any]:
    return asdict(slots)


def slots_from_dict(values: Mapping[str, Any]) -> Slots:
    """Slots as `slots_as_dict` wrote them.

    Raises:
        DataError: something else.
    """
    try:
        parts = {name: tuple(Slot(**slot) for slot in values[name]) for name in ("action", "state")}
        most = {"action": ACTION_CHANNELS, "state": STATE_CHANNELS}
        for name, part in parts.items():
            used = columns(part)
            if not part and name == "action":
                raise ValueError("no action has a slot")
            if len(set(used)) != len(used) or not set(used) <= set(range(most[name])):
                raise ValueError(f"{name} channels {used} overlap or leave 0..{most[name] - 1}")
        return Slots(**parts)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not a file of slots ({error}). Give the slots.json that `wam robot preview` wrote.") from None


def _index(order: list[int], tensor: Tensor) -> Tensor:
    return torch.tensor(order, device=tensor.device)
