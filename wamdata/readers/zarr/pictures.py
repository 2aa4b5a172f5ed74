"""Pictures in an array of a replay buffer, decoded a chunk at a time.

A chunk may hold many frames, so the last one of each array is kept: a camera that is read in order decodes each chunk
once, and no more than a chunk is held.
"""

import functools

import numpy as np

from schemas.episode import Coded, Int64, Pictures
from wamdata.readers.hdf5.pictures import Look
from wamdata.readers.pixels import rgb_rows
from wamdata.readers.zarr.buffer import Buffer, open_buffer, told
from wamdata.readers.zarr.members import where_of
from wamdata.source import Source


def pictures(source: Source, store: str, name: str, look: Look, t_ns: Int64, first: int) -> Pictures:
    """A camera of an episode; nothing is read until it is asked for.

    Args:
        name: of the array in `data`.
        t_ns: (N,) times of the frames.
        first: row of the episode's first frame.
    """
    load = functools.partial(_load, source, store, name, look, first)
    return Pictures(t_ns, look.codec, look.width, look.height, load)


def _load(source: Source, store: str, name: str, look: Look, offset: int, first: int, stop: int) -> list[Coded]:
    """Frames [first, stop) of an episode that begins at row `offset`."""
    with told(f"{where_of(source, store)}: {name}"):
        buffer = open_buffer(source, store)
        size = buffer.arrays[name].chunks[0]
        found: list[Coded] = []
        for chunk in range((offset + first) // size, -(-(offset + stop) // size)):
            begin = offset - chunk * size
            found += rgb_rows(_chunk(buffer, name, chunk, size)[max(begin + first, 0) : begin + stop], look)
        return found


def _chunk(buffer: Buffer, name: str, chunk: int, size: int) -> np.ndarray:
    at, rows = buffer.kept.get(name, (-1, np.zeros(0)))
    if at != chunk:
        rows = buffer.arrays[name][chunk * size : (chunk + 1) * size]
        buffer.kept[name] = (chunk, rows)
    return rows
