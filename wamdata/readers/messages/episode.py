"""One recording as an episode: its files are read once from end to end, and no picture is kept.

Topics come to streams, cameras and words by the types of their messages. What cannot be read is a finding.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas.episode import Episode, Event, Finding, Footage, Stream
from schemas.errors import DataError, first_line
from wamdata.readers.base import EpisodeRef, content_sha256
from wamdata.readers.messages.bag import Channel, Message, Opener
from wamdata.readers.messages.clock import Track, settle
from wamdata.readers.messages.coded import CodedCamera
from wamdata.readers.messages.decoders import BadMessageError, UndecodableError, decoder_of
from wamdata.readers.messages.leaves import stamp_ns
from wamdata.readers.messages.shots import Files
from wamdata.readers.messages.stills import StillCamera
from wamdata.readers.messages.tables import Named, Table
from wamdata.readers.messages.topics import Numbers, Topic, is_internal, is_service, topic_of
from wamdata.readers.messages.words import in_time, texts_of
from wamdata.readers.tree import first_names

Span = tuple[int, int]


@dataclass
class Gathered:
    """What of a recording was met so far.

    Args:
        types: the type that each topic had first.
        skipped: topics left alone, and their messages.
        failed: per topic, why messages could not be read, and how many.
    """

    topics: dict[str, Topic] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: dict[tuple[str, str], int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    first_ns: int = 1 << 62
    last_ns: int = -1 << 62
    messages: int = 0

    def take(self, file: int, message: Message) -> None:
        """Takes a message to its topic."""
        channel = message.channel
        if is_service(channel.topic) or is_internal(channel.topic):
            self.skipped[channel.topic] += 1
            self.messages += not is_service(channel.topic)
            return
        self.messages += 1
        self.first_ns, self.last_ns = min(self.first_ns, message.log_ns), max(self.last_ns, message.log_ns)
        if self.types.setdefault(channel.topic, channel.type) != channel.type:
            self._fail(channel, f"is {channel.type}, earlier messages are {self.types[channel.topic]}")
            return
        try:
            decoded = decoder_of(channel)(message.data)
        except (UndecodableError, BadMessageError) as error:
            self._fail(channel, str(error))
            return
        topic = self.topics.get(channel.topic)
        if topic is None:
            topic = self.topics[channel.topic] = topic_of(channel.topic, channel.type)
        try:
            self._add(topic, file, message, decoded)
        except (OverflowError, ValueError, TypeError, KeyError) as error:  # JSON whose fields are not of their kind
            self._fail(channel, first_line(error))

    def _add(self, topic: Topic, file: int, message: Message, decoded: Any) -> None:
        stamp = stamp_ns(decoded)
        if isinstance(topic, CodedCamera):
            topic.add(message.log_ns, stamp, file, message.channel, message.place, decoded)
            return
        number = topic.track.add(message.log_ns, stamp)
        if isinstance(topic, StillCamera):
            topic.add(number, file, message.channel, message.place, decoded)
        else:
            topic.add(number, message.log_ns, decoded)

    def _fail(self, channel: Channel, why: str) -> None:
        place = (channel.topic, why)
        if place not in self.failed and sum(topic == channel.topic for topic, _ in self.failed) >= 3:
            place = (channel.topic, "other damage")
        self.failed[place] = self.failed.get(place, 0) + 1

    def told(self) -> list[Finding]:
        """Findings of what was not taken."""
        found = [
            Finding("unreadable_messages", "warning", topic, f"topic {topic}: {count} messages left out: {why}")
            for (topic, why), count in self.failed.items()
        ]
        if self.skipped:
            message = f"topics of services and of ROS itself are no signals: {first_names(sorted(self.skipped))}"
            found.append(Finding("no_signal", "info", "topics", message))
        return [*self.findings, *found]


def read_recording(ref: EpisodeRef, opener: Opener, reader: str) -> Episode:
    """The recording of a listing's reference.

    Raises:
        DataError: none of its files can be read, or they hold no messages.
    """
    gathered, files = _gather(ref, opener)
    span = (gathered.first_ns, gathered.last_ns)
    streams, videos, events, findings = _settled(gathered, files, span)
    clocks = [*(s.t_ns for s in streams.values()), *(v.t_ns for v in videos.values())]
    stop_ns = max([*(int(t[-1]) for t in clocks), *(e.t_ns for e in events[-1:])], default=0) + 1
    texts = texts_of(events, stop_ns)
    if not clocks and not events:
        message = "holds nothing of a robot: no numbers, words or pictures that can be read"
        findings.append(Finding("nothing_usable", "error", ref.key, f"{ref.key}: {message}"))
    rows = max((len(s.t_ns) for s in streams.values()), default=max((len(v.t_ns) for v in videos.values()), default=0))
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams=streams,
        videos=videos,
        texts=texts,
        session=ref.place["session"],
        reader=reader,
        source_sha256=content_sha256(streams, texts, *_parts(streams, videos, events)),
        rows=(0, rows),
        licence=ref.place["licence"],
        findings=tuple(dict.fromkeys([*gathered.told(), *findings])),
        events=events,
    )


def _gather(ref: EpisodeRef, opener: Opener) -> tuple[Gathered, Files]:
    gathered, errors, names = Gathered(), [], ref.place["files"]
    paths = []
    for number, name in enumerate(names):
        where = ref.source.where(name)
        paths.append(str(ref.source.path(name)))
        try:
            file = opener(Path(paths[-1]), where)
        except DataError as error:
            errors.append(str(error))
            continue
        for message in file.messages():
            gathered.take(number, message)
        for problem in dict.fromkeys(file.problems[:4]):
            gathered.findings.append(Finding("damaged_recording", "warning", name, f"{where}: {problem}"))
    if not gathered.messages:
        where = ref.source.where(names[0])
        if errors and len(errors) == len(names):
            raise DataError(errors[0])
        damage = f" that can be read ({gathered.findings[0].message})" if gathered.findings else ""
        raise DataError(f"{where}: holds no messages{damage}. Drop it, or copy it again.")
    gathered.findings += [Finding("missing_part", "warning", ref.key, f"{e} The rest is read") for e in errors]
    for name in ref.place["missing"]:
        message = f"{ref.source.where(name)}: named by metadata.yaml and not there. The rest is read"
        gathered.findings.append(Finding("missing_part", "warning", ref.key, message))
    return gathered, Files(tuple(paths), tuple(ref.source.where(n) for n in names), opener)


def _settled(
    gathered: Gathered, files: Files, span: Span
) -> tuple[dict[str, Stream], dict[str, Footage], tuple[Event, ...], list[Finding]]:
    """Streams, cameras and events on one clock."""
    streams: dict[str, Stream] = {}
    videos: dict[str, Footage] = {}
    events: list[Event] = []
    findings: list[Finding] = []
    for name, topic in sorted(gathered.topics.items()):
        if isinstance(topic, CodedCamera):
            topic.finish()
        t_ns, told = settle(topic.track, name, span)
        if isinstance(topic, Numbers):
            events += [Event(name, int(t_ns[number]), word) for number, word in topic.words]
            for table in topic.tables.values():
                stream, more = _stream(table, topic.track, t_ns, span)
                streams |= {stream.name: stream} if stream is not None else {}
                told += more
        else:
            camera, more = topic.pictures(t_ns, files)
            videos |= {name: camera} if camera is not None else {}
            told += more
        findings += told
    return streams, videos, in_time(events), findings


def _stream(table: Table | Named, track: Track, t_ns: np.ndarray, span: Span) -> tuple[Stream | None, list[Finding]]:
    if table.track is track:
        return table.stream(t_ns)
    own_ns, told = settle(table.track, table.name, span)  # frames of /tf have clocks of their own
    stream, more = table.stream(own_ns)
    return stream, told + more


def _parts(streams: dict[str, Stream], videos: dict[str, Footage], events: tuple[Event, ...]) -> list[bytes]:
    """What tells recordings apart beyond their streams: words, and of each camera its times and first picture."""
    clocks = [*(s.t_ns for s in streams.values()), *(v.t_ns for v in videos.values())]
    start_ns = min([*(int(t[0]) for t in clocks), *(e.t_ns for e in events[:1])], default=0)
    parts = [f"{e.name} {e.t_ns - start_ns} {e.value}\n".encode() for e in events]
    for name, video in sorted(videos.items()):
        parts += [name.encode(), (video.t_ns - start_ns).tobytes(), bytes(video.load(0, 1)[0])]
    return parts
