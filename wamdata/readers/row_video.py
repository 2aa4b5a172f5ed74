"""A video file beside a log, whose frame i shows row i."""

from schemas.episode import Finding, Int64, Video
from schemas.errors import DataError
from wamdata.readers.tree import LFS_ADVICE, is_lfs_pointer
from wamdata.source import Source
from wamdata.video import probe_whole


def row_video(
    source: Source, name: str, camera: str, key: str, t_ns: Int64 | None
) -> tuple[Video | None, list[Finding]]:
    """The camera, None where its file is missing or broken, and what was noticed.

    Args:
        camera: how findings name it.
        key: of the episode.
        t_ns: (N,) time of each row, for as many frames as there are; None takes the container's, from zero on.
    """
    if not source.has(name):
        message = f"{camera}: {source.where(name)} is missing. Copy it, or leave the camera out"
        return None, [Finding("missing_video", "warning", key, message)]
    path = source.path(name)
    if is_lfs_pointer(path):
        return None, [Finding("lfs_pointer", "warning", key, f"{camera}: {path} is a Git-LFS pointer. {LFS_ADVICE}")]
    try:
        info = probe_whole(path)
    except DataError as error:
        return None, [Finding("corrupt_video", "warning", key, f"{camera}: {error}")]
    at_ns = info.pts_ns - info.pts_ns[0] if t_ns is None else t_ns[: info.num_frames].copy()
    video = Video(path, at_ns, 0, info.codec, info.width, info.height, info.rotation)
    if t_ns is None or info.num_frames == len(t_ns):
        return video, []
    message = f"{camera}: {info.num_frames} frames for {len(t_ns)} rows: matched from the first on"
    return video, [Finding("frame_count", "warning", key, message)]
