"""Shards of one robot as the stages of a run read them: clip by clip, seen as the robot that was asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from schemas.embodiment import Embodiment
from schemas.errors import UsageError
from schemas.manifest import Manifest, Split
from wamdata.clips import Clip
from wamdata.shards import read_clip, read_manifest, stream_clips


@dataclass(frozen=True)
class Clips:
    """A shard folder and the robot to see it as: an edited robot file maps the rows again at load."""

    folder: Path
    manifest: Manifest
    embodiment: Embodiment

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

    @cached_property
    def content(self) -> dict[str, str]:
        """Clip key -> hash of what its episode holds."""
        return {s.key: s.content_sha256 for s in self.manifest.samples}

    def stream(self, split: Split | None = None) -> Iterator[Clip]:
        return stream_clips(self.folder, self.manifest, split=split, embodiment=self.embodiment)

    def read(self, key: str) -> Clip:
        """One clip through its offsets."""
        return read_clip(self.folder, self.manifest, key, self.embodiment)
