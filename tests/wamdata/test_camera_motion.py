"""A camera on a wrist is told from one on a stand by its pictures, and whose wrist by the arms' speeds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robots import episode

from schemas.episode import Episode, Pictures, Stream
from wamdata.camera_motion import seat_of
from wamdata.readers.video import reader as video
from wamdata.source import Source

HZ, ROWS = 10.0, 200


@pytest.mark.parametrize(
    ("name", "moves"), [("wrist_image_left", True), ("exterior_image_1_left", False), ("exterior_image_2_left", False)]
)
def test_droids_wrist_camera_moves_and_its_others_do_not(droid_video: Path, name: str, moves: bool) -> None:
    listing = video.list_episodes(Source.at(droid_video))
    film = video.read(next(ref for ref in listing.episodes if ref.key == name))
    seat = seat_of("video", [film], {})
    assert seat.moves is moves and (seat.change > 5 if moves else seat.change < 1) and seat.part == ""


def two_arms(seed: int) -> Episode:
    """Two arms that move at different times, a camera on the left one, and one on a stand that sees the right."""
    rng = np.random.default_rng(seed)
    t_ns = (np.arange(ROWS) * 1e9 / HZ).astype(np.int64)
    busy = np.repeat(rng.integers(0, 2, (ROWS // 10, 2)), 10, axis=0)
    joints = np.cumsum(busy * 0.05, axis=0).astype(np.float32)
    wall = rng.integers(0, 255, (60, 400, 1)).repeat(3, 2).astype(np.uint8)
    wall = np.kron(wall[:15, :100], np.ones((4, 4, 1), np.uint8))

    def on_the_arm(first: int, stop: int) -> list[np.ndarray]:
        return [
            np.ascontiguousarray(np.roll(wall, round(40 * joints[i, 0]), axis=1)[:, :80]) for i in range(first, stop)
        ]

    def on_a_stand(first: int, stop: int) -> list[np.ndarray]:
        seen = [np.ascontiguousarray(wall[:, :80]).copy() for _ in range(first, stop)]
        for picture, row in zip(seen, range(first, stop), strict=True):
            picture[20:40, 10 + round(20 * joints[row, 1]) % 50 :][:, :20] = 250
        return seen

    videos = {
        "a": Pictures(t_ns, "raw", 80, 60, on_the_arm),
        "b": Pictures(t_ns.copy(), "raw", 80, 60, on_a_stand),
    }
    return replace(episode(), streams={"state": Stream("state", t_ns.copy(), joints)}, videos=videos)


def test_the_arm_that_a_camera_follows_is_named() -> None:
    episodes = [two_arms(seed) for seed in range(3)]
    parts = {"left_arm": ("state", (0,)), "right_arm": ("state", (1,))}
    held, stand = (seat_of(camera, episodes, parts) for camera in ("a", "b"))
    assert held.moves and held.part == "left_arm" and held.follows > 0.6
    assert not stand.moves
    assert seat_of("c", episodes, parts) is None
