"""Slots: which of the base's 32 action and 64 state channels each component of a new robot uses.

The base learned what its channels mean on its own robot, so a left arm goes where the base's left arm was. What has no
partner goes to channels that the base's robot left unused, then to those of its parts that the new robot lacks.

Does not rescale: a joint keeps its unit and zero, which may be others on the base's robot.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from schemas.errors import DataError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACTION_CHANNELS = 32
STATE_CHANNELS = 64
PER_ROW = 32
UNUSED_GREY, BASE_GREY, TEXT_GREY = "#eceef0", "#cfd3d8", "#63686e"
SIDELESS = ("none", "center")
COLOURS = ("#0067a5", "#d55e00", "#009e73", "#a2559b", "#c98a00", "#4a4fb5", "#8a6b58", "#3d8fa8", "#b0305c", "#5d7a1f")


@dataclass(frozen=True)
class Component:
    """A named part of state or action; kind, part and side as in an embodiment file."""

    name: str
    kind: str
    part: str
    side: str
    width: int


@dataclass(frozen=True)
class Columns:
    """A robot's components in their order."""

    state: tuple[Component, ...]
    action: tuple[Component, ...]


@dataclass(frozen=True)
class Slot:
    """`width` columns of a component in the base's channels from `channel` on, and the reason.

    A component over several slots has its first columns in the first.
    """

    component: str
    channel: int
    width: int
    why: str

    @property
    def stop(self) -> int:
        return self.channel + self.width


@dataclass(frozen=True)
class Slots:
    """Slots in the order of the robot's columns."""

    action: tuple[Slot, ...]
    state: tuple[Slot, ...]


def _both_sides(kind: str, part: str, width: int, name: str) -> tuple[Component, Component]:
    left, right = (Component(f"{side}_{name}", kind, part, side, width) for side in ("left", "right"))
    return left, right


_AGIBOT = (
    *_both_sides("joint", "arm", 7, "arm"),
    *_both_sides("gripper", "gripper", 1, "effector"),
    Component("head", "joint", "head", "none", 2),
    Component("waist", "joint", "waist", "none", 2),
)
_DROID = (Component("joint", "joint", "arm", "none", 7), Component("gripper", "gripper", "gripper", "none", 1))
_YAM = tuple(
    Component(f"{side}_{name}", kind, part, side, width)
    for side in ("left", "right")
    for name, kind, part, width in (("joint", "joint", "arm", 6), ("gripper", "gripper", "gripper", 1))
)
# The robots of the public checkpoints, in the order in which the reference joins their components.
BASES = {
    "agibot": Columns(_AGIBOT, (*_AGIBOT, Component("robot_velocity", "base", "base", "none", 2))),
    "droid": Columns(_DROID, _DROID),
    "yam": Columns(_YAM, _YAM),
}


def slot_map(robot: Columns, *, base: Columns, overrides: Mapping[str, str | int] | None = None) -> Slots:
    """Which channels of the base each component of the robot uses.

    A component takes the base's component of its kind, part and side; failing that, one of its kind and part where
    only one of the two states a side. A narrower one uses the first channels; the rest of a wider one goes to free
    channels.

    Args:
        overrides: by component name, or `state.NAME` and `action.NAME` where they differ: a component of the base, or
            the first channel.

    Raises:
        UsageError: an override names nothing, two of them collide, or the channels do not suffice.
    """
    wishes = dict(overrides or {})
    known = {f"{where}.{c.name}" for where in ("state", "action") for c in getattr(robot, where)}
    for name in wishes:
        if name not in known and not {f"state.{name}", f"action.{name}"} & known:
            raise UsageError(f"slot override {name!r}: the robot has no such component. Give one of {_list(known)}.")
    return Slots(
        action=_place("action", robot.action, base.action, wishes, ACTION_CHANNELS),
        state=_place("state", robot.state, base.state, wishes, STATE_CHANNELS),
    )


def columns(slots: Sequence[Slot]) -> list[int]:
    """The base's channel of each of the robot's columns."""
    return [channel for slot in slots for channel in range(slot.channel, slot.stop)]


def mask(slots: Sequence[Slot], channels: int) -> Tensor:
    """(channels,) bool: True where the robot has a value."""
    used = torch.zeros(channels, dtype=torch.bool)
    used[columns(slots)] = True
    return used


def to_base(values: Tensor, slots: Sequence[Slot], channels: int) -> Tensor:
    """Values (..., D) in the base's order (..., channels), zero elsewhere."""
    where = columns(slots)
    if values.shape[-1] != len(where):
        raise DataError(f"{values.shape[-1]} columns, but the slots take {len(where)}. Make the slots for this robot.")
    placed = values.new_zeros(*values.shape[:-1], channels)
    placed[..., where] = values
    return placed


def from_base(values: Tensor, slots: Sequence[Slot]) -> Tensor:
    """The robot's columns (..., D) of the base's (..., channels)."""
    where = columns(slots)
    if where and max(where) >= values.shape[-1]:
        raise DataError(
            f"{values.shape[-1]} channels, but a slot reaches channel {max(where)}. Give the base's values."
        )
    return values[..., where]


def describe(slots: Slots) -> str:
    """A table for the terminal: channels, component and reason, action first."""
    rows = [("", "channels", "component", "why")]
    for where in ("action", "state"):
        for slot in getattr(slots, where):
            span = f"{slot.channel}" if slot.width == 1 else f"{slot.channel}-{slot.stop - 1}"
            rows.append((where, span, f"{slot.component} ({slot.width})", slot.why))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows)


def draw(slots: Slots, path: Path, *, base: Columns | None = None) -> None:
    """A PNG of all channels, 32 in a row, coloured by component; with `base`, its own components in grey below."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(s.component for s in (*slots.action, *slots.state)))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    figure = Figure(figsize=(15, 6.6 if base else 4.4), layout="constrained", dpi=100)
    panels = iter(figure.subplots(3, 1))
    for where, channels in (("action", ACTION_CHANNELS), ("state", STATE_CHANNELS)):
        ours = [(s.component, s.channel, s.stop, colour[s.component]) for s in getattr(slots, where)]
        theirs = _starts(getattr(base, where)) if base else {}
        widths = {c.name: c.width for c in getattr(base, where)} if base else {}
        grey = [(name, start, start + widths[name], BASE_GREY) for name, start in theirs.items()]
        unused = channels - sum(stop - start for _, start, stop, _ in ours)
        for first in range(0, channels, PER_ROW):
            axes = next(panels)
            _draw_row(axes, "robot", [("", 0, channels, UNUSED_GREY), *ours], first=first, bottom=0.0)
            if any(start < first + PER_ROW and stop > first for _, start, stop, _ in grey):
                _draw_row(axes, "base", grey, first=first, bottom=-1.6)
            axes.set(xlim=(first - 1.5, first + PER_ROW), ylim=(-2.4 if base else -0.8, 1.1), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            title = f"{where}: {channels} channels, {unused} unused" if first == 0 else f"{where}, from {first}"
            axes.set_title(title, loc="left", fontsize=11, color="#1b1d20")
    figure.savefig(path)


def _draw_row(
    axes: "Axes", title: str, spans: Sequence[tuple[str, int, int, str]], *, first: int, bottom: float
) -> None:
    """What lies in one row of (label, first, stop, colour) spans: cells with their numbers, labels below."""
    from matplotlib.patches import Rectangle

    axes.text(first - 0.2, bottom + 0.5, title, ha="right", va="center", fontsize=9, color=TEXT_GREY)
    for label, start, stop, colour in spans:
        start, stop = max(start, first), min(stop, first + PER_ROW)
        is_grey = colour in (UNUSED_GREY, BASE_GREY)
        for channel in range(start, stop):
            axes.add_patch(Rectangle((channel, bottom), 1, 1, facecolor=colour, edgecolor="white", linewidth=1))
            ink = TEXT_GREY if is_grey else "white"
            axes.text(channel + 0.5, bottom + 0.5, str(channel), ha="center", va="center", fontsize=8, color=ink)
        if start < stop:
            words = label.replace("_", "\n") if (stop - start) * 5 < len(label) else label
            ink = TEXT_GREY if is_grey else colour
            axes.text((start + stop) / 2, bottom - 0.08, words, ha="center", va="top", fontsize=7.5, color=ink)


def _place(
    where: str, robot: Sequence[Component], base: Sequence[Component], wishes: Mapping[str, str | int], channels: int
) -> tuple[Slot, ...]:
    """Slots of one side, in the order of the robot's columns: overrides first, then partners, then what is free."""
    _check(where, robot, channels)
    placed: dict[str, list[Slot]] = {c.name: [] for c in robot}
    for component in robot:
        wish = wishes.get(f"{where}.{component.name}", wishes.get(component.name))
        if wish is not None:
            slot = _wished(where, component, wish, base=base, channels=channels)
            _refuse_overlap(where, slot, placed)
            placed[component.name].append(slot)
    for sides_differ in (False, True):
        for component in robot:
            if not placed[component.name]:
                placed[component.name] += _partnered(component, base, _taken(placed), sides_differ=sides_differ)
    width = sum(c.width for c in base)
    for component in robot:
        rest = component.width - sum(s.width for s in placed[component.name])
        runs = _free_runs(_taken(placed), base_width=width, channels=channels)
        placed[component.name] += _fill(component, rest, runs)
    return tuple(slot for component in robot for slot in placed[component.name])


def _check(where: str, robot: Sequence[Component], channels: int) -> None:
    names = [c.name for c in robot]
    if twice := {n for n in names if names.count(n) > 1}:
        raise UsageError(f"{where} component {min(twice)!r} is given twice. Name each one differently.")
    total = sum(c.width for c in robot)
    if total > channels:
        raise UsageError(
            f"{where}: the robot has {total} columns, the base {channels} channels. Mark some components `use: carry`."
        )


def _wished(where: str, component: Component, wish: str | int, *, base: Sequence[Component], channels: int) -> Slot:
    """The slot of an override; a number takes the whole component there, a base component as much as it has."""
    label = f"slot override {where}.{component.name}"
    if isinstance(wish, int):
        if not 0 <= wish <= channels - component.width:
            last = wish + component.width - 1
            raise UsageError(
                f"{label}: channels {wish}..{last} are not all in 0..{channels - 1}. Give a first channel that fits."
            )
        return Slot(component.name, wish, component.width, "as asked")
    starts = _starts(base)
    if wish not in starts:
        raise UsageError(f"{label}: the base has no {where} component {wish!r}. Give one of {_list(starts)}.")
    width = next(c.width for c in base if c.name == wish)
    return Slot(component.name, starts[wish], min(component.width, width), f"as asked: the base's {wish}")


def _refuse_overlap(where: str, slot: Slot, placed: Mapping[str, Sequence[Slot]]) -> None:
    for other in (s for slots in placed.values() for s in slots):
        if slot.channel < other.stop and other.channel < slot.stop:
            raise UsageError(
                f"slot override {where}.{slot.component}: channels {slot.channel}..{slot.stop - 1} collide with those "
                f"of {other.component!r}, {other.channel}..{other.stop - 1}. Give others."
            )


def _partnered(component: Component, base: Sequence[Component], taken: set[int], *, sides_differ: bool) -> list[Slot]:
    """The slot at the first free base component of the same kind, part and side; none where there is none.

    With `sides_differ`, a component without a side takes one with a side, or the other way round.
    """
    starts = _starts(base)
    for theirs in base:
        alike = (theirs.kind, theirs.part) == (component.kind, component.part)
        sideless = (theirs.side in SIDELESS) + (component.side in SIDELESS)
        fits = sideless == 1 if sides_differ else sideless == 2 or theirs.side == component.side
        start, width = starts[theirs.name], min(component.width, theirs.width)
        free = taken.isdisjoint(range(start, start + theirs.width))
        if alike and free and fits:
            why = f"the base's {theirs.name}"
            if width < component.width:
                why += f", {component.width - width} too many"
            elif width < theirs.width:
                why += f", {theirs.width - width} left over"
            return [Slot(component.name, start, width, why)]
    return []


def _free_runs(taken: set[int], *, base_width: int, channels: int) -> list[tuple[range, str]]:
    """Free stretches and what they are: those behind the base's robot first, then those of its parts."""
    behind = [(run, "free in the base") for run in _runs(base_width, channels, taken)]
    return behind + [(run, "of the base, but unused here") for run in _runs(0, base_width, taken)]


def _fill(component: Component, width: int, runs: Sequence[tuple[range, str]]) -> list[Slot]:
    """Slots for the last `width` columns of a component: in the first stretch that holds them all, else in several."""
    slots: list[Slot] = []
    left = list(runs)
    lead = "no partner" if width == component.width else "the rest"
    while width:
        chosen = next((r for r in left if len(r[0]) >= width), left[0])
        left.remove(chosen)
        run, what = chosen
        slots.append(Slot(component.name, run[0], min(width, len(run)), f"{lead}; {what}"))
        width -= slots[-1].width
    return slots


def _runs(start: int, stop: int, taken: set[int]) -> list[range]:
    """Stretches of channels in start..stop that nothing takes."""
    edges = [start - 1, *sorted(c for c in taken if start <= c < stop), stop]
    return [range(a + 1, b) for a, b in pairwise(edges) if b > a + 1]


def _taken(placed: Mapping[str, Sequence[Slot]]) -> set[int]:
    return {channel for slots in placed.values() for channel in columns(slots)}


def _starts(components: Sequence[Component]) -> dict[str, int]:
    """First channel of each component."""
    starts = accumulate((c.width for c in components), initial=0)
    return {c.name: start for c, start in zip(components, starts, strict=False)}


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
