"""Words of a recording: each is an event, and those of topics that hold instructions are texts for their span."""

import re
from itertools import pairwise

from schemas.episode import Event, Text

_INSTRUCTION = re.compile(r"instruction|task|language|prompt|annotation|caption", re.IGNORECASE)


def in_time(events: list[Event]) -> tuple[Event, ...]:
    return tuple(sorted(events, key=lambda e: e.t_ns))


def texts_of(events: tuple[Event, ...], stop_ns: int) -> tuple[Text, ...]:
    """Instructions among the events: each holds until the next of its topic, or to the recording's end.

    Args:
        events: in time.
        stop_ns: end of the recording, exclusive.
    """
    topics = dict.fromkeys(e.name for e in events if _INSTRUCTION.search(e.name))
    return tuple(text for topic in topics for text in _of_topic(topic, events, stop_ns))


def _of_topic(topic: str, events: tuple[Event, ...], stop_ns: int) -> list[Text]:
    said = [(e.t_ns, " ".join(e.value.split())) for e in events if e.name == topic]
    changes = [s for at, s in enumerate(said) if at == 0 or s[1] != said[at - 1][1]]
    level = "subtask" if "subtask" in topic.lower() else "task"
    spans = pairwise([*changes, (stop_ns, "")])
    return [Text(text, start, stop, level, topic) for (start, text), (stop, _) in spans if text and start < stop]
