"""What a command is, and which end of a gripper is open: fields of a component, the reason, and what is still asked.

Both are told from commands beside the state, at the commands' times.
"""

import numpy as np

from schemas.episode import Episode, Float32
from wamdata.align import resample
from wamdata.draft.components import Guess, rows_of
from wamdata.draft.grippers import find_ends
from wamdata.kinds import component_kind

CLEARLY = 0.1  # by which one explanation must beat the other


def gripper_fields(
    guess: Guess, command: Guess | None, state: Guess | None, episodes: list[Episode]
) -> tuple[list[str], str, str]:
    """Fields that say which end is open, why, and what has to be answered; the same for state and command."""
    if len(guess.columns) > 1:
        return [], "likely: several columns; which are fingers of one gripper is not told", ""
    both = (
        _together(episodes, command, state) if command and state and len(command.columns) == len(state.columns) else []
    )
    if both and command and state and command.unit.unit == state.unit.unit:
        ends = find_ends([s[:, 0] for _, s in both], [a[:, 0] for a, _ in both], guess.unit.unit)
    else:
        ends = find_ends([r[:, 0] for r in rows_of(episodes, guess)], None, guess.unit.unit)
    if ends is None:
        return [], "likely: it does not move in these episodes", "give `open` and `closed` as logged"
    asked = "" if ends.is_sure else f"is it open at {ends.open:g} and closed at {ends.closed:g}?"
    how = "sure" if ends.is_sure else "likely"
    return [f"open: {ends.open:g}", f"closed: {ends.closed:g}"], f"{how}: {ends.reason}", asked


def command_fields(guess: Guess, state: Guess | None, episodes: list[Episode]) -> tuple[list[str], str, str]:
    """Fields that say what the command is, judged from the state of the same name; why; and what has to be answered."""
    if state is None or len(state.columns) != len(guess.columns):
        return (
            ["relative_to: null"],
            "likely: no state component of the same name and width, so it is kept absolute",
            "",
        )
    both = _together(episodes, guess, state)
    if not both:
        return ["relative_to: null"], "likely: never logged beside the state", "is this a target? Kept absolute"
    rate = next(e.streams[guess.stream].rate_hz for e in episodes if guess.stream in e.streams)
    found = component_kind([a for a, _ in both], [s for _, s in both], rate)
    absolute = ["relative_to: null"]
    doubt = "a target (relative_to), a step or a velocity (on_stop: zero)? Kept absolute"
    match found.kind:
        case "target" if guess.kind in ("velocity", "gripper"):
            return absolute, f"sure: a target: the state {found.words}; grippers and velocities stay absolute", ""
        case "target":
            return [f"relative_to: state.{state.name}"], f"sure: a target: the state {found.words}", ""
        case "step" | "velocity" if found.explained - found.rival < CLEARLY:
            return absolute, f"unsure: a {found.kind}? The state {found.words}", doubt
        case "step" | "velocity":
            return [*absolute, "on_stop: zero"], f"sure: a {found.kind}, not a target: the state {found.words}", ""
        case "still":
            return absolute, f"likely: {found.words}", ""
        case _:
            return absolute, f"unsure: the command {found.words}", doubt


def _together(episodes: list[Episode], guess: Guess, state: Guess) -> list[tuple[Float32, Float32]]:
    """Commands and state of each episode at the commands' times."""
    pairs = []
    for episode in episodes:
        if guess.stream not in episode.streams or state.stream not in episode.streams:
            continue
        commands, measured = episode.streams[guess.stream], episode.streams[state.stream]
        values = measured.values[:, list(state.columns)]
        if not np.array_equal(commands.t_ns, measured.t_ns):
            values = resample(measured.t_ns, values, commands.t_ns)
        pairs.append((commands.values[:, list(guess.columns)], values))
    return pairs
