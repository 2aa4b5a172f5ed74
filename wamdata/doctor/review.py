"""A page on which a person looks at every episode at four times its speed and says what becomes of it, key by key.

    folder/index.html      needs no server: opened from the disk
    folder/media/*.mp4     each camera's own packets; what browsers cannot show is encoded as H.264

The page saves a label table, which `wam ingest --labels` and `wam check --labels` take: clumsy or failed tries become
video-only instead of being thrown away.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Footage
from schemas.errors import DataError, UsageError
from schemas.files import write_atomic
from wamdata.footage import cut, frames, shard_codec
from wamdata.label_table import Label
from wamdata.labels import Labels, extent, why_dropped
from wamdata.mapping import timed
from wamdata.readers import detect_reader
from wamdata.readers.base import EpisodeRef
from wamdata.source import Source
from wamdata.video_encode import encode_h264

SHOWN_BY_BROWSERS = ("h264", "av1", "vp9", "vp8")
PAGE, MEDIA = "index.html", "media"
HEIGHT = 240  # of what has to be encoded
BATCH = 64  # frames


def write_review(
    source: Source,
    out: Path,
    *,
    reader: str = "auto",
    robot: Embodiment | None = None,
    labels: Callable[[tuple[EpisodeRef, ...]], Labels] = lambda refs: Labels(),
    on_episode: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """The page of all episodes of a source in `out`; returns how many it shows. Media that are there are kept.

    Args:
        robot: gives the rate of rows that have no times.
        labels: what earlier tables say: the page starts from it.

    Raises:
        UsageError: `out` holds something else, or lies in the source.
    """
    if source.is_local and out.resolve().is_relative_to(Path(source.url).resolve()):
        raise UsageError(f"{out}: lies inside the source {source}, which is never written to. Give another --out.")
    if out.exists() and any(p.name not in (PAGE, MEDIA) for p in out.iterdir()):
        raise UsageError(f"{out}: holds other files. Give an empty or new folder.")
    module = detect_reader(source, reader)
    listing = module.list_episodes(source)
    said = labels(listing.episodes)
    (out / MEDIA).mkdir(parents=True, exist_ok=True)
    shown = []
    for done, ref in enumerate(listing.episodes, start=1):
        try:
            episode = module.read(ref)
            episode = timed(episode, robot) if robot else episode
            shown.append(_entry(episode, said.of(ref), out))
        except DataError as error:
            reason = source.without_place(str(error))
            shown.append(
                {"key": ref.key, "seconds": 0, "videos": [], "task": "", "problem": reason} | _state(said.of(ref))
            )
        on_episode(done, len(listing.episodes))
    _write_page(out / PAGE, source, shown)
    return len(shown)


def _entry(episode: Episode, labels: tuple[Label, ...], out: Path) -> dict[str, Any]:
    start, stop = extent(episode)
    videos = []
    for camera, footage in episode.videos.items():
        name = f"{episode.key}__{re.sub(r'[^A-Za-z0-9_-]+', '_', camera).strip('_')}.mp4"
        path = out / MEDIA / name
        if not path.exists():
            write_atomic(path, playable(footage))
        late = (int(footage.t_ns[0]) - start) / 1e9
        videos.append({"camera": camera, "file": f"{MEDIA}/{name}", "late": round(late, 3)})
    return {
        "key": episode.key,
        "seconds": round((stop - start) / 1e9, 3),
        "videos": videos,
        "task": next((t.text for t in episode.texts if t.level == "task"), ""),
        "problem": "",
    } | _state(labels)


def _state(labels: tuple[Label, ...]) -> dict[str, Any]:
    """What earlier tables decided: the strictest use of the whole episode, and its words."""
    whole = [label for label in labels if not {"start_s", "end_s"} & label.values.keys()]
    order = ("drop", "none", "video")
    use = next((u for u in order if any(label.use == u for label in whole)), "both" if labels else "")
    if why_dropped(labels) is not None:
        use = "drop"
    words = {n: next((x.values[n] for x in whole if n in x.values), "") for n in ("task", "outcome", "reason")}
    spans = [dict(x.values) for x in labels if {"start_s", "end_s"} & x.values.keys()]
    return {
        "use": use,
        "newTask": words["task"],
        "outcome": words["outcome"],
        "reason": words["reason"],
        "spans": spans,
    }


def playable(footage: Footage) -> bytes:
    """A camera's frames as an mp4 that browsers play, from its first frame on."""
    if shard_codec(footage) in SHOWN_BY_BROWSERS:
        video, first = cut(footage, 0, len(footage.t_ns))
        if first == 0:
            return video
    step = float(np.median(np.diff(footage.t_ns))) if len(footage.t_ns) > 1 else 1e9
    height = min(HEIGHT, footage.height) // 2 * 2
    width = round(footage.width * height / footage.height / 2) * 2
    return encode_h264(_small(footage, max(height, 2), max(width, 2)), 1e9 / step)


def _small(footage: Footage, height: int, width: int) -> Iterator[np.ndarray]:
    for at in range(0, len(footage.t_ns), BATCH):
        yield from frames(footage, range(at, min(at + BATCH, len(footage.t_ns))), size=(height, width))


def _write_page(path: Path, source: Source, episodes: list[dict[str, Any]]) -> None:
    from jinja2 import Environment, PackageLoader, select_autoescape

    pages = Environment(loader=PackageLoader("wamdata.doctor"), autoescape=select_autoescape(["jinja"]))
    content = json.dumps(episodes).replace("<", "\\u003c")
    html = pages.get_template("review.html.jinja").render(source=str(source), episodes=content, count=len(episodes))
    write_atomic(path, html.encode())
