"""A stream's columns as parts of a robot: arms, hands, grippers, by names, or by their count and their numbers."""

import re
from dataclasses import dataclass, replace

import numpy as np

from schemas.episode import Episode, Float32
from wamdata.draft.grippers import looks_like_one
from wamdata.draft.streams import flavour, tokens
from wamdata.draft.units import Unit, unit_of

SIDES = {"left": r"left|(^|[_./])l([_./]|$)", "right": r"right|(^|[_./])r([_./]|$)"}
PARTS = {
    "gripper": r"gripper|jaw",
    "hand": r"hand|finger|thumb|pinky|ring|middle|index",
    "head": r"head|neck",
    "waist": r"waist|torso|spine",
    "base": r"base|cmd_vel|twist|linear|angular",
    "leg": r"hip|knee|ankle|leg",
}
KINDS = {"gripper": "gripper", "hand": "hand", "base": "velocity"}
# Columns without names: arms side by side, each with a gripper at its end. (columns, arms, joints of an arm)
LAYOUTS = {14: (2, 6), 16: (2, 7), 7: (1, 6), 8: (1, 7), 6: (1, 5)}
TWO_ARMS = {12: 6, 14: 7}  # of joints alone, where grippers have a stream of their own
MIRRORED = -0.95  # correlation of two fingers of one gripper
POSE_WORDS = {"rot": "axis_angle", "euler": "euler_xyz", "quat": "quat_xyzw", "orientation": "quat_xyzw"}


@dataclass(frozen=True)
class Guess:
    """One component: which columns of which stream, what they seem to be, and why."""

    name: str
    part: str
    kind: str
    side: str
    unit: Unit
    stream: str
    columns: tuple[int, ...]
    joints: tuple[str, ...]
    reason: str
    question: str = ""


def guesses_of(episodes: list[Episode], streams: tuple[str, ...]) -> list[Guess]:
    """Components of some streams, in the log's order, with names of their own."""
    found: list[Guess] = []
    grippers_apart = any(flavour(n) in ("gripper", "hand") for n in streams)
    for stream in streams:
        found += _of_stream(episodes, stream, grippers_apart=grippers_apart)
    return _named_apart(found)


def rows_of(episodes: list[Episode], guess: Guess) -> list[Float32]:
    """(T, D) of each episode that has the component's stream."""
    return [e.streams[guess.stream].values[:, list(guess.columns)] for e in episodes if guess.stream in e.streams]


def side_of(name: str) -> str:
    return next((side for side, pattern in SIDES.items() if re.search(pattern, name.lower())), "none")


def part_of(name: str) -> str:
    return next((part for part, pattern in PARTS.items() if re.search(pattern, name.lower())), "arm")


def _of_stream(episodes: list[Episode], stream: str, *, grippers_apart: bool) -> list[Guess]:
    first = next(e.streams[stream] for e in episodes if stream in e.streams)
    values = np.concatenate([e.streams[stream].values for e in episodes if stream in e.streams])
    names = first.columns
    if names and any(part_of(n) != "arm" or side_of(n) != "none" for n in names):
        return _by_names(stream, names, values)
    whole = tuple(range(values.shape[1]))
    kind, side = flavour(stream), side_of(stream)
    if kind == "gripper" and len(whole) == 2:
        return _two_columns(stream, side, values)
    if kind in ("gripper", "hand", "head", "waist", "base"):
        return [_guess(stream, kind, side, whole, names, values, f"{kind!r} in the stream's name")]
    if not names and kind in ("joint", "plain") and grippers_apart and len(whole) in TWO_ARMS:
        width = TWO_ARMS[len(whole)]
        reason = f"{len(whole)} columns without names: two arms of {width}"
        return [
            _guess(stream, "arm", "left", whole[:width], (), values, reason),
            _guess(stream, "arm", "right", whole[width:], (), values, reason),
        ]
    if not names and kind in ("joint", "plain") and not grippers_apart and len(whole) in LAYOUTS:
        return _by_count(stream, values, side)
    part = "arm"
    reason = f"named {_range(names)}" if names else f"the log names no columns; {len(whole)} of them"
    return [_guess(stream, part, side, whole, names, values, reason)]


def _by_names(stream: str, names: tuple[str, ...], values: Float32) -> list[Guess]:
    groups: dict[tuple[str, str], list[int]] = {}
    for at, column in enumerate(names):
        groups.setdefault((side_of(column), part_of(column)), []).append(at)
    return [
        _guess(stream, part, side, tuple(c), names, values, f"named {_range(tuple(names[i] for i in c))}")
        for (side, part), c in groups.items()
    ]


def _by_count(stream: str, values: Float32, side: str) -> list[Guess]:
    """Arms by the number of columns; believed where the last column of each moves as a gripper does."""
    arms, joints = LAYOUTS[values.shape[1]]
    ends = [arm * (joints + 1) + joints for arm in range(arms)]
    bimodal = [looks_like_one(values[:, c]) for c in ends]
    sides = ("left", "right") if arms == 2 else (side,)
    if arms == 1 and not bimodal[0]:
        columns = tuple(range(values.shape[1]))
        reason = f"the log names no columns; {len(columns)} of them"
        asked = f"is column {ends[0]} a gripper? It does not move like one. Split it off if it is"
        return [replace(_guess(stream, "arm", side, columns, (), values, reason), question=asked)]
    found = []
    for side_of_arm, end, is_one in zip(sides, ends, bimodal, strict=True):
        first = end - joints
        reason = f"{values.shape[1]} columns without names: {arms} arm{'s' * (arms > 1)} of {joints} and a gripper"
        asked = "" if is_one else f"is column {end} the gripper of a {side_of_arm} arm? It does not move like one"
        arm = _guess(stream, "arm", side_of_arm, tuple(range(first, end)), (), values, reason)
        grip = _guess(
            stream, "gripper", side_of_arm, (end,), (), values, f"column {end} rests at two ends" if is_one else reason
        )
        found += [replace(arm, question=asked), grip]
    return found


def _guess(
    stream: str, part: str, side: str, columns: tuple[int, ...], names: tuple[str, ...], values: Float32, reason: str
) -> Guess:
    kind = "pose" if part == "arm" and flavour(stream) == "pose" else KINDS.get(part, "joint")
    joints = tuple(names[c] for c in columns) if names else ()
    unit = unit_of(values[:, list(columns)], part, kind, joints)
    if kind == "pose":  # a pose needs its rotation's format: joints of it are carried as they are
        kind, rotation = "joint", next((w for w in POSE_WORDS if w in tokens(stream)), None)
        if rotation:
            unit = Unit(
                "rad" if rotation != "quat" else "normalized", "likely", f"{unit.reason}; {rotation!r} in its name"
            )
    name = part if part != "arm" else "pose" if flavour(stream) == "pose" else "arm"
    name = f"{side}_{name}" if side != "none" else name
    return Guess(name, part, kind, side, unit, stream, columns, joints, reason)


def _two_columns(stream: str, side: str, values: Float32) -> list[Guess]:
    """Two fingers of one gripper, which mirror each other, or two grippers."""
    finite = values[np.isfinite(values).all(axis=1)]
    moves = len(finite) > 2 and (finite.std(axis=0) > 1e-6).all()
    together = float(np.corrcoef(finite.T)[0, 1]) if moves else 0.0
    if side != "none" or together < MIRRORED:
        reason = "'gripper' in the stream's name; its second column is the other finger, left out"
        return [_guess(stream, "gripper", side, (0,), (), values, reason)]
    reason = "'gripper' in the stream's name; two columns that do not mirror each other"
    left, right = (_guess(stream, "gripper", s, (c,), (), values, reason) for c, s in enumerate(("left", "right")))
    return [replace(left, question="two grippers, or two fingers of one?"), right]


def _named_apart(guesses: list[Guess]) -> list[Guess]:
    """Names that two components share get the last words of their streams."""
    names = [g.name for g in guesses]
    found, used = [], set()
    for guess in guesses:
        name = guess.name
        if names.count(name) > 1:
            words = [w for w in re.findall(r"[a-z]+", guess.stream.lower()) if w not in name.split("_")]
            name = "_".join([guess.name, *words[-2:]])
        while name in used:
            name = f"{name}_b"
        used.add(name)
        found.append(replace(guess, name=name))
    return found


def _range(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"
