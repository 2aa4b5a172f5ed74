"""Which TFDS sets lie in a source, and what their dataset_info.json says: names, splits, shards.

    bridge_dataset/1.0.0/features.json
    bridge_dataset/1.0.0/dataset_info.json
    bridge_dataset/1.0.0/bridge_dataset-train.tfrecord-00000-of-01024

Files are known by what they are called and not by `filepathTemplate`, which not all writers fill in.
"""

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from schemas.errors import DataError
from wamdata.readers.rlds.features import FILE as FEATURES
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer
from wamdata.source import Source

INFO = "dataset_info.json"
RECORDS = re.compile(
    r"(?:.*-)?(?P<split>[^-./]+)\.(?P<format>tfrecord|array_record)(?:-(?P<shard>\d+)-of-(?P<shards>\d+))?$"
)


@dataclass(frozen=True)
class RecordFile:
    """One file of records.

    Args:
        name: relative to the source.
        shards: how many files its split has by its name; 1 where the name does not say.
    """

    name: str
    split: str
    shard: int
    shards: int
    is_array_record: bool


@dataclass(frozen=True)
class RecordSet:
    """One version of one data set.

    Args:
        folder: where it lies in the source, "" or with a slash at its end.
        declared: records per shard of each split, as dataset_info.json says.
    """

    folder: str
    name: str
    version: str
    licence: str
    declared: dict[str, tuple[int, ...]]
    files: tuple[RecordFile, ...]


def has_sets(source: Source) -> bool:
    return not source.is_file and bool(_folders(source.files()))


def find_sets(source: Source) -> list[RecordSet]:
    """All data sets of a source, in order of their folders.

    Raises:
        DataError: a dataset_info.json cannot be read.
    """
    return [_read_set(source, folder, files) for folder, files in _folders(source.files()).items()]


def _folders(names: tuple[str, ...]) -> dict[str, list[RecordFile]]:
    """Folders with both descriptions and records, and their files of records."""
    present = set(names)
    found: dict[str, list[RecordFile]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        folder = f"{folder}/" if folder else ""
        match = RECORDS.fullmatch(file)
        if match and f"{folder}{FEATURES}" in present and f"{folder}{INFO}" in present:
            shard, shards = int(match["shard"] or 0), int(match["shards"] or 1)
            is_array = match["format"] == "array_record"
            found.setdefault(folder, []).append(RecordFile(name, match["split"], shard, shards, is_array))
    return found


def _read_set(source: Source, folder: str, files: list[RecordFile]) -> RecordSet:
    name = f"{folder}{INFO}"
    info = _json(source, name)
    redistribution = info.get("redistributionInfo")
    licence = redistribution.get("license") if isinstance(redistribution, dict) else None
    splits = info.get("splits")
    named = (
        [split for split in splits if isinstance(split, dict) and split.get("name")] if isinstance(splits, list) else []
    )
    declared = {str(split["name"]): _lengths(split.get("shardLengths")) for split in named}
    called = str(info.get("name") or _name_from_file(files[0]) or PurePosixPath(folder).parent.name or source.name)
    version = str(info.get("version") or PurePosixPath(folder).name or "unknown")
    return RecordSet(folder, called, version, str(licence or "unknown"), declared, tuple(files))


def _lengths(stated: object) -> tuple[int, ...]:
    """Records per shard; none where they are not stated as numbers, and the files are looked into."""
    texts = [str(n) for n in stated] if isinstance(stated, list) else []
    return tuple(int(n) for n in texts) if all(n.isdecimal() and len(n) < 16 for n in texts) else ()


def _name_from_file(file: RecordFile) -> str:
    """`bridge_dataset` of `bridge_dataset-train.tfrecord-00000-of-00001`."""
    return file.name.rpartition("/")[2].partition(".")[0].removesuffix(file.split).rstrip("-")


def _json(source: Source, name: str) -> dict[str, Any]:
    path = source.path(name)
    if is_lfs_pointer(path):
        raise DataError(f"{source.where(name)}: a Git-LFS pointer, not the file itself. {LFS_ADVICE}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{source.where(name)}: not JSON ({reason}). Copy the file again.") from None
    if not isinstance(content, dict):
        raise DataError(f"{source.where(name)}: not a description of a data set. Copy the file again.")
    return content
