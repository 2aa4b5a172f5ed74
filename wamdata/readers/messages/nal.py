"""What H.264 and HEVC packets in Annex B form say of themselves: key frames, slices and parameter sets.

Follows ITU-T H.264 section 7.3.1 and H.265 section 7.3.1. Looks at headers only; does not decode.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

_START = re.compile(b"\x00\x00\x01")
PARAMETERS = {"h264": (7, 8), "hevc": (32, 33, 34)}  # SPS, PPS; VPS, SPS, PPS


@dataclass(frozen=True)
class Packet:
    """Headers of one packet.

    Args:
        has_start: it begins with a start code, as a whole unit does.
        has_slice: it holds (part of) a picture.
        is_first: its first slice begins a picture, or is cut off before it says.
        is_key: decoding can start here.
        parameters: (type, bytes) of each parameter set in it.
    """

    has_start: bool
    has_slice: bool
    is_first: bool
    is_key: bool
    parameters: tuple[tuple[int, bytes], ...]


def look(data: bytes, codec: str) -> Packet:
    """What a packet holds."""
    starts = [m.end() for m in _START.finditer(data)]
    has_start = bool(starts) and not data[: starts[0] - 3].strip(b"\0")
    has_slice = is_first = is_key = False
    parameters = []
    for at, stop in pairwise([*starts, len(data) + 3]):
        if at >= len(data):
            break
        kind = data[at] & 31 if codec == "h264" else (data[at] >> 1) & 63
        if kind in PARAMETERS[codec]:
            parameters.append((kind, data[at : stop - 3].rstrip(b"\0")))
        elif _is_slice(kind, codec):
            first = at + (1 if codec == "h264" else 2)
            is_first |= not has_slice and (first >= len(data) or bool(data[first] & 128))
            has_slice = True
            is_key |= kind == 5 if codec == "h264" else 16 <= kind <= 21
    return Packet(has_start, has_slice, is_first, is_key, tuple(parameters))


def unit(content: bytes) -> bytes:
    """A unit with its start code."""
    return b"\0\0\0\1" + content


def _is_slice(kind: int, codec: str) -> bool:
    return 1 <= kind <= 5 if codec == "h264" else kind <= 31
