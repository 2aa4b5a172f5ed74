"""An episode without an instruction would train on an empty prompt."""

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Finding
from schemas.recipe import Filters


def check(episode: Episode, embodiment: Embodiment, limits: Filters) -> list[Finding]:
    if any(t.text.strip() for t in episode.texts):
        return []
    severity = "error" if limits.blank_text == "reject" else "warning"
    advice = 'Pass --task "what the robot does", or --keep-blank-text to train without words.'
    return [Finding("blank_text", severity, episode.key, f"no instruction. {advice}")]
