"""Judging: the model, its variants and baselines that cost nothing, on the same held-out windows.

Every window is a chunk of an episode the model never saw, predicted from the present state and as much past as
there is. The report's part of the split is used for nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from adapt.backbones.base import Backbone, Latents
from adapt.baselines import ActionWindows, action_windows, all_baselines, concatenate
from adapt.latents import Clips
from adapt.report import Chunk, Example, Figures, contact_sheet
from adapt.scoring import copy_last, score_actions, score_video
from schemas.recipe import AdaptRecipe
from schemas.report import ActionScore, VideoScore
from wamdata.video_encode import encode_h264
from wamdata.windows import on_time_base

BASELINE_STRIDE = 4  # rows between the windows that baselines are fitted on
EXAMPLES = 2
SCALE_TO = 240  # height in pixels of the videos in the report


@dataclass(frozen=True)
class Judged:
    """Scores and what to draw of them."""

    action: ActionScore | None
    video: VideoScore | None
    figures: Figures


def judge(
    backbone: Backbone,
    models: Mapping[str, nn.Module],
    test: Sequence[Latents],
    clips: Clips,
    recipe: AdaptRecipe,
) -> Judged:
    """Score `models["model"]` and, where there is one, `models["base"]`, on the held-out windows `test`.

    Args:
        clips: the play shards, for the baselines' training rows and the episodes' names.
    """
    order = sorted(test, key=lambda s: (s.clip_key, s.start + (s.chunks - 1) * backbone.time_base.steps))
    with_actions = [s for s in order if s.has_action]
    for model in models.values():
        model.eval()
    common = {"denoise_steps": recipe.denoise_steps, "seed": recipe.seed}
    prediction = backbone.act(models["model"], order, draws=1, **common) if order else None
    action = figures = None
    if with_actions:
        windows = _windows(with_actions, clips, backbone)
        predictions = {
            "model": prediction.action,
            f"mean_of_{recipe.samples}": backbone.act(models["model"], order, draws=recipe.samples, **common).action,
            "without_video": backbone.act(models["model"], order, draws=1, hide_video=True, **common).action,
        }
        if "base" in models:
            predictions["base"] = backbone.act(models["base"], order, draws=1, **common).action
        predictions |= all_baselines(_training_windows(clips, backbone), windows, clips.embodiment)
        action = score_actions(windows, predictions, clips.embodiment)
        figures = _examples(windows, [s.clip_key for s in with_actions], predictions, clips, backbone)
    video, clips_shown, sheet = _video(backbone, order, prediction) if order else (None, {}, None)
    return Judged(action, video, Figures(examples=figures or (), videos=clips_shown, contact_sheet=sheet))


def _windows(samples: Sequence[Latents], clips: Clips, backbone: Backbone) -> ActionWindows:
    """The last chunks of held-out samples, under their episodes' names."""
    episodes = episode_names(clips)
    return ActionWindows(
        state=np.stack([s.state[-1] for s in samples]),
        history=np.stack([s.history[-1] for s in samples]),
        last_action=np.stack([s.last_action[-1] for s in samples]),
        action=np.stack([s.action[-1] for s in samples]),
        valid=np.stack([s.action_valid[-1] for s in samples]),
        episode=np.array([episodes[s.clip_key] for s in samples]),
        start=np.array([s.start + (s.chunks - 1) * backbone.time_base.steps for s in samples]),
    )


def _training_windows(clips: Clips, backbone: Backbone) -> ActionWindows:
    parts = []
    for clip in clips.stream("train"):
        rows = on_time_base(clip, clips.embodiment, backbone.time_base)
        parts.append(
            action_windows(
                rows.state, rows.action, rows.valid, clip.key, steps=backbone.time_base.steps, stride=BASELINE_STRIDE
            )
        )
    return concatenate(parts)


def episode_names(clips: Clips) -> dict[str, str]:
    """Clip key -> the source's name of its episode; the key itself where two sources share a name."""
    names = {s.key: s.episode for s in clips.manifest.samples}
    sessions = {}
    for sample in clips.manifest.samples:
        sessions.setdefault(sample.episode, set()).add(sample.session)
    return {key: name if len(sessions[name]) == 1 else key for key, name in names.items()}


def _examples(
    windows: ActionWindows,
    clip_keys: Sequence[str],
    predictions: Mapping[str, np.ndarray],
    clips: Clips,
    backbone: Backbone,
) -> tuple[Example, ...]:
    """The first held-out clips, whole, with the chunks that were predicted on them."""
    names, keys = episode_names(clips), np.array(clip_keys)
    shown: list[Example] = []
    for clip in clips.stream("test"):
        mine = np.flatnonzero(keys == clip.key)
        if len(shown) == EXAMPLES or not len(mine):
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
    backbone: Backbone, samples: Sequence[Latents], prediction
) -> tuple[VideoScore, dict[str, bytes], np.ndarray]:
    """Predicted frames against recorded ones, chunk after chunk, each chunk from the true past."""
    per_chunk = 1 + backbone.time_base.frames_per_chunk
    truth = np.stack([s.frames[-per_chunk + 1 :] for s in samples])
    last = np.stack([s.frames[-per_chunk] for s in samples])
    context = [_context(s, backbone) for s in samples]
    predicted = np.concatenate(
        [backbone.decode(c[0][None], p[None]) for c, p in zip(context, prediction.video, strict=True)]
    )
    ceiling = np.concatenate([backbone.decode(c[0][None], c[1][None]) for c in context])
    times = [(i + 1) / backbone.time_base.video_fps for i in range(truth.shape[1])]
    frames = {"model": predicted, "copy_last": copy_last(last, truth.shape[1]), "ceiling": ceiling}
    score = score_video(truth, frames, frame_s=times)
    first = [i for i, s in enumerate(samples) if s.clip_key == samples[0].clip_key]
    both = np.concatenate([truth[first], predicted[first]], axis=3)
    pair = _enlarged(both.reshape(-1, *both.shape[2:]))
    caption = "left: recorded, right: predicted one chunk ahead from the true past, first held-out episode"
    videos = {caption: encode_h264(pair, backbone.time_base.video_fps)}
    sheet = contact_sheet(
        _enlarged(truth[first][:, -1], height=128)[:12], _enlarged(predicted[first][:, -1], height=128)[:12]
    )
    return score, videos, sheet


def _context(sample: Latents, backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    """A sample's latents before its last chunk, and those of its last chunk."""
    video = torch.from_numpy(sample.video.astype(np.float32))
    per_chunk = (len(video) - 1) // sample.chunks
    return video[:-per_chunk], video[-per_chunk:]


def _enlarged(frames: np.ndarray, height: int = SCALE_TO) -> np.ndarray:
    """Whole-number enlargement, so that what the model sees is what is shown."""
    times = max(1, height // frames.shape[1])
    return frames.repeat(times, axis=1).repeat(times, axis=2)
