"""What lies beside shards: the list of them with hashes, counts, rejects and provenance; written last."""

from collections.abc import Sequence
from typing import Literal

from schemas.embodiment import Embodiment
from schemas.errors import DataError
from schemas.recipe import SplitRule
from schemas.record import Record

Split = Literal["train", "val", "test"]


class CameraMeta(Record):
    """One camera of a clip. The clip's frames are [first_frame, first_frame + num_frames) of its mp4.

    `rotate` is the container's own, degrees clockwise; the robot's file may add to it when windows are cut. `logged_as`
    is the codec in the log: the same as `codec`, unless the log held raw pixels.
    """

    codec: str
    logged_as: str = "unknown"
    width: int
    height: int
    first_frame: int
    num_frames: int
    dropped: int
    offset_ms: float
    rotate: int
    calibration: str


class StreamMeta(Record):
    """One raw stream of a clip."""

    name: str
    rate_hz: float
    unit: str
    clock: str
    lag_ms: float
    columns: tuple[str, ...]


class TextMeta(Record):
    text: str
    start_ns: int
    stop_ns: int
    level: str
    origin: str


class UseMeta(Record):
    """A span and the losses it may feed: ["video", "action"], ["video"] or ["none"]."""

    start_ns: int
    stop_ns: int
    losses: tuple[str, ...]


class SourceMeta(Record):
    uri: str
    sha256: str
    episode: str
    first_row: int
    stop_row: int
    reader: str


class ClipMeta(Record):
    """The json of a sample. Keys and types never vary, nothing is null or an empty list: `load_dataset` needs that."""

    schema_id: Literal["wamkit/clip@1"] = "wamkit/clip@1"
    key: str
    start_ns: int
    stop_ns: int
    rows: int
    source: SourceMeta
    embodiment: str
    embodiment_sha256: str
    cameras: dict[str, CameraMeta]
    streams: tuple[StreamMeta, ...]
    text: tuple[TextMeta, ...]
    outcome: str
    quality: str = "unknown"
    operator: str = "unknown"
    use: tuple[UseMeta, ...]
    findings: tuple[str, ...]
    session: str
    licence: str


class SampleInfo(Record):
    """Where one sample lies, for random access without reading the shard."""

    key: str
    members: dict[str, tuple[int, int]]  # file suffix -> (byte offset, size) in the shard
    rows: int
    seconds: float
    episode: str
    session: str
    content_sha256: str
    split: Split


class ShardInfo(Record):
    name: str
    bytes: int
    sha256: str
    samples: tuple[SampleInfo, ...]


class Reject(Record):
    """A source episode, or a part of one, that is in no shard, and why."""

    source: str
    episode: str
    reason: str
    detail: str


class FindingMeta(Record):
    code: str
    severity: str
    where: str
    message: str


class Manifest(Record):
    """On disk means: the folder beside it is complete."""

    schema_id: Literal["wamkit/manifest@1"] = "wamkit/manifest@1"
    fingerprint: str
    embodiment: Embodiment
    split_rule: SplitRule
    shards: tuple[ShardInfo, ...]
    rejects: tuple[Reject, ...]
    findings: tuple[FindingMeta, ...]
    source_episodes: int
    episodes: int
    seconds: float
    licences: tuple[str, ...]
    sources: tuple[str, ...]
    tool: str

    @property
    def samples(self) -> tuple[SampleInfo, ...]:
        return tuple(s for shard in self.shards for s in shard.samples)

    def find(self, key: str) -> tuple[ShardInfo, SampleInfo]:
        """The shard and entry of one clip."""
        for shard in self.shards:
            for sample in shard.samples:
                if sample.key == key:
                    return shard, sample
        raise DataError(f"clip {key!r} is not in this manifest. Look at `wam show` for the clips there are.")

    def split_keys(self, split: Split) -> tuple[str, ...]:
        return tuple(s.key for s in self.samples if s.split == split)


def merged(
    manifests: Sequence[Manifest], *, shards: tuple[ShardInfo, ...], split_rule: SplitRule, fingerprint: str
) -> Manifest:
    """Manifests of one robot as one, over `shards`; whatever they had to say is kept."""
    samples = [s for shard in shards for s in shard.samples]
    first = manifests[0]
    return Manifest(
        fingerprint=fingerprint,
        embodiment=first.embodiment,
        split_rule=split_rule,
        shards=shards,
        rejects=tuple(r for m in manifests for r in m.rejects),
        findings=tuple(f for m in manifests for f in m.findings),
        source_episodes=sum(m.source_episodes for m in manifests),
        episodes=len({(s.session, s.episode) for s in samples}),
        seconds=round(sum(s.seconds for s in samples), 6),
        licences=tuple(dict.fromkeys(x for m in manifests for x in m.licences)),
        sources=tuple(dict.fromkeys(x for m in manifests for x in m.sources)),
        tool=first.tool,
    )
