"""The robot that an export of DreamZero is to serve: the one that is given, or the one that it was trained for.

Says what it lacks too. Does not write its files: `backbones.dreamzero.served` does.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import console
from cli.export_source import Asked, Source

if TYPE_CHECKING:
    from adapt.backbones.dreamzero.served import ServedRobot


def missing_of_robot(folder: Path, asked: Asked, *, is_known: bool) -> list[str]:
    """What a robot to serve lacks; of a known one everything has a default."""
    given = {"statistics": asked.statistics, "resolution": asked.resolution, "tag": asked.tag}
    if asked.robot is None:
        odd = [f"--{name}" for name, value in given.items() if value is not None]
        return [f"--robot, whose {', '.join(odd)} is given"] if odd and not is_known else []
    from adapt.backbones.dreamzero.served import PROMPT_IDS

    missing = []
    if not (asked.statistics or folder / "statistics.json").is_file():
        missing.append(f"--statistics FILE.json of --robot {asked.robot}")
    if asked.resolution is None:
        missing.append("--resolution WxH of the frames that the client sends, as 640x480")
    if asked.embodiment_id is None and (asked.tag or asked.robot) not in PROMPT_IDS:
        name = asked.tag or asked.robot
        missing.append(
            f"--tag or --embodiment-id: the reference has no prompt for {name!r}, but for {', '.join(PROMPT_IDS)}"
        )
    return missing


def robots_to_serve(folder: Path, source: Source, asked: Asked) -> "list[ServedRobot]":
    """The robot to serve: the one that is given, else an adapter directory's own, else none."""
    from schemas.errors import WamError

    if asked.robot is not None:
        return [_given_robot(folder, asked)]
    if source.backbone is None or source.record is None:
        return []
    try:
        return _own_robot(source, asked)
    except WamError as error:
        console.note(f"no experiment_cfg: {error}")
        return []


def _given_robot(folder: Path, asked: Asked) -> "ServedRobot":
    from adapt.backbones.dreamzero.served import served_robot
    from schemas.embodiment import load_embodiment
    from schemas.stats import Statistics

    assert asked.robot is not None and asked.resolution is not None
    return served_robot(
        load_embodiment(asked.robot),
        Statistics.read_json(asked.statistics or folder / "statistics.json"),
        resolution=_size(asked.resolution),
        tag=asked.tag,
        embodiment_id=asked.embodiment_id,
    )


def _own_robot(source: Source, asked: Asked) -> "list[ServedRobot]":
    """The robot that the adapter was trained for, under the tag of the base's own robot, whose words it was given."""
    from adapt.backbones.dreamzero.house import TAGS, mosaic_of
    from adapt.backbones.dreamzero.served import served_robot
    from schemas.errors import UsageError
    from schemas.stats import Statistics

    assert source.backbone is not None and source.record is not None
    known, style = source.backbone.robots[source.record.robot_sha256], source.backbone.style
    if known.statistics is None:
        raise UsageError(f"{known.embodiment.name} has no actions, so there is nothing to serve")
    sizes = [source.record.cameras.get(camera.key) for camera in known.embodiment.model_cameras]
    if asked.resolution is None and (not sizes or sizes[0] is None):
        raise UsageError("the size of its frames is not on record. Give --resolution WxH to have one")
    size = _size(asked.resolution) if asked.resolution else tuple(sizes[0])
    if asked.resolution is None and len(set(sizes)) > 1:
        console.note(f"cameras differ in size; {size[0]}x{size[1]} of the first is written. --resolution says another")
    statistics = Statistics.read_json(asked.statistics) if asked.statistics else known.statistics
    tag = asked.tag or TAGS[style]
    made = served_robot(known.embodiment, statistics, resolution=size, tag=tag, embodiment_id=asked.embodiment_id)
    assert made.prompt_id >= 0  # refuses a tag that the reference has no prompt for
    if mosaic_of(known.embodiment, base=style).style != style:
        console.note(
            f"its cameras do not fit the tiling of {style}: servers under the tag {tag} tile and describe them "
            "otherwise than in training, so it will act worse there"
        )
        return [made]
    return [replace(made, video_keys=_in_tiling_order(known.embodiment, style))]


def _in_tiling_order(robot: Any, style: str) -> tuple[str, ...]:
    """Camera keys in the order in which the style takes them."""
    from itertools import permutations

    from adapt.backbones.dreamzero.house import cameras_of, mosaic_of
    from adapt.backbones.dreamzero.views import mosaic_for
    from schemas.errors import UsageError

    wanted = mosaic_of(robot, base=style)
    for order in permutations(cameras_of(robot)):
        try:
            if mosaic_for(order, style) == wanted:
                return tuple(camera.key for camera in order)
        except UsageError:
            continue
    raise AssertionError(style)


def _size(words: str) -> tuple[int, int]:
    import re

    from schemas.errors import UsageError

    size = re.fullmatch(r"(\d+)x(\d+)", words)
    if size is None:
        raise UsageError(f"--resolution: {words}. Give width and height of the frames the client sends, as 640x480.")
    return int(size[1]), int(size[2])
