"""Held-out samples as the windows that scores and baselines are made of."""

from collections.abc import Sequence

import numpy as np

from adapt.backbones.base import Backbone, Latents
from adapt.clips import Clips
from adapt.scoring.baselines import ActionWindows, action_windows, concatenate
from schemas.recipe import TimeBase
from wamdata.windows import on_time_base

BASELINE_STRIDE = 4  # rows between the windows that baselines are fitted on


def anchor(sample: Latents, time_base: TimeBase) -> int:
    """Row of the clip at which the sample's last chunk starts."""
    return sample.start + (sample.chunks - 1) * time_base.steps


def in_order(samples: Sequence[Latents], time_base: TimeBase) -> list[Latents]:
    return sorted(samples, key=lambda s: (s.clip_key, anchor(s, time_base)))


def last_chunks(samples: Sequence[Latents], clips: Clips, time_base: TimeBase) -> ActionWindows:
    """The last chunks of held-out samples, under their episodes' names."""
    episodes = clips.episodes
    return ActionWindows(
        state=np.stack([s.state[-1] for s in samples]),
        history=np.stack([s.history[-1] for s in samples]),
        last_action=np.stack([s.last_action[-1] for s in samples]),
        action=np.stack([s.action[-1] for s in samples]),
        valid=np.stack([s.action_valid[-1] for s in samples]),
        episode=np.array([episodes.get(s.clip_key, s.clip_key) for s in samples]),
        start=np.array([anchor(s, time_base) for s in samples]),
    )


def training_windows(clips: Clips, backbone: Backbone, *, imitated: frozenset[str]) -> ActionWindows | None:
    """What baselines are fitted on, the same rows as the model's; None where the shards have no training part."""
    parts = []
    for clip in clips.stream("train"):
        rows = on_time_base(clip, clips.embodiment, backbone.time_base, imitated=imitated)
        parts.append(
            action_windows(
                rows.state,
                rows.action,
                rows.action_counts,
                clip.key,
                steps=backbone.time_base.steps,
                stride=BASELINE_STRIDE,
            )
        )
    return concatenate(parts) if parts else None
