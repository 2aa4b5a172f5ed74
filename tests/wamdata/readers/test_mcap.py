"""MCAP recordings by third-party writers: what they become, and what is said of those that are broken or mean harm."""

import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import samples.mcap as made
from mcap.writer import Writer
from samples.mcap import DELAY_NS, HEIGHT, JOINTS, START_NS, WIDTH, Message, rig, write_ros2

from schemas.embodiment import EpisodeCut
from schemas.episode import Episode
from schemas.errors import DataError
from wamdata.cutting import cut_recording
from wamdata.footage import cut, frames
from wamdata.readers import detect_reader
from wamdata.readers.mcap import reader as mcap
from wamdata.source import Source

WRIST = "/camera/wrist/compressed"


def only(place: Path) -> Episode:
    (ref,) = mcap.list_episodes(Source.at(place)).episodes
    return mcap.read(ref)


def codes(episode: Episode) -> list[str]:
    return [f.code for f in episode.findings]


def far(pictures: np.ndarray, numbers: list[int]) -> float:
    wanted = np.stack([made.picture(n) for n in numbers])
    return float(np.abs(pictures.astype(int) - wanted).mean(axis=(1, 2, 3)).max())


def changed(messages: Iterator[Message], topic: str, **fields: object) -> Iterator[Message]:
    """The messages, with fields of a topic's replaced; a function of the time gives each its own."""
    for at, name, kind, content in messages:
        new = {n: v(at) if callable(v) else v for n, v in fields.items()} if name == topic else {}
        yield at, name, kind, content | new


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return only(made.robot(tmp_path_factory.mktemp("robot")))


def test_joint_states_become_streams_named_by_their_joints(robot: Episode) -> None:
    assert sorted(robot.streams) == ["/command", "/joint_states.position", "/joint_states.velocity"]
    position = robot.streams["/joint_states.position"]
    assert position.columns == tuple(JOINTS) and robot.streams["/command"].columns == ()
    assert np.allclose(position.values[7], [0.14, 0.24, 0.34])
    assert np.allclose(robot.streams["/command"].values[7], [0.15, 0.5, -0.5])


def test_stamps_in_messages_are_the_clock_and_log_times_where_there_are_none(robot: Episode) -> None:
    assert robot.streams["/joint_states.position"].t_ns[3] == START_NS + 60_000_000
    assert robot.streams["/command"].t_ns[3] == START_NS + 60_000_000 + DELAY_NS


def test_a_camera_keeps_its_pictures_byte_for_byte(robot: Episode) -> None:
    video = robot.videos[WRIST]
    assert (video.codec, video.width, video.height, len(video.t_ns)) == ("mjpeg", WIDTH, HEIGHT, 15)
    assert [bytes(p) for p in video.load(4, 9)] == [made.jpeg(n) for n in range(4, 9)]
    assert video.load(14, 15) == [made.jpeg(14)] and video.load(0, 1) == [made.jpeg(0)]
    assert far(frames(video, [3, 11]), [3, 11]) < 4


def test_words_are_events_and_instructions_are_texts(robot: Episode) -> None:
    assert [(e.name, e.value) for e in robot.events] == [
        ("/instruction", "pick up the cup"), ("/episode", "start"), ("/episode", "stop"),
    ]  # fmt: skip
    (text,) = robot.texts
    assert (text.text, text.level, text.origin) == ("pick up the cup", "task", "/instruction")
    assert text.stop_ns == max(int(t[-1]) for t in robot.clocks) + 1


def test_a_recording_is_cut_by_its_words(robot: Episode) -> None:
    (part,) = cut_recording(robot, EpisodeCut(start="/episode=start", stop="/episode=stop"))
    assert len(part.streams["/command"].t_ns) == 35 and part.texts[0].text == "pick up the cup"


def test_a_recording_without_summary_is_read_up_to_where_it_was_cut(tmp_path: Path, robot: Episode) -> None:
    killed = only(made.truncated(tmp_path))
    assert "damaged_recording" in codes(killed) and "is cut off at byte" in killed.findings[0].message
    stream = killed.streams["/command"]
    assert 10 < len(stream.t_ns) < 50
    assert np.array_equal(stream.values, robot.streams["/command"].values[: len(stream.t_ns)])
    assert far(frames(killed.videos[WRIST], [0, 2]), [0, 2]) < 4


def test_a_damaged_chunk_is_passed_over_and_told(tmp_path: Path) -> None:
    path = made.robot(tmp_path)
    content = bytearray(path.read_bytes())
    at = len(content) // 3
    content[at : at + 32] = bytes(32)
    path.write_bytes(content)
    episode = only(path)
    assert "damaged_recording" in codes(episode) and "is damaged at byte" in episode.findings[0].message
    assert 0 < len(episode.streams["/command"].t_ns) < 50


def test_parts_of_a_split_bag_are_one_recording(tmp_path: Path, robot: Episode) -> None:
    folder = made.split(tmp_path)
    listing = mcap.list_episodes(Source.at(folder))
    assert [r.key for r in listing.episodes] == ["night"] and "split_recording" in [f.code for f in listing.findings]
    night = only(folder)
    assert np.array_equal(night.streams["/command"].values, robot.streams["/command"].values)
    assert night.videos[WRIST].load(0, 15) == robot.videos[WRIST].load(0, 15)


def test_numbered_files_are_one_recording_only_without_a_pause_between_them(tmp_path: Path) -> None:
    assert [r.key for r in mcap.list_episodes(Source.at(made.two(tmp_path))).episodes] == ["episode_0", "episode_1"]
    folder, messages = tmp_path / "parts", list(rig())
    folder.mkdir()
    for number, part in enumerate((messages[:60], messages[60:])):
        write_ros2(folder / f"pour_{number}.mcap", iter(part))
    assert [r.key for r in mcap.list_episodes(Source.at(folder)).episodes] == ["pour"]


def test_a_part_that_metadata_names_and_that_is_gone_is_told(tmp_path: Path) -> None:
    folder = made.split(tmp_path)
    names = "\n".join(f"  - night_{n}.mcap" for n in range(3))
    (folder / "metadata.yaml").write_text(f"rosbag2_bagfile_information:\n  relative_file_paths:\n{names}\n")
    episode = only(folder)
    assert [f.message for f in episode.findings if f.code == "missing_part"] == [
        f"{folder}/night_2.mcap: named by metadata.yaml and not there. The rest is read"
    ]


def test_packets_of_foxglove_become_a_video_that_can_be_cut_anywhere(tmp_path: Path) -> None:
    film = only(made.video(tmp_path))
    camera = film.videos["/camera"]
    assert camera.codec == "h264" and np.flatnonzero(camera.is_key).tolist() == [0, 8, 16]
    assert far(frames(camera, [2, 9, 19]), [2, 9, 19]) < 4
    part, lead = cut(camera, 9, 12)  # begins at the second key frame, which lacks parameter sets
    assert lead == 1 and len(part) > 500
    assert film.streams["/joints.position"].columns == tuple(JOINTS)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_packets_in_pieces_are_put_together(tmp_path: Path, codec: str, pieces: int) -> None:
    coded, parameters = made.packets(codec)
    name = {"libx264": "h264", "libx265": "hevc"}[codec]
    messages = made.packet_messages((parameters + coded[0], *coded[1:]), pieces=pieces, encoding=name)
    camera = only(write_ros2(tmp_path / "a.mcap", messages)).videos["/cam/ffmpeg"]
    assert (len(camera.t_ns), np.flatnonzero(camera.is_key).tolist()) == (20, [0, 8, 16])
    assert camera.t_ns[5] == START_NS + 250_000_000
    assert far(frames(camera, [0, 9, 19]), [0, 9, 19]) < 5


def test_parameter_sets_in_a_message_of_their_own_belong_to_the_next_frame(tmp_path: Path) -> None:
    coded, parameters = made.packets()
    messages = list(made.packet_messages(coded, encoding="h264"))
    alone = (START_NS - 10**8, *messages[0][1:3], messages[0][3] | {"data": parameters, "header": made.header(7)})
    camera = only(write_ros2(tmp_path / "a.mcap", iter([alone, *messages]))).videos["/cam/ffmpeg"]
    assert len(camera.t_ns) == 20 and far(frames(camera, [1, 17]), [1, 17]) < 4


def test_packets_before_the_first_key_frame_are_left_out(tmp_path: Path) -> None:
    coded, parameters = made.packets()
    late = (*coded[3:8], parameters + coded[8], *coded[9:])
    episode = only(write_ros2(tmp_path / "a.mcap", made.packet_messages(late, encoding="h264")))
    assert [f.message for f in episode.findings] == [
        "topic /cam/ffmpeg: 5 packets before the first key frame cannot be decoded: left out"
    ]
    assert far(frames(episode.videos["/cam/ffmpeg"], [0, 3]), [8, 11]) < 4


def test_a_stream_with_b_frames_is_left_out(tmp_path: Path) -> None:
    coded, parameters = made.packets(bframes=2)
    messages = made.packet_messages((parameters + coded[0], *coded[1:]), encoding="h264")
    episode = only(write_ros2(tmp_path / "a.mcap", messages))
    assert not episode.videos and "(B-frames)" in episode.findings[0].message


def test_codecs_that_are_not_read_are_told(tmp_path: Path) -> None:
    episode = only(write_ros2(tmp_path / "a.mcap", made.packet_messages((b"xx",) * 3, encoding="av1")))
    assert "video codec av1 is not read (H.264 and HEVC are)" in episode.findings[0].message


def test_json_needs_no_schema(tmp_path: Path) -> None:
    episode = only(made.json_rig(tmp_path))
    assert episode.streams["/state"].columns == ("x", "y") and episode.streams["/state.grip"].values.shape == (12, 2)
    assert [t.text for t in episode.texts] == ["stack the blocks"]


def test_raw_pictures_lose_their_padding_and_depth_is_left_out(tmp_path: Path) -> None:
    episode = only(made.raw(tmp_path))
    video = episode.videos["/camera/image_raw"]
    assert video.codec == "raw" and np.array_equal(video.load(2, 4), [made.picture(2), made.picture(3)])
    assert [(f.code, f.severity) for f in episode.findings] == [("depth", "info")]


def zero(at: int) -> dict:
    return made.header(0)


def simulated(at: int) -> dict:
    return made.header(at - START_NS + 5_000_000_000)


def jumping(at: int) -> dict:
    return made.header(at - (20_000_000_000 if at > START_NS + 500_000_000 else 0))


@pytest.mark.parametrize(
    "stamp, words",
    [(zero, "stamps are zero"), (simulated, "over an hour outside"), (jumping, "step back 1 times")],
    ids=["zero", "simulated", "jump"],
)
def test_stamps_that_are_no_clock_are_passed_over(tmp_path: Path, stamp: object, words: str) -> None:
    def messages() -> Iterator[Message]:
        for at, topic, kind, content in rig():
            if topic == "/joint_states":
                content = content | {"header": stamp(at)}  # type: ignore[operator]
            yield at, topic, kind, content

    mixed = list(messages())
    if words == "stamps are zero":  # some are zero, as of a driver that starts
        mixed = [m if i % 3 else n for i, (m, n) in enumerate(zip(mixed, rig(), strict=True))]
    episode = only(write_ros2(tmp_path / "a.mcap", iter(mixed)))
    stream = episode.streams["/joint_states.position"]
    assert stream.t_ns[2] == START_NS + 40_000_000 + DELAY_NS
    assert [f.code for f in episode.findings if words in f.message] == ["clock_of_recorder"]


def test_a_clock_that_is_far_from_the_recorders_is_told(tmp_path: Path) -> None:
    shifted = ((at + 300_000_000, *rest) for at, *rest in rig())
    episode = only(write_ros2(tmp_path / "a.mcap", shifted))
    assert codes(episode) == ["clock_apart", "clock_apart"] and "304 ms apart" in episode.findings[0].message
    assert episode.streams["/joint_states.position"].t_ns[0] == START_NS


def test_names_in_another_order_are_put_right_and_other_names_left_out(tmp_path: Path) -> None:
    def messages() -> Iterator[Message]:
        for number, (at, topic, kind, content) in enumerate(rig()):
            if topic == "/joint_states" and number % 4 == 3:
                content = content | {"name": JOINTS[::-1], "position": content["position"][::-1]}
            if topic == "/joint_states" and number % 10 == 7:
                content = content | {"name": ["base", "elbow", "wrist"]}
            yield at, topic, kind, content

    episode = only(write_ros2(tmp_path / "a.mcap", messages()))
    stream = episode.streams["/joint_states.position"]
    assert stream.columns == tuple(JOINTS) and (np.diff(stream.values, axis=1) > 0).all()
    assert len(stream.t_ns) < 50 and "other_names" in codes(episode)


def test_the_same_time_twice_is_one_row_and_told(tmp_path: Path) -> None:
    twice = (m for m in rig() for _ in range(2 if m[1] == "/command" else 1))
    episode = only(write_ros2(tmp_path / "a.mcap", twice))
    assert len(episode.streams["/command"].t_ns) == 50
    assert ["50 of 100 messages" in f.message for f in episode.findings] == [True]


def test_a_camera_that_changes_its_size_keeps_the_first(tmp_path: Path) -> None:
    small = made.io.BytesIO()
    made.Image.fromarray(made.picture(0)[:24, :32]).save(small, "JPEG")
    pictures = changed(rig(), WRIST, data=lambda at: small.getvalue() if at > START_NS + 8 * 10**8 else made.jpeg(0))
    episode = only(write_ros2(tmp_path / "a.mcap", pictures))
    assert len(episode.videos[WRIST].t_ns) == 12 and "3 frames are not mjpeg of 64 x 48" in episode.findings[0].message


def test_other_encodings_are_a_finding_of_their_topic(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        for name, coding in (("/good", "json"), ("/odd", "flatbuffer")):
            channel = writer.register_channel(name, coding, 0)
            for at in range(3):
                writer.add_message(channel, at + 1, b'{"x": 1}', at + 1)
        writer.finish()
    episode = only(path)
    assert list(episode.streams) == ["/good"] and codes(episode) == ["unreadable_messages"]
    assert "3 messages left out: messages coded as 'flatbuffer' are not read" in episode.findings[0].message


def test_a_lone_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = made.robot(tmp_path).rename(tmp_path / "log.bin")
    assert detect_reader(Source.at(path)) is mcap


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git-LFS pointer"),
        (b"#!/bin/sh\n" * 40, "not an MCAP file"),
        (b"\x89MCAP0\r\n", "holds no messages"),
        (b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, 10**9) + b"x" * 50, "is cut off at byte 8"),
        (b"\x89MCAP0\r\n" + struct.pack("<BQ", 5, 1 << 63) + b"x" * 50, "is cut off at byte 8"),
        (b"\x89MCAP0\r\n" + struct.pack("<BQHIQQ", 5, 22, 9, 0, 1, 1), "no channel 9"),
    ],
)
def test_a_file_that_is_no_recording_says_why_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.mcap"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        only(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_chunk_that_declares_too_much_is_not_unpacked(tmp_path: Path) -> None:
    chunk = struct.pack("<QQQII", 1, 2, 1 << 40, 0, 4) + b"zstd" + struct.pack("<Q", 4) + b"\x28\xb5\x2f\xfd"
    path = tmp_path / "bomb.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(chunk)) + chunk)
    with pytest.raises(DataError, match="declares 1099511627776 bytes"):
        only(path)


def test_a_file_that_changed_since_it_was_read_is_named(tmp_path: Path) -> None:
    path = made.robot(tmp_path)
    video = only(path).videos[WRIST]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"kitchen.mcap: .*List the source again"):
        video.load(10, 11)


def test_a_camera_can_be_sent_to_a_worker(robot: Episode) -> None:
    video = robot.videos[WRIST]
    assert pickle.loads(pickle.dumps(video)).load(2, 3) == video.load(2, 3)
