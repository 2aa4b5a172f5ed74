"""Which of a log's streams are the robot's state, which its commands, and which are neither; told by their names.

A log may hold the same motion several ways. Joints are preferred to poses, positions to velocities, and one stream that
says all (`observation.state`, `qpos`) to its parts where its parts are no joints.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from schemas.episode import Episode

Flavour = Literal["joint", "gripper", "pose", "base", "head", "waist", "hand", "plain"]

COMMANDS = {"action", "actions", "command", "commands", "cmd", "target", "targets", "leader", "master", "goal",
            "desired", "setpoint", "ctrl"}  # fmt: skip
STATES = {"state", "states", "observation", "observations", "obs", "qpos", "proprio", "puppet", "follower", "measured"}
NEITHER = {"reward", "rewards", "done", "dones", "discount", "timestamp", "color", "static", "index", "contacts",
           "imu", "keypoint", "demo", "info", "temperature", "stiffness", "damping", "load", "is", "time",
           "pixels"}  # fmt: skip
DERIVED = {"vel", "velocity", "velocities", "qvel", "effort", "efforts", "torque", "torques", "current", "force",
           "wrench", "acceleration"}  # fmt: skip
FLAVOURS: tuple[tuple[Flavour, set[str]], ...] = (
    ("gripper", {"gripper", "grippers", "effector", "jaw", "grip", "claw"}),
    ("hand", {"hand", "hands", "finger", "fingers"}),
    ("base", {"base", "twist", "cmd", "odom", "wheel", "wheels"}),
    ("head", {"head", "neck"}),
    ("waist", {"waist", "torso"}),
    ("joint", {"joint", "joints", "qpos", "motor", "motors", "servo", "servos"}),
    ("pose", {"cartesian", "eef", "ee", "end", "pose", "tcp", "tf"}),
)
WHOLE = ("observation.state", "state", "observation.qpos", "qpos", "proprio")
WHOLE_COMMANDS = ("action", "actions")
PARTS: tuple[Flavour, ...] = ("joint", "gripper", "hand", "head", "waist", "base")
WIDEST = 128  # columns: what is wider is no state of a robot


@dataclass(frozen=True)
class Chosen:
    """Names of streams, in the log's order.

    Args:
        reason: why these, in words.
        left_out: streams that say it another way.
    """

    names: tuple[str, ...]
    reason: str
    left_out: tuple[str, ...] = ()


def choose(episodes: list[Episode]) -> tuple[Chosen, Chosen]:
    """The streams of the state and of the commands; without a name where the log has none."""
    streams = {n: s for e in episodes for n, s in e.streams.items() if s.values.shape[1] <= WIDEST}
    usable = [n for n in streams if not tokens(n) & NEITHER]
    commands = [n for n in usable if _is_command(n)]
    states = [n for n in usable if n not in commands]
    action = _pick(commands, WHOLE_COMMANDS)
    state = _pick([n for n in states if not tokens(n) & {"vel", "cmd"}] or states, WHOLE)
    if not state.names:
        state = _pick(states, ())
    return state, action


def flavour(name: str) -> Flavour:
    """What kind of thing a stream's name speaks of."""
    said = tokens(name)
    return next((kind for kind, words in FLAVOURS if said & words), "plain")


def tokens(name: str) -> set[str]:
    """The words of a name: `/left_arm/jointStates.position` holds left, arm, joint, states, position."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return set(re.findall(r"[a-z]+", spaced.lower()))


def _is_command(name: str) -> bool:
    """The last word that tells counts: `observation/command_state` is a state, `state/action` an action."""
    told = [w for w in re.findall(r"[a-z]+", name.lower()) if w in COMMANDS | STATES]
    return bool(told) and (told[0] in COMMANDS or (told[-1] in COMMANDS and told[0] not in STATES))


def _pick(names: list[str], whole: Iterable[str]) -> Chosen:
    names_of = {
        kind: [n for n in names if flavour(n) == kind and not _is_derived(n)] for kind in (*PARTS, "pose", "plain")
    }
    exact = next((n for w in whole for n in names if n == w), None)
    by_end = next((n for w in whole for n in names if n.endswith((f".{w}", f"/{w}"))), None)
    if exact == "observation.state" or (exact and not names_of["joint"]):
        extra = [n for n in names_of["base"] if n != exact]
        return _chosen([exact, *extra], names, f"{exact!r} says all of it")
    if names_of["joint"]:
        parts = [n for kind in PARTS for n in names_of[kind]]
        return _chosen(parts, names, "joints, and what has none beside them")
    if by_end:
        return _chosen([by_end, *names_of["base"]], names, f"{by_end!r} says all of it")
    if names_of["pose"]:
        parts = [n for kind in ("pose", *PARTS) for n in names_of[kind]]
        return _chosen(parts, names, "a pose; the log holds no joints")
    rest = (
        names_of["plain"] or [n for kind in PARTS for n in names_of[kind]] or [n for n in names if not _is_derived(n)]
    )
    if rest:
        return _chosen(rest, names, "by its name")
    return _chosen(names, names, "velocities alone") if names else Chosen((), "none by its name")


def _is_derived(name: str) -> bool:
    return bool(tokens(name) & DERIVED) and flavour(name) != "base"


def _chosen(picked: list[str], names: list[str], reason: str) -> Chosen:
    kept = tuple(n for n in names if n in picked)
    return Chosen(kept, reason, tuple(n for n in names if n not in picked))
