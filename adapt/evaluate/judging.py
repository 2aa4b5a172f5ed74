"""Judging: the model, its variants and baselines that cost nothing, on the same held-out windows.

Every window is a chunk of an episode the model never saw, predicted from the present state and as much past as
there is. The report's part of the split is used for nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from adapt.backbones.base import Backbone, Latents, Prediction
from adapt.clips import Clips
from adapt.evaluate import probes as ask
from adapt.evaluate.arms import Arm, Serving, arms_of
from adapt.evaluate.free import context, decoded, run_free
from adapt.evaluate.predictions import Predictions
from adapt.evaluate.probes import Probes
from adapt.evaluate.windows import in_order, last_chunks, training_windows
from adapt.report import Chunk, Example, Figures, WindowErrors, contact_sheet
from adapt.scoring import copy_last, score_actions, score_video, window_errors
from adapt.scoring.baselines import ActionWindows, Float, all_baselines
from schemas.recipe import AdaptRecipe
from schemas.report import ActionScore, FreeRunning, FutureGap, LevelLoss, Sensitivity, VideoScore
from wamdata.video_encode import encode_h264
from wamdata.windows import on_time_base

EXAMPLES = 2
SCALE_TO = 240  # height in pixels of the videos in the report
NO_ACTIONS = "no actions"


@dataclass(frozen=True)
class Judged:
    """Scores and what to draw of them; `notes` are for the report."""

    action: ActionScore | None
    video: VideoScore | None
    figures: Figures
    windows: WindowErrors | None = None
    free_running: FreeRunning | None = None
    future: FutureGap | None = None
    language: Sensitivity | None = None
    camera: Sensitivity | None = None
    levels: tuple[LevelLoss, ...] = ()
    levels_reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, Any]:
        """What a `Report` takes of it, by its names."""
        names = ("action", "video", "free_running", "future", "language", "camera", "levels", "levels_reason")
        return {n: getattr(self, n) for n in names} | {"windows_sha256": self.windows.sha256 if self.windows else ""}


@dataclass(frozen=True)
class _Acted:
    """What the actions came to."""

    score: ActionScore | None = None
    windows: WindowErrors | None = None
    examples: tuple[Example, ...] = ()
    probed: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def judge(
    backbone: Backbone,
    models: Mapping[str, nn.Module | Arm],
    test: Sequence[Latents],
    clips: Clips,
    recipe: AdaptRecipe,
    *,
    probes: Probes = Probes(),
    serving: Serving | None = None,
    others: Sequence[Predictions] = (),
) -> Judged:
    """Score `models["model"]` and, where there is one, `models["base"]`, on the held-out windows `test`.

    Args:
        models: a module, or an `Arm` where the same module is seen in two ways.
        clips: the play shards, for the baselines' training rows and the episodes' names.
        recipe: gives denoising steps (unless `serving` does), samples and seed.
        others: other policies' predictions, one more arm each.
    """
    arms, notes = arms_of(backbone, models, serving or Serving(recipe.denoise_steps), seed=recipe.seed)
    model, order = arms["model"], in_order(test, backbone.time_base)
    if not order:
        return Judged(None, None, Figures(), notes=notes)
    prediction = model.act(order)
    acted = _actions(arms, order, prediction, clips, recipe, probes, others)
    score, films, sheet = _video(model, order, prediction, perceptual=probes.perceptual)
    free = run_free(model, order, prediction, clips) if probes.free_running else None
    some = ask.spaced([s for s in order if s.chunks == backbone.time_base.chunks], probes.limit)
    levels, reason = ask.loss_by_level(backbone, model.model, some, levels=probes.levels, seed=recipe.seed)
    return Judged(
        action=acted.score,
        video=score,
        figures=Figures(examples=acted.examples, videos=films, contact_sheet=sheet),
        windows=acted.windows,
        free_running=free,
        levels=levels,
        levels_reason=reason,
        notes=notes + acted.notes,
        **acted.probed,
    )


def _actions(
    arms: Mapping[str, Arm],
    order: Sequence[Latents],
    prediction: Prediction,
    clips: Clips,
    recipe: AdaptRecipe,
    probes: Probes,
    others: Sequence[Predictions],
) -> _Acted:
    rows = [i for i, s in enumerate(order) if s.has_action]
    if not rows:
        return _Acted()
    model, samples = arms["model"], [order[i] for i in rows]
    time_base, draws = model.backbone.time_base, recipe.samples
    windows = last_chunks(samples, clips, time_base)
    predictions: dict[str, Float] = {
        "model": prediction.action[rows],
        f"mean_of_{draws}": model.act(samples, draws=draws).action,
        "without_video": model.act(samples, hide_video=True).action,
    }
    if "base" in arms:
        predictions["base"] = arms["base"].act(samples).action
    train = training_windows(clips, model.backbone, imitated=frozenset(recipe.imitate))
    predictions |= all_baselines(train, windows, clips.embodiment)
    keys = [s.clip_key for s in samples]
    for other in others:
        predictions[other.name] = other.at(keys, windows, action_hz=time_base.action_hz)
    past = np.array([s.chunks - 1 for s in samples])
    kept = WindowErrors.of(keys, windows, window_errors(windows, predictions), past, action_hz=time_base.action_hz)
    return _Acted(
        score=score_actions(windows, predictions, clips.embodiment, past=past, action_hz=time_base.action_hz),
        windows=kept,
        examples=_examples(windows, keys, predictions, clips, model.backbone),
        probed=_probed(model, ask.spaced(samples, probes.limit), clips, probes),
        notes=("no training part: baselines that must be fitted are left out",) * (train is None),
    )


def _probed(model: Arm, some: Sequence[Latents], clips: Clips, probes: Probes) -> dict[str, Any]:
    return {
        "future": ask.future_gap(model, some, clips) if probes.future else None,
        "language": ask.language(model, some, clips, probes.said),
        "camera": ask.camera(model, some, clips, probes.swapped),
    }


def _examples(
    windows: ActionWindows,
    clip_keys: Sequence[str],
    predictions: Mapping[str, np.ndarray],
    clips: Clips,
    backbone: Backbone,
) -> tuple[Example, ...]:
    """The first held-out clips, whole, with the chunks that were predicted on them."""
    names, keys = clips.episodes, np.array(clip_keys)
    shown: list[Example] = []
    for clip in clips.stream("test"):
        mine = np.flatnonzero(keys == clip.key)
        if len(shown) == EXAMPLES:
            break
        if not len(mine):
            continue
        rows = on_time_base(clip, clips.embodiment, backbone.time_base)
        chunks = {
            name: tuple(Chunk(int(windows.start[i]), predictions[name][i]) for i in mine)
            for name in ("model", "without_video", "base")
            if name in predictions
        }
        seconds = (rows.t_ns - rows.t_ns[0]) / 1e9
        shown.append(Example(names[clip.key], seconds, rows.action, chunks))
    return tuple(shown)


def _video(
    arm: Arm, samples: Sequence[Latents], prediction: Prediction, *, perceptual: bool
) -> tuple[VideoScore, dict[str, bytes], np.ndarray]:
    """Predicted frames against recorded ones, chunk after chunk, each chunk from the true past."""
    time_base = arm.backbone.time_base
    count = time_base.frames_per_chunk
    truth = np.stack([s.frames[-count:] for s in samples])
    last = np.stack([s.frames[-count - 1] for s in samples])
    predicted = decoded(arm, samples, prediction)
    ceiling = np.concatenate(
        [arm.backbone.decode(context(s)[None], s.video[-s.latents_per_chunk :].float()[None]) for s in samples]
    )
    times = [(i + 1) / time_base.video_fps for i in range(truth.shape[1])]
    frames = {"model": predicted, "copy_last": copy_last(last, truth.shape[1]), "ceiling": ceiling}
    score = score_video(truth, frames, frame_s=times, perceptual=perceptual)
    first = [i for i, s in enumerate(samples) if s.clip_key == samples[0].clip_key]
    both = np.concatenate([truth[first], predicted[first]], axis=3)
    pair = _enlarged(both.reshape(-1, *both.shape[2:]))
    caption = "left: recorded, right: predicted one chunk ahead from the true past, first held-out episode"
    videos = {caption: encode_h264(pair, time_base.video_fps)}
    sheet = contact_sheet(
        _enlarged(truth[first][:, -1], height=128)[:12], _enlarged(predicted[first][:, -1], height=128)[:12]
    )
    return score, videos, sheet


def _enlarged(frames: np.ndarray, height: int = SCALE_TO) -> np.ndarray:
    """Whole-number enlargement, so that what the model sees is what is shown."""
    times = max(1, height // frames.shape[1])
    return frames.repeat(times, axis=1).repeat(times, axis=2)
