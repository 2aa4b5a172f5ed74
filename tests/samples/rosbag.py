"""The rig of `mcap.py` as ROS 1 and ROS 2 bags, by rosbags' own writers; and a real ROS 1 bag of two turtles."""

import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from samples.mcap import Message, rig

READER = "rosbag"
REAL = Path(__file__).parent.parent / "data" / "rosbags"


def built(store: Any, kind: str, content: Any) -> Any:
    """A message of rosbags from plain fields."""
    described = dict(store.fielddefs[kind][1])

    def value(sort: Any, inner: Any, found: Any) -> Any:
        if sort == Nodetype.NAME:
            return built(store, inner, found)
        if sort == Nodetype.BASE:
            return found
        item_sort, item = inner[0]
        if item_sort == Nodetype.NAME:
            return [built(store, item, f) for f in found]
        if item[0] == "string":
            return list(found)
        return np.frombuffer(found, np.uint8) if isinstance(found, bytes) else np.array(found, item[0])

    made = {n: value(*d, content[n] if n != "seq" else 7) for n, d in described.items()}
    assert set(made) == {f.name for f in fields(store.types[kind])} - {"__msgtype__"}
    return store.types[kind](**made)


def write_ros2(folder: Path, messages: Iterator[Message], *, mode: CompressionMode = CompressionMode.NONE) -> Path:
    store, connections = get_typestore(Stores.ROS2_HUMBLE), {}
    writer = Writer2(folder, version=9, storage_plugin=StoragePlugin.SQLITE3)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        for log_ns, topic, kind, content in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], log_ns, store.serialize_cdr(built(store, kind, content), kind))
    return folder


def write_ros1(path: Path, messages: Iterator[Message]) -> Path:
    store, connections = get_typestore(Stores.ROS1_NOETIC), {}
    writer = Writer1(path)
    writer.set_compression(Writer1.CompressionFormat.LZ4)
    with writer:
        for log_ns, topic, kind, content in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], log_ns, store.serialize_ros1(built(store, kind, content), kind))
    return path


def ros1(root: Path) -> Path:
    return write_ros1(root / "kitchen.bag", rig())


def ros2(root: Path) -> Path:
    return write_ros2(root / "kitchen", rig())


def packed_messages(root: Path) -> Path:
    return write_ros2(root / "kitchen", rig(), mode=CompressionMode.MESSAGE)


def packed_files(root: Path) -> Path:
    return write_ros2(root / "kitchen", rig(), mode=CompressionMode.FILE)


def turtles(root: Path) -> Path:
    return Path(shutil.copy(REAL / "rosbag1/example-lz4.bag", root))


SAMPLES = {
    "ros1": ros1,
    "ros2": ros2,
    "packed_messages": packed_messages,
    "packed_files": packed_files,
    "turtles": turtles,
}
