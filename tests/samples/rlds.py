"""RLDS: real Bridge episodes, and a DROID-like set whose records protobuf's own package writes."""

import io
import json
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

READER = "rlds"
CORE = "tensorflow_datasets.core.features"
DROID_STEPS = 12
NUMBERS = {
    "action": 7,
    "action_dict/cartesian_position": 6,
    "action_dict/gripper_position": 1,
    "action_dict/joint_position": 7,
    "action_dict/joint_velocity": 7,
    "observation/cartesian_position": 6,
    "observation/gripper_position": 1,
    "observation/joint_position": 7,
}
CAMERAS = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")
RECORDINGS = (
    "gs://xembodiment_data/r2d2/r2d2-data-full/ILIAD/success/2023-04-21/Fri_Apr_21_10:40:30_2023",
    "gs://xembodiment_data/r2d2/r2d2-data-full/ILIAD/failure/2023-04-21/Fri_Apr_21_10:52:11_2023",
    "gs://xembodiment_data/r2d2/r2d2-data-full/AUTOLab/success/2023-07-08/Sat_Jul__8_09:41:13_2023",
)


def real_bridge(root: Path) -> Path:
    return Path(__file__).parents[1] / "data/bridge_rlds"


def written_droid(root: Path) -> Path:
    folder = root / "droid/1.0.1"
    records = [droid_example(np.random.default_rng(seed), place) for seed, place in enumerate(RECORDINGS)]
    return write_set(folder, "droid", droid_features(), {"train": [records[:2], records[2:]]})


SAMPLES = {"bridge": real_bridge, "droid": written_droid}


# Records


@cache
def example_class() -> type:
    """tf.train.Example, declared here from its published definition."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    lists = (("BytesList", field.TYPE_BYTES), ("FloatList", field.TYPE_FLOAT), ("Int64List", field.TYPE_INT64))
    for name, kind in lists:
        file.message_type.add(name=name).field.add(name="value", number=1, type=kind, label=field.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, attribute) in enumerate(
        (("BytesList", "bytes_list"), ("FloatList", "float_list"), ("Int64List", "int64_list")), start=1
    ):
        feature.field.add(
            name=attribute,
            number=number,
            type=field.TYPE_MESSAGE,
            label=1,
            type_name=f".tensorflow.{name}",
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, label=1, type_name=".tensorflow.Feature")
    features.field.add(
        name="feature", number=1, type=field.TYPE_MESSAGE, label=3, type_name=".tensorflow.Features.FeatureEntry"
    )
    file.message_type.add(name="Example").field.add(
        name="features", number=1, type=field.TYPE_MESSAGE, label=1, type_name=".tensorflow.Features"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


def example(values: dict[str, Any]) -> bytes:
    """A serialised Example: lists of bytes and str, arrays of floats, arrays of integers and bools."""
    message = example_class()()
    for name, value in values.items():
        feature = message.features.feature[name]
        if isinstance(value, list):
            feature.bytes_list.value.extend(v.encode() if isinstance(v, str) else v for v in value)
        elif value.dtype.kind == "f":
            feature.float_list.value.extend(value.ravel().tolist())
        else:
            feature.int64_list.value.extend(value.astype(np.int64).ravel().tolist())
    return message.SerializeToString(deterministic=True)


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def masked_crc32c(data: bytes) -> int:
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecord(records: Iterable[bytes]) -> bytes:
    parts = []
    for record in records:
        length = struct.pack("<Q", len(record))
        parts += [length, struct.pack("<I", masked_crc32c(length)), record, struct.pack("<I", masked_crc32c(record))]
    return b"".join(parts)


def write_set(folder: Path, name: str, features: dict, splits: dict[str, list[list[bytes]]]) -> Path:
    """A version of a data set with the records of each shard of each split."""
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps(features))
    info = {
        "name": name,
        "version": folder.name,
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(len(records)) for records in shards],
            }
            for split, shards in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for split, shards in splits.items():
        for number, records in enumerate(shards):
            file = folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
            file.write_bytes(tfrecord(records))
    return folder


# Features


def tensor(*shape: int, dtype: str = "float32", encoding: str = "none") -> dict:
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    content = {"shape": dimensions, "dtype": dtype, "encoding": encoding}
    return {"pythonClassName": f"{CORE}.tensor_feature.Tensor", "tensor": content}


def image(*shape: int, encoding: str = "jpeg", dtype: str = "uint8") -> dict:
    content = {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype, "encodingFormat": encoding}
    return {"pythonClassName": f"{CORE}.image_feature.Image", "image": content}


def text() -> dict:
    return {"pythonClassName": f"{CORE}.text_feature.Text", "text": {}}


def features_dict(**features: dict) -> dict:
    return {"pythonClassName": f"{CORE}.features_dict.FeaturesDict", "featuresDict": {"features": features}}


def sequence(feature: dict, kind: str = "sequence_feature.Sequence") -> dict:
    return {"pythonClassName": f"{CORE}.{kind}", "sequence": {"feature": feature, "length": "-1"}}


def episodes(steps: dict, **metadata: dict) -> dict:
    """The features of an RLDS set whose steps have these."""
    inside = sequence(features_dict(**steps), "dataset_feature.Dataset")
    return features_dict(steps=inside, episode_metadata=features_dict(**metadata))


def droid_features() -> dict:
    numbers: dict[str, dict] = {"observation": {}, "action_dict": {}}
    for path, width in NUMBERS.items():
        group, _, name = path.rpartition("/")
        (numbers[group] if group else numbers)[name] = tensor(width, dtype="float64")
    pictures = {camera: image(180, 320, 3) for camera in CAMERAS}
    steps = {
        **numbers,
        "observation": features_dict(**numbers["observation"], **pictures),
        "action_dict": features_dict(**numbers["action_dict"]),
        **{mark: tensor(dtype="bool") for mark in ("is_first", "is_last", "is_terminal")},
        **{name: tensor() for name in ("reward", "discount")},
        **{f"language_instruction{number}": text() for number in ("", "_2", "_3")},
    }
    return episodes(steps, recording_folderpath=text(), file_path=text())


def droid_example(rng: np.random.Generator, recording: str) -> bytes:
    count = DROID_STEPS
    values: dict[str, Any] = {
        f"steps/{path}": np.cumsum(rng.normal(size=(count, width)), axis=0) for path, width in NUMBERS.items()
    }
    values |= {f"steps/observation/{camera}": [jpeg(rng, 320, 180) for _ in range(count)] for camera in CAMERAS}
    marks = np.zeros((3, count), bool)
    marks[0, 0] = marks[1, -1] = marks[2, -1] = True
    values |= {f"steps/{name}": mark for name, mark in zip(("is_first", "is_last", "is_terminal"), marks, strict=True)}
    reward = np.zeros(count)
    reward[-1] = "success" in recording
    values |= {"steps/reward": reward, "steps/discount": np.ones(count)}
    said = ("Put the marker in the cup", "Move the marker into the cup", "Put the marker in the cup")
    for number, words in zip(("", "_2", "_3"), said, strict=True):
        values[f"steps/language_instruction{number}"] = [words] * count
    values["episode_metadata/recording_folderpath"] = [f"{recording}/recordings/MP4"]
    values["episode_metadata/file_path"] = [f"{recording}/trajectory.h5"]
    return example(values)


def jpeg(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A smooth random picture."""
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height)).save(file, "jpeg", quality=85)
    return file.getvalue()
