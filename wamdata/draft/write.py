"""An embodiment's YAML from data, top to bottom: rate, cameras, state, commands.

Every guess has a comment: how sure it is (`sure`, `likely`), and what it rests on. What the data cannot say is marked
`QUESTION`, and `wam check`, `wam ingest` and `wam adapt` refuse a file with open ones unless told `--yes`.
"""

import re
from collections import Counter

import numpy as np

from schemas.episode import Episode
from schemas.errors import DataError
from wamdata.draft.cameras import camera_lines, quoted
from wamdata.draft.commands import command_fields, gripper_fields
from wamdata.draft.components import Guess, guesses_of
from wamdata.draft.gear import FILE, gear_guesses, modality_of
from wamdata.draft.known import fitting_robots
from wamdata.draft.streams import choose
from wamdata.readers import detect_reader
from wamdata.readers.base import Reader
from wamdata.source import Source

SAMPLE_EPISODES = 4
SAME_RATE = 0.02


def draft_embodiment(source: Source, *, name: str | None = None, reader: str = "auto") -> str:
    """YAML text of an embodiment for `source`, comments included.

    Raises:
        DataError: no episode of the source can be read, or none has a camera.
    """
    module = detect_reader(source, reader)
    listing = module.list_episodes(source)
    episodes = _readable(source, module, listing.episodes)
    hints = listing.hints
    said = _slug(hints.get("robot_type", "")) or _slug(hints.get("dataset", ""))
    robot = name or said or _slug(source.name.split(".")[0]) or "robot"
    state, action, told = _components(source, episodes)
    lines = [
        "# Drafted from data by `wam robot draft`. Read every comment; mend what is wrong, then run `wam robot check`.",
        *(
            f"# The built-in robot {known!r} fits these logs too: `--robot {known}`."
            for known in fitting_robots(episodes)
        ),
        f"# {_words(episodes)}",
        "schema: wamkit/embodiment@1",
        f'name: "{robot}"',
        f'family: "{robot}"',
        "status: unverified",
        f"licence: {quoted(hints.get('licence', 'unknown'))}",
        *_rate_lines(episodes, hints, [*state, *action]),
        *camera_lines(episodes, state),
        *_section("state", state, told[0], episodes, action),
        *_section("action", action, told[1], episodes, state),
    ]
    return "\n".join(lines) + "\n"


def _readable(source: Source, module: Reader, refs) -> list[Episode]:
    """Up to SAMPLE_EPISODES episodes, those with video first.

    Raises:
        DataError: there is none, or none of them has a camera.
    """
    found: list[Episode] = []
    reason = "it lists none"
    for ref in refs:
        try:
            found.append(module.read(ref))
        except DataError as error:
            reason = source.without_place(str(error))
            continue
        if sum(bool(e.videos) for e in found) >= SAMPLE_EPISODES:
            break
    if not found:
        raise DataError(f"{source}: none of its episodes can be read, so nothing can be drafted. First: {reason}")
    if not any(e.videos for e in found) and not any(e.streams for e in found):
        raise DataError(f"{source}: no camera and no rows of numbers in it. Run `wam check {source}`.")
    return sorted(found, key=lambda e: not e.videos)[:SAMPLE_EPISODES]


def _components(source: Source, episodes: list[Episode]) -> tuple[list[Guess], list[Guess], tuple[str, str]]:
    """State, commands, and on what the choice of their streams rests."""
    modality = modality_of(source)
    if modality is not None:
        where = source.where(FILE)
        state, action = (gear_guesses(what, modality, episodes, where) for what in ("state", "action"))
        return state, action, (f"sure: slices of {FILE}",) * 2
    chosen = choose(episodes)
    state, action = (guesses_of(episodes, c.names) for c in chosen)
    words = tuple(f"likely: {c.reason}{_left_out(c.left_out)}" for c in chosen)
    return state, action, words


def _left_out(names: tuple[str, ...]) -> str:
    return f"; left out: {', '.join(names[:6])}{' ...' * (len(names) > 6)}" if names else ""


def _words(episodes: list[Episode]) -> str:
    """Where instructions come from."""
    origins = Counter(t.origin for e in episodes for t in e.texts)
    having = sum(bool(e.texts) for e in episodes)
    if not origins:
        return "Instructions: none in the log. Give one with --task, or --labels."
    return f"Instructions: {having} of {len(episodes)} episodes looked at have one, from {', '.join(origins)}."


def _rate_lines(episodes: list[Episode], hints: dict[str, str], guesses: list[Guess]) -> list[str]:
    if not guesses:
        video = next((v for e in episodes for v in e.videos.values()), None)
        if video is None:
            raise DataError("no camera, and no stream that looks like state or action. Write the robot by hand.")
        rate = 1e9 / float(np.median(np.diff(video.t_ns)))
        return [
            f"native_hz: {round(rate, 2):g}  # sure: distance of video frames; no rows in this source",
            "clock: video",
        ]
    streams = list(dict.fromkeys(g.stream for g in guesses))
    rates = [float(np.median([e.streams[n].rate_hz for e in episodes if n in e.streams])) for n in streams]
    declared = hints.get("fps", "")
    if episodes[0].counted_hz:
        measured = rates[0]
        known = f"{declared} rows a second are usual for this set" if declared else f"{measured:g} is made up"
        question = f"QUESTION: the log holds no times; {known}. How many rows a second are there?"
        return [f"native_hz: {measured:g}  # {question}", "clock: row"]
    slowest = min(r for r in rates if r > 0) if any(rates) else 1.0
    said = f"the log declares {declared}" if declared else "the log declares none"
    rate = float(declared) if _near(declared, slowest) else _round(slowest)
    if all(_one_clock(e, streams) for e in episodes):
        words = f"sure: rows come at {slowest:.2f} Hz in {len(episodes)} episodes, {said}"
        return [f"native_hz: {rate:g}  # {words}", "clock: row"]
    listed = ", ".join(f"{n} {r:.4g} Hz" for n, r in zip(streams[:4], rates, strict=False))
    return [f"native_hz: {rate:g}  # likely: the slowest of {listed}", "clock: uniform"]


def _one_clock(episode: Episode, streams: list[str]) -> bool:
    """Whether all of the streams have their rows at the same times."""
    clocks = [episode.streams[n].t_ns for n in streams if n in episode.streams]
    return all(np.array_equal(t_ns, clocks[0]) for t_ns in clocks)


def _near(declared: str, measured: float) -> bool:
    return bool(declared) and measured > 0 and abs(float(declared) / measured - 1) < SAME_RATE


def _round(rate: float) -> float:
    """A whole number where that is near, since clocks are set to one."""
    return float(round(rate)) if rate > 1 and abs(round(rate) / rate - 1) < SAME_RATE else round(rate, 2)


def _section(what: str, guesses: list[Guess], reason: str, episodes: list[Episode], others: list[Guess]) -> list[str]:
    """YAML of `state` or `action`; `others` are the components of the other one."""
    if not guesses and what == "action" and others:
        return _ahead_lines(others)
    if not guesses:
        return [f"{what}: []  # no stream of this source looks like {what}"]
    lines = [f"{what}:  # {reason}"]
    beside = {g.name: g for g in others}
    for guess in guesses:
        lines += _entry(what, guess, beside.get(guess.name), episodes)
    return lines


def _ahead_lines(state: list[Guess]) -> list[str]:
    """Without commands in the log, the state one row later stands for them."""
    lines = ["action:  # QUESTION: the log holds no commands; is the state one row later what was wanted (UMI)?"]
    return [
        *lines,
        *(f"  - {{name: {g.name}, like: state.{g.name}, from: {quoted(g.stream)}, ahead: 1}}" for g in state),
    ]


def _entry(what: str, guess: Guess, beside: Guess | None, episodes: list[Episode]) -> list[str]:
    unit = guess.unit
    lines = [f"  # {unit.sure}: {guess.reason}; {unit.reason}"]
    asked = [q for q in (guess.question, unit.question) if q]
    fields = [f"name: {guess.name}", f"part: {guess.part}", f"kind: {guess.kind}"]
    fields += [f"side: {guess.side}"] if guess.side != "none" else []
    fields += [f"unit: {unit.unit}", f"from: {quoted(guess.stream)}"]
    columns = guess.columns
    consecutive = columns == tuple(range(columns[0], columns[-1] + 1))
    fields.append(f'columns: "{columns[0]}:{columns[-1] + 1}"' if consecutive else f"columns: {list(columns)}")
    if what == "action":
        said, reason, doubt = command_fields(guess, beside, episodes)
        lines.append(f"  # {reason}")
        fields += said
        asked += [doubt] if doubt else []
    if guess.kind == "gripper":
        command, state = (guess, beside) if what == "action" else (beside, guess)
        said, reason, doubt = gripper_fields(guess, command, state, episodes)
        lines.append(f"  # {reason}")
        fields += said
        asked += [doubt] if doubt else []
    lines += [f"  # QUESTION: {question}" for question in asked]
    lines.append("  - {" + ", ".join(fields) + ("," if guess.joints else "}"))
    if guess.joints:
        lines.append("     joints: [" + ", ".join(quoted(j) for j in guess.joints) + "]}")
    return lines


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return "" if slug in ("unknown", "none") else slug
