"""Every camera that the embodiment gives to a model must be there."""

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Finding
from schemas.recipe import Filters

BROKEN = ("missing_video", "lfs_pointer", "corrupt_video")


def check(episode: Episode, embodiment: Embodiment, limits: Filters) -> list[Finding]:
    found = []
    if not episode.videos and not embodiment.model_cameras:
        message = (
            "no camera in the log: a world action model learns from pictures. Record one, or give its films beside"
        )
        found.append(Finding("no_camera", "error", episode.key, message))
    for camera in embodiment.model_cameras:
        if camera.source in episode.videos:
            continue
        reasons = (f for f in episode.findings if f.code in BROKEN and camera.source in f.message)
        there = ", ".join(episode.videos) or "none"
        plain = (
            f"no video {camera.source!r} for camera {camera.key!r}; the episode has {there}. Mend `from`, or drop it"
        )
        reason = next(reasons, Finding("missing_video", "error", episode.key, plain))
        found.append(Finding(reason.code, "error", episode.key, reason.message))
    return found
