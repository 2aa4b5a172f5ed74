"""Half-converted LeRobot sets: the list of episodes is of one version, files are of the other.

What an interrupted or home-made conversion leaves. Rows are looked for under the other version's name, then in any
parquet file below `data/` that holds the episode's index; videos under the other version's name. Does not guess where
in a shared video an episode lies that no list says.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.episode import Finding
from wamdata.readers.lerobot.meta import V2_DATA, V2_VIDEO, EpisodeMeta, Info
from wamdata.readers.tree import first_names
from wamdata.source import Source


def where_they_lie(source: Source, info: Info, episodes: list[EpisodeMeta]) -> tuple[list[EpisodeMeta], list[Finding]]:
    """The episodes with the files that are there, and what was taken from elsewhere than the metadata says."""
    names = set(source.files())
    lost = {e.index for e in episodes if e.data not in names}
    if not lost:
        return episodes, []
    held = _rows_elsewhere(source, info, lost, names - {e.data for e in episodes})
    found, moved = [], []
    for episode in episodes:
        if episode.index in held:
            data, is_shared = held[episode.index]
            moved.append(data)
            episode = replace(episode, data=data, is_shared=is_shared)
        found.append(
            replace(episode, videos={c: _video(info, c, episode, p, names) for c, p in episode.videos.items()})
        )
    if not moved:
        return episodes, []
    message = (
        f"{len(moved)} of {len(episodes)} episodes lie elsewhere than the metadata says: "
        f"{first_names(sorted(set(moved)))}; taken from there"
    )
    return found, [Finding("mixed_layout", "warning", str(source), message)]


def _rows_elsewhere(source: Source, info: Info, lost: set[int], names: set[str]) -> dict[int, tuple[str, bool]]:
    """For each lost episode that is found: its file, and whether it shares it."""
    held = {index: (place, False) for index in lost if (place := _v2(info, V2_DATA, index)) in names}
    for name in sorted(n for n in names if n.startswith("data/") and n.endswith(".parquet")):
        if held.keys() >= lost:
            break
        for index in _indices(source, name) & (lost - held.keys()):
            held[index] = (name, True)
    return held


def _video(info: Info, camera: str, episode: EpisodeMeta, place, names: set[str]):
    """A camera's place; the episode's own file where the one in the list is not there."""
    own = _v2(info, V2_VIDEO, episode.index, video_key=camera)
    if place.path in names or own not in names:
        return place
    return replace(place, path=own, from_s=None, to_s=None, next_s=None)


def _v2(info: Info, template: str, index: int, **more: str) -> str:
    return template.format(episode_chunk=index // info.chunks_size, episode_index=index, **more)


def _indices(source: Source, name: str) -> set[int]:
    """Indices of the episodes whose rows a parquet file holds; none of a file that is not one."""
    try:
        with pq.ParquetFile(source.path(name)) as file:
            if "episode_index" not in file.schema_arrow.names:
                return set()
            column = file.read(columns=["episode_index"]).column(0).combine_chunks()
            return set(np.unique(np.from_dlpack(column.cast(pa.int64()))).tolist())
    except (pa.ArrowInvalid, OSError):
        return set()
