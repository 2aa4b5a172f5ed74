"""Whether a video packet is whole, told from its framing alone: some 500 times cheaper than decoding it.

H.264 and HEVC in mp4 and Matroska are units behind their length (ISO/IEC 14496-15), AV1 is units that hold their own
(AV1 specification, 5.3.1); in a packet whose bytes were lost or overwritten the lengths no longer add up. Damage inside
a unit's payload is not seen, nor any in other codecs or in streams that mark units by start codes.
"""

from collections.abc import Callable

Framing = Callable[[memoryview], bool]


def framing_of(codec: str, extradata: bytes | None) -> Framing | None:
    """How packets of a stream are checked; None where their framing says nothing.

    Args:
        codec: FFmpeg's name.
        extradata: the codec's own record in the container: avcC or hvcC, absent in a stream with start codes.
    """
    if codec == "av1":
        return _is_whole_av1
    at = {"h264": 4, "hevc": 21}.get(codec)  # where the record holds the size of lengths, less one, in two bits
    if at is None or not extradata or len(extradata) <= at or extradata[0] != 1:
        return None
    size = (extradata[at] & 3) + 1
    return lambda packet: _is_whole_nal(packet, size)


def _is_whole_nal(packet: memoryview, size: int) -> bool:
    at, end = 0, len(packet)
    while at < end:
        length = int.from_bytes(packet[at : at + size], "big")
        if length == 0 or at + size > end:
            return False
        at += size + length
    return at == end


def _is_whole_av1(packet: memoryview) -> bool:
    at, end = 0, len(packet)
    while at < end:
        header = packet[at]
        if header & 0x80:  # the forbidden bit
            return False
        at += 2 if header & 0x04 else 1
        if not header & 0x02:  # without a size a unit goes on to the packet's end
            return at <= end
        length, shift = 0, 0
        while True:
            if at >= end or shift > 49:
                return False
            byte = packet[at]
            length |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not byte & 0x80:
                break
        at += length
    return at == end
