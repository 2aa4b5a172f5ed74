"""Film without actions: video files and folders of numbered pictures, or a single video file.

Each is one episode with one camera stream named `video`. Its clock is zero at the first frame, and frame times are the
container's, so a phone's variable frame rate stays what it was. Instructions may stand beside it: see `captions.py`.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from schemas.episode import Episode, Finding, Footage, Text, Video
from schemas.errors import DataError
from wamdata.readers.base import EpisodeRef, Listing, content_sha256
from wamdata.readers.tree import (
    LFS_ADVICE,
    find_licence,
    is_description,
    is_lfs_pointer,
    sha256_of_file,
    stray_findings,
)
from wamdata.readers.video.captions import read_captions, sidecars
from wamdata.readers.video.picture_folders import SUFFIXES as PICTURES
from wamdata.readers.video.picture_folders import Sequence, counted_hz, find_sequences, pictures_of
from wamdata.source import Source
from wamdata.video import VideoInfo, probe_whole

NAME = "video"
VERSION = 2
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".ts", ".mpg")
CAMERA = "video"


def detect(source: Source) -> bool:
    """Whether `source` is a video file, or holds one or a folder of numbered pictures at any depth."""
    files = source.files()
    return any(_is_video(name) for name in files) or bool(find_sequences(files))


def list_episodes(source: Source) -> Listing:
    """Every film; none is opened, so a video's rows are 0 (unknown) and a broken one shows when it is read."""
    files = source.files()
    videos = [name for name in files if _is_video(name)]
    sequences = find_sequences(files)
    licence = find_licence(source)
    keys = _keys([*videos, *(s.folder or source.name for s in sequences)])
    refs = [EpisodeRef(source, keys[n], 0, {"path": n, "licence": licence}) for n in videos]
    for sequence in sequences:
        place = {"pictures": list(sequence.names), "numbers": list(sequence.numbers), "licence": licence}
        key = keys[sequence.folder or source.name]
        refs.append(EpisodeRef(source, key, len(sequence.names), place | {"path": sequence.folder}))
    known = {p for n in (*videos, *(s.folder for s in sequences if s.folder)) for p in sidecars(n)}
    known |= {*videos, *(n for s in sequences for n in s.names)}
    strays = [(_stray_kind(p), p) for p in files if p not in known and not is_description(p)]
    findings = stray_findings(strays, str(source))
    if untimed := sum(not s.is_timed for s in sequences):
        message = f"{untimed} folders of pictures hold no times: set `native_hz` in the robot's file to their rate"
        findings.append(Finding("no_clock", "warning", str(source), message))
    return Listing(NAME, tuple(refs), tuple(findings), {"licence": licence})


def read(ref: EpisodeRef) -> Episode:
    """One film as an episode without streams.

    Raises:
        DataError: the file is missing, a Git-LFS pointer, or not a whole video; or a picture is none.
    """
    return _read_pictures(ref) if "pictures" in ref.place else _read_video(ref)


def _read_video(ref: EpisodeRef) -> Episode:
    name = ref.place["path"]
    if not ref.source.has(name):
        raise DataError(f"{ref.source.where(name)}: missing. List the source again.")
    path = ref.source.path(name)
    if is_lfs_pointer(path):
        raise DataError(f"{path}: a Git-LFS pointer, not the video itself. {LFS_ADVICE}")
    info = probe_whole(path)
    t_ns = info.pts_ns - info.pts_ns[0]
    texts, findings = read_captions(_beside(ref.source), name, ref.key, int(t_ns[-1]) + _step(info))
    video = Video(path, t_ns, 0, info.codec, info.width, info.height, info.rotation)
    session = PurePosixPath(name).with_suffix("").as_posix()
    return _episode(ref, video, texts, findings, session=session, sha256=sha256_of_file(path))


def _read_pictures(ref: EpisodeRef) -> Episode:
    sequence = Sequence(ref.place["path"], tuple(ref.place["pictures"]), tuple(ref.place["numbers"]))
    pictures = pictures_of(ref.source, sequence)
    step = int(pictures.t_ns[-1] // (len(pictures.t_ns) - 1))
    texts, findings = read_captions(ref.source, sequence.folder, ref.key, int(pictures.t_ns[-1]) + step)
    if sequence.missing:
        message = f"{sequence.missing} pictures are missing between {sequence.names[0]} and {sequence.names[-1]}"
        findings.append(Finding("dropped_frames", "warning", ref.key, message))
    sha256 = content_sha256({}, texts, *(ref.source.path(n).read_bytes() for n in sequence.names))
    session, hz = sequence.folder or ref.source.name, counted_hz(sequence)
    return _episode(ref, pictures, texts, findings, session=session, sha256=sha256, counted=hz)


def _episode(
    ref: EpisodeRef,
    footage: Footage,
    texts: tuple[Text, ...],
    findings: list[Finding],
    *,
    session: str,
    sha256: str,
    counted: float = 0.0,
) -> Episode:
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams={},
        videos={CAMERA: footage},
        texts=texts,
        session=session,
        reader=f"{NAME}@{VERSION}",
        source_sha256=sha256,
        rows=(0, len(footage.t_ns)),
        licence=ref.place["licence"],
        findings=tuple(findings),
        counted_hz=counted,
    )


def _step(info: VideoInfo) -> int:
    """How long the last frame is shown, in ns."""
    return round(1e9 / info.average_fps) if info.average_fps else 1


def _beside(source: Source) -> Source:
    """Where captions lie: a single file of this machine has neighbours too."""
    return Source.at(Path(source.url).parent) if source.is_file and source.is_local else source


def _is_video(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _stray_kind(name: str) -> str:
    is_picture = PurePosixPath(name).suffix.lower() in PICTURES
    return "picture of no numbered sequence" if is_picture else "file that is no video"


def _keys(videos: list[str]) -> dict[str, str]:
    """A key per file, free of dots and slashes; files that would share one get a piece of their path's hash."""
    plain = {
        name: re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(name).with_suffix("").as_posix().replace("/", "__"))
        for name in videos
    }
    taken = Counter(plain.values())
    return {
        name: key if taken[key] == 1 else f"{key}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, key in plain.items()
    }
