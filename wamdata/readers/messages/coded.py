"""Cameras whose messages are packets of a video codec: foxglove's CompressedVideo and ROS's FFMPEGPacket.

A frame may come in several messages, parameter sets only once: frames are put together, and each key frame gets the
parameter sets that were last seen, so that a clip can begin at any of them. Does not read streams with B-frames, whose
packets come in another order than their pictures, and of codecs only H.264 and HEVC.
"""

from array import array
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from schemas.episode import Finding, Int64, Pictures
from wamdata.readers.messages.bag import Channel, Place
from wamdata.readers.messages.clock import Track
from wamdata.readers.messages.leaves import get
from wamdata.readers.messages.nal import PARAMETERS, Packet, look, unit
from wamdata.readers.messages.shots import Files, Shots, payload

REORDERED = "packets come in another order than their pictures (B-frames)"
TRIED = 16  # packets that are decoded to learn the size and whether pictures come in order


@dataclass
class Unit:
    """Messages of the frame that is being put together: their place rows, bytes and headers."""

    log_ns: int
    stamp_ns: int
    pts: int | None
    rows: list[tuple[int, ...]] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)

    @property
    def has_slice(self) -> bool:
        return any(p.has_slice for p in self.packets)


@dataclass
class CodedCamera:
    """One topic of packets, as its messages are met.

    Args:
        track: when each frame began; its other messages have no time of their own.
        frames: of each frame: its first row of `places`, whether it is a key, its lead.
        parameters: sets that were last seen, in order.
        probe: the first frames from the first key frame on.
        early: messages before it.
    """

    topic: str
    track: Track
    codec: str = ""
    wrong: str = ""
    channels: list[Channel] = field(default_factory=list)
    places: array = field(default_factory=lambda: array("q"))
    frames: array = field(default_factory=lambda: array("q"))
    parameters: dict[tuple[int, bytes], None] = field(default_factory=dict)
    leads: list[bytes] = field(default_factory=lambda: [b""])
    probe: list[bytes] = field(default_factory=list)
    early: int = 0
    unit: Unit | None = None
    last_pts: int = -1

    def add(self, log_ns: int, stamp_ns: int, file: int, channel: Channel, place: Place, message: Any) -> None:
        """Takes a message: where it lies, and what its headers say."""
        self.codec = self.codec or _codec(message)
        if self.codec not in PARAMETERS:
            self.wrong = f"video codec {self.codec or 'without a name'} is not read (H.264 and HEVC are)"
        if self.wrong:
            return
        data = bytes(payload(message))
        packet = look(data, self.codec)
        if self.unit is None and not packet.has_start:
            self.wrong = "packets do not begin with a start code (Annex B)"
            return
        if self.unit is None or self._begins(packet):
            self._end_unit()
            pts = get(message, "pts")
            self.unit = Unit(log_ns, stamp_ns, pts if isinstance(pts, int) else None)
        if channel not in self.channels:
            self.channels.append(channel)
        self.unit.rows.append((file, self.channels.index(channel), *place))
        self.unit.data.append(data)
        self.unit.packets.append(packet)

    def finish(self) -> None:
        """Takes the frame that was put together last."""
        self._end_unit()

    def pictures(self, t_ns: Int64, files: Files) -> tuple[Pictures | None, list[Finding]]:
        """The camera, None where it cannot be used; and why, or what was left out of it.

        Args:
            t_ns: time of each frame.
        """
        if not self.wrong and not self.frames:
            self.wrong = "holds no key frame" if self.early else "holds no packets"
        frames = np.array(self.frames, np.int64).reshape(-1, 3)
        if (np.diff(t_ns) < 0).any():
            self.wrong = self.wrong or REORDERED
        size = None if self.wrong else self._size()
        if size is None:
            message = f"topic {self.topic}: {self.wrong}: camera left out"
            return None, [Finding("unreadable_video", "warning", self.topic, message)]
        steps = np.arange(len(t_ns))
        times = np.maximum.accumulate(t_ns - steps) + steps
        shots = Shots(
            files,
            tuple(self.channels),
            np.array(self.places, np.int64).reshape(-1, 5),
            np.append(frames[:, 0], len(self.places) // 5),
            frames[:, 2].copy(),
            tuple(self.leads),
            is_raw=False,
        )
        return Pictures(times, self.codec, *size, shots.load, frames[:, 1] > 0), self._early_findings()

    def _begins(self, packet: Packet) -> bool:
        """Whether a message begins another frame than the one that is being put together."""
        return self.unit.has_slice and packet.has_start and (packet.is_first or not packet.has_slice)

    def _end_unit(self) -> None:
        """Takes the frame that was put together."""
        unit, self.unit = self.unit, None
        if unit is None or not unit.has_slice:
            return
        data = b"".join(unit.data)
        packet = look(data, self.codec) if len(unit.data) > 1 else unit.packets[0]
        self._remember(packet)
        if not self.frames and not packet.is_key:
            self.early += len(unit.data)
            return
        if unit.pts is not None:
            if unit.pts < self.last_pts:
                self.wrong = REORDERED
            self.last_pts = unit.pts
        lead = self._lead(packet) if packet.is_key else 0
        self.track.add(unit.log_ns, unit.stamp_ns)
        self.frames.extend((len(self.places) // 5, packet.is_key, lead))
        for row in unit.rows:
            self.places.extend(row)
        if len(self.probe) < TRIED:
            self.probe.append(self.leads[lead] + data)

    def _remember(self, packet: Packet) -> None:
        for kind, content in packet.parameters:
            is_sps = kind == PARAMETERS[self.codec][-2]
            if is_sps and (kind, content) not in self.parameters:
                heads = PARAMETERS[self.codec][:-2]
                self.parameters = {p: None for p in self.parameters if p[0] in heads}
            self.parameters.pop((kind, content), None)
            self.parameters[kind, content] = None

    def _lead(self, packet: Packet) -> int:
        """Which lead gives a key frame the parameter sets that it lacks."""
        if {kind for kind, _ in packet.parameters} == set(PARAMETERS[self.codec]):
            return 0
        lead = b"".join(unit(content) for _, content in sorted(self.parameters, key=lambda p: p[0]))
        if lead not in self.leads:
            self.leads.append(lead)
        return self.leads.index(lead)

    def _size(self) -> tuple[int, int] | None:
        """(width, height) of the pictures; None, and what is wrong, where they cannot be decoded in order."""
        decoder, decoded = av.CodecContext.create(self.codec, "r"), []
        try:
            for at, data in enumerate(self.probe[:TRIED]):
                packet = av.Packet(data)
                packet.pts = packet.dts = at
                decoded += decoder.decode(packet)
            decoded += decoder.decode(None)
        except (av.FFmpegError, ValueError) as error:
            if not decoded:
                self.wrong = f"no readable {self.codec} ({error})"
                return None
        shown = [f.pts for f in decoded if f.pts is not None]
        if not decoded:
            self.wrong = f"no readable {self.codec}"
        elif shown != sorted(shown):
            self.wrong = REORDERED
        return None if self.wrong else (decoded[0].width, decoded[0].height)

    def _early_findings(self) -> list[Finding]:
        if not self.early:
            return []
        message = f"topic {self.topic}: {self.early} packets before the first key frame cannot be decoded: left out"
        return [Finding("no_key_frame", "warning", self.topic, message)]


def _codec(message: Any) -> str:
    said = str(get(message, "format") or get(message, "encoding") or "").lower()
    names = {"h264": ("264", "avc"), "hevc": ("265", "hevc")}
    return next((codec for codec, words in names.items() if any(w in said for w in words)), said)
