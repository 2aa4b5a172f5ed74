"""What is held out may not have been trained on: not by this run, not by its base, not as a film of the same scene.

Episodes are told by a hash of their rows, films by their packets. A base that saw an episode only as a film is not
found out, nor a film that was encoded anew.
"""

from collections.abc import Mapping

from adapt.clips import Clips
from schemas.errors import UsageError
from schemas.manifest import Manifest
from schemas.recipe import AdaptRecipe
from wamdata.video_same import is_same_recording, key_packets


def refuse_shared(recipe: AdaptRecipe, sources: Mapping[str, Clips]) -> None:
    """Raises UsageError if one part trains on an episode that another holds out."""
    held = {
        s.content_sha256: (part.shards, s.episode)
        for part in recipe.parts
        if part in recipe.plays
        for s in sources[part.name].manifest.samples
        if s.split != "train"
    }
    for part in recipe.parts:
        for sample in sources[part.name].manifest.samples:
            if sample.split == "train" and sample.content_sha256 in held:
                shards, episode = held[sample.content_sha256]
                raise UsageError(
                    f"{part.shards}: trains on {sample.episode}, which {shards} holds out as {episode}. Merge the data "
                    "with `wam shard merge`, so that one split holds for all of it."
                )


def refuse_seen(base: str, trained_on: tuple[str, ...], manifest: Manifest) -> None:
    """An honest report judges on what neither the base nor an earlier adapter was trained on."""
    seen = [s.episode for s in manifest.samples if s.split != "train" and s.content_sha256 in trained_on]
    if seen:
        raise UsageError(
            f"{base}: was trained on {seen[0]}, which is held out here, so the report would not be honest. "
            "Use the split that the base was trained with."
        )


def refuse_filmed(recipe: AdaptRecipe, sources: Mapping[str, Clips]) -> None:
    """Raises UsageError if a film that is trained on shows an episode that is held out; reads packets, no pixel.

    A film has no rows, so only its pictures can tell. Files that were encoded anew are not recognised.
    """
    films = [p for p in recipe.parts if p not in recipe.plays]
    if not films:
        return
    held = [
        (part.shards, clip.meta.source.episode, key_packets(video))
        for part in recipe.plays
        for split in ("val", "test")
        for clip in sources[part.name].stream(split)
        for video in clip.videos.values()
    ]
    for part in films:
        for clip in sources[part.name].stream("train"):
            film = clip.meta.source.episode
            for shown in map(key_packets, clip.videos.values()):
                for shards, episode, packets in held:
                    if is_same_recording(shown, packets):
                        raise UsageError(
                            f"{part.shards}: trains on film {film}, which shows {episode}, held out by {shards}. "
                            "Take that file out of the films, or hold out other episodes."
                        )
