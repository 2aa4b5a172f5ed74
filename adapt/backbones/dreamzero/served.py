"""experiment_cfg/ of a checkpoint: what the reference's servers must know of the robots beside the weights.

conf.yaml gives the transforms that turn a robot's observations into the model's inputs and back, metadata.json the
statistics. Written from plain values, as the released configurations have them (q99 everywhere).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.backbones.dreamzero.config import DreamZeroConfig
from schemas.errors import DataError, UsageError

if TYPE_CHECKING:
    import schemas.embodiment as house
    import schemas.stats as house_stats

Json = dict[str, Any]
Statistics = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]

TRANSFORM = "groot.vla.data.transform."
DREAM = "groot.vla.model.dreamzero.transform.dreamzero_cotrain.DreamTransform"
MODALITY = "groot.vla.data.dataset.ModalityConfig"
VLA = "groot.vla.model.dreamzero.base_vla.VLA"
MEASURES = ("mean", "std", "min", "max", "q01", "q99")
PROMPT_IDS = {"oxe_droid": 17, "xdof": 22, "agibot": 26, "yam": 32}  # tags for which the reference has a prompt
DEFAULT_INSTRUCTION = "Perform the default behavior."


@dataclass(frozen=True)
class ServedRobot:
    """A robot as the reference's servers see it.

    Args:
        tag: its name there; the prompt and the tiling of the views hang on it.
        video_keys, state_keys, action_keys: in the order of tiling and concatenation, without `video.` etc.
        relative_keys: action keys that are predicted relative to the state of the same name.
        language_keys: whole keys, such as `annotation.task`.
        resolution: (width, height) of the frames that the client sends; all cameras alike.
        fps: of the video that it was trained on.
        statistics: `state` and `action` to key to mean, std, min, max, q01, q99, a number for each component.
        embodiment_id: number of the reference's prompt; None for tags that it knows.
    """

    tag: str
    video_keys: tuple[str, ...]
    state_keys: tuple[str, ...]
    action_keys: tuple[str, ...]
    relative_keys: tuple[str, ...]
    language_keys: tuple[str, ...]
    resolution: tuple[int, int]
    fps: float
    statistics: Statistics
    embodiment_id: int | None = None

    def __post_init__(self) -> None:
        for group, keys in (("state", self.state_keys), ("action", self.action_keys)):
            for key in keys:
                values = self.statistics.get(group, {}).get(key, {})
                if gone := [m for m in MEASURES if m not in values]:
                    raise DataError(f"{self.tag}: statistics of {group}.{key} lack {gone[0]}. Make them from the data.")
                if len({len(values[m]) for m in MEASURES}) > 1:
                    raise DataError(f"{self.tag}: statistics of {group}.{key} are of unequal lengths. Make them again.")
        if odd := [key for key in self.relative_keys if key not in self.action_keys or key not in self.state_keys]:
            raise DataError(
                f"{self.tag}: {odd[0]} is relative, but no key of both state and action. Rename or drop it."
            )

    def width(self, group: str) -> int:
        """Components of `state` or `action`."""
        keys = self.state_keys if group == "state" else self.action_keys
        return sum(len(self.statistics[group][key]["mean"]) for key in keys)

    @property
    def prompt_id(self) -> int:
        number = PROMPT_IDS.get(self.tag) if self.embodiment_id is None else self.embodiment_id
        if number is None:
            raise UsageError(
                f"tag {self.tag!r}: the reference has no prompt for it, and its servers refuse it. "
                f"Give an embodiment_id, or one of: {', '.join(PROMPT_IDS)}."
            )
        return number


def served_robot(
    robot: "house.Embodiment",
    statistics: "house_stats.Statistics",
    *,
    resolution: tuple[int, int],
    tag: str | None = None,
    embodiment_id: int | None = None,
) -> ServedRobot:
    """A robot of the house as the reference's servers see it: cameras and components in the order of its file.

    Relative components get statistics of relative actions, as the reference's training stores them. The servers join
    components in this order, from channel 0 on: an adapter that was trained on other channels is served wrongly.

    Args:
        resolution: (width, height) of the frames that the client sends.
        tag: by default the robot's name.

    Raises:
        DataError: the statistics are of another robot.
        UsageError: a component is relative to one of another name, which the reference cannot say.
    """
    if statistics.embodiment_sha256 != robot.digest():
        raise DataError(f"statistics are not of {robot.name} as it is described. Make them again with this robot.")
    relative = tuple(c.name for c in robot.model_action if c.relative_to)
    for part in robot.model_action:
        if part.relative_to not in (None, f"state.{part.name}"):
            raise UsageError(
                f"action.{part.name} is relative to {part.relative_to}, and the reference knows only its own name. "
                f"Call both {part.name!r}."
            )
    values: dict[str, dict[str, Any]] = {"state": {}, "action": {}}
    for group, parts in (("state", robot.model_state), ("action", robot.model_action)):
        at = 0
        for part in parts:
            absolute = statistics.state if group == "state" else statistics.action
            moments = statistics.relative if group == "action" and part.name in relative else absolute
            values[group][part.name] = {m: getattr(moments, m)[at : at + part.width] for m in MEASURES}
            at += part.width
    return ServedRobot(
        tag=tag or robot.name,
        video_keys=tuple(camera.key for camera in robot.model_cameras),
        state_keys=tuple(values["state"]),
        action_keys=tuple(values["action"]),
        relative_keys=relative,
        language_keys=("annotation.task",),
        resolution=resolution,
        fps=statistics.action_hz,
        statistics=values,
        embodiment_id=embodiment_id,
    )


def write_experiment(
    folder: Path, robots: Sequence[ServedRobot], config: DreamZeroConfig, *, save_lora_only: bool, tokenizer: str
) -> None:
    """Write experiment_cfg/conf.yaml and experiment_cfg/metadata.json into a checkpoint folder."""
    import yaml

    conf = conf_yaml(robots, config, save_lora_only=save_lora_only, tokenizer=tokenizer)
    (folder / "experiment_cfg").mkdir()
    plain = json.loads(json.dumps(conf))  # else yaml writes repeated lists as anchors and aliases
    (folder / "experiment_cfg" / "conf.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    text = json.dumps(metadata_json(robots), indent=2) + "\n"
    (folder / "experiment_cfg" / "metadata.json").write_text(text)


def conf_yaml(robots: Sequence[ServedRobot], config: DreamZeroConfig, *, save_lora_only: bool, tokenizer: str) -> Json:
    """Content of conf.yaml, resolved: no interpolations.

    Args:
        tokenizer: folder of umt5-xxl's tokenizer as the server sees it, or its name on the hub.

    Raises:
        UsageError: no robot, a tag without a prompt, or robots that differ in what the file has once.
        DataError: a robot has more components than the model has slots.
    """
    if not robots:
        raise UsageError("no robot to serve: give at least one ServedRobot.")
    if len({robot.relative_keys for robot in robots}) > 1:
        raise UsageError("robots with different relative keys: conf.yaml has one list. Export them one by one.")
    for robot in robots:
        for group, slots in (("state", config.state_dim), ("action", config.action_dim)):
            if robot.width(group) > slots:
                raise DataError(f"{robot.tag}: {group} has {robot.width(group)} components, the model {slots} slots.")
    relative = list(robots[0].relative_keys)
    return {
        "model": {"_target_": VLA},
        "save_lora_only": save_lora_only,
        "eval_bf16": True,
        "relative_action": bool(relative),
        "relative_action_per_horizon": False,
        "relative_action_keys": relative,
        "action_horizon": config.steps,
        "num_frames": config.window_frames,
        "modality_configs": {robot.tag: _modalities(robot, config) for robot in robots},
        "transforms": {robot.tag: _transforms(robot, config, tokenizer) for robot in robots},
    }


def metadata_json(robots: Sequence[ServedRobot]) -> Json:
    """Content of metadata.json: statistics and shapes of each tag."""
    return {robot.tag: _metadata(robot) for robot in robots}


def view_size(config: DreamZeroConfig) -> tuple[int, int]:
    """(height, width) to which the reference resizes each view before it tiles them.

    A quarter of the canvas for the 14B; the 5B tiles whole canvases and halves the result.
    """
    height, width = config.canvas
    return (height // 2, width // 2) if config.flavour == "i2v" else (height, width)


def _keys(robot: ServedRobot) -> dict[str, list[str]]:
    groups = {"video": robot.video_keys, "state": robot.state_keys, "action": robot.action_keys}
    return {group: [f"{group}.{key}" for key in keys] for group, keys in groups.items()}


def _modalities(robot: ServedRobot, config: DreamZeroConfig) -> Json:
    keys = _keys(robot) | {"language": list(robot.language_keys)}
    frames = {"video": config.steps + 1, "state": 1, "action": config.steps, "language": 1}
    found: Json = {
        group: {"_target_": MODALITY, "delta_indices": list(range(frames[group])), "modality_keys": keys[group]}
        for group in frames
    }
    for group in ("video", "state"):
        found[group]["eval_delta_indices"] = [0]
    return found


def _transforms(robot: ServedRobot, config: DreamZeroConfig, tokenizer: str) -> Json:
    keys = _keys(robot)
    height, width = view_size(config)
    video: list[tuple[str, Json]] = [
        ("VideoToTensor", {}),
        ("VideoCrop", {"scale": 0.95, "mode": "random"}),
        ("VideoResize", {"height": height, "width": width, "interpolation": "linear"}),
        ("VideoColorJitter", {"brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "hue": 0.08}),
        ("VideoToNumpy", {}),
    ]
    steps = [{"_target_": TRANSFORM + name, "apply_to": keys["video"], **values} for name, values in video]
    for group in ("state", "action"):
        modes = {"normalization_modes": dict.fromkeys(keys[group], "q99")}
        steps.append({"_target_": TRANSFORM + "StateActionToTensor", "apply_to": keys[group]})
        steps.append({"_target_": TRANSFORM + "StateActionTransform", "apply_to": keys[group], **modes})
    order = {f"{group}_concat_order": keys[group] for group in keys}
    steps.append({"_target_": TRANSFORM + "ConcatTransform", **order})
    steps.append(_dream(robot, config, tokenizer))
    return {"_target_": TRANSFORM + "ComposedModalityTransform", "transforms": steps}


def _dream(robot: ServedRobot, config: DreamZeroConfig, tokenizer: str) -> Json:
    return {
        "_target_": DREAM,
        "default_instruction": DEFAULT_INSTRUCTION,
        "language_dropout_prob": 0.0,
        "always_use_default_instruction": False,
        "max_state_dim": config.state_dim,
        "max_action_dim": config.action_dim,
        "max_length": config.text_len,
        "state_horizon": config.states_per_chunk,
        "action_horizon": config.steps,
        "embodiment_tag_mapping": PROMPT_IDS | {robot.tag: robot.prompt_id},
        "tokenizer_path": tokenizer,
    }


def _metadata(robot: ServedRobot) -> Json:
    groups = {"state": robot.state_keys, "action": robot.action_keys}

    def statistics(group: str, key: str) -> Json:
        values = robot.statistics[group][key]
        return {measure: [float(v) for v in values[measure]] for measure in MEASURES}

    def modality(group: str, key: str) -> Json:
        width = len(robot.statistics[group][key]["mean"])
        return {"absolute": True, "rotation_type": None, "shape": [width], "continuous": True}

    camera = {"resolution": list(robot.resolution), "channels": 3, "fps": float(robot.fps)}
    return {
        "statistics": {group: {key: statistics(group, key) for key in keys} for group, keys in groups.items()},
        "modalities": {"video": {key: dict(camera) for key in robot.video_keys}}
        | {group: {key: modality(group, key) for key in keys} for group, keys in groups.items()},
        "embodiment_tag": robot.tag,
    }
