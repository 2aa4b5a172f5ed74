"""Zarr replay buffers: diffusion policy, UMI and what was made after them; version 2 and 3, a folder or one zip file.

    replay_buffer.zarr(.zip)/data/<key>            (N, ...) rows of all episodes one behind the other
    replay_buffer.zarr(.zip)/meta/episode_ends     (E,) row behind the last of each episode

An array of at most 512 numbers a row is a stream; pictures, uint8 or float of 0 to 1 or 0 to 255, are cameras. JPEG-XL
needs imagecodecs. Rows are counted: no clock is kept in these stores.

Limits: depth, point clouds and pictures that are coded one by one are left out, and told. A store whose codec unpickles
is not read. A stream whose chunks were never copied reads as zeros, as the format has it. A chunk that was packed on
purpose to grow far beyond the size that it declares is only refused by its codec.
"""

from pathlib import PurePosixPath

from schemas.episode import Episode, Finding
from schemas.errors import DataError
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.naming import keys_of
from wamdata.readers.tree import find_licence
from wamdata.readers.zarr.buffer import open_buffer
from wamdata.readers.zarr.episode import read_episode
from wamdata.readers.zarr.episodes import spans_of
from wamdata.readers.zarr.members import members_of, prefixes, where_of
from wamdata.source import Source

NAME = "zarr"
VERSION = 1
ZIP = b"PK\x03\x04"


def detect(source: Source) -> bool:
    """Whether `source` is or holds a store with `meta/episode_ends`, or a `.zarr.zip`, be it broken."""
    return bool(_stores(source))


def list_episodes(source: Source) -> Listing:
    """Every episode of every store; a store that cannot be read is a finding.

    Raises:
        DataError: there is no store, or none can be read.
    """
    stores, licence = _stores(source), find_licence(source)
    keys = keys_of({s: _plain(s) or _plain(source.name) for s in stores})
    refs: list[EpisodeRef] = []
    findings: list[Finding] = []
    for store in stores:
        where = where_of(source, store)
        try:
            found = spans_of(open_buffer(source, store), where)
        except DataError as error:
            message = f"{error} Its episodes are left out"
            findings.append(Finding("unreadable", "error", where, message))
            continue
        findings += found.findings
        place = {"store": store, "session": _plain(store) or _plain(source.name), "licence": licence}
        for number, (first, stop) in found.spans.items():
            mine = place | {"episode": number, "first": first, "stop": stop}
            refs.append(EpisodeRef(source, f"{keys[store]}__episode_{number}", stop - first, mine))
    if not refs:
        raise DataError(_nothing(source, findings))
    message = "rows are counted: no clock is in these stores. Set `native_hz` in the robot's file to their rate"
    findings.append(Finding("no_clock", "warning", str(source), message))
    return Listing(NAME, tuple(refs), tuple(findings), {"licence": licence})


def read(ref: EpisodeRef) -> Episode:
    """One episode; its pictures stay where they are.

    Raises:
        DataError: the store is missing or damaged, or declares absurdly many rows.
    """
    return read_episode(ref, reader=f"{NAME}@{VERSION}")


def _stores(source: Source) -> list[str]:
    """Names of the stores: folders, zip files, or "" for the source itself."""
    if source.is_file:
        return [source.name] if _is_zip(source, source.name) else []
    files = source.files()
    zips = [n for n in files if n.lower().endswith(".zip") and _is_zip(source, n)]
    return sorted({p.rstrip("/") for p in prefixes(files)} | set(zips))


def _is_zip(source: Source, name: str) -> bool:
    """Whether a file is a zipped store; one elsewhere than on this machine is known by its name, and not fetched."""
    if name.lower().endswith(".zarr.zip") or not source.is_local:
        return name.lower().endswith(".zarr.zip")
    with source.path(name).open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return False
    try:
        members_of(source, name)
    except DataError:
        return False
    return True


def _plain(name: str) -> str:
    """A store's path without its suffixes."""
    path = PurePosixPath(name)
    while path.suffix in (".zip", ".zarr"):
        path = path.with_suffix("")
    return path.as_posix() if name else ""


def _nothing(source: Source, findings: list[Finding]) -> str:
    if findings:
        return findings[0].message.removesuffix(" Its episodes are left out")
    return f"{source}: holds no Zarr store with `meta/episode_ends`. Give the folder that does."
