"""One ROS 1 bag (format 2.0), read record by record, so that one whose recorder was killed needs no reindexing.

Does not read encrypted bags, and of format 1.2 says so.
"""

import bz2
import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import DataError, first_line
from wamdata.extras import need
from wamdata.readers.messages.bag import COPY_AGAIN, MAX_CHUNK, Channel, Chunks, Message, Place, require_content

MAGIC, VERSION = b"#ROSBAG V", b"#ROSBAG V2.0\n"
MESSAGE, CHUNK, CHUNK_INFO, CONNECTION = 2, 5, 6, 7
_BROKEN = (ValueError, struct.error, KeyError, OSError, RuntimeError, MemoryError, EOFError)

Fields = dict[str, bytes]


class Bag1:
    """Messages of one file, in the order of its chunks.

    Raises:
        DataError: it is missing, empty, no bag of this format, or encrypted.
    """

    def __init__(self, path: Path, where: str) -> None:
        require_content(path, where)
        self._file, self._size, self.problems = path.open("rb"), path.stat().st_size, []
        start = self._file.read(len(VERSION))
        if start != VERSION:
            is_old = start.startswith(MAGIC)
            advice = "Convert it with `rosbag fix` or `rosbags-convert`." if is_old else COPY_AGAIN
            raise DataError(f"{where}: not a ROS 1 bag of format 2.0. {advice}")
        self._connections: dict[int, Channel] = {}
        self._chunks = Chunks(self._unpack)
        try:
            fields, _, _ = self._head(len(VERSION))
        except _BROKEN:
            fields = {}
        if fields.get("encryptor"):
            raise DataError(f"{where}: encrypted. Decrypt it with the tools of its recorder.")
        self._index = int.from_bytes(fields.get("index_pos", b""), "little")

    def span_ns(self) -> tuple[int, int] | None:
        """First and last time as the index says; None where there is none."""
        infos = [fields for fields, _, _ in self._index_records() if _operation(fields) == CHUNK_INFO]
        try:
            spans = [(_time(f["start_time"]), _time(f["end_time"])) for f in infos]
        except _BROKEN:
            return None
        return (min(s[0] for s in spans), max(s[1] for s in spans)) if spans else None

    def messages(self) -> Iterator[Message]:
        """Every message that can be read."""
        for fields, body, stop in self._index_records():  # for chunks that lack their connections
            if _operation(fields) == CONNECTION:
                with contextlib.suppress(*_BROKEN):
                    self._learn(fields, self._bytes(body, stop))
        at = len(VERSION)
        while at < self._size:
            try:
                fields, body, stop = self._head(at)
            except _BROKEN:
                self.problems.append(f"is cut off at byte {at} of {self._size}: read up to there")
                return
            try:
                if _operation(fields) == CHUNK:
                    yield from self._inside(at)
                elif _operation(fields) == CONNECTION:
                    self._learn(fields, self._bytes(body, stop))
            except _BROKEN as error:
                self.problems.append(f"is damaged at byte {at} ({first_line(error)}): messages there are left out")
            at = stop
        if not self._index:
            self.problems.append("has no index, its recorder was stopped hard: read from its beginning")

    def fetch(self, place: Place) -> bytes:
        """A message's bytes again.

        Raises:
            DataError: the file changed since.
        """
        chunk, start, stop = place
        try:
            return self._chunks.at(chunk)[start:stop]
        except _BROKEN as error:
            raise DataError(f"chunk at byte {chunk}: {first_line(error)}. List the source again.") from None

    def _index_records(self) -> Iterator[tuple[Fields, int, int]]:
        at = self._index
        while len(VERSION) < at < self._size:
            try:
                fields, body, at = self._head(at)
            except _BROKEN:
                return
            yield fields, body, at

    def _inside(self, offset: int) -> Iterator[Message]:
        content, at = self._chunks.at(offset), 0
        while at < len(content):
            fields, body, stop = _record(content, at)
            if _operation(fields) == CONNECTION:
                self._learn(fields, content[body:stop])
            elif _operation(fields) == MESSAGE:
                channel = self._connections[int.from_bytes(fields["conn"], "little")]
                yield Message(channel, _time(fields["time"]), content[body:stop], (offset, body, stop))
            at = stop

    def _learn(self, fields: Fields, content: bytes) -> None:
        more = _fields(content)
        kind = more["type"].decode()
        kind = kind if kind.count("/") > 1 else kind.replace("/", "/msg/")
        self._connections[int.from_bytes(fields["conn"], "little")] = Channel(
            fields["topic"].decode(), kind, "ros1", "ros1msg", more["message_definition"]
        )

    def _unpack(self, offset: int) -> bytes:
        fields, body, stop = self._head(offset)
        size = int.from_bytes(fields["size"], "little")
        if size > MAX_CHUNK:
            raise ValueError(f"a chunk declares {size} bytes")
        content = self._bytes(body, stop)
        match fields["compression"]:
            case b"none":
                return content
            case b"bz2":
                return bz2.BZ2Decompressor().decompress(content, max_length=size)
            case b"lz4":
                lz4 = need("lz4.frame", for_what="reading bags compressed with lz4")
                return lz4.LZ4FrameDecompressor().decompress(content, max_length=size)
        raise ValueError(f"compression {fields['compression']!r} is not known")

    def _head(self, at: int) -> tuple[Fields, int, int]:
        """A record's fields, and where its content starts and stops in the file."""
        length = int.from_bytes(self._bytes(at, at + 4), "little")
        fields = _fields(self._bytes(at + 4, at + 4 + length))
        body = at + 8 + length
        stop = body + int.from_bytes(self._bytes(body - 4, body), "little")
        if stop > self._size:
            raise ValueError("cut off")
        return fields, body, stop

    def _bytes(self, start: int, stop: int) -> bytes:
        if not start <= stop <= self._size:
            raise ValueError("cut off")
        self._file.seek(start)
        return self._file.read(stop - start)


def _operation(fields: Fields) -> int:
    return int.from_bytes(fields.get("op", b""), "little")


def _time(coded: bytes) -> int:
    seconds, ns = struct.unpack("<II", coded)
    return seconds * 10**9 + ns


def _record(content: bytes, at: int) -> tuple[Fields, int, int]:
    (length,) = struct.unpack_from("<I", content, at)
    fields = _fields(content[at + 4 : at + 4 + length])
    body = at + 8 + length
    stop = body + struct.unpack_from("<I", content, body - 4)[0]
    if stop > len(content):
        raise ValueError("a record is longer than its chunk")
    return fields, body, stop


def _fields(content: bytes) -> Fields:
    found, at = {}, 0
    while at < len(content):
        (length,) = struct.unpack_from("<I", content, at)
        name, equals, value = content[at + 4 : at + 4 + length].partition(b"=")
        if not equals:
            raise ValueError("a field without a name")
        found[name.decode()] = value
        at += 4 + length
    return found
