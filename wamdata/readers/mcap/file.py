"""One MCAP file: by its index where it has one, else record by record up to where its recorder was killed.

Damaged chunks are passed over and told. Attachments and metadata are not read.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.errors import DataError, first_line
from wamdata.extras import need
from wamdata.readers.messages.bag import COPY_AGAIN, MAX_CHUNK, Channel, Chunks, Message, Place, require_content

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 3, 4, 5, 6, 15
_HEAD, _MESSAGE = struct.Struct("<BQ"), struct.Struct("<HIQQ")
# What mcap, zstandard and lz4 raise for a damaged file, here and there.
_BROKEN = (ValueError, struct.error, KeyError, OSError, RuntimeError, MemoryError, OverflowError, StopIteration)


class McapFile:
    """Messages of one file, in the order of its chunks.

    Raises:
        DataError: it is missing, empty or no MCAP file.
    """

    def __init__(self, path: Path, where: str) -> None:
        require_content(path, where)
        self._mcap = need("mcap.stream_reader", for_what="reading MCAP")
        self._records = need("mcap.records", for_what="reading MCAP")
        self._streams = need("mcap.data_stream", for_what="reading MCAP")
        self._broken = (*_BROKEN, need("mcap.exceptions", for_what="reading MCAP").McapError, *_errors_of_codecs())
        self._file, self._size, self.problems = path.open("rb"), path.stat().st_size, []
        if self._file.read(len(MAGIC)) != MAGIC:
            raise DataError(f"{where}: not an MCAP file. {COPY_AGAIN}")
        self._schemas: dict[int, Any] = {}
        self._channels: dict[int, Channel] = {}
        self._chunks = Chunks(self._unpack)

    def span_ns(self) -> tuple[int, int] | None:
        """First and last time as the summary says; None where there is none."""
        summary = self._summary()
        if summary is None or summary.statistics is None or not summary.statistics.message_count:
            return None
        return summary.statistics.message_start_time, summary.statistics.message_end_time

    def messages(self) -> Iterator[Message]:
        """Every message that can be read."""
        summary = self._summary()
        if summary is None or not summary.chunk_indexes:
            yield from self._streamed(has_summary=summary is not None)
            return
        for schema in summary.schemas.values():
            self._schemas[schema.id] = schema
        for channel in summary.channels.values():
            self._learn(channel)
        for index in sorted(summary.chunk_indexes, key=lambda i: (i.message_start_time, i.chunk_start_offset)):
            yield from self._of_chunk(index.chunk_start_offset)

    def fetch(self, place: Place) -> bytes:
        """A message's bytes again.

        Raises:
            DataError: the file changed since.
        """
        chunk, start, stop = place
        if chunk < 0:
            self._file.seek(start)
            return self._file.read(stop - start)
        try:
            return self._chunks.at(chunk)[start:stop]
        except self._broken as error:
            raise DataError(f"chunk at byte {chunk}: {first_line(error)}. List the source again.") from None

    def _summary(self) -> Any:
        reader = need("mcap.reader", for_what="reading MCAP")
        try:
            self._file.seek(0)
            return reader.SeekingReader(self._file, record_size_limit=self._size).get_summary()
        except self._broken:
            return None

    def _streamed(self, *, has_summary: bool) -> Iterator[Message]:
        at = len(MAGIC)
        while True:
            self._file.seek(at)
            head = self._file.read(_HEAD.size)
            operation, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
            body = at + _HEAD.size
            if not operation or body + length > self._size:
                self.problems.append(f"is cut off at byte {at} of {self._size}: read up to there")
                return
            if operation == CHUNK:
                yield from self._of_chunk(at)
            elif operation in (SCHEMA, CHANNEL, MESSAGE):
                yield from self._told(at, self._one(operation, self._file.read(length), (-1, body)))
            elif operation == DATA_END:
                if not has_summary:
                    self.problems.append("has no index: read from its beginning")
                return
            at = body + length

    def _of_chunk(self, at: int) -> Iterator[Message]:
        yield from self._told(at, self._inside(at))

    def _told(self, at: int, found: Iterator[Message]) -> Iterator[Message]:
        try:
            yield from found
        except self._broken as error:
            self.problems.append(f"is damaged at byte {at} ({first_line(error)}): messages there are left out")

    def _inside(self, offset: int) -> Iterator[Message]:
        content, at = self._chunks.at(offset), 0
        while at + _HEAD.size <= len(content):
            operation, length = _HEAD.unpack_from(content, at)
            at += _HEAD.size
            if at + length > len(content):
                raise ValueError("a record is longer than its chunk")
            if operation == MESSAGE:
                yield self._message(content[at : at + length], offset, at)
            elif operation in (SCHEMA, CHANNEL):
                yield from self._one(operation, content[at : at + length], (offset, at))
            at += length

    def _one(self, operation: int, content: bytes, place: tuple[int, int]) -> Iterator[Message]:
        """What a record outside of an index says; a message is given on."""
        if operation == MESSAGE:
            yield self._message(content, *place)
        elif operation == SCHEMA:
            schema = self._records.Schema.read(self._streams.ReadDataStream(io.BytesIO(content)))
            self._schemas[schema.id] = schema
        else:
            self._learn(self._records.Channel.read(self._streams.ReadDataStream(io.BytesIO(content))))

    def _message(self, content: bytes, chunk: int, at: int) -> Message:
        number, _, log_ns, _ = _MESSAGE.unpack_from(content)
        if number not in self._channels:
            raise ValueError(f"no channel {number}")
        if log_ns >= 1 << 63:
            raise ValueError("a log time beyond the year 2262")
        start, stop = at + _MESSAGE.size, at + len(content)
        return Message(self._channels[number], log_ns, content[_MESSAGE.size :], (chunk, start, stop))

    def _learn(self, channel: Any) -> None:
        schema = self._schemas.get(channel.schema_id)
        kind, coding, text = (schema.name, schema.encoding, schema.data) if schema else ("", "", b"")
        self._channels[channel.id] = Channel(channel.topic, kind, channel.message_encoding, coding, text)

    def _unpack(self, offset: int) -> bytes:
        self._file.seek(offset)
        operation, length = _HEAD.unpack(self._file.read(_HEAD.size))
        if operation != CHUNK or length > self._size:
            raise ValueError("no chunk where the index says")
        chunk = self._records.Chunk.read(self._streams.ReadDataStream(io.BytesIO(self._file.read(length))))
        if chunk.uncompressed_size > MAX_CHUNK:
            raise ValueError(f"a chunk declares {chunk.uncompressed_size} bytes")
        stream, count = self._mcap.get_chunk_data_stream(chunk, validate_crc=True)
        return stream.read(count)


def _errors_of_codecs() -> tuple[type[Exception], ...]:
    return (need("zstandard", for_what="reading MCAP").ZstdError,)
