"""ROS bags: twins of one rig in every storage, real bags against the verdicts written before the reader, damage."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import samples.mcap as made
import samples.rosbag as bags
import yaml
from samples.rosbag import REAL

from schemas.episode import Episode
from schemas.errors import DataError, UsageError
from wamdata.readers import detect_reader
from wamdata.readers.rosbag import reader as rosbag
from wamdata.source import Source

EXPECTED = yaml.safe_load((REAL.parent / "expected.yaml").read_text())
HERE = {n: e for n, e in EXPECTED.items() if n.startswith("rosbag") and (REAL / n).exists()}
WRIST = "/camera/wrist/compressed"


def only(place: Path) -> Episode:
    source = Source.at(place)
    reader = detect_reader(source)
    (ref,) = reader.list_episodes(source).episodes
    return reader.read(ref)


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return only(made.robot(tmp_path_factory.mktemp("robot")))


@pytest.mark.parametrize("storage", ["ros1", "ros2", "packed_messages", "packed_files"])
def test_the_same_rig_reads_the_same_from_every_storage(tmp_path: Path, storage: str, robot: Episode) -> None:
    twin = only(bags.SAMPLES[storage](tmp_path))
    assert (twin.texts, twin.events, twin.findings) == (robot.texts, robot.events, ())
    assert twin.source_sha256 == robot.source_sha256
    for name, stream in robot.streams.items():
        other = twin.streams[name]
        assert other.columns == stream.columns
        assert np.array_equal(other.t_ns, stream.t_ns) and np.array_equal(other.values, stream.values)
    assert list(twin.videos) == [WRIST] and np.array_equal(twin.videos[WRIST].t_ns, robot.videos[WRIST].t_ns)
    assert twin.videos[WRIST].load(0, 15) == robot.videos[WRIST].load(0, 15)


@pytest.mark.parametrize("name", HERE)
def test_a_real_bag_gives_what_was_foretold(name: str) -> None:
    wanted, source = HERE[name], Source.at(REAL / name)
    if wanted["reader"] == "none":
        with pytest.raises(UsageError, match=wanted["ingest"]):
            detect_reader(source)
        return
    reader = detect_reader(source)
    listing = reader.list_episodes(source)
    assert (reader.NAME, len(listing.episodes)) == (wanted["reader"], wanted["episodes"])
    errors = []
    for ref in listing.episodes:
        try:
            assert not reader.read(ref).videos
        except DataError as error:
            errors.append(str(error))
    assert len(listing.episodes) - len(errors) == wanted["read"]
    assert all(wanted["ingest"] in error for error in errors)


def test_real_bags_were_found() -> None:
    assert len(HERE) == 15


def test_turtles_have_poses_and_frames_of_their_own_clock() -> None:
    episode = only(REAL / "rosbag1/example-lz4.bag")
    assert episode.streams["/turtle1/pose"].columns == ("x", "y", "theta", "linear_velocity", "angular_velocity")
    frames = episode.streams["/tf.world->turtle1"]
    assert frames.columns[0] == "translation.x" and frames.columns[-1] == "rotation.w" and len(frames.t_ns) == 1344


def test_a_ros1_bag_whose_index_is_lost_is_read_from_its_beginning(tmp_path: Path, robot: Episode) -> None:
    path = bags.ros1(tmp_path)
    content = path.read_bytes()
    at = int.from_bytes(content[content.index(b"index_pos=") + 10 :][:8], "little")
    path.write_bytes(content[:at].replace(b"index_pos=" + at.to_bytes(8, "little"), b"index_pos=" + bytes(8)))
    episode = only(path)
    assert [f.code for f in episode.findings] == ["damaged_recording"]
    assert np.array_equal(episode.streams["/command"].values, robot.streams["/command"].values)


def test_a_ros1_bag_is_read_up_to_where_it_was_cut(tmp_path: Path) -> None:
    path = bags.write_ros1(tmp_path / "a.bag", made.rig(12.0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        episode = only(path)
    except DataError as error:
        assert "is cut off at byte" in str(error)
    else:
        assert "is cut off at byte" in episode.findings[0].message


@pytest.mark.parametrize(
    "content, words",
    [
        (b"#ROSBAG V1.2\n" + bytes(40), "not a ROS 1 bag of format 2.0. Convert it"),
        (b"a text, not a bag" * 9, "not a ROS 1 bag of format 2.0. Copy it again"),
        (b"#ROSBAG V2.0\n" + b"\xff" * 40, "is cut off at byte 13"),
        (b"#ROSBAG V2.0\n", "holds no messages"),
    ],
)
def test_a_broken_ros1_bag_says_why_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.bag"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        only(path)


def test_types_that_a_bag_does_not_define_are_looked_up_or_told() -> None:
    talker = only(REAL / "rosbag2/rosbag2_py/test/resources/sqlite3/talker")
    assert [e.name for e in talker.events] == ["/topic"] * 10 and talker.events[0].value.startswith("Hello, world!")
    other = only(REAL / "rosbag2/rosbag2_py/test/resources/sqlite3/convert_a")
    assert "the bag does not define test_msgs/msg/Empty" in " ".join(f.message for f in other.findings)


def test_other_databases_are_no_bags(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "cache.db3") as base:
        base.execute("CREATE TABLE other (x)")
    with pytest.raises(UsageError, match="no robot log or video found"):
        detect_reader(Source.at(tmp_path))


def test_a_bag_with_a_journal_beside_it_is_told(tmp_path: Path) -> None:
    folder = bags.ros2(tmp_path)
    (file,) = folder.glob("*.db3")
    file.with_name(f"{file.name}-wal").write_bytes(b"x" * 64)
    assert "has messages in kitchen.db3-wal that are not in it yet" in only(folder).findings[0].message


def test_a_cut_database_is_refused_or_read_up_to_there(tmp_path: Path) -> None:
    folder = bags.ros2(tmp_path)
    (file,) = folder.glob("*.db3")
    file.write_bytes(file.read_bytes()[:30_000])
    try:
        assert "is damaged" in only(folder).findings[0].message
    except DataError as error:
        assert "\n" not in str(error) and "kitchen.db3" in str(error)


def test_a_folder_of_bags_is_one_recording_each() -> None:
    source = Source.at(REAL / "rosbag1")
    listing = rosbag.list_episodes(source)
    assert [r.key for r in listing.episodes] == ["empty-file", "example-lz4", "no-messages"]
    assert [f.code for f in listing.findings] == ["stray_file"]


def test_a_packed_message_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    place = bags.SAMPLES["packed_messages"](tmp_path)
    whole = only(place)
    file = next(place.rglob("*.db3"))
    with sqlite3.connect(file) as table:
        rows = table.execute("SELECT id, data FROM messages WHERE topic_id = 1").fetchall()
        number, data = rows[len(rows) // 2]
        table.execute("UPDATE messages SET data = ? WHERE id = ?", (data[:10] + b"\xff" * (len(data) - 10), number))
    table.close()
    episode = only(place)
    lengths = {n: len(s.t_ns) - len(episode.streams[n].t_ns) for n, s in whole.streams.items()}
    pictures = {n: len(v.t_ns) - len(episode.videos[n].t_ns) for n, v in whole.videos.items()}
    words = len(whole.events) + len(whole.texts) - len(episode.events) - len(episode.texts)
    assert sum(lengths.values()) + sum(pictures.values()) + words >= 1


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    import zstandard

    place = bags.SAMPLES["packed_files"](tmp_path)
    packed = next(p for p in place.rglob("*") if p.suffix in (".zstd", ".zst"))
    packed.write_bytes(zstandard.ZstdCompressor(level=3).compress(b"SQLite format 3\0" + bytes(300_000_000)))
    assert packed.stat().st_size < 300_000
    with pytest.raises(DataError, match="expands to more than 1000 times its size"):
        only(place)
