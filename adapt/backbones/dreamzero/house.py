"""A robot of the house in DreamZero's terms: its mosaic and words, its slots, its statistics, its time base.

The one module of this package that knows embodiment files; the rest needs none.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import torch

from adapt.backbones.dreamzero.rules import Stats
from adapt.backbones.dreamzero.slots import BASES, Columns, Component, Slots, slot_map
from adapt.backbones.dreamzero.space import ActionSpace
from adapt.backbones.dreamzero.timebase import PAPER, TimeBase, fps_maps, read, released
from adapt.backbones.dreamzero.views import Camera, Mosaic, mosaic_for
from schemas import embodiment as house
from schemas.errors import DataError, UsageError
from schemas.recipe import TimeBase as RecipeTimeBase
from schemas.stats import Moments, Statistics

# What the public checkpoints were trained at: the paper's 1.6 s, and for YAM its script's 24 rows at 30 Hz.
TIME_BASES = {"agibot": PAPER, "droid": PAPER, "yam": released(30)}
TAGS = {"agibot": "agibot", "droid": "oxe_droid", "yam": "yam"}


def style_of(base: Path) -> str:
    """Whose robots a base was trained on, by its name.

    Raises:
        UsageError: the name does not say.
    """
    found = [style for style in BASES if style in base.name.lower()]
    if len(found) != 1:
        raise UsageError(f"{base.name}: its name does not say whose channels it has. Give --style {'|'.join(BASES)}.")
    return found[0]


def cameras_of(robot: house.Embodiment) -> tuple[Camera, ...]:
    """The cameras that the model sees, in the robot's order."""
    return tuple(Camera(c.key, c.role, c.side) for c in robot.model_cameras)


def mosaic_of(robot: house.Embodiment, *, base: str, style: str | None = None) -> Mosaic:
    """The robot's mosaic: in the base's own style where its cameras fit it in one order only, else generated.

    Args:
        base: `agibot`, `droid` or `yam`; their styles have the same names.
        style: takes the cameras in the robot's own order.
    """
    _known(base)
    cameras = cameras_of(robot)
    if style:
        return mosaic_for(cameras, style)
    fitting = list(_fitting(cameras, base))
    return fitting[0] if len(fitting) == 1 else mosaic_for(cameras)


def columns_of(robot: house.Embodiment) -> Columns:
    """State and action components in the order of their columns."""
    return Columns(*(tuple(map(_component, part)) for part in (robot.model_state, robot.model_action)))


def slots_of(robot: house.Embodiment, *, base: str, overrides: Mapping[str, str | int] | None = None) -> Slots:
    """Which of the base's channels each component uses."""
    _known(base)
    return slot_map(columns_of(robot), base=BASES[base], overrides=overrides)


def space_of(robot: house.Embodiment, statistics: Statistics, slots: Slots) -> ActionSpace:
    """What turns the robot's numbers into the base's and back; relative columns by their relative statistics.

    Raises:
        UsageError: the statistics are of another robot file.
    """
    if statistics.embodiment_sha256 != robot.digest():
        raise UsageError(f"statistics are of another robot than {robot.name!r}, or of an edited file. Ingest again.")
    anchors = tuple(None if column < 0 else column for column in robot.relative_columns())
    return ActionSpace(slots, stats_of(statistics.state), stats_of(statistics.relative), anchors)


def time_base_of(base: str, *, checkpoint: Path | None = None, tag: str | None = None) -> tuple[RecipeTimeBase, str]:
    """The base checkpoint's own time base as a recipe has it, and where it comes from.

    Args:
        checkpoint: a checkpoint's folder: its config.json, and experiment_cfg/conf.yaml where there is one, decide.
        tag: the embodiment whose rate conf.yaml gives; by default the base's own at the reference.

    Raises:
        DataError: the checkpoint's files lack a size or contradict each other.
    """
    _known(base)
    if checkpoint is None:
        return _recipe(TIME_BASES[base]), "published; the checkpoint's own files were not given"
    values, conf = json_of(checkpoint / "config.json"), yaml_of(checkpoint / "experiment_cfg" / "conf.yaml")
    tag = tag or TAGS[base]
    if any(tag in rates for rates in fps_maps(conf)):
        return _recipe(read(conf, values, tag=tag)), f"of the checkpoint's config.json and conf.yaml ({tag})"
    hz = TIME_BASES[base].action_hz
    return _recipe(read(conf, values, control_hz=hz)), f"sizes of the checkpoint's config.json, {hz:g} Hz as published"


def json_of(path: Path) -> dict[str, Any]:
    """Content of a JSON file that must be there."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Give the folder of a DreamZero checkpoint.") from None


def yaml_of(path: Path) -> dict[str, Any]:
    """Content of a YAML file, empty if there is none; the reference's are plain after OmegaConf resolved them."""
    import yaml

    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({reason}). Fetch it again.") from None
    return values if isinstance(values, dict) else {}


def _recipe(own: TimeBase) -> RecipeTimeBase:
    return RecipeTimeBase(chunk_s=own.chunk_s, video_fps=own.video_fps, steps=own.steps, chunks=own.chunks)


def _fitting(cameras: Sequence[Camera], style: str):
    for order in permutations(cameras) if len(cameras) <= 4 else ():
        try:
            yield mosaic_for(order, style)
        except UsageError:
            continue


def _component(part: house.Component) -> Component:
    return Component(part.name, part.kind, part.part, part.side, part.width)


def stats_of(moments: Moments) -> Stats:
    """The house's statistics of some columns as the model's rules take them."""
    names = ("mean", "std", "min", "max", "q01", "q99")
    return Stats(*(torch.tensor(getattr(moments, name)) for name in names))


def _known(base: str) -> None:
    if base not in BASES:
        raise UsageError(f"base {base!r}: not known. Give one of: {', '.join(BASES)}.")
