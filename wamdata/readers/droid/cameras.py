"""The cameras of a raw DROID recording: which serial is which, and when each of its frames was taken."""

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from schemas.episode import Finding, Footage, Int64
from schemas.errors import DataError
from wamdata.readers.base import EpisodeRef
from wamdata.readers.hdf5.file import find
from wamdata.readers.row_video import row_video
from wamdata.readers.stamps import to_ns, unit_of

KINDS = {0: "wrist", 1: "varied", 2: "fixed"}  # droid-dataset/droid, camera_utils/info.py
CLOCKS = ("estimated_capture", "frame_received")
FARTHEST_NS = 1_000_000_000  # a frame is taken within this of its row, or the camera's clock is another one
SVO_ADVICE = "convert them with the ZED SDK, as `scripts/postprocess.py` of droid-dataset/droid does"


def read_cameras(ref: EpisodeRef, group: Any, t_ns: Int64, where: str) -> tuple[dict[str, Footage], list[Finding]]:
    """Every camera whose video is there, and a finding for each whose video is not.

    Args:
        group: root of `trajectory.h5`.
        t_ns: (N,) times of the rows; frame i shows row i.
    """
    films: dict[str, str] = {PurePosixPath(name).stem: name for name in ref.place["films"]}
    names = _names(_kinds(group, where), ref.place["serials"], films)
    videos: dict[str, Footage] = {}
    findings: list[Finding] = []
    for serial, camera in names.items():
        at_ns, noticed = _times(group, serial, camera, t_ns, ref.key, where)
        video, missing = row_video(ref.source, films.get(serial, _usual(ref, serial)), camera, ref.key, at_ns)
        findings += missing
        if video is not None:
            videos[camera] = video
            findings += noticed
    if ref.place["svo"] and not films:
        message = f"cameras are in {ref.place['svo']} SVO files alone: {SVO_ADVICE}"
        findings = [Finding("svo_only", "warning", ref.key, message)]
    return videos, findings


def _usual(ref: EpisodeRef, serial: str) -> str:
    return f"{ref.place['path']}/recordings/MP4/{serial}.mp4".removeprefix("/")


def _kinds(group: Any, where: str) -> dict[str, str]:
    """Per serial `wrist`, `varied` or `fixed`, as the rows say."""
    listed = find(group, "observation/camera_type", where)
    found = {}
    for serial in listed if hasattr(listed, "keys") else ():
        values = find(listed, serial, where)
        if getattr(values, "shape", None) is not None and values.dtype.kind in "iuf" and values.size:
            first = values[0] if values.shape else values[()]
            found[serial] = KINDS.get(int(np.nan_to_num(np.ravel(first)[0])), "camera")
    return found


def _names(kinds: dict[str, str], serials: dict[str, str], films: dict[str, str]) -> dict[str, str]:
    """A name per serial: by kind, counted in the order of the metadata, else of the serials; or as the metadata say."""
    order = {serial: name for name, serial in serials.items()}
    known = sorted({*kinds, *order, *films}, key=lambda s: (order.get(s, "~"), s))
    if not kinds:
        return {serial: order.get(serial, f"camera_{serial}") for serial in known}
    many = Counter(kinds.values())
    seen: Counter[str] = Counter()
    names = {}
    for serial in known:
        kind = kinds.get(serial, "camera")
        seen[kind] += 1
        if kind == "camera" or (kind == "wrist" and many[kind] > 1):
            names[serial] = f"{kind}_{serial}"
        else:
            names[serial] = kind if kind == "wrist" else f"{kind}_{seen[kind]}"
    return names


def _times(
    group: Any, serial: str, camera: str, t_ns: Int64, key: str, where: str
) -> tuple[Int64, list[Finding]]:  # fmt: skip
    """When the frames were taken: as the camera says, else at the times of the rows."""
    for clock in CLOCKS:
        path = f"observation/timestamp/cameras/{serial}_{clock}"
        stamps = find(group, path, where)
        if stamps is None or getattr(stamps, "dtype", np.dtype("S1")).kind not in "iuf" or stamps.shape == ():
            continue
        values = stamps[: len(t_ns)].reshape(-1)
        try:
            if len(values) != len(t_ns):
                raise DataError(f"{path}: {len(values)} times for {len(t_ns)} rows.")
            at_ns = to_ns(values, unit_of(values) or "ms", path)
        except DataError as error:
            message = f"{camera}: {str(error).split('. ')[0]}: its frames get the times of the rows"
            return t_ns, [Finding("camera_clock", "info", key, message)]
        apart_ns = int(np.median(np.abs(at_ns - t_ns)))
        if apart_ns <= FARTHEST_NS:
            return at_ns, []
        message = f"{camera}: its clock is {apart_ns / 1e9:.1f} s off: its frames get the times of the rows"
        return t_ns, [Finding("camera_clock", "info", key, message)]
    return t_ns, []
