"""Shards of one robot as the stages of a run read them: clip by clip, seen as the robot that was asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from schemas.embodiment import Embodiment
from schemas.errors import UsageError
from schemas.manifest import Manifest, SampleInfo, Split, merged
from schemas.record import sha256_of
from wamdata.clips import Clip
from wamdata.shards import read_clip, read_manifest, stream_clips


@dataclass(frozen=True)
class Clips:
    """A shard folder and the robot to see it as: an edited robot file maps the rows again at load.

    Args:
        parts: where it stands for several folders of one robot, those; `folder` is then the first one's.
    """

    folder: Path
    manifest: Manifest
    embodiment: Embodiment
    parts: tuple["Clips", ...] = ()

    @classmethod
    def open(cls, folder: Path, embodiment: Embodiment | None = None) -> "Clips":
        """Shards seen as `embodiment`, by default as the robot they were ingested with.

        Raises:
            UsageError: `embodiment` has a camera that the shards do not hold.
        """
        manifest = read_manifest(folder)
        robot = embodiment or manifest.embodiment
        held = [c.key for c in manifest.embodiment.model_cameras]
        missing = [c.key for c in robot.model_cameras if c.key not in held]
        if missing:
            raise UsageError(f"{folder}: holds no camera {missing[0]!r} (it has {', '.join(held)}). Ingest again.")
        return cls(folder, manifest, robot)

    @classmethod
    def joined(cls, several: Sequence["Clips"]) -> "Clips":
        """Shards of one robot, one after the other, as if they were one folder's."""
        first = several[0]
        if len(several) == 1:
            return first
        manifests = [c.manifest for c in several]
        manifest = merged(
            manifests,
            shards=tuple(s for m in manifests for s in m.shards),
            split_rule=first.manifest.split_rule,
            fingerprint=sha256_of([m.fingerprint for m in manifests]),
        )
        return cls(first.folder, manifest, first.embodiment, tuple(several))

    @cached_property
    def content(self) -> dict[str, str]:
        """Clip key -> hash of what its episode holds."""
        return {s.key: s.content_sha256 for s in self.manifest.samples}

    @cached_property
    def episodes(self) -> dict[str, str]:
        """Clip key -> the source's name of its episode, with what tells it apart where another has the same name."""
        named: dict[str, set[str]] = {}
        for s in self.manifest.samples:
            for name in (s.episode, _full_name(s)):
                named.setdefault(name, set()).add(s.content_sha256)

        def name_of(s: SampleInfo) -> str:
            plain = next((n for n in (s.episode, _full_name(s)) if len(named[n]) == 1), None)
            return plain or f"{_full_name(s)} ({s.content_sha256[:8]})"

        return {s.key: name_of(s) for s in self.manifest.samples}

    def stream(self, split: Split | None = None) -> Iterator[Clip]:
        for part in self.parts:
            yield from part.stream(split)
        if not self.parts:
            yield from stream_clips(self.folder, self.manifest, split=split, embodiment=self.embodiment)

    def read(self, key: str) -> Clip:
        """One clip through its offsets."""
        for part in self.parts:
            if key in part.content:
                return part.read(key)
        return read_clip(self.folder, self.manifest, key, self.embodiment)


def _full_name(sample: SampleInfo) -> str:
    return sample.session if sample.session.endswith(sample.episode) else f"{sample.session}/{sample.episode}"
