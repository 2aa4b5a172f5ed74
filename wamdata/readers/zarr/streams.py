"""Which arrays of a replay buffer are streams and which are cameras, and the rows of the streams."""

import math

import numpy as np

from schemas.episode import Float32, Int64, Stream
from schemas.errors import DataError
from schemas.hdf5_layout import CameraPlace
from wamdata.readers.hdf5.pictures import Look, look_at
from wamdata.readers.zarr.buffer import Rows, told

MAX_WIDTH = 512  # numbers a row; more are a point cloud or a map
MAX_STREAM_BYTES = 4_000_000_000  # all streams of one episode, as float32
COLUMN_FIELDS = ("columns", "names", "column_names")


def looks_of(arrays: dict[str, Rows], where: str) -> tuple[dict[str, Look], dict[str, str]]:
    """The arrays that hold pictures, and those that hold some that cannot be used with the reason."""
    looks: dict[str, Look] = {}
    unread: dict[str, str] = {}
    for name, array in arrays.items():
        try:
            with told(name):
                look = look_at(array, name, CameraPlace(source=name), where)
        except DataError as error:
            look = str(error).removeprefix(f"{name}: ").removesuffix(". Copy the store again.")
        if isinstance(look, Look) and look.codec == "raw" and not look.flat:
            looks[name] = look
        elif look is not None:
            unread[name] = look if isinstance(look, str) else f"{look.codec} pictures as bytes, which is not read"
    return looks, unread


def streams_of(
    arrays: dict[str, Rows], first: int, stop: int, t_ns: Int64, where: str
) -> tuple[dict[str, Stream], dict[str, str]]:
    """Rows [first, stop) of every array of numbers, and the arrays that are none with the reason.

    Raises:
        DataError: they declare more than memory holds, or are damaged.
    """
    widths = {n: math.prod(a.shape[1:]) for n, a in arrays.items() if a.dtype.kind in "biuf"}
    unread = {n: f"{a.dtype}, no numbers" for n, a in arrays.items() if n not in widths}
    unread |= {n: f"{width} numbers a row, of {MAX_WIDTH} at most" for n, width in widths.items() if width > MAX_WIDTH}
    unread |= {n: "rows without numbers" for n, width in widths.items() if not width}
    wanted = {n: width for n, width in widths.items() if n not in unread}
    size = sum(wanted.values()) * (stop - first) * 4
    if size > MAX_STREAM_BYTES:
        raise DataError(
            f"{where}: declares {size / 1e9:.0f} GB of rows, of {MAX_STREAM_BYTES / 1e9:.0f} GB at most. "
            f"Mend `episode_ends`, or split the episode."
        )
    streams = {}
    for name, width in wanted.items():
        with told(f"{where}: {name}"), np.errstate(over="ignore", invalid="ignore"):
            values: Float32 = arrays[name][first:stop].astype(np.float32).reshape(stop - first, width)
            streams[name] = Stream(name, t_ns, values, _columns(arrays[name], width))
    return streams, unread


def _columns(array: Rows, width: int) -> tuple[str, ...]:
    """Names of the numbers of a row, where the array's attributes give one for each."""
    for field in COLUMN_FIELDS:
        names = array.array.attrs.get(field)
        if isinstance(names, list) and len(names) == width and all(isinstance(n, str) for n in names):
            return tuple(names)
    return ()
