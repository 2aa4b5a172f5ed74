"""Clips in and out of tar shards.

Written with webdataset's own writer (fixed mtime, nothing encoded, keys checked), so plain `webdataset` and
`datasets.load_dataset("webdataset", ...)` read them; equal clips give equal bytes. Read as a stream through
webdataset, or one clip at a time through the offsets in the manifest. Nothing is ever unpickled.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.files import file_sha256, sync
from schemas.manifest import Manifest, SampleInfo, ShardInfo, Split
from wamdata.clips import Clip, from_sample, to_sample

MANIFEST = "manifest.json"
_KEY = re.compile(r"[A-Za-z0-9_@-]+")


class ShardWriter:
    """Clips into shards `<stem>-00.tar`, `<stem>-01.tar`, ... of about `shard_bytes` each.

    A shard has its final name only when it is whole and on disk.
    """

    def __init__(self, folder: Path, stem: str, *, shard_bytes: int) -> None:
        self._folder, self._stem, self._limit = folder, stem, shard_bytes
        self._shards: list[ShardInfo] = []
        self._pending: list[SampleInfo] = []
        self._partial: Path | None = None
        self._tar = None
        self._file = None

    def add(self, clip: Clip) -> None:
        check_key(clip.key)
        sample = to_sample(clip)
        size = sum(len(v) for v in sample.values())
        if self._file is not None and self._file.tell() + size > self._limit:
            self._finish()
        if self._tar is None:
            self._open()
        self._tar.write({"__key__": clip.key, **sample})
        self._pending.append(
            SampleInfo(
                key=clip.key,
                members={name: (0, len(content)) for name, content in sample.items()},
                rows=clip.meta.rows,
                seconds=(clip.meta.stop_ns - clip.meta.start_ns) / 1e9,
                episode=clip.meta.source.episode,
                session=clip.meta.session,
                content_sha256=clip.meta.source.sha256,
                split="train",
            )
        )

    def close(self) -> tuple[ShardInfo, ...]:
        """Finish the last shard and return all of them."""
        if self._tar is not None:
            self._finish()
        return tuple(self._shards)

    def _open(self) -> None:
        import webdataset

        name = f"{self._stem}-{len(self._shards):02d}.tar"
        self._partial = self._folder / f"{name}.partial"
        self._file = self._partial.open("wb")
        self._tar = webdataset.TarWriter(self._file, mtime=0, encoder=False)

    def _finish(self) -> None:
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        final = self._partial.with_suffix("")
        os.replace(self._partial, final)
        sync(self._folder)
        offsets = _member_offsets(final)
        samples = tuple(s.model_copy(update={"members": offsets[s.key]}) for s in self._pending)
        self._shards.append(
            ShardInfo(name=final.name, bytes=final.stat().st_size, sha256=file_sha256(final), samples=samples)
        )
        self._pending, self._tar, self._file = [], None, None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a shard folder.

    Raises:
        UsageError: the folder holds none.
        DataError: it is damaged, or a shard it names is missing or has another size.
    """
    path = folder / MANIFEST
    if not path.exists():
        if (folder / "shards" / MANIFEST).exists():
            raise UsageError(f"{folder}: no {MANIFEST} here; the run's shards are in {folder / 'shards'}. Give that.")
        raise UsageError(
            f"{folder}: no {MANIFEST} here, so no finished shards. `wam ingest LOGS --out SHARDS` makes them."
        )
    manifest = Manifest.read_json(path)
    for shard in manifest.shards:
        file = folder / shard.name
        size = file.stat().st_size if file.exists() else None
        if size != shard.bytes:
            raise DataError(
                f"{file}: {_size(size)}, the manifest says {shard.bytes} bytes. Ingest again into a new folder."
            )
    return manifest


def verify_shards(folder: Path, manifest: Manifest) -> None:
    """Raise a DataError naming the first shard whose bytes are not those that were written."""
    for shard in manifest.shards:
        if file_sha256(folder / shard.name) != shard.sha256:
            raise DataError(f"{folder / shard.name}: content differs from its sha256. Ingest again into a new folder.")


def read_clip(folder: Path, manifest: Manifest, key: str, embodiment: Embodiment | None = None) -> Clip:
    """One clip through its offsets, mapped by `embodiment` if given (an edited YAML needs no new ingest)."""
    shard, sample = manifest.find(key)
    clip = from_sample(read_members(folder / shard.name, sample))
    return clip if embodiment is None else clip.mapped_by(embodiment)


def stream_clips(
    folder: Path, manifest: Manifest, *, split: Split | None = None, embodiment: Embodiment | None = None
) -> Iterator[Clip]:
    """All clips of a split in shard order, streamed through webdataset.

    Raises:
        DataError: a shard cannot be read; names it.
    """
    import webdataset

    wanted = set(manifest.split_keys(split)) if split else {s.key for s in manifest.samples}
    for shard in manifest.shards:
        if not wanted & {s.key for s in shard.samples}:
            continue
        url = str(folder / shard.name)
        samples = webdataset.WebDataset(url, shardshuffle=False, nodesplitter=None, workersplitter=None)
        try:
            for sample in samples:
                if sample["__key__"] in wanted:
                    clip = from_sample(sample)
                    yield clip if embodiment is None else clip.mapped_by(embodiment)
        except (tarfile.TarError, EOFError, OSError, KeyError) as error:
            raise DataError(f"{url}: cannot be read ({error}). Ingest again into a new folder.") from None


def read_members(shard: Path, sample: SampleInfo) -> dict[str, bytes]:
    """The files of one sample through their offsets."""
    members = {}
    with shard.open("rb") as file:
        for name, (offset, size) in sample.members.items():
            file.seek(offset)
            members[name] = file.read(size)
    return members


def check_key(key: str) -> None:
    """webdataset splits a file name at its first dot: a key with a dot would lose its tail silently."""
    if not _KEY.fullmatch(key):
        raise DataError(f"sample key {key!r} may hold only letters, digits, _, @ and -.")


def _member_offsets(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Per sample key, per suffix, where the bytes lie."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            found.setdefault(key, {})[suffix] = (member.offset_data, member.size)
    return found


def _size(size: int | None) -> str:
    return "is missing" if size is None else f"{size} bytes"
