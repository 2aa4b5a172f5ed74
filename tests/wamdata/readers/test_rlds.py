"""RLDS: real Bridge records, and records of every encoding that protobuf's own package writes."""

import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples.rlds import (
    CAMERAS,
    DROID_STEPS,
    episodes,
    example,
    example_class,
    image,
    jpeg,
    masked_crc32c,
    real_bridge,
    sequence,
    tensor,
    text,
    tfrecord,
    write_set,
    written_droid,
)

from schemas.episode import Episode, Pictures
from schemas.errors import DataError, UsageError
from wamdata.readers.base import Listing
from wamdata.readers.rlds import reader as rlds
from wamdata.readers.rlds.example import decode_varints, parse_example
from wamdata.readers.rlds.rates import known_rate_hz
from wamdata.source import Source

BRIDGE = real_bridge(Path())
BRIDGE_FILE = "1.0.0/bridge_dataset-train.tfrecord-00000-of-00001"
COUNT = 4


def listed(root: Path) -> Listing:
    return rlds.list_episodes(Source.at(root))


def first(root: Path) -> Episode:
    return rlds.read(listed(root).episodes[0])


def codes(found: Episode | Listing) -> list[str]:
    return [finding.code for finding in found.findings]


def written(root: Path, steps: dict, values: dict[str, Any], *, name: str = "own", **metadata: dict) -> Path:
    """A set with one episode of these steps."""
    return write_set(root / name / "1.0.0", name, episodes(steps, **metadata), {"train": [[example(values)]]})


def marks(*, last: bool) -> dict[str, Any]:
    is_last = np.zeros(COUNT, bool)
    is_last[-1] = last
    return {"steps/is_last": is_last}


def bridge_records() -> list[bytes]:
    content, at, found = (BRIDGE / BRIDGE_FILE).read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        found.append(content[at + 12 : at + 12 + length])
        at += 16 + length
    return found


def oracle(record: bytes) -> Any:
    return example_class().FromString(record).features.feature


def test_the_real_bridge_sample_reads_as_its_records_are() -> None:
    """Facts by protobuf's own package on the same records; their `is_last` is never set, so no row is left out."""
    listing = listed(BRIDGE)
    assert [ref.key for ref in listing.episodes] == [f"train_{n:06d}" for n in range(8)]
    assert listing.hints == {"dataset": "bridge_dataset", "version": "1.0.0", "licence": "MIT", "fps": "5"}
    assert codes(listing) == ["missing_data", "no_clock"] and "val 1 of 1" in listing.findings[0].message
    for ref, record in zip(listing.episodes, bridge_records(), strict=True):
        episode, features = rlds.read(ref), oracle(record)
        assert list(episode.streams) == ["action", "discount", "observation/state", "reward"]
        for name, stream in episode.streams.items():
            assert stream.values.ravel().tolist() == list(features[f"steps/{name}"].float_list.value)
        assert list(episode.videos) == [f"observation/image_{n}" for n in range(4)]
        for name, camera in episode.videos.items():
            assert isinstance(camera, Pictures) and (camera.codec, camera.width, camera.height) == ("mjpeg", 64, 64)
            coded = list(features[f"steps/{name}"].bytes_list.value)
            assert camera.load(0, 10) == coded and camera.load(3, 5) == coded[3:5] and camera.load(9, 10) == coded[9:]
        assert [t.text.encode() for t in episode.texts] == [features["steps/language_instruction"].bytes_list.value[0]]


def test_golden_facts_of_the_first_bridge_episode() -> None:
    episode = first(BRIDGE)
    assert {name: stream.values.shape for name, stream in episode.streams.items()} == {
        "action": (10, 7), "discount": (10, 1), "observation/state": (10, 7), "reward": (10, 1),
    }  # fmt: skip
    assert episode.streams["observation/state"].values[0, 0] == np.float32(0.2338147908449173)
    assert episode.streams["action"].t_ns.tolist() == [n * 200_000_000 for n in range(10)]
    assert (episode.counted_hz, episode.rows, episode.licence, episode.outcome) == (5.0, (0, 10), "MIT", "unknown")
    (said,) = episode.texts
    assert (said.text, said.start_ns, said.stop_ns, said.origin) == (
        "put cup from counter or drying rack into sink", 0, 2_000_000_000, "steps/language_instruction",
    )  # fmt: skip
    assert episode.session.endswith("/put_cup_from_counter_or_drying_rack_into_sink/val")
    assert codes(episode) == ["column_left_out", "zero_first_action", "constant_camera"]
    assert "language_embedding" in episode.findings[0].message and "image_3" in episode.findings[2].message


def test_a_droid_set_leaves_out_the_last_row_and_keeps_its_pictures(tmp_path: Path) -> None:
    root = written_droid(tmp_path)
    listing = listed(root.parent)
    assert [ref.key for ref in listing.episodes] == ["train_00000_000000", "train_00000_000001", "train_00001_000000"]
    assert listing.hints["fps"] == "15" and codes(listing) == ["no_clock"]
    found = [rlds.read(ref) for ref in listing.episodes]
    assert [episode.outcome for episode in found] == ["success", "failure", "success"]
    episode = found[0]
    assert {len(s.t_ns) for s in episode.streams.values()} == {DROID_STEPS - 1} and episode.rows == (0, DROID_STEPS - 1)
    assert episode.streams["action_dict/joint_position"].values.shape == (DROID_STEPS - 1, 7)
    assert list(episode.videos) == [f"observation/{camera}" for camera in CAMERAS]
    assert {(len(v.t_ns), v.width, v.height) for v in episode.videos.values()} == {(DROID_STEPS, 320, 180)}
    assert episode.session.endswith("Fri_Apr_21_10:40:30_2023")
    assert [(t.text, t.origin) for t in episode.texts] == [
        ("Put the marker in the cup", "steps/language_instruction"),
        ("Move the marker into the cup", "steps/language_instruction_2"),
    ]
    assert {(t.start_ns, t.stop_ns) for t in episode.texts} == {(0, 800_000_000)}
    assert found[0].findings == ()


def test_a_tensor_is_the_same_whatever_its_dtype_and_encoding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(COUNT, 2, 3))
    whole = rng.integers(-(2**40), 2**40, (COUNT, 3))
    steps = {
        "is_last": tensor(dtype="bool"),
        "f32": tensor(2, 3),
        "f64": tensor(2, 3, dtype="float64"),
        "f64_bytes": tensor(2, 3, dtype="float64", encoding="bytes"),
        "f64_zlib": tensor(2, 3, dtype="float64", encoding="zlib"),
        "i64": tensor(3, dtype="int64"),
        "i64_bytes": tensor(3, dtype="int64", encoding="bytes"),
        "flag": tensor(dtype="bool"),
        "large": tensor(dtype="uint64"),
        "scalar": tensor(),
    }
    values = {
        **marks(last=False),
        **{f"steps/{name}": plain for name in ("f32", "f64")},
        "steps/f64_bytes": [row.astype("<f8").tobytes() for row in plain],
        "steps/f64_zlib": [zlib.compress(row.astype("<f8").tobytes()) for row in plain],
        "steps/i64": whole,
        "steps/i64_bytes": [row.astype("<i8").tobytes() for row in whole],
        "steps/flag": np.array([True, False, True, True]),
        "steps/large": np.full(COUNT, -1),
        "steps/scalar": plain[:, 0, 0],
    }
    streams = first(written(tmp_path, steps, values)).streams
    wanted = plain.astype(np.float32).reshape(COUNT, 6)
    for name in ("f32", "f64", "f64_bytes", "f64_zlib"):
        assert np.array_equal(streams[name].values, wanted), name
    for name in ("i64", "i64_bytes"):
        assert np.array_equal(streams[name].values, whole.astype(np.float32)), name
    assert streams["flag"].values.ravel().tolist() == [1, 0, 1, 1]
    assert streams["large"].values[0, 0] == np.float32(2**64)
    assert streams["scalar"].values.shape == (COUNT, 1) and "is_last" not in streams


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300)))
def test_packed_integers_are_what_protobuf_packed(numbers: list[int]) -> None:
    found = parse_example(example({"n": np.array(numbers, np.int64)}), "x").ints("n")
    assert found.dtype == np.int64 and found.tolist() == numbers


@given(st.binary(max_size=40))
def test_any_bytes_decode_as_integers_or_are_refused(raw: bytes) -> None:
    try:
        assert len(decode_varints(np.frombuffer(raw, np.uint8), "x")) <= len(raw)
    except DataError as error:
        assert str(error).startswith("x: not a whole tf.train.Example")


@given(st.data())
def test_a_record_with_any_bytes_changed_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    record = bytearray(example({"steps/a": np.arange(8.0), "steps/i": np.arange(-2, 6), "steps/t": ["word"] * 4}))
    for _ in range(data.draw(st.integers(1, 4))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    del record[data.draw(st.integers(0, len(record))) :]
    try:
        found = parse_example(bytes(record), "x")
        for name in found.features:
            for read in (found.floats, found.ints, found.texts):
                try:
                    assert len(read(name)) <= len(record)
                except DataError as error:
                    assert "\n" not in str(error)
    except DataError as error:
        assert str(error).startswith("x: not a whole tf.train.Example")


def test_numbers_one_by_one_are_read_like_packed_ones() -> None:
    floats = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, -2.0))
    ints = b"\x08\x07\x08" + b"\xff" * 9 + b"\x01"

    def entry(name: bytes, kind: int, content: bytes) -> bytes:
        feature = bytes([kind << 3 | 2, len(content)]) + content
        pair = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(feature)]) + feature
        return b"\x0a" + bytes([len(pair)]) + pair

    features = entry(b"f", 2, floats) + entry(b"i", 3, ints)
    record = b"\x0a" + bytes([len(features)]) + features
    assert oracle(record)["i"].int64_list.value[:] == [7, -1]
    found = parse_example(record, "x")
    assert found.floats("f").tolist() == [1.5, -2.0] and found.ints("i").tolist() == [7, -1]


@pytest.mark.parametrize(
    "record",
    [
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a length of 2^63 - 1
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of more than ten bytes
        b"\x0b\x0c",  # a group
        b"\x0a\x05\x0a",
        b"\x0a",
        b"\x02\x01a",  # field 0
        b"\x0d\x00",
    ],
)
def test_hostile_bytes_are_refused(record: bytes) -> None:
    with pytest.raises(DataError, match=r"^x: not a whole tf\.train\.Example \(.*\)\. Copy the file again"):
        parse_example(record, "x")


def test_sequences_inside_steps_are_streams_where_they_are_equally_long(tmp_path: Path) -> None:
    values = {
        **marks(last=True),
        "steps/even/ragged_flat_values": np.arange(COUNT * 4.0),
        "steps/even/ragged_row_lengths_0": np.full(COUNT, 2),
        "steps/uneven/ragged_flat_values": np.arange(6.0),
        "steps/uneven/ragged_row_lengths_0": np.array([3, 0, 2, 1]),
    }
    steps = {"is_last": tensor(dtype="bool"), "even": sequence(tensor(2)), "uneven": sequence(tensor())}
    episode = first(written(tmp_path, steps, values))
    assert episode.streams["even"].values.tolist() == np.arange(12.0).reshape(3, 4).tolist()
    assert list(episode.streams) == ["even"] and "column_left_out" in codes(episode)
    assert any("uneven: of changing length" in finding.message for finding in episode.findings)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = {
        "action": tensor(2),
        "never": tensor(2),
        "language_embedding": tensor(512),
        "wide": tensor(64, 64),
        "half": tensor(3, dtype="bfloat16"),
        "depth": image(4, 4, 1, dtype="uint16", encoding="png"),
        "gone": image(4, 4, 3),
        "broken": image(4, 4, 3),
        "holes": image(-1, -1, 3),
    }
    values = {
        "steps/action": np.arange(1.0, 9.0),
        "steps/language_embedding": np.zeros(COUNT * 512),
        "steps/wide": np.zeros(COUNT * 4096),
        "steps/half": np.zeros(COUNT * 3),
        "steps/depth": [b"x"] * COUNT,
        "steps/gone": [b""] * COUNT,
        "steps/broken": [b"not a picture"] * COUNT,
        "steps/holes": [b"", *(jpeg(rng, 32, 24) for _ in range(3))],
    }
    episode = first(written(tmp_path, steps, values))
    assert list(episode.streams) == ["action"] and list(episode.videos) == ["holes"]
    assert (episode.videos["holes"].width, episode.videos["holes"].height) == (32, 24)
    said = {finding.message.partition(":")[0].removeprefix("steps/"): finding.code for finding in episode.findings}
    assert said == {
        "language_embedding": "column_left_out", "never": "column_left_out", "wide": "column_left_out",
        "half": "column_left_out", "depth": "depth_left_out", "gone": "missing_video", "broken": "corrupt_video",
        "holes": "corrupt_video", "no instruction. Give one with `task": "blank_text",
    }  # fmt: skip


def test_instructions_are_spans_of_equal_text(tmp_path: Path) -> None:
    steps = {
        "action": tensor(2),
        "language_instruction": text(),
        "spelt_instruction": tensor(32, dtype="int32"),
        "natural_language_embedding": tensor(512),
        "task_id": text(),
    }
    spelt = np.zeros((COUNT, 32), np.int64)
    spelt[:, :4] = list(b"push")
    values = {
        "steps/action": np.arange(1.0, 9.0),
        "steps/language_instruction": ["open", "open", "", "close"],
        "steps/spelt_instruction": spelt,
        "steps/task_id": ["t0"] * COUNT,
        "episode_metadata/task": ["tidy up"],
    }
    episode = first(written(tmp_path, steps, values, task=text()))
    assert [(t.text, t.start_ns, t.stop_ns, t.origin) for t in episode.texts] == [
        ("open", 0, 200_000_000, "steps/language_instruction"),
        ("close", 300_000_000, 400_000_000, "steps/language_instruction"),
        ("push", 0, 400_000_000, "steps/spelt_instruction"),
        ("tidy up", 0, 400_000_000, "episode_metadata/task"),
    ]
    assert "blank_text" not in codes(episode) and "spelt_instruction" not in episode.streams


def test_an_instruction_that_the_record_lacks_is_blank(tmp_path: Path) -> None:
    steps = {"action": tensor(2), "language_instruction": text()}
    episode = first(written(tmp_path, steps, {"steps/action": np.arange(1.0, 9.0)}))
    assert episode.texts == () and episode.findings[-1].message.startswith("no instruction. Give one with `task:`")


def test_a_class_label_that_names_a_task_is_read_by_its_names(tmp_path: Path) -> None:
    label = {"pythonClassName": "x.class_label_feature.ClassLabel", "classLabel": {"numClasses": "2"}}
    values = {"steps/action": np.arange(1.0, 9.0), "episode_metadata/task": np.array([1])}
    root = written(tmp_path, {"action": tensor(2)}, values, task=label)
    assert codes(first(root)) == ["blank_text"]
    (root / "episode_metadata-task.labels.txt").write_text("open\nclose\n")
    assert [t.text for t in first(root).texts] == ["close"]


def test_steps_without_a_known_rate_are_counted_at_10_hz_and_say_so(tmp_path: Path) -> None:
    root = written(tmp_path, {"action": tensor(2)}, {"steps/action": np.arange(1.0, 9.0)})
    listing = listed(root)
    (finding,) = listing.findings
    assert (finding.code, finding.severity) == ("no_clock", "warning") and "`native_hz`" in finding.message
    assert "fps" not in listing.hints and first(root).counted_hz == 10.0


def test_rates_are_found_by_the_name_of_the_data_set() -> None:
    assert known_rate_hz("austin_buds_dataset_converted_externally_to_rlds") == 20.0
    assert known_rate_hz("droid") == 15.0 and known_rate_hz("my_robot") is None


@pytest.mark.parametrize(
    ("reward", "terminal", "wanted"),
    [([0, 0, 0, 1], True, "success"), ([0, 0, 0, 1], False, "unknown"), ([0, 0, 0.5, 1], True, "unknown")],
)
def test_a_last_reward_of_one_is_a_success(tmp_path: Path, reward: list, terminal: bool, wanted: str) -> None:
    steps = {"action": tensor(2), "reward": tensor(), "is_terminal": tensor(dtype="bool")}
    values = {"steps/action": np.arange(1.0, 9.0), "steps/reward": np.array(reward, float)}
    values["steps/is_terminal"] = np.array([False, False, False, terminal])
    assert first(written(tmp_path, steps, values)).outcome == wanted


def test_a_success_flag_is_taken(tmp_path: Path) -> None:
    values = {"steps/action": np.arange(1.0, 9.0), "episode_metadata/success": np.array([False])}
    root = written(tmp_path, {"action": tensor(2)}, values, success=tensor(dtype="bool"))
    assert first(root).outcome == "failure"


def test_the_older_layout_of_features_says_the_same(tmp_path: Path) -> None:
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    wanted = first(root)
    file = root / "1.0.0/features.json"
    file.write_text(json.dumps(older(json.loads(file.read_text()))))
    found = first(root)
    assert found.source_sha256 == wanted.source_sha256
    assert found.videos.keys() == wanted.videos.keys() and found.findings == wanted.findings


def older(node: dict) -> dict:
    """A feature as TFDS wrote it before 4.6; texts and scalars with their content as a string, which it did too."""
    kind = node["pythonClassName"]
    if "featuresDict" in node:
        content: Any = {name: older(child) for name, child in node["featuresDict"]["features"].items()}
    elif "sequence" in node:
        content = {"feature": older(node["sequence"]["feature"]), "length": None}
    else:
        content = next((dict(node[k]) for k in ("tensor", "image", "text") if k in node), {})
        if "shape" in content:
            content["shape"] = [int(size) for size in content["shape"].get("dimensions", [])]
        if not content.get("shape"):
            content = json.dumps(content)
    return {"type": kind, "content": content, "proto_cls": ""}


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000, '{"featuresDict": 3}', '{"sequence": {}}', "\xff"])
def test_broken_features_are_refused_in_one_line(tmp_path: Path, content: str) -> None:
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    (root / "1.0.0/features.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"features\.json: ") as refused:
        listed(root)
    assert "\n" not in str(refused.value)


def test_a_set_without_steps_is_no_rlds(tmp_path: Path) -> None:
    root = written(tmp_path, {"action": tensor(2)}, {"steps/action": np.arange(1.0, 9.0)})
    (root / "features.json").write_text(json.dumps(tensor(3)))
    with pytest.raises(DataError, match="no `steps`"):
        listed(root)


def test_a_cut_file_gives_the_records_before_the_cut(tmp_path: Path) -> None:
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    file = root / BRIDGE_FILE
    file.write_bytes(file.read_bytes()[:-100])
    listing = listed(root)
    assert len(listing.episodes) == 7
    (finding,) = [f for f in listing.findings if f.severity == "error"]
    assert finding.code == "missing_data" and "the 7 records before it are read" in finding.message


def test_damage_is_found_by_checksum(tmp_path: Path) -> None:
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    file = root / BRIDGE_FILE
    content = bytearray(file.read_bytes())
    content[5000] ^= 1  # inside a picture
    second = 16 + len(bridge_records()[0])
    file.write_bytes(content)
    listing = listed(root)
    with pytest.raises(DataError, match=r"tfrecord-00000-of-00001: train_000000: the checksum of its data"):
        rlds.read(listing.episodes[0])
    assert rlds.read(listing.episodes[1]).streams
    content[second] ^= 1  # the second record's length
    file.write_bytes(content)
    assert len(listed(root).episodes) == 1


def test_a_file_of_an_absurd_length_is_refused(tmp_path: Path) -> None:
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    length = struct.pack("<Q", 2**63 - 1)
    (root / BRIDGE_FILE).write_bytes(length + struct.pack("<I", masked_crc32c(length)) + b"abc")
    with pytest.raises(DataError, match=r"no whole record in its files \(a record of 9223372036854775807 bytes"):
        listed(root)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    (root / BRIDGE_FILE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match=r"a Git-LFS pointer\. Run `git lfs install"):
        listed(root)


def test_values_that_do_not_fit_the_steps_are_refused(tmp_path: Path) -> None:
    values = {**marks(last=False), "steps/action": np.arange(9.0)}
    root = written(tmp_path, {"action": tensor(2), "is_last": tensor(dtype="bool")}, values)
    with pytest.raises(DataError, match=r"train_000000: steps/action has 9 values for 4 steps of shape \(2,\)"):
        first(root)


def test_a_zlib_bomb_is_refused_unopened(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(50_000_000))
    values = {**marks(last=False), "steps/action": [bomb] * COUNT}
    root = written(tmp_path, {"action": tensor(2, encoding="zlib"), "is_last": tensor(dtype="bool")}, values)
    with pytest.raises(DataError, match="steps/action has a value of other than 8 bytes"):
        first(root)


def test_a_single_step_that_is_the_last_is_refused(tmp_path: Path) -> None:
    values = {"steps/action": np.arange(2.0), "steps/is_last": np.array([True])}
    root = written(tmp_path, {"action": tensor(2), "is_last": tensor(dtype="bool")}, values)
    with pytest.raises(DataError, match="a single step, and it is marked as the last"):
        first(root)


def test_missing_metadata_is_done_without(tmp_path: Path) -> None:
    """No splits, no names, no shard lengths: the files are scanned, and their names are taken."""
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    (root / "1.0.0/dataset_info.json").write_text("{}")
    listing = listed(root)
    assert len(listing.episodes) == 8 and codes(listing) == ["no_clock"]
    assert listing.hints["dataset"] == "bridge_dataset" and listing.hints["version"] == "1.0.0"


@pytest.mark.parametrize("lengths", [None, [], ["eight"], [8, 8], ["-1"], "8", ["9" * 5000]])
def test_shard_lengths_of_any_kind_do_not_hide_records(tmp_path: Path, lengths: object) -> None:
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    file = root / "1.0.0/dataset_info.json"
    info = json.loads(file.read_text())
    info["splits"] = [{"name": "train", "shardLengths": lengths}, {"shardLengths": ["3"]}, 7]
    file.write_text(json.dumps(info))
    assert len(listed(root).episodes) == 8


def test_splits_and_versions_are_listed_side_by_side(tmp_path: Path) -> None:
    one = example({"steps/action": np.arange(1.0, 9.0), "episode_metadata/file_path": ["/raw/a/out.npy"]})
    features = episodes({"action": tensor(2)}, file_path=text())
    for version in ("1.0.0", "1.1.0"):
        write_set(tmp_path / "arm" / version, "arm", features, {"train": [[one, one]], "val": [[one]]})
    alone = listed(tmp_path / "arm/1.0.0")
    assert [ref.key for ref in alone.episodes] == ["train_000000", "train_000001", "val_000000"]
    assert [rlds.read(ref).session for ref in alone.episodes] == ["/raw/a", "/raw/a", "val:/raw/a"]
    keys = [ref.key for ref in listed(tmp_path).episodes]
    assert keys == [
        f"arm_1_{minor}_0_{key}" for minor in (0, 1) for key in ("train_000000", "train_000001", "val_000000")
    ]


def test_a_count_that_is_not_the_files_is_said(tmp_path: Path) -> None:
    root = written(tmp_path, {"action": tensor(2)}, {"steps/action": np.arange(1.0, 9.0)})
    (file,) = root.glob("*.tfrecord-*")
    file.write_bytes(tfrecord([example({"steps/action": np.arange(1.0, 9.0)})] * 3))
    listing = listed(root)
    assert len(listing.episodes) == 3 and codes(listing) == ["count_mismatch", "no_clock"]


def test_array_records_are_read_or_their_package_is_asked_for(tmp_path: Path) -> None:
    """By the package's own writer where it is installed; without it, the error says how to install it."""
    root = Path(shutil.copytree(BRIDGE, tmp_path / "bridge"))
    (root / BRIDGE_FILE).unlink()
    file = root / BRIDGE_FILE.replace("tfrecord", "array_record")
    try:
        from array_record.python.array_record_module import ArrayRecordWriter
    except ImportError:
        file.write_bytes(b"")
        with pytest.raises(UsageError, match="needs the package 'array_record': pip install"):
            listed(root)
        return
    writer = ArrayRecordWriter(str(file), "group_size:1")
    for record in bridge_records():
        writer.write(record)
    writer.close()
    found, wanted = ([rlds.read(ref) for ref in listed(place).episodes] for place in (root, BRIDGE))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.source_sha256 == theirs.source_sha256
        assert all(ours.videos[name].load(2, 5) == camera.load(2, 5) for name, camera in theirs.videos.items())


def test_a_remote_set_is_listed_from_its_counts_and_fetched_when_read(tmp_path: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    system.put(str(BRIDGE), "/remote/bridge", recursive=True)
    source = Source("memory://remote/bridge", cache=str(tmp_path / "cache"))
    listing = rlds.list_episodes(source)
    assert [ref.key for ref in listing.episodes] == [ref.key for ref in listed(BRIDGE).episodes]
    assert not list((tmp_path / "cache").rglob("*tfrecord-0*"))
    episode, wanted = rlds.read(listing.episodes[3]), rlds.read(listed(BRIDGE).episodes[3])
    assert episode.source_sha256 == wanted.source_sha256
