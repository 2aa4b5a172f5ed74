"""Cameras whose messages are a picture each: JPEG, PNG or raw pixels."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas.episode import Finding, Int64, Pictures
from wamdata.readers.messages.bag import Channel, Place
from wamdata.readers.messages.clock import Track, in_order
from wamdata.readers.messages.leaves import get
from wamdata.readers.messages.pixels import why_not
from wamdata.readers.messages.shots import Files, Shots, payload
from wamdata.readers.picture_header import PNG, header_of

Look = tuple[str, int, int]  # codec, width, height


@dataclass
class StillCamera:
    """One topic of pictures, as its messages are met.

    Args:
        places: five numbers for each frame: file, channel and place.
        looks: which of `kinds` each frame is.
        reasons: why frames were passed over, and how many.
    """

    topic: str
    track: Track
    is_raw: bool
    channels: list[Channel] = field(default_factory=list)
    places: array = field(default_factory=lambda: array("q"))
    messages: array = field(default_factory=lambda: array("q"))
    looks: array = field(default_factory=lambda: array("q"))
    kinds: list[Look] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, file: int, channel: Channel, place: Place, message: Any) -> None:
        """Takes a message: where it lies, and what its first bytes say."""
        found = self._look(message)
        if isinstance(found, str):
            self.reasons[found] += 1
            return
        if found not in self.kinds:
            self.kinds.append(found)
        if channel not in self.channels:
            self.channels.append(channel)
        self.places.extend((file, self.channels.index(channel), *place))
        self.messages.append(number)
        self.looks.append(self.kinds.index(found))

    def pictures(self, t_ns: Int64, files: Files) -> tuple[Pictures | None, list[Finding]]:
        """The camera, None where no frame can be used; and what was left out of it.

        Args:
            t_ns: time of each of the topic's messages.
        """
        findings = self._passed_over()
        if not self.kinds:
            return None, findings
        looks = np.array(self.looks, np.int64)
        taken = np.flatnonzero(looks == 0)
        order, doubles = in_order(t_ns[np.array(self.messages, np.int64)[taken]], self.topic)
        if len(taken) < len(looks):
            codec, width, height = self.kinds[0]
            message = f"topic {self.topic}: {len(looks) - len(taken)} frames are not {codec} of {width} x {height}"
            findings.append(Finding("changed_size", "warning", self.topic, f"{message} as the first: left out"))
        rows = taken[order]
        places = np.array(self.places, np.int64).reshape(-1, 5)[rows]
        shots = Shots(
            files, tuple(self.channels), places, np.arange(len(rows) + 1), np.zeros(len(rows), np.int64), (b"",),
            self.is_raw,
        )  # fmt: skip
        times = t_ns[np.array(self.messages, np.int64)[rows]]
        return Pictures(times, *self.kinds[0], shots.load), findings + doubles

    def _look(self, message: Any) -> Look | str:
        data = payload(message)
        if self.is_raw:
            return why_not(message, len(data)) or ("raw", get(message, "width"), get(message, "height"))
        start = bytes(data[: 1 << 16])
        if "compressedDepth" in str(get(message, "format")):
            return "depth"
        found = header_of(start)
        if found is None:
            return f"neither JPEG nor PNG (starts with {start[:4].hex() or 'nothing'})"
        if found[0] == "png" and start.startswith(PNG) and start[24:25] == b"\x10":
            return "depth"
        return found if min(found[1:]) > 0 else f"a size of {found[1]} x {found[2]}"

    def _passed_over(self) -> list[Finding]:
        findings = []
        if depth := self.reasons.pop("depth", 0):
            message = f"topic {self.topic}: {depth} depth pictures, which are not read yet"
            findings.append(Finding("depth", "info", self.topic, message))
        for reason, count in self.reasons.most_common(2):
            message = f"topic {self.topic}: {count} pictures left out: {reason}"
            findings.append(Finding("broken_pictures", "warning", self.topic, message))
        return findings
