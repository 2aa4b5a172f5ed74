"""What the shards of a run's parts hold for it: windows, chunks, minutes, instructions. No pixel is decoded."""

from collections.abc import Mapping
from dataclasses import dataclass

from adapt.clips import Clips
from schemas.recipe import AdaptRecipe
from wamdata.windows import judged_starts, on_time_base, window_starts

CHECKPOINTS = 3  # kept at once: two newest and the chosen one
PROBED = 64  # windows at most that a probe of judging asks; `adapt.evaluate.probes.Probes.limit`


@dataclass(frozen=True)
class Counts:
    """What the shards hold for a run; `short_clips` give no whole window and are not trained on.

    Args:
        train: windows of the robot's training part; `video` those of action-free film, `replay` those of other data.
        judged: chunks of what is held out: `val` and `test` of the robot's, `replay` against forgetting.
        episodes, minutes: of the robot's, by part of the split.
        instructions: of the robot's; `prompts` of all parts, which are embedded.
        swapped: judged chunks that are encoded once more, with two views in each other's places.
    """

    train: int
    video: int
    replay: int
    judged: dict[str, int]
    episodes: dict[str, int]
    minutes: dict[str, float]
    instructions: tuple[str, ...]
    prompts: int
    swapped: int
    short_clips: tuple[str, ...]

    @property
    def windows(self) -> int:
        return self.train + self.video + self.replay

    def encoded(self, copies: int) -> int:
        """Windows that go through the encoders."""
        return self.windows * copies + sum(self.judged.values()) + self.swapped


def count(recipe: AdaptRecipe, sources: Mapping[str, Clips]) -> Counts:
    """Windows, chunks, minutes and instructions on the recipe's time base, which must be resolved."""
    time_base = recipe.time_base
    stride = max(1, round(recipe.window_stride_s * time_base.action_hz))
    plays = {p.name for p in recipe.plays}
    windows, chunks = {"play": 0, "video": 0, "replay": 0}, {"val": 0, "test": 0, "replay": 0}
    texts, words, short, swapped = {}, set(), [], 0
    for part in recipe.parts:
        clips = sources[part.name]
        role, is_silent = "play" if part.name in plays else part.role, "action" not in part.losses
        imitated = frozenset() if is_silent else frozenset(recipe.imitate)
        split_of = {s.key: s.split for s in clips.manifest.samples}
        for clip in clips.stream():
            split = split_of[clip.key]
            is_judged = role == "play" or (role == "replay" and split == "test" and recipe.base is not None)
            if split != "train" and not is_judged:
                continue
            rows = on_time_base(clip, clips.embodiment, time_base, imitated=imitated)
            told = dict.fromkeys(clip.text_at(int(t)) for t in rows.t_ns[:: time_base.steps])
            words |= told.keys()
            if role == "play":
                texts |= told
            if split != "train":
                found = len(judged_starts(clip, rows, time_base, video_alone=is_silent)[0])
                chunks["replay" if role == "replay" else split] += found
                is_turned = role == "play" and split == "test" and len(clips.embodiment.model_cameras) > 1
                swapped += found * is_turned
                continue
            starts = window_starts(clip, rows, time_base, stride=stride)
            windows[role] += len(starts)
            if not starts:
                short.append(clip.key)
    samples = [s for name in plays for s in sources[name].manifest.samples]
    return Counts(
        train=windows["play"],
        video=windows["video"],
        replay=windows["replay"],
        judged=chunks,
        episodes={p: len({s.content_sha256 for s in samples if s.split == p}) for p in ("train", "val", "test")},
        minutes={p: sum(s.seconds for s in samples if s.split == p) / 60 for p in ("train", "val", "test")},
        instructions=tuple(texts),
        prompts=len(words),
        swapped=swapped,
        short_clips=tuple(short),
    )


def decisions(recipe: AdaptRecipe, counts: Counts, steps: int) -> float:
    """Decisions that judging takes: looks while training, at raw and averaged weights; the report's model, mean, blind
    and base arms; free running, and the probes of future, language and cameras on some windows.
    """
    kinds = 2 if recipe.ema > 0 else 1
    looks = kinds * (steps // recipe.eval_every) * min(recipe.eval_windows, counts.judged["val"])
    arms, free_running = 3 + recipe.samples, 1
    probed = 2 + 3 * (len(counts.instructions) > 1) + 3 * (counts.swapped > 0)
    test = counts.judged["test"]
    return looks + test * (arms + free_running) + min(test, PROBED) * probed + 2 * counts.judged["replay"]
