"""Parts that MCAP and ROS bags share: numbers out of messages, clocks, pixels, packets, definitions that mean harm."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.episode import Event
from wamdata.readers.messages.bag import Channel
from wamdata.readers.messages.clock import HOUR_NS, Track, in_order, settle
from wamdata.readers.messages.decoders import BadMessageError, UndecodableError, decoder_of
from wamdata.readers.messages.leaves import leaves, stamp_ns
from wamdata.readers.messages.nal import look
from wamdata.readers.messages.pixels import to_rgb, why_not
from wamdata.readers.messages.tables import Table
from wamdata.readers.messages.topics import Numbers, is_internal, is_service
from wamdata.readers.messages.words import texts_of


def taken(*messages: dict, kind: str = "") -> Numbers:
    topic = Numbers("/t", Track(), kind)
    for number, message in enumerate(messages):
        topic.add(topic.track.add(number, 0), number, message)
    return topic


def streams(topic: Numbers) -> dict:
    t_ns = np.array(topic.track.log_ns, np.int64)
    return {name: table.stream(t_ns) for name, table in topic.tables.items()}


def test_fields_are_columns_less_what_all_begin_with() -> None:
    pose = {"pose": {"position": {"x": 1.0, "y": 2.0}, "orientation": {"w": 1}}, "header": {"seq": 4}}
    ((stream, findings),) = streams(taken(pose, pose)).values()
    assert stream.columns == ("position.x", "position.y", "orientation.w") and not findings
    assert stream.values.tolist() == [[1, 2, 1]] * 2


def test_arrays_that_change_their_length_and_wide_ones_are_left_out() -> None:
    scan = [{"range": 5.0, "ranges": [0.5] * n, "cloud": [0] * 600} for n in (3, 4)]
    found = streams(taken(*scan))
    assert found["/t"][0].columns == ("range",)
    for name in ("/t.ranges", "/t.cloud"):
        stream, (finding,) = found[name]
        assert stream is None and (finding.code, finding.severity) == ("no_signal", "info")


def test_lists_of_messages_that_change_their_length_are_left_out() -> None:
    found = streams(taken(*({"n": 1, "poses": [{"x": 1.0}] * n} for n in (2, 3))))
    stream, (finding,) = found["/t"]
    assert stream.columns == ("n",) and "poses" in finding.message


def test_whole_numbers_that_float32_rounds_are_told() -> None:
    ((stream, (finding,)),) = streams(taken({"ticks": 2**24 + 1, "ok": 2**24})).values()
    assert finding.code == "rounded_numbers" and "ticks holds" in finding.message and stream.values[0, 1] == 2**24


def test_true_is_one_and_what_is_no_number_stays_so() -> None:
    ((stream, _),) = streams(taken({"on": True, "x": float("nan")}, {"on": False, "x": 1e300})).values()
    assert stream.values[:, 0].tolist() == [1, 0] and np.isnan(stream.values[0, 1]) and np.isinf(stream.values[1, 1])


def test_a_field_that_some_messages_lack_is_told() -> None:
    ((stream, (finding,)),) = streams(taken({"a": 1, "b": 2}, {"a": 3})).values()
    assert finding.code == "missing_fields" and np.isnan(stream.values[1, 1])


def test_a_trajectory_commands_its_first_point() -> None:
    point = {"positions": [0.1, 0.2], "velocities": []}
    command = {"joint_names": ["a", "b"], "points": [point, {"positions": [9.0, 9.0]}]}
    ((stream, _),) = streams(taken(command, kind="JointTrajectory")).values()
    assert (stream.name, stream.columns) == ("/t.positions", ("a", "b"))
    assert np.allclose(stream.values, [[0.1, 0.2]])


def test_a_message_of_one_text_or_of_nothing_is_a_word() -> None:
    assert taken({"data": "go"}, {}, {"a": "x", "b": "y"}).words == [(0, "go"), (1, "")]


def test_stamps_are_found_and_are_no_signals() -> None:
    message = {"timestamp": {"sec": 3, "nsec": 5}, "x": 1, "wait": {"seconds": 1, "nanos": 0}}
    assert stamp_ns(message) == 3_000_000_005 and list(leaves(message)) == [("x", 1)]
    assert stamp_ns({"header": {"stamp": {"sec": 1 << 70, "nanosec": 0}}}) == 0


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=40))
def test_in_order_keeps_every_time_once_and_rising(times: list[int]) -> None:
    t_ns = np.array(times, np.int64)
    order, findings = in_order(t_ns, "/t")
    assert t_ns[order].tolist() == sorted(set(times))
    assert bool(findings) == (len(set(times)) < len(times))
    assert all(times.index(times[i]) == i for i in order)


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(-(2**62), 2**62)), min_size=1, max_size=20))
def test_a_clock_lies_within_an_hour_of_the_recording(rows: list[tuple[int, int]]) -> None:
    track = Track()
    for log_ns, stamp in rows:
        track.add(log_ns, stamp)
    logs = [r[0] for r in rows]
    t_ns, _ = settle(track, "/t", (min(logs), max(logs)))
    assert min(logs) - HOUR_NS <= t_ns.min() and t_ns.max() <= max(logs) + HOUR_NS


@given(st.binary(max_size=200), st.sampled_from(["h264", "hevc"]))
def test_any_bytes_can_be_looked_at_as_a_packet(data: bytes, codec: str) -> None:
    packet = look(data, codec)
    assert not packet.is_key or packet.has_slice


def test_slices_and_parameter_sets_are_told_apart() -> None:
    sps, pps, idr, more = b"\x67\x42", b"\x68\xce", b"\x65\x88\x80", b"\x65\x10"
    start = b"\0\0\0\1"
    packet = look(start + sps + start + pps + b"\0\0\1" + idr, "h264")
    assert packet.parameters == ((7, sps), (8, pps)) and packet.is_key and packet.is_first and packet.has_start
    assert not look(start + more, "h264").is_first and not look(b"\x01" + start + idr, "h264").has_start
    assert not look(start + b"\x41\x9a", "h264").is_key


def image(coding: str, cells: np.ndarray, step: int = 0) -> SimpleNamespace:
    return SimpleNamespace(encoding=coding, height=cells.shape[0], width=cells.shape[1], step=step, data=cells)


@pytest.mark.parametrize(
    "coding, cell", [("rgb8", [1, 2, 3]), ("bgr8", [3, 2, 1]), ("rgba8", [1, 2, 3, 9]), ("bgra8", [3, 2, 1, 9])]
)
def test_colours_come_in_the_right_order(coding: str, cell: list[int]) -> None:
    cells = np.tile(np.array(cell, np.uint8), (2, 3, 1))
    assert why_not(image(coding, cells), cells.nbytes) == ""
    assert to_rgb(image(coding, cells), cells.tobytes()).tolist() == [[[1, 2, 3]] * 3] * 2


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_pattern_of_one_colour_gives_that_colour(pattern: str) -> None:
    value = {"r": 10, "g": 20, "b": 30}
    cells = np.tile(np.array([value[c] for c in pattern], np.uint8).reshape(2, 2), (2, 2))
    assert to_rgb(image(f"bayer_{pattern}8", cells), cells.tobytes()).tolist() == [[[10, 20, 30]] * 4] * 4


def test_pictures_that_cannot_be_are_refused() -> None:
    cells = np.zeros((4, 4, 3), np.uint8)
    assert "too few" in why_not(image("rgb8", cells), 40)
    assert "a size of" in why_not(SimpleNamespace(encoding="rgb8", width=10**6, height=10**6, step=0), 9)
    assert why_not(image("32FC1", cells), 48) == "depth" and "not read" in why_not(image("yuv422", cells), 48)


def test_an_instruction_holds_until_the_next_or_the_end() -> None:
    said = ((5, "Pour  tea "), (7, "Pour tea"), (9, "stop"), (12, ""))
    events = tuple(Event("/subtask", t, w) for t, w in said)
    assert [(t.text, t.start_ns, t.stop_ns, t.level) for t in texts_of(events, 20)] == [
        ("Pour tea", 5, 9, "subtask"), ("stop", 9, 12, "subtask"),
    ]  # fmt: skip
    assert texts_of((Event("/chatter", 1, "hi"),), 20) == ()


def test_services_and_ross_own_topics_are_known() -> None:
    assert is_service("/add/_service_event") and is_service("/move/_action/feedback") and not is_service("/action")
    assert is_internal("/rosout") and is_internal("/events/write_split") and not is_internal("/rosout_camera")


@pytest.mark.parametrize(
    "text, words",
    [
        ("pkg/Loop again\n" + "=" * 80 + "\nMSG: pkg/Loop\npkg/Loop again\n", "holds itself"),
        ("string[1000000000] words\n", "absurdly many fields"),
        ("pkg/Gone x\n", "lacks pkg/msg/Gone"),
        ("!!! no definition", "cannot be used"),
    ],
)
def test_definitions_that_mean_harm_are_refused(text: str, words: str) -> None:
    with pytest.raises(UndecodableError, match=words):
        decoder_of(Channel("/t", "pkg/msg/Loop", "cdr", "ros2msg", text.encode()))


def test_a_message_that_declares_too_much_is_one_bad_message() -> None:
    decode = decoder_of(Channel("/t", "pkg/msg/Many", "cdr", "ros2msg", b"float64[] x\n"))
    with pytest.raises(BadMessageError):
        decode(b"\0\1\0\0" + (10**9).to_bytes(4, "little") + bytes(8))


def test_broken_json_is_one_bad_message() -> None:
    decode = decoder_of(Channel("/t", "", "json"))
    for data in (b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(BadMessageError):
            decode(data)
    assert decode(json.dumps(3).encode()) == {"data": 3}


def test_a_table_without_rows_is_no_stream() -> None:
    assert Table("/t", Track()).stream(np.zeros(0, np.int64)) == (None, [])
