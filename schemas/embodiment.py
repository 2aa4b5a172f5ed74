"""A robot as a model sees it: cameras, state and action components, units, rate.

Says what a robot *is*, never what a checkpoint wants: canvas, prompt wording, channel slots and the time
base belong to backbone and recipe. Much of what it can say (calibration, depth, limits, mirror rules,
rotation formats) is carried and not yet used; it stands here so that adding a use needs no new ingest.

    schema: wamkit/embodiment@1
    name: my_arm
    native_hz: 30
    cameras:
      - {role: wrist, from: observation.images.wrist}
    state:
      - {name: arm, part: arm, kind: joint, unit: rad, from: observation.state, columns: "0:6"}
    action:
      - {name: arm, like: state.arm, from: action, relative_to: state.arm}
"""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.errors import UsageError
from schemas.like import expand_like
from schemas.record import Record
from schemas.yaml_io import load_yaml, parse

Side = Literal["left", "right", "center", "none"]
Kind = Literal["joint", "gripper", "pose", "velocity", "hand", "base", "discrete"]
Rotation = Literal["quat_xyzw", "quat_wxyz", "rot6d", "axis_angle", "euler_xyz", "matrix"]
Use = Literal["model", "carry"]

# Factor to SI. `tick` and `normalized` have none: they stay as logged unless `to_si` says how.
SI_FACTOR: dict[str, float] = {
    "rad": 1.0, "deg": 0.017453292519943295, "m": 1.0, "cm": 0.01, "mm": 0.001, "s": 1.0, "fraction": 1.0,
    "percent": 0.01, "m/s": 1.0, "rad/s": 1.0, "deg/s": 0.017453292519943295, "N": 1.0, "Nm": 1.0,
}  # fmt: skip
ROTATION_WIDTH = {"quat_xyzw": 4, "quat_wxyz": 4, "rot6d": 6, "axis_angle": 3, "euler_xyz": 3, "matrix": 9}
UNKNOWN_UNITS = ("tick", "normalized")
BUILT_IN = Path(__file__).parent / "embodiments"
_NAME = re.compile(r"[a-z0-9_]+")


class Camera(Record):
    """One view. `key` (role and side) names its stream everywhere in the house.

    Shards keep the log's own pixels; `rotate` (degrees clockwise), then `flip`, then `channels` mend them when windows
    are cut, so that a wrong guess costs no second ingest.
    """

    role: str
    side: Side = "none"
    source: str = Field(alias="from")
    kind: Literal["color", "depth"] = "color"
    unit: str = "none"
    rotate: Literal[0, 90, 180, 270] = 0
    flip: Literal["none", "horizontal", "vertical"] = "none"
    channels: Literal["rgb", "bgr"] = "rgb"
    intrinsics: str | None = None
    mount: dict[str, Any] | None = None
    use: Use = "model"

    @property
    def key(self) -> str:
        """`wrist_left`, `head`: unique in an embodiment, free of dots, part of a sample's file name."""
        return self.role if self.side == "none" else f"{self.role}_{self.side}"

    @field_validator("role")
    @classmethod
    def _plain_role(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a camera role holds only a-z, 0-9 and _")
        return value


class ToSI(Record):
    """si = scale * raw + offset, per component; for units whose conversion only the user knows."""

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    unit: str = "rad"


class Component(Record):
    """A named slice of state or action with one meaning and one unit.

    Args:
        ahead: rows of its stream by which it reads ahead, of an action alone: where a log holds no commands, the state
            one row later may stand for them (UMI).
    """

    name: str
    source: str = Field(alias="from")
    kind: Kind = "joint"
    side: Side = "none"
    part: str = "arm"
    unit: str | tuple[str, ...] = "rad"
    to_si: ToSI | None = None
    columns: tuple[int, ...] | None = None
    ahead: int = Field(default=0, ge=0, le=100)
    joints: tuple[str, ...] | None = None
    open: float | None = None
    closed: float | None = None
    limits: Literal["urdf"] | tuple[tuple[float, float], ...] | None = None
    frame: str | None = None
    tool: str | None = None
    rotation: Rotation | None = None
    relative_to: str | None = None
    relative_frame: Literal["base", "tool"] = "base"
    model_rotation: Rotation | None = None
    on_stop: Literal["keep", "zero"] | None = None
    max_speed: float | None = None
    use: Use = "model"

    @field_validator("columns", mode="before")
    @classmethod
    def _slice_text(cls, value: Any) -> Any:
        """Accept "0:7" for [0, ..., 6]."""
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(\d+):(\d+)", value)
        if not match or int(match[1]) >= int(match[2]):
            raise ValueError('wanted a list of column numbers or a slice such as "0:7"')
        return tuple(range(int(match[1]), int(match[2])))

    @model_validator(mode="before")
    @classmethod
    def _braces(cls, content: Any) -> Any:
        """Read `from: "/cmd_vel.{linear.x,angular.z}"` as a stream and the names of its columns."""
        source = content.get("from") if isinstance(content, dict) else None
        match = re.fullmatch(r"(.+)\.\{(.+)\}", source) if isinstance(source, str) else None
        if not match:
            return content
        return content | {"from": match[1], "joints": [j.strip() for j in match[2].split(",")]}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"component name {self.name!r} holds only a-z, 0-9 and _")
        if self.kind == "pose" and self.rotation is None:
            raise ValueError(f"component {self.name!r} is a pose: name its `rotation` format")
        if self.columns is None and self.joints is None and self.kind != "pose":
            raise ValueError(f"component {self.name!r} needs `columns` or `joints`")
        if self.columns and self.joints and len(self.columns) != len(self.joints):
            raise ValueError(f"component {self.name!r}: {len(self.columns)} columns but {len(self.joints)} joints")
        if isinstance(self.unit, tuple) and len(self.unit) != self.width:
            raise ValueError(f"component {self.name!r}: {len(self.unit)} units for {self.width} columns")
        if self.columns is not None and (not self.columns or min(self.columns) < 0):
            raise ValueError(f"component {self.name!r}: columns are numbers from 0 on, one at least")
        if self.rotation and self.width != 3 + ROTATION_WIDTH[self.rotation]:
            wanted = 3 + ROTATION_WIDTH[self.rotation]
            raise ValueError(
                f"component {self.name!r}: a pose in {self.rotation} has {wanted} columns, not {self.width}"
            )
        for values in (self.to_si.scale, self.to_si.offset) if self.to_si else ():
            if isinstance(values, tuple) and len(values) != self.width:
                raise ValueError(f"component {self.name!r}: {len(values)} values in to_si for {self.width} columns")
        for unit in self.units:
            if unit not in SI_FACTOR and unit not in UNKNOWN_UNITS:
                known = ", ".join((*SI_FACTOR, *UNKNOWN_UNITS))
                raise ValueError(f"component {self.name!r}: unknown unit {unit!r}; known: {known}")
        if (self.open is None) != (self.closed is None) or (self.open is not None and self.open == self.closed):
            raise ValueError(f"component {self.name!r}: give both `open` and `closed`, and not the same value")
        if isinstance(self.limits, tuple) and len(self.limits) != self.width:
            raise ValueError(f"component {self.name!r}: {len(self.limits)} limits for {self.width} columns")
        return self

    @property
    def width(self) -> int:
        if self.columns or self.joints:
            return len(self.columns or self.joints or ())
        return 3 + ROTATION_WIDTH[self.rotation] if self.rotation else 0

    @property
    def units(self) -> tuple[str, ...]:
        """Unit per column, as logged."""
        return self.unit if isinstance(self.unit, tuple) else (self.unit,) * self.width

    @property
    def mapped_units(self) -> tuple[str, ...]:
        """Unit per column after mapping: SI where the conversion is known."""
        if self.open is not None:
            return ("fraction",) * self.width
        if self.to_si is not None:
            return (self.to_si.unit,) * self.width
        if self.kind == "pose" and isinstance(self.unit, str):
            return ("m",) * 3 + (self.rotation or "",) * (self.width - 3)
        base = {"deg": "rad", "deg/s": "rad/s", "mm": "m", "cm": "m", "percent": "fraction"}
        return tuple(base.get(u, u) for u in self.units)

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per column for tables and plots."""
        if self.joints:
            return self.joints
        return (self.name,) if self.width == 1 else tuple(f"{self.name}[{i}]" for i in range(self.width))

    @property
    def is_velocity(self) -> bool:
        """Stops at zero instead of keeping its value."""
        return (self.on_stop or ("zero" if self.kind == "velocity" else "keep")) == "zero"


class EpisodeCut(Record):
    """How episodes are cut out of one recording: see `wamdata/cutting.py`."""

    split_on: str | None = None
    start: str | None = None
    stop: str | None = None
    gap_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.split_on is not None and (self.start is not None or self.stop is not None):
            raise ValueError("`split_on` and `start`/`stop` are two ways to cut episodes: give one")
        return self


class ControlSource(Record):
    """Who was in control, per row: policy, human, intervention."""

    source: str = Field(alias="from")
    map: dict[float, Literal["human", "policy", "intervention", "scripted", "reset"]]
    default: Literal["human", "policy", "intervention", "scripted", "reset"] = "human"


class Mirror(Record):
    """A left-right mirror rule for augmentation."""

    swap: tuple[str, str]
    negate: dict[str, tuple[str, ...]] = {}
    images: Literal["flip", "keep"] = "flip"
    text: Literal["swap_left_right", "keep"] = "swap_left_right"
    verified: bool = False


class Derived(Record):
    """State computed from history: differences over the last frames, or the last command; of all components."""

    kind: Literal["velocity", "last_command"]


class Embodiment(Record):
    """One robot. Component order is file order; widths of state and action follow from it."""

    schema_id: Literal["wamkit/embodiment@1"] = Field(alias="schema")
    name: str
    family: str = "unknown"
    status: Literal["verified", "unverified"] = "unverified"
    verified_with: str | None = None
    licence: str = "unknown"
    unit: dict[str, str] = {}
    native_hz: float = Field(gt=0, le=2000)
    clock: str = "row"
    episodes: EpisodeCut | None = None
    cameras: tuple[Camera, ...] = ()
    state: tuple[Component, ...] = ()
    action: tuple[Component, ...] = ()
    derived: tuple[Derived, ...] | None = None
    control_source: ControlSource | None = None
    mirror: Mirror | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, content: Any) -> Any:
        return expand_like(content) if isinstance(content, dict) else content

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"embodiment name {self.name!r} holds only a-z, 0-9 and _")
        reading_ahead = [c.name for c in self.state if c.ahead]
        if reading_ahead:
            raise ValueError(f"state.{reading_ahead[0]}: `ahead` is for actions: no robot knows its later state")
        for what, names in (
            ("camera", [c.key for c in self.cameras]),
            ("state component", [c.name for c in self.state]),
            ("action component", [c.name for c in self.action]),
        ):
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise ValueError(f"{what} {sorted(twice)[0]!r} is given twice")
        widths = {f"state.{c.name}": c.width for c in self.state if c.use == "model"}
        for action in self.model_action:
            target = action.relative_to
            if target is not None and target not in widths:
                raise ValueError(
                    f"action.{action.name}: relative_to {target!r} is not one of {', '.join(widths) or 'none'}"
                )
            if target is not None and widths[target] != action.width:
                raise ValueError(f"action.{action.name} has {action.width} columns, {target} has {widths[target]}")
            if target is not None and action.rotation is not None:
                raise ValueError(f"action.{action.name} is a pose: relative rotations are not supported yet, use null")
            if target is not None and action.is_velocity:
                raise ValueError(f"action.{action.name} is a velocity: it stays absolute, so relative_to must be null")
        return self

    @cached_property
    def model_cameras(self) -> tuple[Camera, ...]:
        return tuple(c for c in self.cameras if c.use == "model" and c.kind == "color")

    @cached_property
    def model_state(self) -> tuple[Component, ...]:
        return tuple(c for c in self.state if c.use == "model")

    @cached_property
    def model_action(self) -> tuple[Component, ...]:
        return tuple(c for c in self.action if c.use == "model")

    @property
    def state_width(self) -> int:
        return sum(c.width for c in self.model_state)

    @property
    def action_width(self) -> int:
        return sum(c.width for c in self.model_action)

    @property
    def is_action_free(self) -> bool:
        return self.action_width == 0

    def relative_columns(self) -> tuple[int, ...]:
        """Per action column, the state column it is relative to, or -1 for an absolute one."""
        start = dict(zip((f"state.{c.name}" for c in self.model_state), _starts(self.model_state), strict=True))
        return tuple(
            start[c.relative_to] + i if c.relative_to else -1 for c in self.model_action for i in range(c.width)
        )

    def hold_columns(self) -> tuple[int, ...]:
        """Per action column, the state column whose value means standing still, or -1: stand still is zero there."""
        start = dict(zip((c.name for c in self.model_state), _starts(self.model_state), strict=True))
        units = {c.name: c.mapped_units for c in self.model_state}
        columns: list[int] = []
        for c in self.model_action:
            target = c.relative_to.removeprefix("state.") if c.relative_to else c.name
            same = not c.is_velocity and units.get(target) == c.mapped_units
            columns += [start[target] + i if same else -1 for i in range(c.width)]
        return tuple(columns)


def with_columns(components: tuple[Component, ...]) -> Iterator[tuple[Component, slice]]:
    """Each component and its columns in a trajectory's state or action."""
    for component, start in zip(components, _starts(components), strict=True):
        yield component, slice(start, start + component.width)


def _starts(components: tuple[Component, ...]) -> list[int]:
    starts, total = [], 0
    for component in components:
        starts.append(total)
        total += component.width
    return starts


def built_in_names() -> tuple[str, ...]:
    """Names of the embodiments that ship with the package."""
    return tuple(sorted(p.stem for p in BUILT_IN.glob("*.yaml")))


def load_embodiment(name_or_path: str) -> Embodiment:
    """An embodiment by built-in name or by path to a YAML file.

    Raises:
        UsageError: neither a built-in name nor a file, or the file is wrong.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = BUILT_IN / f"{name_or_path}.yaml"
        if not path.exists():
            known = ", ".join(built_in_names())
            raise UsageError(
                f"robot {name_or_path!r}: no such built-in robot ({known}). Give one of these or a YAML file."
            )
    return parse(Embodiment, load_yaml(path), str(path))
