"""A span of a video as its own mp4, packet by packet, without decoding.

The clip starts at the key frame at or before the first wanted frame, so it may show frames before it, and with
B-frames it may hold frames after the last one that later frames would have needed. Whoever reads it takes frames
[first_frame, first_frame + wanted) and ignores the rest.

Two details make the wanted frames bit-equal to the source's:
- packets shown before the key frame (an open GOP's leading frames) are left out; they cannot be decoded from here;
- the clip's clock is zero at the key frame's presentation. Rebasing on decoding times would make the muxer write an
  edit list in whole milliseconds, which moves every frame.
"""

import io
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from schemas.errors import DataError
from wamdata.video import VideoInfo, codec_name, label, open_video, probe, to_ns, to_ticks


def cut_packets(source: Path, first: int, stop: int, *, info: VideoInfo | None = None) -> tuple[bytes, int]:
    """Frames [first, stop) in presentation order as a plain mp4, and the index of `first` in it.

    Equal inputs give equal bytes. A container's rotation is kept.

    Args:
        info: what `probe` gave for this file, to save probing again.

    Raises:
        DataError: the span is not inside the video, or its codec has no place in an mp4.
    """
    info = info or probe(source)
    if not 0 <= first < stop <= info.num_frames:
        raise DataError(f"{label(source)}: no frames [{first}, {stop}), the video has {info.num_frames}.")
    with open_video(source) as (container, stream):
        wanted_ns = {int(t) for t in info.pts_ns[first:stop]}
        start_ns = int(info.pts_ns[first])
        packets = _packets(container, stream, wanted_ns, start_ns, seek=True)
        if packets is None:  # the seek came down behind the key frame
            packets = _packets(container, stream, wanted_ns, start_ns, seek=False)
        if packets is None:
            raise DataError(f"{label(source)}: no key frame at or before frame {first}. Re-encode the video.")
        lead = sum(to_ns(p.pts, stream.time_base) < start_ns for p in packets)
        return _mux(source, packets, stream), lead


def _packets(
    container: InputContainer, stream: VideoStream, wanted_ns: set[int], start_ns: int, *, seek: bool
) -> list[Packet] | None:
    """Packets in decoding order, from the key frame at or before `start_ns` until all wanted frames are there."""
    if seek:
        container.seek(to_ticks(start_ns, stream.time_base), stream=stream)
    else:
        container.seek(0)
    kept: list[Packet] = []
    missing = set(wanted_ns)
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        t_ns = to_ns(packet.pts, stream.time_base)
        if packet.is_keyframe and t_ns <= start_ns:
            kept = []
        elif not kept:
            continue
        if not kept or packet.pts >= kept[0].pts:
            kept.append(packet)
        missing.discard(t_ns)
        if not missing:
            return kept if wanted_ns <= {to_ns(p.pts, stream.time_base) for p in kept} else None
    return None


def _mux(source: Path, packets: list[Packet], stream: VideoStream) -> bytes:
    """Packets as an mp4 that starts at the first one's presentation.

    Decoding times are made anew: the presentation times in order, moved ahead by the longest reordering. They rise
    whatever the source had (Matroska stores none), and the gaps between them are the frames' true durations.
    """
    base, time_base = packets[0].pts, stream.time_base
    ordered = sorted(p.pts for p in packets)
    delay = max(shown - p.pts for shown, p in zip(ordered, packets, strict=True))
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as clip:
            # opaque: PyAV has no encoder of the name libdav1d and refuses an AV1 template otherwise
            track = clip.add_stream_from_template(stream, opaque=True)
            track.time_base = time_base
            for packet, shown in zip(packets, ordered, strict=True):
                packet.dts, packet.pts = shown - delay - base, packet.pts - base
                packet.time_base, packet.stream = time_base, track
                clip.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise DataError(
            f"{label(source)}: {codec_name(stream)} packets cannot lie in an mp4 ({error}). Re-encode the video."
        ) from None
    return file.getvalue()
