"""Episodes are cut out of recordings by events, values, pauses; nothing is lost without being said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robots import episode

from schemas.embodiment import EpisodeCut
from schemas.episode import Episode, Event, Pictures, Stream, Text, Video
from schemas.errors import DataError
from wamdata.cutting import cut_recording, episode_spans

SECOND = 10**9


def recording(**streams: list[tuple[float, float]]) -> Episode:
    """20 s of state and action at 10 Hz, and event streams of (second, value)."""
    base = episode(rows=200, hz=10.0)
    events = {
        name: Stream(
            name,
            np.array([round(t * SECOND) for t, _ in said], np.int64),
            np.array([[v] for _, v in said], np.float32),
        )
        for name, said in streams.items()
    }
    return replace(base, streams=base.streams | events, session="morning")


def seconds(parts: list[Episode]) -> list[tuple[float, float]]:
    clocks = [p.streams["state"].t_ns for p in parts]
    return [(int(t[0]) / SECOND, int(t[-1]) / SECOND) for t in clocks]


def test_without_a_rule_a_recording_is_one_episode() -> None:
    whole = recording()
    assert cut_recording(whole, None) == [whole]


def test_events_start_and_stop_episodes() -> None:
    log = recording(begin=[(2, 1), (10, 1)], end=[(5, 1), (14, 1)])
    parts = cut_recording(log, EpisodeCut(start="begin", stop="end"))
    assert seconds(parts) == [(2.0, 4.9), (10.0, 13.9)]
    assert [p.key for p in parts] == [f"{log.key}-000", f"{log.key}-001"]
    assert {p.session for p in parts} == {"morning"} and len({p.source_sha256 for p in parts}) == 2
    assert "12.9 s of the recording lie in none of its 2 episodes" in parts[0].findings[-1].message


def test_a_value_picks_out_its_events() -> None:
    log = recording(event=[(2, 1), (4, 2), (6, 3), (8, 1), (9, 2)])
    assert seconds(cut_recording(log, EpisodeCut(start="event=1", stop="event=2"))) == [(2.0, 3.9), (8.0, 8.9)]


def test_words_pick_out_events_too() -> None:
    said = [(2, "go"), (5, "done"), (10, "go"), (14, "failed"), (15, "done")]
    log = replace(recording(), events=tuple(Event("/try", t * SECOND, word) for t, word in said))
    parts = cut_recording(log, EpisodeCut(start="/try=go", stop="/try=done"))
    assert seconds(parts) == [(2.0, 4.9), (10.0, 14.9)]
    assert [e.value for e in parts[1].events] == ["go", "failed"]


def test_a_change_of_word_starts_an_episode() -> None:
    said = [(0, "cup"), (3, "cup"), (6, "plate"), (12, "cup")]
    log = replace(recording(), events=tuple(Event("/task", t * SECOND, word) for t, word in said))
    assert seconds(cut_recording(log, EpisodeCut(split_on="/task"))) == [(0.0, 5.9), (6.0, 11.9), (12.0, 19.9)]


def test_a_start_without_a_stop_ends_at_the_next_start() -> None:
    log = recording(begin=[(2, 1), (10, 1)])
    assert seconds(cut_recording(log, EpisodeCut(start="begin"))) == [(2.0, 9.9), (10.0, 19.9)]


def test_a_change_of_value_starts_an_episode() -> None:
    log = recording(number=[(0, 0), (3, 0), (7, 1), (12, 2)])
    assert seconds(cut_recording(log, EpisodeCut(split_on="number"))) == [(0.0, 6.9), (7.0, 11.9), (12.0, 19.9)]


def test_a_pause_of_all_streams_lies_between_episodes() -> None:
    log = recording()
    keep = np.r_[0:50, 90:200]
    streams = {n: Stream(n, s.t_ns[keep].copy(), s.values[keep].copy()) for n, s in log.streams.items()}
    parts = cut_recording(replace(log, streams=streams), EpisodeCut(gap_s=1.0))
    assert seconds(parts) == [(0.0, 4.9), (9.0, 19.9)]
    assert len(cut_recording(replace(log, streams=streams), EpisodeCut(gap_s=5.0))) == 1


def test_texts_and_cameras_are_cut_along() -> None:
    log = recording(begin=[(5, 1)], end=[(10, 1)])
    t_ns = (np.arange(600) * SECOND / 30).astype(np.int64)
    film = Video(Path("x.mp4"), t_ns, 7, "h264", 64, 48)
    keys = np.arange(600) % 100 == 0
    coded = Pictures(t_ns, "h264", 64, 48, lambda a, b: [str(i).encode() for i in range(a, b)], keys)
    log = replace(log, videos={"film": film, "coded": coded}, texts=(Text("go", 0, 20 * SECOND),))
    (part,) = cut_recording(log, EpisodeCut(start="begin", stop="end"))
    assert (part.videos["film"].first_frame, len(part.videos["film"].t_ns)) == (157, 150)
    pictures = part.videos["coded"]
    assert pictures.load(0, 1) == [b"100"] and pictures.is_key[0] and len(pictures.t_ns) == 200
    assert (part.texts[0].start_ns, part.texts[0].stop_ns) == (5 * SECOND, 10 * SECOND)


def test_a_rule_that_fits_nothing_says_so() -> None:
    with pytest.raises(DataError, match="`episodes` names stream 'begin', the log has state, action"):
        cut_recording(recording(), EpisodeCut(start="begin"))
    with pytest.raises(DataError, match=r"no episode in it by start 'event=9'\. Mend `episodes`"):
        cut_recording(recording(event=[(1, 1)]), EpisodeCut(start="event=9"))
    with pytest.raises(DataError, match="'event' holds numbers, `episodes` asks for 'go'"):
        cut_recording(recording(event=[(1, 1)]), EpisodeCut(start="event=go"))


@pytest.mark.parametrize("wrong", [{"split_on": "a", "start": "b"}, {"gap_s": 0}])
def test_rules_that_contradict_themselves_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        EpisodeCut.model_validate(wrong)


@given(
    starts=st.lists(st.integers(0, 199), min_size=1, max_size=8, unique=True),
    stops=st.lists(st.integers(0, 199), min_size=1, max_size=8, unique=True),
    gap=st.sampled_from([None, 0.05, 1.0]),
)
def test_episodes_never_overlap_and_lie_inside(starts: list[int], stops: list[int], gap: float | None) -> None:
    log = recording(begin=[(t / 10, 1) for t in sorted(starts)], end=[(t / 10, 1) for t in sorted(stops)])
    spans = episode_spans(log, EpisodeCut(start="begin", stop="end", gap_s=gap))
    flat = [t for span in spans for t in span]
    assert flat == sorted(flat) and all(a < b for a, b in spans)
    assert all(a >= 0 and b <= 20 * SECOND for a, b in spans)
