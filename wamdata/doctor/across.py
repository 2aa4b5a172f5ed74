"""What only shows between episodes: cameras swapped, turned or recoloured in some of them, copies, words that vary.

A camera's picture in an episode is its average; another arrangement of the cameras is believed where it fits the other
episodes at least twice as well as the one in the log.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from schemas.episode import Finding, Text

CELLS = (6, 8)  # of the average picture: small enough that objects do not matter
FITS = 0.5  # of the distance as logged
LEAST = 12.0  # grey levels of distance below which two views are alike anyway
MIN_EPISODES = 3
Picture = NDArray[np.float32]
TURNS: dict[str, Callable[[Picture], Picture]] = {
    "upside down": lambda p: p[::-1, ::-1],
    "mirrored top to bottom": lambda p: p[::-1],
    "with red and blue exchanged": lambda p: p[..., ::-1],
}


@dataclass(frozen=True)
class Glance:
    """What is kept of an episode until all are seen.

    Args:
        views: the average picture of each camera, CELLS x 3.
        content: hash of its rows, or of its pictures where it has none.
    """

    key: str
    views: Mapping[str, Picture]
    texts: tuple[Text, ...]
    content: str


def average(pictures: NDArray[np.uint8]) -> Picture:
    """(K, H, W, 3) pictures of a camera as one of CELLS."""
    rows, columns = CELLS
    height, width = pictures.shape[1] // rows, pictures.shape[2] // columns
    whole = pictures[:, : rows * height, : columns * width].astype(np.float32).mean(axis=0)
    return whole.reshape(rows, height, columns, width, 3).mean(axis=(1, 3))


def check_across(glances: Sequence[Glance]) -> list[Finding]:
    """Findings over all episodes of a source."""
    cameras = sorted({name for glance in glances for name in glance.views})
    return [
        *_duplicates(glances),
        *_spellings(glances),
        *(f for pair in combinations(cameras, 2) for f in _swapped(glances, *pair)),
        *(f for camera in cameras for f in _turned(glances, camera)),
    ]


def _swapped(glances: Sequence[Glance], one: str, other: str) -> Iterator[Finding]:
    """Episodes in which two cameras carry each other's pictures."""
    both = [g for g in glances if one in g.views and other in g.views]
    if len(both) < MIN_EPISODES:
        return
    straight = np.stack([[g.views[one], g.views[other]] for g in both])
    odd = _minority(straight, straight[:, ::-1])
    for n in odd:
        message = (
            f"{one!r} and {other!r} look exchanged, beside the other {len(both) - len(odd)} episodes "
            f"({len(odd)} such). Exchange them in the log, or drop the episode"
        )
        yield Finding("cameras_swapped", "warning", both[n].key, message, None, (("episodes", len(odd)),), "drop")


def _turned(glances: Sequence[Glance], camera: str) -> Iterator[Finding]:
    """Episodes in which a camera is turned, mirrored or in other colours than in the rest."""
    seen = [g for g in glances if camera in g.views]
    if len(seen) < MIN_EPISODES:
        return
    straight = np.stack([g.views[camera][None] for g in seen])
    for words, turn in TURNS.items():
        odd = _minority(straight, np.stack([turn(g.views[camera])[None] for g in seen]))
        for n in odd:
            message = (
                f"{camera!r} looks {words}, beside the other {len(seen) - len(odd)} episodes ({len(odd)} such). "
                "Drop the episode, or give it a robot file with `rotate`, `flip` or `channels`"
            )
            yield Finding("camera_turned", "warning", seen[n].key, message, None, (("episodes", len(odd)),), "drop")
        if odd:
            return


def _minority(straight: NDArray[np.float32], changed: NDArray[np.float32]) -> list[int]:
    """Episodes that fit the others only when changed: (E, cameras, *CELLS, 3) as logged and changed.

    Starts from the first episode's arrangement and asks again with the average of all, so that it does not matter which
    one is first; the smaller of the two groups is the odd one. Empty unless each episode clearly belongs to one.
    """
    is_odd = np.zeros(len(straight), bool)
    centre = straight[0]
    for _ in range(5):
        as_logged, as_changed = (np.abs(v - centre).mean(axis=(1, 2, 3, 4)) for v in (straight, changed))
        before, is_odd = is_odd, as_changed < as_logged
        centre = np.where(is_odd[:, None, None, None, None], changed, straight).mean(axis=0)
        if np.array_equal(before, is_odd):
            break
    as_logged, as_changed = (np.abs(v - centre).mean(axis=(1, 2, 3, 4)) for v in (straight, changed))
    near, far = np.minimum(as_logged, as_changed), np.maximum(as_logged, as_changed)
    clear = (near < FITS * far) & (far > LEAST)
    if not is_odd.any() or not clear.all():
        return []
    odd = is_odd if 2 * is_odd.sum() <= len(is_odd) else ~is_odd
    return [int(n) for n in np.flatnonzero(odd)]


def _duplicates(glances: Sequence[Glance]) -> Iterator[Finding]:
    groups: dict[str, list[str]] = {}
    for glance in glances:
        groups.setdefault(glance.content, []).append(glance.key)
    for first, *copies in groups.values():
        for copy in copies:
            yield Finding("duplicate", "warning", copy, f"holds what {first} holds. Keep one of them", None, (), "drop")


def _spellings(glances: Sequence[Glance]) -> Iterator[Finding]:
    """Instructions that differ in case, spaces and full stops alone: to a text encoder they are different tasks."""
    written = Counter(t.text for g in glances for t in g.texts)
    groups: dict[str, list[str]] = {}
    for text in written:
        groups.setdefault(" ".join(text.lower().split()).rstrip(".!"), []).append(text)
    for texts in groups.values():
        if len(texts) < 2:
            continue
        usual = max(texts, key=lambda t: (written[t], t))
        for glance in glances:
            odd = next((t.text for t in glance.texts if t.text in texts and t.text != usual), None)
            if odd is not None:
                message = (
                    f"says {odd!r} where {written[usual]} others say {usual!r}. Write one of them in a label table"
                )
                yield Finding("spelling", "info", glance.key, message)
