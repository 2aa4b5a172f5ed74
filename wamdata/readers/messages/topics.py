"""What becomes of one topic: a camera, streams of numbers, words, or nothing."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wamdata.readers.messages.clock import Track
from wamdata.readers.messages.coded import CodedCamera
from wamdata.readers.messages.leaves import Leaf, fields, get, leaves, stamp_ns
from wamdata.readers.messages.stills import StillCamera
from wamdata.readers.messages.tables import Named, Table

_SERVICE = re.compile(r"_service_event$|/_action/|^/?_")
_INTERNAL = re.compile(r"^/?(rosout|rosout_agg|parameter_events|diagnostics|diagnostics_agg|clock)$|^/?events/")
NAMES = ("name", "names", "joint_names")
STILLS = {"CompressedImage": False, "Image": True, "RawImage": True}  # and whether they are raw
PACKETS = ("CompressedVideo", "FFMPEGPacket")
FRAMES = ("TFMessage", "tfMessage", "FrameTransforms", "FrameTransform")


def is_service(topic: str) -> bool:
    """Whether a topic belongs to a service or an action, so that it is no message of the robot."""
    return _SERVICE.search(topic) is not None


def is_internal(topic: str) -> bool:
    """Whether a topic is the log or housekeeping of ROS itself."""
    return _INTERNAL.search(topic) is not None


def kind_of(message_type: str) -> str:
    """A type's own name: `Image` of `sensor_msgs/msg/Image` and `foxglove.Image`."""
    return re.split(r"[./]", message_type)[-1]


@dataclass
class Numbers:
    """A topic's numbers and words, as its messages are met.

    Args:
        words: (message, what it says) of messages that hold one text and nothing else.
        tables: by stream name.
        is_bare: whether a message is one array and nothing else.
    """

    topic: str
    track: Track
    kind: str = ""
    words: list[tuple[int, str]] = field(default_factory=list)
    tables: dict[str, Table | Named] = field(default_factory=dict)
    is_bare: bool | None = None

    def add(self, number: int, log_ns: int, message: Any) -> None:
        """Takes a message."""
        if self.kind in FRAMES:
            for transform in [message] if self.kind == "FrameTransform" else get(message, "transforms") or []:
                self._add_transform(log_ns, transform)
            return
        if self.kind == "JointTrajectory":
            self._add_trajectory(number, message)
            return
        found = _pivoted(get(message, "joints") or []) if self.kind == "JointStates" else list(leaves(message))
        if len(found) == 1 and isinstance(found[0][1], str):
            self.words.append((number, found[0][1]))
        elif not found and next(fields(message), None) is None:
            self.words.append((number, ""))
        else:
            self._add_numbers(number, found)

    def _add_numbers(self, number: int, found: list[tuple[str, Leaf]]) -> None:
        """Plain numbers go to the topic's own stream; an array to its own, but where a message is nothing else."""
        names = next((v for p, v in found if p in NAMES and isinstance(v, list)), [])
        is_named = len(names) == len(set(names)) > 0 and "" not in names
        plain = [(p, leaf) for p, leaf in found if not isinstance(leaf, (np.ndarray, list, str))]
        arrays = [(p, leaf) for p, leaf in found if isinstance(leaf, np.ndarray)]
        if self.is_bare is None:
            self.is_bare = not plain and len(arrays) == 1 and not is_named
        for path, leaf in arrays:
            name = self.topic if self.is_bare else f"{self.topic}.{path}"
            if is_named and leaf.size == len(names):
                self._named(name).add(number, names, leaf)
            else:
                self._table(name, self.track).add(number, [(path, leaf)])
        if plain:
            self._table(self.topic, self.track).add(number, plain)

    def _add_transform(self, log_ns: int, transform: Any) -> None:
        parent = get(transform, "header", "frame_id") or get(transform, "parent_frame_id")
        name = f"{self.topic}.{parent}->{get(transform, 'child_frame_id')}"
        table = self.tables.get(name) or self._table(name, Track())
        number = table.track.add(log_ns, stamp_ns(transform))
        table.add(number, [(p, leaf) for p, leaf in leaves(transform) if not isinstance(leaf, str)])

    def _add_trajectory(self, number: int, message: Any) -> None:
        names, points = get(message, "joint_names") or [], get(message, "points") or []
        positions = np.asarray(get(points[0], "positions") if points else [], np.float64)
        if 0 < len(names) == len(set(names)) == positions.size:
            self._named(f"{self.topic}.positions").add(number, list(names), positions)

    def _table(self, name: str, track: Track) -> Table:
        """The table of a stream; of one that some messages give with names, another beside it."""
        found = self.tables.get(name)
        if isinstance(found, Named):
            return self._table(f"{name}.unnamed", track)
        return found or self.tables.setdefault(name, Table(name, track))

    def _named(self, name: str) -> Named:
        found = self.tables.get(name)
        if isinstance(found, Table):
            return self._named(f"{name}.named")
        return found or self.tables.setdefault(name, Named(name, self.track))


def _pivoted(joints: list[Any]) -> list[tuple[str, Leaf]]:
    """foxglove's list of joints as ROS writes them: a list of names and an array of each field that all have."""
    rows = [dict(leaves(joint)) for joint in joints]
    shared = [n for n in (rows[0] if rows else {}) if all(n in row for row in rows) and n != "name"]
    names: list[Leaf] = [row.get("name", "") for row in rows]
    return [("name", names), *((n, np.array([row[n] for row in rows], np.float64)) for n in shared)]


Topic = Numbers | StillCamera | CodedCamera


def topic_of(name: str, message_type: str) -> Topic:
    """What takes a topic's messages, by their type."""
    kind = kind_of(message_type)
    if kind in STILLS:
        return StillCamera(name, Track(), STILLS[kind])
    return CodedCamera(name, Track()) if kind in PACKETS else Numbers(name, Track(), kind)
