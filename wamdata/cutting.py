"""Episodes out of a recording: a bag runs all morning, an episode is one try.

    episodes: {start: "/episode/start", stop: "/episode/stop"}   a message starts one, a message stops it
    episodes: {start: "/event=go", stop: "/event=done"}          only messages of this word, or number in column one
    episodes: {split_on: "/episode_index"}                       a new one whenever the value changes
    episodes: {gap_s: 2.0}                                       a pause this long in every stream lies between two

All parts of a recording stay in one session, since neighbours leak. Pictures of a codec keep the frames from the key
frame on, so a part's video may begin before its rows.
"""

from dataclasses import replace

import numpy as np

from schemas.embodiment import EpisodeCut
from schemas.episode import Episode, Finding, Footage, Int64, Pictures, Stream, Video
from schemas.errors import DataError
from wamdata.readers.base import content_sha256

Span = tuple[int, int]  # ns, half-open


def cut_recording(recording: Episode, rule: EpisodeCut | None) -> list[Episode]:
    """The episodes of a recording, in time; the recording itself where the robot has no rule.

    Raises:
        DataError: the rule names a stream that the log has not, or finds no episode.
    """
    if rule is None:
        return [recording]
    spans = episode_spans(recording, rule)
    if not spans:
        raise DataError(f"{recording.key}: no episode in it by {_words(rule)}. Mend `episodes` in the robot's file.")
    first, last = _extent(recording)
    outside_s = (last - first - sum(b - a for a, b in spans)) / 1e9
    parts = [part_of(recording, span, f"{recording.key}-{number:03d}") for number, span in enumerate(spans)]
    if outside_s > 0.1:
        message = f"{outside_s:.1f} s of the recording lie in none of its {len(spans)} episodes: left out"
        found = Finding("outside_episodes", "info", recording.key, message)
        parts[0] = replace(parts[0], findings=(*parts[0].findings, found))
    return parts


def episode_spans(recording: Episode, rule: EpisodeCut) -> list[Span]:
    """Spans of the episodes, in order, not overlapping.

    Raises:
        DataError: the rule names a stream that the log has not.
    """
    first, last = _extent(recording)
    if rule.split_on is not None:
        edges = [*_changes(recording, rule.split_on), last]
        spans = list(zip(edges[:-1], edges[1:], strict=True))
    elif rule.start is not None or rule.stop is not None:
        starts = _messages(recording, rule.start) if rule.start else None
        stops = _messages(recording, rule.stop) if rule.stop else None
        spans = _between(starts, stops, first, last)
    else:
        spans = [(first, last)]
    if rule.gap_s is not None:
        holes = _pauses(recording, rule.gap_s)
        spans = [piece for span in spans for piece in _without(span, holes)]
    return [(a, b) for a, b in spans if a < b]


def part_of(recording: Episode, span: Span, key: str) -> Episode:
    """What of a recording lies in a span, as an episode of its own; streams and cameras without anything there go."""
    start, stop = span
    streams = {n: s for n, whole in recording.streams.items() if (s := _stream_part(whole, start, stop)) is not None}
    videos = {n: v for n, whole in recording.videos.items() if (v := _footage_part(whole, start, stop)) is not None}
    texts = tuple(
        replace(t, start_ns=max(t.start_ns, start), stop_ns=min(t.stop_ns, stop))
        for t in recording.texts
        if t.start_ns < stop and t.stop_ns > start
    )
    rows = max((len(s.t_ns) for s in streams.values()), default=0)
    return replace(
        recording,
        key=key,
        streams=streams,
        videos=videos,
        texts=texts,
        use=tuple(
            replace(u, start_ns=max(u.start_ns, start), stop_ns=min(u.stop_ns, stop))
            for u in recording.use
            if u.start_ns < stop and u.stop_ns > start
        ),
        events=tuple(e for e in recording.events if start <= e.t_ns < stop),
        rows=(0, rows),
        source_sha256=content_sha256(streams, texts, f"{recording.source_sha256} {start} {stop}".encode()),
    )


def _between(starts: Int64 | None, stops: Int64 | None, first: int, last: int) -> list[Span]:
    """From each start to the next stop, to the next start where none comes before it, or to the end."""
    if starts is None:
        edges = [first, *(int(t) for t in stops)] if stops is not None else [first, last]
        return list(zip(edges[:-1], edges[1:], strict=True))
    spans = []
    for at, start in enumerate(starts):
        ends = [int(starts[at + 1]) if at + 1 < len(starts) else last]
        ends += [int(t) for t in stops if t > start][:1] if stops is not None else []
        spans.append((int(start), min(ends)))
    return spans


def _changes(recording: Episode, name: str) -> list[int]:
    """Times at which a stream or a kind of event takes another value, from its first."""
    events = [e for e in recording.events if e.name == name]
    if events:
        return [e.t_ns for at, e in enumerate(events) if at == 0 or e.value != events[at - 1].value]
    stream = _stream(recording, name)
    changes = np.flatnonzero((np.diff(stream.values, axis=0) != 0).any(axis=1)) + 1
    return [int(stream.t_ns[0]), *(int(t) for t in stream.t_ns[changes])]


def _messages(recording: Episode, word: str) -> Int64:
    """Times of the messages of `NAME` or `NAME=VALUE`."""
    name, equals, value = word.partition("=")
    events = [e for e in recording.events if e.name == name]
    if events:
        return np.array([e.t_ns for e in events if not equals or e.value == value], np.int64)
    stream = _stream(recording, name)
    if not equals:
        return stream.t_ns
    try:
        return stream.t_ns[stream.values[:, 0] == np.float32(value)]
    except ValueError:
        raise DataError(f"{recording.key}: {name!r} holds numbers, `episodes` asks for {value!r}. Mend it.") from None


def _stream(recording: Episode, name: str) -> Stream:
    if name not in recording.streams:
        there = ", ".join(list(dict.fromkeys([*recording.streams, *(e.name for e in recording.events)]))[:6]) or "none"
        raise DataError(f"{recording.key}: `episodes` names stream {name!r}, the log has {there}. Mend it.")
    return recording.streams[name]


def _pauses(recording: Episode, gap_s: float) -> list[Span]:
    """Where no stream and no camera says anything for longer than `gap_s`."""
    times = np.unique(np.concatenate(recording.clocks))
    wide = np.flatnonzero(np.diff(times) > gap_s * 1e9)
    return [(int(times[at]) + 1, int(times[at + 1])) for at in wide]


def _without(span: Span, holes: list[Span]) -> list[Span]:
    pieces, start = [], span[0]
    for low, high in holes:
        if start < high and low < span[1]:
            pieces.append((start, low))
            start = high
    return [*pieces, (start, span[1])]


def _stream_part(stream: Stream, start: int, stop: int) -> Stream | None:
    low, high = np.searchsorted(stream.t_ns, [start, stop])
    if low == high:
        return None
    return replace(stream, t_ns=stream.t_ns[low:high].copy(), values=stream.values[low:high].copy())


def _footage_part(footage: Footage, start: int, stop: int) -> Footage | None:
    low, high = (int(i) for i in np.searchsorted(footage.t_ns, [start, stop]))
    if low == high:
        return None
    if isinstance(footage, Video):
        return replace(footage, t_ns=footage.t_ns[low:high].copy(), first_frame=footage.first_frame + low)
    return _pictures_part(footage, low, high)


def _pictures_part(pictures: Pictures, low: int, high: int) -> Pictures:
    keys = None if pictures.is_key is None else np.flatnonzero(pictures.is_key[: low + 1])
    begin = int(keys[-1]) if keys is not None and len(keys) else low
    return replace(
        pictures,
        t_ns=pictures.t_ns[begin:high].copy(),
        load=lambda a, b: pictures.load(begin + a, begin + b),
        is_key=None if pictures.is_key is None else pictures.is_key[begin:high].copy(),
    )


def _extent(recording: Episode) -> Span:
    clocks = recording.clocks
    if not clocks:
        raise DataError(f"{recording.key}: holds no messages. Drop it.")
    return min(int(t[0]) for t in clocks), max(int(t[-1]) for t in clocks) + 1


def _words(rule: EpisodeCut) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in rule.as_dict().items() if value is not None) or "any rule"
