"""One folder per log format, and the choice among them. The contract is in `base.py`, who keeps it in `reader.py`."""

import importlib

from schemas.errors import UsageError
from wamdata.readers.agibot import reader as agibot
from wamdata.readers.arrays import reader as arrays
from wamdata.readers.base import Reader
from wamdata.readers.droid import reader as droid
from wamdata.readers.hdf5 import reader as hdf5
from wamdata.readers.lerobot import reader as lerobot
from wamdata.readers.mcap import reader as mcap
from wamdata.readers.rlds import reader as rlds
from wamdata.readers.rosbag import reader as rosbag
from wamdata.readers.video import reader as video
from wamdata.readers.zarr import reader as zarr
from wamdata.source import Source

# Asked in this order: a log may hold videos, a video holds no log.
READERS: tuple[Reader, ...] = (lerobot, hdf5, rlds, zarr, droid, agibot, mcap, rosbag, arrays, video)
CONTRACT = ("NAME", "VERSION", "detect", "list_episodes", "read")


def detect_reader(source: Source, name: str = "auto") -> Reader:
    """The reader for a source: the one named, or the first that knows its content.

    Args:
        name: `auto`, a reader's name, the path of a YAML layout of HDF5 files, or the dotted path of a module of your
            own that keeps the contract.

    Raises:
        UsageError: no such path, no such reader, or nothing that any reader knows.
        DataError: the source is a robot log whose metadata cannot be read.
    """
    source.require()
    if name != "auto":
        return _named(name)
    for reader in READERS:
        if reader.detect(source):
            return reader
    raise UsageError(
        f"no robot log or video found in {source} (looked for {', '.join(r.NAME for r in READERS)}). "
        f"Give the folder that holds them, or for a format of your own `--reader your.module`, "
        f"of HDF5 files `--reader your_layout.yaml`."
    )


def _named(name: str) -> Reader:
    for reader in READERS:
        if name == reader.NAME:
            return reader
    if name.endswith((".yaml", ".yml")):
        return hdf5.with_layout(name)
    if "." in name:
        return _of_your_own(name)
    known = ", ".join(r.NAME for r in READERS)
    raise UsageError(f"no reader {name!r}. Known: auto, {known}, or the dotted path of a module of your own.")


def _of_your_own(name: str) -> Reader:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"reader {name!r}: {error}. Put its folder on PYTHONPATH, or mend the name.") from None
    missing = [word for word in CONTRACT if not hasattr(module, word)]
    if missing:
        raise UsageError(f"reader {name!r}: lacks {', '.join(missing)}; the contract is in wamdata/readers/base.py.")
    return module
