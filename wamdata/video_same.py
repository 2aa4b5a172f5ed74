"""Whether two videos show the same recording, told from packets, without decoding.

Cut, trimmed and remuxed copies keep the packets of their key frames. A copy that was encoded anew has others and is not
recognised.
"""

import hashlib

from wamdata.video import open_video


def key_packets(video: bytes) -> frozenset[bytes]:
    """Hashes of the packets of a video's key frames."""
    with open_video(video) as (container, stream):
        found = (bytes(p) for p in container.demux(stream) if p.is_keyframe and p.size)
        return frozenset(hashlib.sha256(p).digest()[:16] for p in found)


def is_same_recording(one: frozenset[bytes], other: frozenset[bytes]) -> bool:
    """Whether one shows at least half of the other: single packets may be alike in two recordings (black frames)."""
    shorter, shared = min(len(one), len(other)), len(one & other)
    return shared >= min(2, shorter) and 2 * shared >= shorter > 0
