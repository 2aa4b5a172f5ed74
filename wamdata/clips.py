"""Trajectories cut into clips, and clips as bytes: what lies in a shard.

    <key>.json             ClipMeta
    <key>.<camera>.mp4     the source's own packets and pictures, only raw pixels are encoded; the clip's frames are
                           [first_frame, first_frame + num_frames)
    <key>.raw.npz          every low-dimensional stream as logged: raw/<stream>, t_ns/<stream>, pts_ns/<camera>
    <key>.steps.npz        the mapped rows: state, action, t_ns, control, valid

`steps` is a cache of (raw, embodiment): `Clip.mapped_by` maps again when the embodiment file has changed, so a
wrong sign or gripper range costs seconds, not a second ingest. Nothing is ever concatenated across a removed span.
"""

import io
import json
from dataclasses import dataclass, replace

import numpy as np

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Float32, Footage, Int64, Stream, Text, Trajectory, Video
from schemas.errors import DataError
from schemas.manifest import CameraMeta, ClipMeta, SourceMeta, StreamMeta, TextMeta, UseMeta
from schemas.recipe import Filters
from wamdata.footage import cut, shard_codec
from wamdata.mapping import map_episode

# A stream name may hold dots and slashes; a member of an npz may not hold a slash. "|" occurs in no log seen.
_SLASH = "|"


@dataclass(frozen=True)
class Clip:
    """A contiguous kept span of a trajectory with its video, in memory.

    Args:
        videos: per camera key, the mp4 as bytes.
        pts_ns: per camera key, (num_frames,) time of each frame on the episode's clock.
        streams: raw streams of the span.
    """

    meta: ClipMeta
    embodiment_sha256: str
    t_ns: Int64
    state: Float32
    action: Float32
    control: np.ndarray
    valid: np.ndarray
    streams: dict[str, Stream]
    videos: dict[str, bytes]
    pts_ns: dict[str, Int64]

    @property
    def key(self) -> str:
        return self.meta.key

    def text_at(self, t_ns: int) -> str:
        """The instruction that holds at a time: a subtask's if there is one, else the task's, else ""."""
        here = [t for t in self.meta.text if t.start_ns <= t_ns < t.stop_ns and t.text]
        here.sort(key=lambda t: t.level == "subtask")
        return here[-1].text if here else ""

    def mapped_by(self, embodiment: Embodiment) -> "Clip":
        """This clip as `embodiment` sees it; unchanged when it was mapped by the same one."""
        if embodiment.digest() == self.embodiment_sha256:
            return self
        videos = {c.source: _handle(self, c.key) for c in embodiment.model_cameras if c.key in self.videos}
        episode = Episode(
            source=self.meta.source.uri,
            key=self.meta.source.episode,
            streams=self.streams,
            videos=videos,
            texts=(),
            session=self.meta.session,
            reader=self.meta.source.reader,
            source_sha256=self.meta.source.sha256,
        )
        again = map_episode(episode, embodiment)
        return replace(
            self,
            embodiment_sha256=embodiment.digest(),
            t_ns=again.t_ns,
            state=again.state,
            action=again.action,
            control=again.control,
            valid=again.state_valid & again.action_valid,
        )


def _handle(clip: Clip, camera: str) -> Video:
    from pathlib import Path

    meta = clip.meta.cameras[camera]
    return Video(Path(camera), clip.pts_ns[camera], meta.first_frame, meta.codec, meta.width, meta.height)


def keep_spans(trajectory: Trajectory, limits: Filters, *, max_clip_s: float) -> list[tuple[int, int]]:
    """Half-open row spans to keep: valid rows without a gap in rows or video and without a seam, at most
    `max_clip_s` long each."""
    rows = len(trajectory.t_ns)
    good = trajectory.state_valid & trajectory.action_valid
    cuts = np.zeros(rows + 1, bool)
    cuts[1:rows] = np.diff(trajectory.t_ns) > limits.max_gap_s * 1e9
    cuts[np.searchsorted(trajectory.t_ns, np.array(trajectory.episode.seams, np.int64))] = True
    for video in _used_videos(trajectory):
        holes = np.flatnonzero(np.diff(video.t_ns) > limits.max_gap_s * 1e9)
        for hole in holes:
            good &= ~((trajectory.t_ns > video.t_ns[hole]) & (trajectory.t_ns < video.t_ns[hole + 1]))
        good &= trajectory.t_ns >= video.t_ns[0] - limits.max_gap_s * 1e9
        good &= trajectory.t_ns <= video.t_ns[-1] + limits.max_gap_s * 1e9
    spans: list[tuple[int, int]] = []
    start = None
    for row in range(rows + 1):
        if start is not None and (row == rows or not good[row] or cuts[row]):
            spans.append((start, row))
            start = None
        if start is None and row < rows and good[row]:
            start = row
    longest = max(2, round(max_clip_s * trajectory.embodiment.native_hz))
    pieces = [(a, min(a + longest, stop)) for first, stop in spans for a in range(first, stop, longest)]
    shortest = max(1, round(limits.min_s * trajectory.embodiment.native_hz))
    return [(a, b) for a, b in pieces if b - a >= shortest]


def _used_videos(trajectory: Trajectory) -> list[Footage]:
    return [trajectory.episode.videos[c.source] for c in trajectory.embodiment.model_cameras]


def cut_clip(trajectory: Trajectory, start: int, stop: int, *, prefix: str) -> Clip:
    """Rows [start, stop) as a clip: raw streams of the span, video packets copied, nothing decoded."""
    episode, embodiment = trajectory.episode, trajectory.embodiment
    t_ns = trajectory.t_ns[start:stop]
    period_ns = round(1e9 / embodiment.native_hz)
    first_ns, stop_ns = int(t_ns[0]), int(t_ns[-1]) + period_ns
    streams = {n: _span(s, first_ns, stop_ns, period_ns) for n, s in episode.streams.items()}
    videos, pts_ns, cameras = {}, {}, {}
    for camera in embodiment.model_cameras:
        video = episode.videos[camera.source]
        frames = _frame_span(video.t_ns, first_ns, stop_ns, _between_seams(episode.seams, t_ns))
        videos[camera.key], first_frame = cut(video, *frames)
        pts_ns[camera.key] = video.t_ns[frames[0] : frames[1]].copy()
        cameras[camera.key] = CameraMeta(
            codec=shard_codec(video),
            logged_as=video.codec,
            width=video.width,
            height=video.height,
            first_frame=first_frame,
            num_frames=frames[1] - frames[0],
            dropped=_dropped(pts_ns[camera.key]),
            offset_ms=(int(pts_ns[camera.key][0]) - first_ns) / 1e6,
            rotate=video.rotation,
            calibration=camera.intrinsics or "unknown",
        )
    meta = ClipMeta(
        key=f"{prefix}_{start:06d}",
        start_ns=first_ns,
        stop_ns=stop_ns,
        rows=stop - start,
        source=SourceMeta(
            uri=episode.source,
            sha256=episode.source_sha256,
            episode=episode.key,
            first_row=start,
            stop_row=stop,
            reader=episode.reader,
        ),
        embodiment=embodiment.name,
        embodiment_sha256=embodiment.digest(),
        cameras=cameras,
        streams=tuple(_stream_meta(s, embodiment) for s in streams.values()) or (NO_STREAM,),
        text=tuple(_text_meta(t) for t in episode.texts if t.start_ns < stop_ns and t.stop_ns > first_ns) or (NO_TEXT,),
        outcome=episode.outcome,
        quality=episode.quality,
        operator=episode.operator,
        use=_use_of(episode, first_ns, stop_ns, ("video",) if embodiment.is_action_free else ("video", "action")),
        findings=tuple(f"{f.code}: {f.message}" for f in episode.findings) or ("none",),
        session=episode.session,
        licence=episode.licence,
    )
    return Clip(
        meta=meta,
        embodiment_sha256=embodiment.digest(),
        t_ns=t_ns,
        state=trajectory.state[start:stop],
        action=trajectory.action[start:stop],
        control=trajectory.control[start:stop],
        valid=trajectory.state_valid[start:stop] & trajectory.action_valid[start:stop],
        streams=streams,
        videos=videos,
        pts_ns=pts_ns,
    )


NO_TEXT = TextMeta(text="", start_ns=0, stop_ns=0, level="unknown", origin="unknown")
NO_STREAM = StreamMeta(name="none", rate_hz=0.0, unit="none", clock="none", lag_ms=0.0, columns=("",))


def to_sample(clip: Clip) -> dict[str, bytes]:
    """A clip as the members of a webdataset sample, without its key; equal clips give equal bytes."""
    raw = {f"raw/{_safe(n)}": s.values for n, s in clip.streams.items()}
    raw |= {f"t_ns/{_safe(n)}": s.t_ns for n, s in clip.streams.items()}
    raw |= {f"pts_ns/{c}": t for c, t in clip.pts_ns.items()}
    steps = {
        "state": clip.state,
        "action": clip.action,
        "t_ns": clip.t_ns,
        "control": clip.control,
        "valid": clip.valid,
    }
    sample = {"json": json.dumps(clip.meta.as_dict(), sort_keys=True, ensure_ascii=False).encode()}
    sample |= {f"{camera}.mp4": video for camera, video in clip.videos.items()}
    sample |= {"raw.npz": _npz(raw), "steps.npz": _npz(steps)}
    return sample


def from_sample(sample: dict[str, bytes]) -> Clip:
    """The inverse of `to_sample`. Never unpickles."""
    meta = ClipMeta.model_validate_json(sample["json"])
    raw, steps = _unnpz(sample["raw.npz"]), _unnpz(sample["steps.npz"])
    columns = {s.name: s.columns if s.columns != ("",) else () for s in meta.streams}
    names = [n.removeprefix("raw/") for n in raw if n.startswith("raw/")]
    streams = {
        _unsafe(n): Stream(_unsafe(n), raw[f"t_ns/{n}"], raw[f"raw/{n}"], columns.get(_unsafe(n), ())) for n in names
    }
    return Clip(
        meta=meta,
        embodiment_sha256=meta.embodiment_sha256,
        t_ns=steps["t_ns"],
        state=steps["state"],
        action=steps["action"],
        control=steps["control"],
        valid=steps["valid"],
        streams=streams,
        videos={c: sample[f"{c}.mp4"] for c in meta.cameras},
        pts_ns={c: raw[f"pts_ns/{c}"] for c in meta.cameras},
    )


def _span(stream: Stream, first_ns: int, stop_ns: int, margin_ns: int) -> Stream:
    """The part of a stream that mapping the span again would need: one period more on both sides."""
    keep = (stream.t_ns >= first_ns - margin_ns // 2) & (stream.t_ns < stop_ns - margin_ns // 2)
    if stream.rate_hz and stream.rate_hz < 1e9 / margin_ns / 1.5:  # slower than the clock: neighbours are needed
        at = np.flatnonzero(keep)
        low = max(int(at[0]) - 1, 0) if len(at) else max(int(np.searchsorted(stream.t_ns, first_ns)) - 1, 0)
        high = min(int(at[-1]) + 2, len(keep)) if len(at) else min(low + 2, len(keep))
        keep = np.zeros(len(keep), bool)
        keep[low:high] = True
    return Stream(stream.name, stream.t_ns[keep].copy(), stream.values[keep].copy(), stream.columns)


def _between_seams(seams: tuple[int, ...], t_ns: Int64) -> tuple[int, int]:
    """The last seam before the rows, and the first one behind them: frames beyond are of another shot."""
    before = [s for s in seams if s <= t_ns[0]]
    behind = [s for s in seams if s > t_ns[-1]]
    return max(before, default=np.iinfo(np.int64).min), min(behind, default=np.iinfo(np.int64).max)


def _frame_span(pts_ns: Int64, first_ns: int, stop_ns: int, within: tuple[int, int]) -> tuple[int, int]:
    """Frames [a, b) that cover a span of time, one on each side included where it lies `within` [low, high)."""
    low, high = (int(i) for i in np.searchsorted(pts_ns, within))
    first = max(int(np.searchsorted(pts_ns, first_ns, side="right")) - 1, low)
    stop = min(int(np.searchsorted(pts_ns, stop_ns, side="left")) + 1, high)
    if stop <= first:
        raise DataError(f"no video frame between {first_ns / 1e9:.2f} s and {stop_ns / 1e9:.2f} s. Drop the episode.")
    return first, stop


def _dropped(pts_ns: Int64) -> int:
    """How many frames are missing inside, judged by the median distance of neighbours."""
    if len(pts_ns) < 3:
        return 0
    steps = np.diff(pts_ns)
    return int((np.round(steps / np.median(steps)) - 1).clip(0).sum())


def _stream_meta(stream: Stream, embodiment: Embodiment) -> StreamMeta:
    units: dict[str, set[str]] = {}
    for component in (*embodiment.state, *embodiment.action):
        units.setdefault(component.source, set()).update(component.units)
    unit = units.get(stream.name, {"unknown"})
    return StreamMeta(
        name=stream.name,
        rate_hz=round(stream.rate_hz, 4),
        unit=min(unit) if len(unit) == 1 else "mixed",
        clock=embodiment.clock,
        lag_ms=0.0,
        columns=stream.columns or ("",),
    )


def _use_of(episode: Episode, first_ns: int, stop_ns: int, losses: tuple[str, ...]) -> tuple[UseMeta, ...]:
    """What the span may teach: all of it `losses`, and what curation says of parts of it."""
    inside = [u for u in episode.use if u.start_ns < stop_ns and u.stop_ns > first_ns]
    return (
        UseMeta(start_ns=first_ns, stop_ns=stop_ns, losses=losses),
        *(
            UseMeta(start_ns=max(u.start_ns, first_ns), stop_ns=min(u.stop_ns, stop_ns), losses=u.losses)
            for u in inside
        ),
    )


def _text_meta(text: Text) -> TextMeta:
    return TextMeta(text=text.text, start_ns=text.start_ns, stop_ns=text.stop_ns, level=text.level, origin=text.origin)


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unnpz(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _safe(name: str) -> str:
    return name.replace("/", _SLASH)


def _unsafe(name: str) -> str:
    return name.replace(_SLASH, "/")
