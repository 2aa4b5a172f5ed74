"""Every camera that the embodiment gives to a model must be there."""

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Finding
from schemas.recipe import Filters


def check(episode: Episode, embodiment: Embodiment, limits: Filters) -> list[Finding]:
    known = {f.code: f for f in episode.findings if f.code in ("missing_video", "lfs_pointer", "corrupt_video")}
    found = []
    for camera in embodiment.model_cameras:
        if camera.source in episode.videos:
            continue
        reason = next((f for f in known.values() if camera.source in f.message), None)
        code = reason.code if reason else "missing_video"
        message = (
            reason.message
            if reason
            else f"no video {camera.source!r} for camera {camera.key!r}; the episode has {', '.join(episode.videos) or 'none'}"
        )
        found.append(Finding(code, "error", episode.key, message))
    return found
