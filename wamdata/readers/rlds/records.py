"""The records of a file: TFRecord, read here, and ArrayRecord, read by its own package.

A TFRecord is, little-endian and without an index, again and again:

    u64 length | u32 masked crc32c of those 8 bytes | data | u32 masked crc32c of the data
"""

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from google_crc32c import value as crc32c

from schemas.errors import DataError
from wamdata.extras import need

HEADER, FOOTER = 12, 4
COPY_AGAIN = "Copy the file again."


def scan(path: Path) -> tuple[list[tuple[int, int]], str]:
    """(offset, length) of the data of each whole record, and why the scan ended early, "" at the file's end.

    Reads the lengths alone and skips the data.
    """
    found, at = [], 0
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        while at < size:
            file.seek(at)
            header = file.read(HEADER)
            reason, length = _length(header, size - at)
            if reason:
                return found, f"{reason} at byte {at}"
            found.append((at + HEADER, length))
            at += HEADER + length + FOOTER
    return found, ""


def read_record(path: Path, offset: int, length: int, where: str) -> bytes:
    """The data of one record, its checksum checked.

    Raises:
        DataError: the record is not there, or not what was written.
    """
    with _opened(path, where) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(offset - HEADER)
        reason, found = _length(file.read(HEADER), size - offset + HEADER)
        if reason or found != length:
            raise DataError(f"{where}: {reason or 'another record than when it was listed'}. {COPY_AGAIN}")
        data = _whole(file, length)
        footer = _whole(file, FOOTER)
    if len(data) + len(footer) != length + FOOTER or struct.pack("<I", masked(crc32c(data))) != footer:
        raise DataError(f"{where}: the checksum of its data does not agree with them. {COPY_AGAIN}")
    return data


def read_span(path: Path, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file."""
    with _opened(path, str(path)) as file:
        file.seek(start)
        return _whole(file, stop - start)


def masked(crc: int) -> int:
    """A crc32c as TFRecord stores it, so that a checksum of data with checksums in it stays a good one."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def count_array_records(path: Path) -> int:
    """Records of an ArrayRecord file."""
    return int(_array_reader(path).num_records())


def read_array_record(path: Path, index: int, where: str) -> bytes:
    """One record of an ArrayRecord file; its package checks it."""
    try:
        return _array_reader(path).read([index])[0]
    except (ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: cannot be read ({reason}). {COPY_AGAIN}") from None


def _array_reader(path: Path) -> Any:
    module = need("array_record.python.array_record_module", for_what="reading .array_record files")
    try:
        return module.ArrayRecordReader(str(path))
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: no ArrayRecord file ({reason}). {COPY_AGAIN}") from None


def _length(header: bytes, left: int) -> tuple[str, int]:
    """What is wrong with the start of a record ("" for nothing), and its length."""
    if len(header) < HEADER:
        return "a record is cut off", 0
    length, stored = struct.unpack("<QI", header)
    if masked(crc32c(header[:8])) != stored:
        return "the length of a record does not agree with its checksum", 0
    if length > left - HEADER - FOOTER:
        return f"a record of {length} bytes is cut off", 0
    return "", length


def _opened(path: Path, where: str) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        raise DataError(f"{where}: the file is not there any more. List the source again.") from None


def _whole(file: BinaryIO, size: int) -> bytes:
    """`size` bytes, or fewer at the end of the file; an unbuffered read may give fewer than are there."""
    data = file.read(size)
    while 0 < len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data
