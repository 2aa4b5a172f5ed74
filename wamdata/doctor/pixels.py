"""What a look at a camera shows of one episode: black, blank and frozen pictures.

A picture that does not change is a fault only if the robot moves meanwhile; beside a robot that rests, and in a film,
it is a still scene.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Finding, Footage, Trajectory
from wamdata.doctor.look import Look, full
from wamdata.filters.idle import is_still

BLACK_MEAN, BLACK_MAX = 8.0, 48.0  # grey levels: a lens cap with sensor noise stays below both
BLANK_STD = 1.0  # over a whole picture
SAME, BLOCK = 2.0, 8  # grey levels by which the mean of a block may differ: what coding one picture twice does
LONG_S = 1.0  # shortest freeze that is told


def check(key: str, camera: str, footage: Footage, look: Look, trajectory: Trajectory | None) -> list[Finding]:
    """Findings of one camera of an episode; `trajectory` is None where the log has no robot in it."""
    dark = _is_black(look)
    blank = ~dark & (look.pictures.std(axis=(1, 2)).max(axis=1) < BLANK_STD)
    found = [
        *_shown(key, camera, look, dark, "black_frames", "black"),
        *_shown(key, camera, look, blank, "blank_frames", "of one single colour"),
    ]
    if not dark.all() and not blank.all():
        found += _frozen(key, camera, footage, look, trajectory)
    return found


def _is_black(look: Look) -> NDArray[np.bool_]:
    flat = look.pictures.reshape(len(look.pictures), -1)
    return (flat.mean(axis=1) < BLACK_MEAN) & (flat.max(axis=1) < BLACK_MAX)


def _shown(key: str, camera: str, look: Look, bad: NDArray[np.bool_], code: str, words: str) -> Iterator[Finding]:
    """One finding for all pictures that look `bad`."""
    if not bad.any():
        return
    total = len(bad)
    times = (look.t_ns[bad] - look.t_ns[0]) / 1e9
    if bad.all():
        message = f"{camera}: all {total} pictures looked at are {words}. Leave the camera out, or drop the episode"
        yield Finding(code, "warning", key, message, None, (("share", 1.0),))
        return
    step = float(np.median(np.diff(look.t_ns))) / 1e9
    span = (max(float(times[0]) - step, 0.0), float(times[-1]) + step)
    message = (
        f"{camera}: {int(bad.sum())} of {total} pictures looked at are {words}, the first at {times[0]:.1f} s "
        f"(frame {int(look.at[bad][0])}). Trim the episode"
    )
    yield Finding(code, "warning", key, message, span, (("share", float(bad.mean())),), "none")


def _frozen(key: str, camera: str, footage: Footage, look: Look, trajectory: Trajectory | None) -> Iterator[Finding]:
    """Spans in which the picture stands still, though the robot does not."""
    for first, stop in _merged([*_equal_looks(look), *look.quiet]):
        start_ns, end_ns = int(footage.t_ns[first]), int(footage.t_ns[stop - 1])
        lasts = (end_ns - start_ns) / 1e9
        if lasts < LONG_S or not _stands_still(footage, first, stop):
            continue
        begin, end = ((t - int(footage.t_ns[0])) / 1e9 for t in (start_ns, end_ns))
        place = f"{camera}: frames {first} to {stop - 1} ({begin:.1f} s to {end:.1f} s) are one and the same picture"
        numbers = (("frozen_s", lasts),)
        if trajectory is None:
            yield Finding("still_picture", "info", key, f"{place}: a still scene, or a frozen camera", (begin, end),
                          numbers)  # fmt: skip
        elif _moves(trajectory, start_ns, end_ns):
            message = f"{place} while the robot moves: the camera hung. Trim the episode"
            yield Finding("freeze", "warning", key, message, (begin, end), numbers, "none")


def _equal_looks(look: Look) -> Iterator[tuple[int, int]]:
    """Spans between neighbouring pictures that are the same."""
    if len(look.pictures) < 2:
        return
    change = np.abs(np.diff(look.pictures.astype(np.int16), axis=0)).max(axis=(1, 2, 3))
    for n in np.flatnonzero(change <= 1):
        yield int(look.at[n]), int(look.at[n + 1]) + 1


def _merged(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Overlapping spans as one."""
    whole: list[tuple[int, int]] = []
    for first, stop in sorted(spans):
        if whole and first <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(stop, whole[-1][1]))
        else:
            whole.append((first, stop))
    yield from whole


def _stands_still(footage: Footage, first: int, stop: int) -> bool:
    """Whether the span's first, middle and last picture are the same, block by block."""
    pictures = full(footage, [first, (first + stop - 1) // 2, stop - 1]).astype(np.float32)
    rows, columns = pictures.shape[1] // BLOCK, pictures.shape[2] // BLOCK
    blocks = pictures[:, : rows * BLOCK, : columns * BLOCK].reshape(3, rows, BLOCK, columns, BLOCK, 3).mean(axis=(2, 4))
    return bool(np.abs(np.diff(blocks, axis=0)).max(initial=0.0) <= SAME)


def _moves(trajectory: Trajectory, start_ns: int, end_ns: int) -> bool:
    inside = (trajectory.t_ns >= start_ns) & (trajectory.t_ns <= end_ns)
    return bool(inside.any() and (~is_still(trajectory))[inside].mean() > 0.5)
