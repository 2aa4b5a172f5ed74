"""Whether a robot that ships with wamkit fits a log: then nothing has to be drafted at all."""

from schemas.embodiment import built_in_names, load_embodiment
from schemas.episode import Episode
from schemas.errors import DataError
from schemas.recipe import Filters
from wamdata.filters import ranges
from wamdata.mapping import map_episode


def fitting_robots(episodes: list[Episode]) -> list[str]:
    """Names of the built-in robots whose every stream, column and camera is in these episodes, limits kept."""
    return [name for name in built_in_names() if _fits(name, episodes)]


def _fits(name: str, episodes: list[Episode]) -> bool:
    robot = load_embodiment(name)
    with_video = [e for e in episodes if e.videos]
    if robot.is_action_free or not with_video:
        return False
    for episode in with_video[:2]:
        if any(c.source not in episode.videos for c in robot.model_cameras):
            return False
        try:
            trajectory = map_episode(episode, robot)
        except DataError:
            return False
        if ranges.check(trajectory, Filters()) or not trajectory.state_valid.any():
            return False
    return True
