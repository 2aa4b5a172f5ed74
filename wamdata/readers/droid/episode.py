"""One raw DROID recording: the rows of `trajectory.h5` by the HDF5 reader's means, cameras and words from beside it."""

from typing import Any

import numpy as np

from schemas.episode import Episode, Finding, Int64, Text
from schemas.hdf5_layout import Hdf5Layout
from wamdata.readers.base import EpisodeRef, content_sha256, no_instruction
from wamdata.readers.droid.cameras import read_cameras
from wamdata.readers.hdf5.file import datasets, find
from wamdata.readers.hdf5.layout import matches
from wamdata.readers.hdf5.rows import Rows, is_stream, read_rows
from wamdata.readers.stamps import unit_of

CONTROL_HZ = 15  # of every DROID robot; used where a recording holds no times
CLOCK = "observation/timestamp/robot_state/read_start"  # ms since 1970: droid-dataset/droid, misc/time.py
MOVING = "observation/controller_info/movement_enabled"
LAYOUT = {
    "schema": "wamkit/hdf5_layout@1",
    "name": "droid",
    "streams": ["action/**", "observation/robot_state/**", MOVING],
    "leave_out": ["action/robot_state/**"],  # the observation's, said again
}


def read_episode(ref: EpisodeRef, group: Any, *, reader: str) -> Episode:
    """The episode that `ref` names.

    Args:
        group: root of its open `trajectory.h5`.

    Raises:
        DataError: as `droid.read`.
    """
    name = f"{ref.place['path']}/trajectory.h5".removeprefix("/")
    where = ref.source.where(name)
    rows, clock = _rows(ref, group, name, where)
    videos, findings = read_cameras(ref, group, rows.t_ns, where)
    texts = _texts(ref, rows.t_ns)
    findings += [*rows.findings, *clock, *_idle(rows, ref.key)]
    if not texts:
        findings.append(no_instruction(ref.key))
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams=rows.streams,
        videos=videos,
        texts=texts,
        session=ref.place["session"],
        reader=reader,
        source_sha256=content_sha256(rows.streams, texts),
        rows=(0, len(rows.t_ns)),
        outcome=ref.place["outcome"],
        licence=ref.place["licence"],
        findings=tuple(findings),
        counted_hz=rows.counted_hz,
    )


def _rows(ref: EpisodeRef, group: Any, name: str, where: str) -> tuple[Rows, list[Finding]]:
    """The rows at the times of the robot's state, and which unit these were taken to have."""
    stamps = find(group, CLOCK, where)
    is_clock = getattr(stamps, "shape", None) and stamps.dtype.kind in "iuf" and len(stamps)
    unit = unit_of(np.ravel(stamps[:1000])) or "ms" if is_clock else None
    layout = Hdf5Layout.model_validate(
        LAYOUT | {"rate": {"times": CLOCK, "unit": unit} if unit else {"hz": CONTROL_HZ}}
    )  # fmt: skip
    found = {p: d for p, d in datasets(group, where).items() if is_stream(d) and matches(p, layout.streams)}
    wanted = {p: d for p, d in found.items() if not matches(p, layout.leave_out)}
    rows = read_rows(group, wanted, [], layout, name=name, key=ref.key, where=where)
    if unit is None:
        message = f"no `{CLOCK}`: rows are counted at {CONTROL_HZ} Hz"
        return rows, [Finding("no_clock", "warning", ref.key, message)]
    message = f"`{CLOCK}` is taken as {unit}, by its size"
    return rows, [Finding("clock_unit", "info", ref.key, message)] if unit != "ms" else []


def _texts(ref: EpisodeRef, t_ns: Int64) -> tuple[Text, ...]:
    """The instructions that were written for it, then the task that its operator was given."""
    stop_ns = int(t_ns[-1]) + (int(t_ns[-1] - t_ns[-2]) if len(t_ns) > 1 else 1)
    said = dict.fromkeys(ref.place["annotations"], "annotation")
    said |= {ref.place["task"]: "current_task"} if ref.place["task"] not in ("", *said) else {}
    return tuple(Text(line, int(t_ns[0]), stop_ns, origin=origin) for line, origin in said.items())


def _idle(rows: Rows, key: str) -> list[Finding]:
    """How much of it the operator was not moving the robot for."""
    moving = rows.streams.get(MOVING)
    share = 0.0 if moving is None else float((moving.values[:, 0] == 0).mean())
    if not share:
        return []
    message = f"the operator held the robot still in {share:.0%} of the rows: stream {MOVING} is 0 there"
    return [Finding("operator_idle", "info", key, message)]
