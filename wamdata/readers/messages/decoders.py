"""From the bytes of a message to its fields: CDR and ROS 1 by their definitions, protobuf by its descriptors, JSON.

A ROS 2 bag older than Iron holds no definitions: its types are looked up among those of its distribution. Definitions
are checked before they are used, since one that nests without end or declares a huge array would take all memory.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from schemas.errors import first_line
from wamdata.extras import need
from wamdata.readers.messages.bag import Channel, plain_payload

Decode = Callable[[bytes], Any]
MAX_FIXED = 4096  # items of a fixed array that are not plain numbers
ADVICE = "Record with definitions (MCAP, or ROS 2 Iron and later), or convert the bag where the type is installed"


class UndecodableError(Exception):
    """Messages of a channel cannot be read; says why and what to do."""


class BadMessageError(Exception):
    """One message is not what its definition says."""


@lru_cache(maxsize=512)
def decoder_of(channel: Channel) -> Decode:
    """What reads a channel's messages; it raises `BadMessageError`.

    Raises:
        UndecodableError: nothing here can read them.
    """
    match channel.encoding:
        case "cdr" | "ros1":
            return _ros(channel)
        case "protobuf":
            return _protobuf(channel)
        case "json":
            return _json
    raise UndecodableError(
        f"messages coded as {channel.encoding or 'nothing known'!r} are not read (cdr, ros1, protobuf and json are)"
    )


def _ros(channel: Channel) -> Decode:
    serde = need("rosbags.serde", for_what="reading ROS messages")
    kind = channel.type if channel.type.count("/") > 1 else channel.type.replace("/", "/msg/")
    store = _store(kind, channel.schema_encoding, channel.schema, channel.distro)
    _check(store.fielddefs, kind)
    read = store.deserialize_cdr if channel.encoding == "cdr" else store.deserialize_ros1

    def decode(data: bytes) -> Any:
        try:
            return read(plain_payload(data), kind)
        except (serde.SerdeError, ValueError, IndexError, MemoryError, OverflowError, AssertionError) as error:
            raise BadMessageError(first_line(error)) from None

    return decode


@lru_cache(maxsize=512)
def _store(kind: str, coding: str, text: bytes, distro: str) -> Any:
    typesys = need("rosbags.typesys", for_what="reading ROS messages")
    if not text and not coding:
        return _known(kind, distro)
    store = typesys.get_typestore(typesys.Stores.EMPTY)
    try:
        if coding in ("ros2idl", "omgidl"):
            types: dict[str, Any] = {}
            for part in _idl_parts(text.decode()):
                types |= typesys.get_types_from_idl(part)
        else:
            types = typesys.get_types_from_msg(text.decode(), kind)
        _check(types | store.fielddefs, kind)
        store.register(types)
    except (typesys.TypesysError, ValueError, KeyError, TypeError, RecursionError, SyntaxError) as error:
        raise UndecodableError(f"the definition of {kind} cannot be used ({first_line(error)})") from None
    return store


def _known(kind: str, distro: str) -> Any:
    typesys = need("rosbags.typesys", for_what="reading ROS messages")
    named = {s.value: s for s in typesys.Stores}
    store = typesys.get_typestore(named.get(f"ros2_{distro}", typesys.Stores.LATEST))
    if kind not in store.fielddefs:
        raise UndecodableError(f"the bag does not define {kind} and it is none of ROS's own types. {ADVICE}")
    return store


def _idl_parts(text: str) -> list[str]:
    """Definitions in OMG IDL as rosbag2 writes them one after the other, without their headings."""
    parts = text.split("=" * 80 + "\n")
    return [p.split("\n", 1)[-1] if p.startswith("IDL: ") else p for p in parts if p.strip()]


def _check(types: dict[str, Any], kind: str) -> None:
    """Nothing, if a type can be read in bounded time and memory."""
    nodes = need("rosbags.interfaces", for_what="reading ROS messages").Nodetype
    sizes: dict[str, int] = {}

    def size(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise UndecodableError(f"the definition of {kind} holds itself")
        if name not in types:
            raise UndecodableError(f"the definition of {kind} lacks {name}")
        if name not in sizes:
            sizes[name] = 1 + sum(cost(described, (*above, name)) for _, described in types[name][1])
        if sizes[name] > MAX_FIXED or len(above) > 64:
            raise UndecodableError(f"the definition of {kind} declares absurdly many fields")
        return sizes[name]

    def cost(described: Any, above: tuple[str, ...]) -> int:
        sort, inner = described
        if sort in (nodes.ARRAY, nodes.SEQUENCE):
            (subsort, item), count = inner
            times = count if sort == nodes.ARRAY else 1
            if subsort == nodes.NAME:
                return times * size(item, above)
            return times if item[0] == "string" else 1
        return size(inner, above) if sort == nodes.NAME else 1

    size(kind, ())


def _protobuf(channel: Channel) -> Decode:
    errors = need("google.protobuf.message", for_what="reading protobuf messages")
    factory = need("mcap_protobuf.decoder", for_what="reading protobuf messages").DecoderFactory()
    records = need("mcap.records", for_what="reading protobuf messages")
    mcap = need("mcap.exceptions", for_what="reading protobuf messages")
    schema = records.Schema(1, channel.schema, "protobuf", channel.type)
    try:
        read = factory.decoder_for("protobuf", schema)
    except (mcap.McapError, errors.DecodeError, TypeError, KeyError, ValueError, RecursionError) as error:
        raise UndecodableError(f"the descriptors of {channel.type} cannot be used ({first_line(error)})") from None

    def decode(data: bytes) -> Any:
        try:
            return read(data)
        except (errors.DecodeError, ValueError) as error:
            raise BadMessageError(first_line(error)) from None

    return decode


def _json(data: bytes) -> Any:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadMessageError(first_line(error)) from None
    return found if isinstance(found, dict) else {"data": found}
