"""Does a camera sit on what moves? On a wrist the whole picture moves with the arm; on a stand only the arm does.

The measure is robust to whatever moves through the picture: it is cut into blocks, and the block of median change
counts. On DROID's cameras, 0.2 s apart, that is 0.3 grey levels on stands and 10 on the wrist. Decodes a few pairs of
small frames.
"""

from dataclasses import dataclass

import numpy as np

from schemas.episode import Episode, Float32, Int64
from schemas.errors import DataError
from wamdata.align import nearest
from wamdata.footage import frames

APART_NS = 200_000_000
PAIRS = 16  # of frames, an episode and camera
HEIGHT, WIDTH, BLOCK = 48, 64, 8
MOVES = 2.0  # grey levels that the median block changes; noise and light stay below
FOLLOWS, MARGIN = 0.4, 0.15  # correlation with a part's speed, and how much more than with any other part's


@dataclass(frozen=True)
class Seat:
    """What a camera seems to sit on.

    Args:
        change: grey levels by which the median block changes at the busiest quarter of the pairs.
        part: the part of the robot whose speed the change follows best, "" where none stands out.
        follows: that correlation.
    """

    change: float
    part: str = ""
    follows: float = 0.0

    @property
    def moves(self) -> bool:
        return self.change >= MOVES


def seat_of(camera: str, episodes: list[Episode], parts: dict[str, tuple[str, tuple[int, ...]]]) -> Seat | None:
    """What a camera of these episodes sits on; None where it shows nothing.

    Args:
        parts: stream and columns of each part of the robot, by name.
    """
    changes, speeds = [], {name: [] for name in parts}
    for episode in episodes:
        if camera not in episode.videos:
            continue
        try:
            at_ns, change = picture_changes(camera, episode)
        except DataError:
            continue
        changes.append(change)
        for name, (stream, columns) in parts.items():
            speeds[name].append(_speed(episode, stream, columns, at_ns))
    if not changes:
        return None
    change = np.concatenate(changes)
    found = {name: _correlation(change, np.concatenate(told)) for name, told in speeds.items()}
    ranked = sorted(found.items(), key=lambda item: -item[1])
    busiest = float(np.percentile(change, 75))
    if not ranked or ranked[0][1] < FOLLOWS or (len(ranked) > 1 and ranked[0][1] - ranked[1][1] < MARGIN):
        return Seat(busiest)
    return Seat(busiest, *ranked[0])


def picture_changes(camera: str, episode: Episode) -> tuple[Int64, Float32]:
    """(N,) times, and by how many grey levels the median block changes from each to APART_NS later.

    Raises:
        DataError: a frame cannot be decoded, or there are too few.
    """
    footage = episode.videos[camera]
    t_ns = footage.t_ns
    if len(t_ns) < 3 or t_ns[-1] - t_ns[0] < 2 * APART_NS:
        raise DataError(f"{episode.key}: {camera} has too few frames to tell its motion. Drop the episode.")
    at_ns = np.linspace(t_ns[0], t_ns[-1] - APART_NS, PAIRS).round().astype(np.int64)
    places = np.concatenate([nearest(t_ns, at_ns), nearest(t_ns, at_ns + APART_NS)])
    grey = frames(footage, places, size=(HEIGHT, WIDTH)).astype(np.float32).mean(-1)
    change = np.abs(grey[PAIRS:] - grey[:PAIRS])
    blocks = change.reshape(PAIRS, HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK).mean((2, 4))
    return at_ns, np.median(blocks.reshape(PAIRS, -1), axis=1)


def _speed(episode: Episode, stream: str, columns: tuple[int, ...], at_ns: Int64) -> Float32:
    """How far a part moves from each time to APART_NS later, in its own units."""
    if stream not in episode.streams:
        return np.zeros(len(at_ns), np.float32)
    rows = episode.streams[stream]
    values = rows.values[:, list(columns)]
    moved = values[nearest(rows.t_ns, at_ns + APART_NS)] - values[nearest(rows.t_ns, at_ns)]
    return np.nan_to_num(np.linalg.norm(moved, axis=1))


def _correlation(a: Float32, b: Float32) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
