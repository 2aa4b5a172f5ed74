"""What each camera sees, by its name, and by whether its picture moves with the robot."""

import re

import numpy as np

from schemas.episode import Episode, Footage
from wamdata.camera_motion import Seat, seat_of
from wamdata.draft.components import Guess, side_of

ROLES = (
    ("wrist", "wrist|hand|gripper|eye_in"),
    ("head", "head|high|top|ego"),
    ("exterior", "ext|front|side|agent|low|varied"),
)


def camera_lines(episodes: list[Episode], state: list[Guess]) -> list[str]:
    """YAML of the cameras."""
    sources = list(dict.fromkeys(n for e in episodes for n in e.videos))
    if not sources:
        return [
            "cameras: []  # QUESTION: no video could be read in the first episodes; a WAM needs at least one camera"
        ]
    parts = {g.name: (g.stream, g.columns) for g in state}
    lines, used = ["cameras:"], []
    for source in sources:
        role, side, why = _role(source, seat_of(source, episodes, parts))
        taken = sum((r, s) == (role, side) for r, s in used)
        used.append((role, side))
        role += f"_{taken + 1}" if taken else ""
        footage = next(e.videos[source] for e in episodes if source in e.videos)
        size = f"{footage.width}x{footage.height} {footage.codec} at {_rate(footage):g} Hz"
        side_field = f", side: {side}" if side != "none" else ""
        lines.append(f"  - {{role: {role}{side_field}, from: {quoted(source)}}}  # {why}; {size}")
    return lines


def quoted(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", text) else f'"{text}"'


def _rate(footage: Footage) -> float:
    return round(1e9 / float(np.median(np.diff(footage.t_ns))), 2) if len(footage.t_ns) > 1 else 0.0


def _role(source: str, seat: Seat | None) -> tuple[str, str, str]:
    """Role, side and reason."""
    leaf = re.sub(r"/(compressed|image_raw|image|color|rgb)\b", "", source.lower())
    leaf = leaf.rsplit("images.", 1)[-1].rsplit("/", 1)[-1] or source.lower()
    side, seen = side_of(leaf), _seen(seat)
    for role, words in ROLES:
        if found := re.search(words, leaf):
            keep = side if role in ("wrist", "exterior") else "none"
            doubt = seat is not None and role != "head" and seat.moves != (role == "wrist")
            return role, keep, f"{'likely' if doubt else 'sure'}: {found[0]!r} in its name; {'but ' * doubt}{seen}"
    if seat is None:
        return "scene", "none", "QUESTION: nothing in its name says where it sits, and no frame could be read"
    if not seat.moves:
        return "exterior", side, f"likely: no word in its name; {seen}, so it stands beside the robot"
    if seat.part:
        return "wrist", side_of(seat.part), f"likely: no word in its name; {seen}, so it sits there"
    return "wrist", side, f"QUESTION: on a wrist or a head? No word in its name; {seen}"


def _seen(seat: Seat | None) -> str:
    if seat is None:
        return "no frame could be read"
    if not seat.moves:
        return f"its picture stands still ({seat.change:.1f} grey levels)"
    by = f" as {seat.part} does ({seat.follows:.2f})" if seat.part else ""
    return f"its whole picture moves{by} ({seat.change:.1f} grey levels)"
