"""Video files without actions: a folder of them, or a single one.

Each file is one episode with one camera stream named `video`. Its clock is zero at the first frame, and frame times
are the container's, so a phone's variable frame rate stays what it was. An instruction may stand beside the file
under the same stem: `pour_milk.txt`, or `pour_milk.json` with `caption`, `text` or `task`.
"""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from schemas.episode import Episode, Finding, Text, Video
from schemas.errors import DataError
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.tree import (
    LFS_ADVICE,
    find_licence,
    is_description,
    is_lfs_pointer,
    sha256_of_file,
    stray_findings,
)
from wamdata.source import Source
from wamdata.video import probe

NAME = "video"
VERSION = 1
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
CAPTION_FIELDS = ("caption", "text", "task")


def detect(source: Source) -> bool:
    """Whether `source` is a video file or holds one at any depth."""
    return any(_is_video(name) for name in source.files())


def list_episodes(source: Source) -> Listing:
    """Every video file; none is opened, so rows are 0 (unknown) and a broken one shows when it is read."""
    files = source.files()
    videos = [name for name in files if _is_video(name)]
    captions = {sidecar for name in videos for sidecar in _sidecars(name)}
    strays = [("file that is no video", p) for p in files if not (_is_video(p) or p in captions or is_description(p))]
    keys = _keys(videos)
    licence = find_licence(source)
    refs = tuple(EpisodeRef(source, keys[p], 0, {"path": p, "licence": licence}) for p in videos)
    return Listing(NAME, refs, tuple(stray_findings(strays, str(source))), {"licence": licence})


def read(ref: EpisodeRef) -> Episode:
    """One video as an episode without streams.

    Raises:
        DataError: the file is missing, a Git-LFS pointer, or not a whole video.
    """
    name = ref.place["path"]
    if not ref.source.has(name):
        raise DataError(f"{ref.source.where(name)}: missing. List the source again.")
    path = ref.source.path(name)
    if is_lfs_pointer(path):
        raise DataError(f"{path}: a Git-LFS pointer, not the video itself. {LFS_ADVICE}")
    info = probe(path)
    t_ns = info.pts_ns - info.pts_ns[0]
    step = round(1e9 / info.average_fps) if info.average_fps else 1
    text, findings = _caption(ref.source, name, ref.key)
    video = Video(
        path=path,
        t_ns=t_ns,
        first_frame=0,
        codec=info.codec,
        width=info.width,
        height=info.height,
        rotation=info.rotation,
    )
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams={},
        videos={"video": video},
        texts=(Text(text, 0, int(t_ns[-1]) + step, origin="caption"),) if text else (),
        session=PurePosixPath(name).with_suffix("").as_posix(),
        reader=f"{NAME}@{VERSION}",
        source_sha256=sha256_of_file(path),
        rows=(0, info.num_frames),
        licence=ref.place["licence"],
        findings=tuple(findings),
    )


def _is_video(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _sidecars(name: str) -> tuple[str, ...]:
    """Where an instruction may stand beside a video."""
    return tuple(PurePosixPath(name).with_suffix(suffix).as_posix() for suffix in (".txt", ".json"))


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


def _caption(source: Source, name: str, key: str) -> tuple[str, list[Finding]]:
    """The instruction beside a video, "" where there is none; a single file of this machine has neighbours too."""
    beside = Source.at(Path(source.url).parent) if source.is_file and source.is_local else source
    for caption in _sidecars(name):
        if not beside.has(caption):
            continue
        sidecar = beside.path(caption)
        try:
            content = sidecar.read_text(encoding="utf-8-sig")
            text = _caption_field(json.loads(content)) if sidecar.suffix == ".json" else content
        except ValueError:  # not UTF-8, or not JSON
            return "", [Finding("bad_caption", "warning", key, f"{sidecar} is not a text or JSON file. Mend it")]
        text = " ".join(text.split())
        blank = Finding(
            "blank_text", "warning", key, f"{sidecar} holds no instruction. Write one, or take the file away"
        )
        return text, [] if text else [blank]
    return "", []


def _caption_field(content: object) -> str:
    fields = content if isinstance(content, dict) else {}
    return next((fields[name] for name in CAPTION_FIELDS if isinstance(fields.get(name), str)), "")
