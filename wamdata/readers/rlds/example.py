"""A serialised tf.train.Example, read without tensorflow and without protobuf's own package.

    Example { Features features = 1 }       Features { map<string, Feature> feature = 1 }
    Feature { BytesList bytes_list = 1 | FloatList float_list = 2 | Int64List int64_list = 3 }, each with `value` = 1

Nothing is decoded until it is asked for, and every length is held against the bytes that are there: whatever they are,
a record costs at most a small multiple of its own size, or a DataError.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Int64
from schemas.errors import DataError

VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which an Example has none of
BYTES, FLOATS, INTS = 1, 2, 3  # fields of a Feature
LONGEST_VARINT = 10
# Tags, which are a field's number and wire type: of field 1 and 2 with a length, and of a value that is not packed.
_VALUE, _CONTENT, _ONE_FLOAT, _ONE_INT = 1 << 3 | LENGTH, 2 << 3 | LENGTH, 1 << 3 | FOUR, 1 << 3 | VARINT


@dataclass(frozen=True)
class Example:
    """The features of one record.

    Args:
        where: how a message names it.
        features: per name the kind of its list (BYTES, FLOATS, INTS; 0 for none) and its span in `data`.
    """

    data: bytes
    where: str
    features: dict[str, tuple[int, int, int]]

    def floats(self, name: str) -> NDArray[np.float32]:
        """A float list; empty where the record has none of this name."""
        parts = []
        for tag, start, stop in self._values(name, FLOATS):
            if tag not in (_VALUE, _ONE_FLOAT) or (stop - start) % 4:
                raise _broken(self.where, f"{name} is no list of 4-byte numbers")
            parts.append(np.frombuffer(self.data, "<f4", (stop - start) // 4, start))
        return _joined(parts, np.float32)

    def ints(self, name: str) -> Int64:
        """An integer list; empty where the record has none of this name."""
        parts = []
        for tag, start, stop in self._values(name, INTS):
            if tag not in (_VALUE, _ONE_INT):
                raise _broken(self.where, f"{name} is no list of integers")
            parts.append(decode_varints(np.frombuffer(self.data, np.uint8, stop - start, start), self.where))
        return _joined(parts, np.int64)

    def spans(self, name: str) -> list[tuple[int, int]]:
        """Where in `data` the values of a bytes list lie; none where the record has none of this name."""
        data, found = self.data, []
        at, stop = self._list(name, BYTES)
        while at < stop:
            if data[at] != _VALUE or at + 1 == stop:
                raise _broken(self.where, f"{name} is no list of bytes")
            size, at = data[at + 1], at + 2
            if size > 127:
                size, at = _varint(data, at - 1, stop, self.where)
            if size > stop - at:
                raise _broken(self.where, f"{name} has a value of {size} bytes where {stop - at} are left")
            found.append((at, at + size))
            at += size
        return found

    def texts(self, name: str) -> list[bytes]:
        """The values of a bytes list."""
        return [self.data[start:stop] for start, stop in self.spans(name)]

    def _list(self, name: str, kind: int) -> tuple[int, int]:
        """The span of a list."""
        found, start, stop = self.features.get(name, (0, 0, 0))
        if found not in (0, kind):
            names = {BYTES: "bytes", FLOATS: "floats", INTS: "integers"}
            raise _broken(self.where, f"{name} holds {names.get(found)}, features.json says {names[kind]}")
        return start, stop

    def _values(self, name: str, kind: int) -> list[tuple[int, int, int]]:
        """(tag, start, stop) of what a list of numbers holds, packed or one by one."""
        at, stop = self._list(name, kind)
        found = []
        while at < stop:
            tag, start, at = _field(self.data, at, stop, self.where)
            found.append((tag, start, at))
        return found


def parse_example(data: bytes, where: str) -> Example:
    """The features of a record, none of them decoded.

    Raises:
        DataError: the bytes are not an Example.
    """
    found: dict[str, tuple[int, int, int]] = {}
    at, stop = 0, len(data)
    while at < stop:
        tag, entry, at = _field(data, at, stop, where)
        while tag == _VALUE and entry < at:
            inner, start, entry = _field(data, entry, at, where)
            if inner == _VALUE:
                name, feature = _entry(data, start, entry, where)
                found[name] = feature
    return Example(data, where, found)


def _entry(data: bytes, at: int, stop: int, where: str) -> tuple[str, tuple[int, int, int]]:
    """One name of the map, and its list."""
    name, feature = b"", (0, 0, 0)
    while at < stop:
        tag, start, at = _field(data, at, stop, where)
        if tag == _VALUE:
            name = data[start:at]
        elif tag == _CONTENT:
            feature = _feature(data, start, at, where)
    return name.decode("utf-8", "replace"), feature


def _feature(data: bytes, at: int, stop: int, where: str) -> tuple[int, int, int]:
    """Kind and span of the list of a feature; (0, 0, 0) of one that has none."""
    found = (0, 0, 0)
    while at < stop:
        tag, start, at = _field(data, at, stop, where)
        if tag & 7 == LENGTH and tag >> 3 <= INTS:
            if found[0]:
                raise _broken(where, "a feature has several lists")
            found = tag >> 3, start, at
    return found


def _field(data: bytes, at: int, stop: int, where: str) -> tuple[int, int, int]:
    """(tag, start, stop) of the field of a message at `at`: of its content where it has a length."""
    tag, at = data[at], at + 1
    if tag > 127:
        tag, at = _varint(data, at - 1, stop, where)
    wire, end = tag & 7, at
    if wire == LENGTH:
        if at < stop and data[at] < 128:
            size, at = data[at], at + 1
        else:
            size, at = _varint(data, at, stop, where)
        end = at + size
    elif wire == VARINT:
        _, end = _varint(data, at, stop, where)
    elif wire in (FOUR, EIGHT):
        end = at + (4 if wire == FOUR else 8)
    else:
        raise _broken(where, f"wire type {wire}")
    if end > stop or tag < 8:
        raise _broken(where, f"a field of {end - at} bytes where {stop - at} are left")
    return tag, at, end


def _varint(data: bytes, at: int, stop: int, where: str) -> tuple[int, int]:
    """A number of up to 64 bits at `at`, and where it ends."""
    value = shift = 0
    while at < stop and shift < 7 * LONGEST_VARINT:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _broken(where, "a number without an end")


def decode_varints(raw: NDArray[np.uint8], where: str) -> Int64:
    """The packed integers of `raw`, all at once: one step per byte of the longest, none per integer.

    Negative ones are ten bytes, in two's complement; bits above the 64th are dropped, as protobuf does.

    Raises:
        DataError: the last one is cut off, or one is longer than ten bytes.
    """
    is_last = raw < 128
    if is_last.all():
        return raw.astype(np.int64)
    stops = np.flatnonzero(is_last) + 1
    starts = np.concatenate([[0], stops[:-1]]) if len(stops) else stops
    lengths = stops - starts
    if not is_last[-1] or lengths.max() > LONGEST_VARINT:
        raise _broken(where, "a packed integer without an end")
    values = (raw[starts] & 127).astype(np.uint64)
    for place in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        values[longer] |= (raw[starts[longer] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _broken(where: str, what: str) -> DataError:
    return DataError(f"{where}: not a whole tf.train.Example ({what}). Copy the file again, or drop the episode.")
