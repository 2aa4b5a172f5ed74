"""A first embodiment file guessed from data, each guess with its reason as a comment.

Names decide first, numbers second. What the data cannot say (open and closed of a gripper, what a tick is
worth) is left as logged and marked `QUESTION`. Does not yet measure the lag between video and rows.
"""

import re
from dataclasses import dataclass

import numpy as np

from schemas.episode import Episode, Stream
from schemas.errors import DataError
from wamdata.camera_motion import Seat, seat_of
from wamdata.kinds import component_kind
from wamdata.readers import detect_reader
from wamdata.source import Source

SAMPLE_EPISODES = 4
STATE_NAMES = ("observation.state", "state", "observation.qpos", "qpos", "proprio", "joint_position", "joint_positions")
ACTION_NAMES = ("action", "actions")
_SIDES = {"left": r"left|(^|[_.])l([_.]|$)", "right": r"right|(^|[_.])r([_.]|$)"}
_PARTS = {
    "gripper": r"gripper|jaw",
    "hand": r"hand|finger|thumb|pinky|ring|middle|index",
    "head": r"head|neck",
    "waist": r"waist|torso|spine",
    "base": r"base|cmd_vel|linear|angular",
    "leg": r"hip|knee|ankle|leg",
}


@dataclass(frozen=True)
class Guess:
    """One component: which columns, what they seem to be, and why."""

    name: str
    part: str
    kind: str
    side: str
    unit: str
    columns: tuple[int, ...]
    joints: tuple[str, ...]
    reasons: tuple[str, ...]
    questions: tuple[str, ...]


def draft_embodiment(source: Source, *, name: str | None = None, reader: str = "auto") -> str:
    """YAML text of an embodiment for `source`, comments included.

    Raises:
        DataError: no episode of the source can be read.
    """
    module = detect_reader(source, reader)
    listing = module.list_episodes(source)
    episodes = _readable(module, listing.episodes)
    if not episodes:
        raise DataError(
            f"{source}: none of its episodes can be read, so nothing can be drafted. Run `wam check {source}`."
        )
    hints = listing.hints
    said = _slug(hints.get("robot_type", "")) or _slug(hints.get("dataset", ""))
    robot = name or said or _slug(source.name.split(".")[0]) or "robot"
    state, action = _find(episodes, STATE_NAMES), _find(episodes, ACTION_NAMES)
    lines = [
        "# Drafted from data by `wam robot draft`. Read every comment; mend what is wrong, then run `wam robot check`.",
        "schema: wamkit/embodiment@1",
        f'name: "{robot}"',
        f'family: "{robot}"',
        "status: unverified",
        f"licence: {listing.hints.get('licence', 'unknown')}",
        *_rate_lines(episodes, listing.hints, state or action),
        *_camera_lines(episodes, state),
        *_component_lines("state", episodes, state, None),
        *_component_lines("action", episodes, action, state),
    ]
    return "\n".join(lines) + "\n"


def _readable(module, refs) -> list[Episode]:
    """Up to SAMPLE_EPISODES episodes, those with video first."""
    found: list[Episode] = []
    for ref in refs:
        try:
            found.append(module.read(ref))
        except DataError:
            continue
        if sum(bool(e.videos) for e in found) >= SAMPLE_EPISODES:
            break
    return sorted(found, key=lambda e: not e.videos)[:SAMPLE_EPISODES]


def _find(episodes: list[Episode], names: tuple[str, ...]) -> str | None:
    streams = episodes[0].streams
    exact = next((n for n in names if n in streams), None)
    return exact or next((n for n in streams if any(n.endswith((f".{w}", f"/{w}")) for w in names)), None)


def _rate_lines(episodes: list[Episode], hints: dict[str, str], stream: str | None) -> list[str]:
    if stream is None:
        video = next((v for e in episodes for v in e.videos.values()), None)
        if video is None:
            raise DataError("no stream looks like state or action, and no video can be read. Write the robot by hand.")
        rate = 1e9 / float(np.median(np.diff(video.t_ns)))
        return [f"native_hz: {round(rate, 2):g}  # median distance of video frames; no rows in this source"]
    measured = float(np.median([e.streams[stream].rate_hz for e in episodes]))
    declared = hints.get("fps", "")
    rate = float(declared) if declared and abs(float(declared) / measured - 1) < 0.02 else round(measured, 2)
    said = f"the log declares {declared}" if declared else "the log declares none"
    if episodes[0].counted_hz:
        known = f"{declared} rows a second are usual for this set" if declared else f"{measured:g} is made up"
        question = f"QUESTION: the log holds no times; {known}. How many rows a second are there?"
        return [f"native_hz: {measured:g}  # {question}", "clock: row"]
    return [f"native_hz: {rate:g}  # rows come at {measured:.2f} Hz in {len(episodes)} episodes, {said}", "clock: row"]


def _camera_lines(episodes: list[Episode], state: str | None) -> list[str]:
    sources = list(dict.fromkeys(n for e in episodes for n in e.videos))
    if not sources:
        return [
            "cameras: []  # QUESTION: no video could be read in the first episodes; a WAM needs at least one camera"
        ]
    parts = {g.name: (state, g.columns) for g in _guesses(episodes, state)} if state else {}
    lines, used = ["cameras:"], []
    for source in sources:
        role, side, why = _camera_role(source, seat_of(source, episodes, parts))
        taken = sum((r, s) == (role, side) for r, s in used)
        used.append((role, side))
        role += f"_{taken + 1}" if taken else ""
        video = next(e.videos[source] for e in episodes if source in e.videos)
        size = f"{video.width}x{video.height} {video.codec}"
        side_field = f", side: {side}" if side != "none" else ""
        lines.append(f"  - {{role: {role}{side_field}, from: {_quoted(source)}}}  # {why}; {size}")
    return lines


def _camera_role(source: str, seat: Seat | None) -> tuple[str, str, str]:
    """Role, side and reason: by its name, else by whether its picture moves with the robot."""
    leaf = source.rsplit("images.", 1)[-1].rsplit("/", 1)[-1].lower()
    side, seen = _side(leaf), _seen(seat)
    for role, words in (
        ("wrist", "wrist|hand|gripper|eye_in"),
        ("head", "head|high|top|ego"),
        ("exterior", "ext|front|side|agent|low"),
    ):
        if found := re.search(words, leaf):
            keep = side if role in ("wrist", "exterior") else "none"
            doubt = seat is not None and role != "head" and seat.moves != (role == "wrist")
            return role, keep, f"{found[0]!r} in its name; {'QUESTION: but ' * doubt}{seen}"
    if seat is None:
        return "scene", "none", "QUESTION: nothing in its name says where it sits, and no frame could be read"
    if not seat.moves:
        return "exterior", side, f"no word in its name; {seen}, so it stands beside the robot"
    if seat.part:
        return "wrist", _side(seat.part), f"no word in its name; {seen}, so it sits there"
    return "wrist", side, f"QUESTION: on a wrist or a head? No word in its name; {seen}"


def _seen(seat: Seat | None) -> str:
    if seat is None:
        return "no frame could be read"
    if not seat.moves:
        return f"its picture stands still ({seat.change:.1f} grey levels)"
    by = f" as {seat.part} does ({seat.follows:.2f})" if seat.part else ""
    return f"its whole picture moves{by} ({seat.change:.1f} grey levels)"


def _component_lines(what: str, episodes: list[Episode], stream: str | None, state: str | None) -> list[str]:
    if stream is None:
        return [f"{what}: []  # no stream of this source looks like {what}"]
    guesses = _guesses(episodes, stream)
    state_guesses = {g.name: g for g in _guesses(episodes, state)} if state else {}
    lines = [f"{what}:"]
    for guess in guesses:
        lines += [f"  # {reason}" for reason in guess.reasons]
        lines += [f"  # QUESTION: {question}" for question in guess.questions]
        fields = [f"name: {guess.name}", f"part: {guess.part}", f"kind: {guess.kind}"]
        if guess.side != "none":
            fields.append(f"side: {guess.side}")
        columns = guess.columns
        consecutive = columns == tuple(range(columns[0], columns[-1] + 1))
        fields += [f"unit: {guess.unit}", f"from: {_quoted(stream)}"]
        fields.append(f'columns: "{columns[0]}:{columns[-1] + 1}"' if consecutive else f"columns: {list(columns)}")
        if what == "action":
            said, reason = _relative(guess, state_guesses.get(guess.name), episodes, stream, state)
            lines.append(f"  # {reason}")
            fields += said
        lines.append("  - {" + ", ".join(fields) + ("," if guess.joints else "}"))
        if guess.joints:
            lines.append("     joints: [" + ", ".join(_quoted(j) for j in guess.joints) + "]}")
    return lines


def _guesses(episodes: list[Episode], stream: str) -> list[Guess]:
    return _group(next(e.streams[stream] for e in episodes if stream in e.streams), _all(episodes, stream))


def _group(stream: Stream, values: np.ndarray) -> list[Guess]:
    """Columns grouped by side and part, in the log's order."""
    names = stream.columns or tuple("" for _ in range(values.shape[1]))
    groups: dict[tuple[str, str], list[int]] = {}
    for at, column in enumerate(names):
        groups.setdefault((_side(column), _part(column)), []).append(at)
    guesses = []
    for (side, part), columns in groups.items():
        prefix = f"{side}_" if side != "none" else ""
        unit, why, questions = _unit(values[:, columns], part)
        kind = {"gripper": "gripper", "hand": "hand", "base": "velocity"}.get(part, "joint")
        joints = tuple(names[c] for c in columns) if stream.columns else ()
        named = f"named {_range(joints)}" if joints else f"the log names no columns; {len(columns)} of them"
        guesses.append(
            Guess(
                f"{prefix}{part}",
                part,
                kind,
                side,
                unit,
                tuple(columns),
                joints,
                (f"{named}; {why}",),
                tuple(questions),
            )
        )
    return guesses


def _unit(values: np.ndarray, part: str) -> tuple[str, str, list[str]]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    seen = f"values {low:.3g} to {high:.3g}"
    largest = max(abs(low), abs(high))
    if part in ("hand", "gripper") and low >= -0.05 and high <= 1.05:
        return "fraction", f"{seen}: a fraction; QUESTION: check that 1 means open", []
    if part in ("hand", "gripper") and largest > 6.5:
        return "tick", f"{seen}: too large for radians", ["give `open` and `closed` as logged, so that 1 means open"]
    if part == "base":
        return "m/s", seen, ["metres per second for every column? angular ones are rad/s"]
    if largest <= 2 * np.pi + 0.3:
        return "rad", f"{seen}: fits radians", []
    if largest <= 101 and low < -1:
        return "normalized", f"{seen}: degrees or LeRobot's -100..100", ["write `unit: deg` if these are degrees"]
    if largest <= 361:
        return "deg", f"{seen}: fits degrees, too large for radians", []
    return "tick", f"{seen}: servo ticks", ["give `to_si: {scale: ..., offset: ...}` if you know what a tick is worth"]


def _relative(
    guess: Guess, state: Guess | None, episodes: list[Episode], action_stream: str, state_stream: str | None
) -> tuple[list[str], str]:
    """Fields that say what the command is, judged from the state of the same name, and why."""
    if state is None or state_stream is None or len(state.columns) != len(guess.columns):
        return ["relative_to: null"], "no state component of the same name and width: kept absolute"
    both = [e for e in episodes if action_stream in e.streams and state_stream in e.streams]
    pairs = [(e.streams[action_stream].values, e.streams[state_stream].values) for e in both]
    alike = [(a[:, list(guess.columns)], s[:, list(state.columns)]) for a, s in pairs if len(a) == len(s)]
    if not alike:
        return ["relative_to: null"], "QUESTION: action and state have other rows; is this a target? Kept absolute"
    rate = both[0].streams[state_stream].rate_hz
    found = component_kind([a for a, _ in alike], [s for _, s in alike], rate)
    match found.kind:
        case "target" if guess.kind in ("velocity", "gripper"):
            return ["relative_to: null"], f"a target: the state {found.words}; grippers and velocities stay absolute"
        case "target":
            return [f"relative_to: state.{state.name}"], f"a target: the state {found.words}"
        case "step" | "velocity":
            return ["relative_to: null", "on_stop: zero"], f"a {found.kind}, not a target: the state {found.words}"
        case "still":
            return ["relative_to: null"], found.words
        case _:
            asked = "QUESTION: a target (relative_to), a step or a velocity (on_stop: zero)? Kept absolute"
            return ["relative_to: null"], f"the command {found.words}; {asked}"


def _all(episodes: list[Episode], stream: str) -> np.ndarray:
    return np.concatenate([e.streams[stream].values for e in episodes if stream in e.streams])


def _side(name: str) -> str:
    return next((side for side, pattern in _SIDES.items() if re.search(pattern, name.lower())), "none")


def _part(name: str) -> str:
    lowered = name.lower()
    return next((part for part, pattern in _PARTS.items() if re.search(pattern, lowered)), "arm")


def _range(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return "" if slug in ("unknown", "none") else slug


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", text) else f'"{text}"'
