"""HDF5 logs: robomimic and MimicGen, LIBERO, ALOHA and mobile ALOHA, RoboMIND, and any other by a small YAML file.

What differs between recorders is where things lie, so each is a record, `schemas.hdf5_layout.Hdf5Layout`: those that
are known stand in `layout.py`, and one of your own is the same record in YAML, given as `--reader my_rig.yaml`:

    schema: wamkit/hdf5_layout@1
    name: my_rig
    episodes: "runs/run_*"
    streams: ["state/*", "command"]
    cameras:
      - {from: "cams/*"}
    rate: {hz: 30}
    texts: ["@task"]

Streams and cameras are named by their paths below an episode. Rows without times of their own are counted at the rate
that the file or the format says. Simulator states and `next_obs` are left out.

Limits: depth, pictures in video files beside the HDF5 file, and clocks that differ between streams are not read. A demo
that MimicGen stitched from several demos shares a session only with those of exactly the same ones. Listing a remote
source fetches each file that holds many episodes.
"""

from dataclasses import dataclass
from pathlib import Path

from schemas.episode import Episode
from schemas.errors import DataError
from schemas.hdf5_layout import Hdf5Layout
from schemas.yaml_io import read_yaml
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.hdf5.episode import read_episode
from wamdata.readers.hdf5.file import opened, told
from wamdata.readers.hdf5.layout import BUILT_IN
from wamdata.readers.hdf5.listing import fits_some, list_files
from wamdata.source import Source

NAME = "hdf5"
VERSION = 1


@dataclass(frozen=True)
class WithLayout:
    """The reader of one layout; it has a version of its own, so that an edited layout is another input of an ingest."""

    layout: Hdf5Layout
    NAME = NAME

    @property
    def VERSION(self) -> int:
        return _version(self.layout)

    def detect(self, source: Source) -> bool:
        return fits_some(source, (self.layout,))

    def list_episodes(self, source: Source) -> Listing:
        return list_files(source, (self.layout,))

    def read(self, ref: EpisodeRef) -> Episode:
        return read(ref)


def with_layout(path: Path | str) -> WithLayout:
    """The reader for logs that lie as a YAML file says.

    Raises:
        UsageError: no such file, or a field of it is wrong.
    """
    return WithLayout(read_yaml(Path(path), Hdf5Layout))


def detect(source: Source) -> bool:
    """Whether `source` is or holds HDF5 files that fit a known layout, or such files of which none can be read."""
    return fits_some(source, BUILT_IN)


def list_episodes(source: Source) -> Listing:
    """Every episode of every file that fits a known layout; files that cannot be read are findings.

    Raises:
        DataError: there is no such file, or none of them can be read.
    """
    return list_files(source, BUILT_IN)


def read(ref: EpisodeRef) -> Episode:
    """One episode as logged; its pictures stay where they are.

    Raises:
        DataError: its file is missing or damaged, it lacks its rows or declares absurdly many, or it leads elsewhere.
    """
    name, layout = ref.place["path"], Hdf5Layout.model_validate(ref.place["layout"])
    where = ref.source.where(name)
    if not ref.source.has(name):
        raise DataError(f"{where}: missing. List the source again.")
    path = ref.source.path(name)
    with opened(path, where) as file, told(f"{where}: {ref.key}"):
        return read_episode(ref, layout, path, file, reader=f"{NAME}@{_version(layout)}")


def _version(layout: Hdf5Layout) -> int:
    return VERSION if layout in BUILT_IN else VERSION * 10**6 + int(layout.digest()[:8], 16) % 10**6
