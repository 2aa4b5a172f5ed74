"""A decoded message of any encoding as its fields: numbers, arrays and words at dotted paths, and its time stamp.

Headers, time stamps, durations and a multi-array's layout are no signals. Raw bytes are passed over.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

TIMES = {"builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration", "google.protobuf.Timestamp",
         "google.protobuf.Duration", "foxglove.Timestamp", "foxglove.Duration"}  # fmt: skip
HEADERS = {"std_msgs/msg/Header", "std_msgs/msg/MultiArrayLayout"}
PADDING = "structure_needs_at_least_one_member"  # what ROS 2 puts in a message without fields
SECONDS, NANOSECONDS = ("sec", "secs", "seconds"), ("nanosec", "nsec", "nsecs", "nanos")
MAX_DEPTH = 24

MAX_ITEMS = 64  # messages in a list that are looked into


class Items(int):
    """How many messages a list holds."""


Leaf = bool | int | float | str | np.ndarray | list[str] | Items


def leaves(message: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Leaf]]:
    """What a message says and where in it; of arrays without items nothing."""
    if depth > MAX_DEPTH:
        return
    for name, value in fields(message):
        at = f"{path}.{name}" if path else name
        yield from _leaf(at, value, depth)


def fields(message: Any) -> Iterator[tuple[str, Any]]:
    """A message's own fields, less headers and times."""
    if isinstance(message, dict):
        yield from ((str(n), v) for n, v in message.items() if n != "header" and not _is_time(v))
    elif hasattr(type(message), "DESCRIPTOR"):
        yield from _protobuf_fields(message)
    else:
        for name in _ros_names(type(message)):
            value = getattr(message, name)
            if getattr(type(value), "__msgtype__", "") not in HEADERS | TIMES:
                yield name.rstrip("_"), value


def get(message: Any, *path: str) -> Any:
    """The field at a path, None where there is none."""
    for name in path:
        message = message.get(name) if isinstance(message, dict) else getattr(message, name, None)
        if message is None:
            return None
    return message


def stamp_ns(message: Any) -> int:
    """Time that a message gives itself, in ns; 0 where it gives none."""
    for path in (("header", "stamp"), ("timestamp",), ("stamp",)):
        found = get(message, *path)
        if found is not None and _is_time(found):
            seconds, ns = _first(found, SECONDS), _first(found, NANOSECONDS)
            total = int(seconds) * 10**9 + int(ns)
            return total if abs(total) < 1 << 62 else 0
    return 0


def _leaf(at: str, value: Any, depth: int) -> Iterator[tuple[str, Leaf]]:
    if isinstance(value, (bool, int, float, str, np.generic)):
        yield at, value
    elif isinstance(value, np.ndarray):
        if value.size:
            yield at, value
    elif isinstance(value, list):
        yield from _items(at, value, depth)
    elif value is not None and not isinstance(value, (bytes, bytearray)):
        yield from leaves(value, at, depth + 1)


def _items(at: str, value: list[Any], depth: int) -> Iterator[tuple[str, Leaf]]:
    if not value:
        yield at, Items(0)
    elif all(isinstance(item, str) for item in value):
        yield at, value
    elif all(isinstance(item, (bool, int, float)) for item in value):
        yield at, np.array(value, np.float64 if any(isinstance(item, float) for item in value) else np.int64)
    elif not any(isinstance(item, (bytes, str, list)) or item is None for item in value):
        yield at, Items(len(value))
        for number, item in enumerate(value[:MAX_ITEMS]):
            if not isinstance(item, (bool, int, float)) and not _is_time(item):
                yield from leaves(item, f"{at}.{number}", depth + 1)


def _is_time(value: Any) -> bool:
    if isinstance(value, dict):
        return len(value) == 2 and any(n in value for n in SECONDS) and any(n in value for n in NANOSECONDS)
    return _type_name(type(value)) in TIMES


def _first(value: Any, names: tuple[str, ...]) -> int:
    found = next((v for n in names if (v := get(value, n)) is not None), 0)
    return found if isinstance(found, int) else 0


@lru_cache(maxsize=4096)
def _type_name(kind: type) -> str:
    descriptor = getattr(kind, "DESCRIPTOR", None)
    return getattr(descriptor, "full_name", "") or getattr(kind, "__msgtype__", "")


@lru_cache(maxsize=4096)
def _ros_names(kind: type) -> tuple[str, ...]:
    return tuple(n for n in getattr(kind, "__match_args__", ()) if n not in (PADDING, "__msgtype__"))


def _protobuf_fields(message: Any) -> Iterator[tuple[str, Any]]:
    for field in message.DESCRIPTOR.fields:
        is_message = field.message_type is not None
        if is_message and (field.message_type.full_name in TIMES or field.message_type.GetOptions().map_entry):
            continue
        value = getattr(message, field.name)
        if hasattr(value, "extend"):  # repeated
            yield field.name, list(value)
        elif not field.has_presence or message.HasField(field.name):
            yield field.name, value
