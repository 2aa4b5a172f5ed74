"""An episode without an instruction would train on an empty prompt."""

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Finding
from schemas.recipe import Filters


def check(episode: Episode, embodiment: Embodiment, limits: Filters) -> list[Finding]:
    if any(t.text.strip() for t in episode.texts):
        return []
    keep = limits.blank_text == "keep" or embodiment.is_action_free
    severity = "warning" if keep else "error"
    advice = 'Give one with --task "what is done", or a table with `wam ingest --labels` (--video-task for films)'
    return [Finding("blank_text", severity, episode.key, f"no instruction. {advice}")]
