"""Questions beside the error: what a wrong instruction or a swapped camera changes, what imagining the video costs.

Each takes held-out windows with actions and says why where it cannot answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from adapt.backbones.base import Backbone, Latents
from adapt.clips import Clips
from adapt.evaluate.arms import Arm, HasLossAt
from adapt.evaluate.windows import last_chunks
from adapt.scoring.actions import mean_error, window_errors
from adapt.scoring.baselines import ActionWindows, Float
from adapt.scoring.bootstrap import measure_ratios
from schemas.report import Forgetting, FutureGap, LevelLoss, Sensitivity

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
OTHER_SEED = 1_000_003  # added to the seed for the change that noise alone makes

Said = Callable[[Latents, str], Latents]


@dataclass(frozen=True)
class Probes:
    """What is asked beside the error, and what the caller must bring for it.

    Args:
        said: a window with another text in place of its own.
        swapped: held-out windows whose views were swapped before encoding, found by their ids; None where the robot
            has one camera.
        free_running, future, levels, perceptual: whether these are measured.
        limit: at most this many windows, evenly spaced, for every probe.
    """

    said: Said | None = None
    swapped: Sequence[Latents] | None = None
    free_running: bool = True
    future: bool = True
    levels: tuple[float, ...] = LEVELS
    perceptual: bool = True
    limit: int = 64


def spaced(samples: Sequence[Latents], limit: int) -> list[Latents]:
    """At most `limit` of them, evenly spaced."""
    if len(samples) <= limit:
        return list(samples)
    return [samples[i] for i in np.linspace(0, len(samples) - 1, limit).round().astype(int)]


def future_gap(arm: Arm, samples: Sequence[Latents], clips: Clips) -> FutureGap:
    """Errors with the chunk's video imagined and with its recorded video shown, and the share that imagining causes."""
    windows = last_chunks(samples, clips, arm.backbone.time_base)
    predicted = {"imagined": arm.act(samples).action, "true": arm.act(samples, future="true").action}
    total = window_errors(windows, predicted)
    reason = "the imagined video leaves no error"
    parts = [(total["imagined"] - total["true"], total["imagined"], reason)]
    (share,) = measure_ratios(parts, windows.episode, windows.start)
    return FutureGap(
        windows=len(windows),
        imagined=mean_error(windows, predicted["imagined"]),
        true=mean_error(windows, predicted["true"]),
        share=share,
    )


def language(arm: Arm, samples: Sequence[Latents], clips: Clips, said: Said | None) -> Sensitivity:
    """Every window told another text of the held-out windows: the next one in alphabetical order."""
    texts = sorted({s.text for s in samples})
    if len(texts) < 2:
        return Sensitivity(reason="one instruction" if texts else "no held-out window")
    if said is None:
        return Sensitivity(reason="not asked for")
    after = dict(zip(texts, texts[1:] + texts[:1], strict=True))
    return sensitivity(arm, samples, [said(s, after[s.text]) for s in samples], clips)


def camera(arm: Arm, samples: Sequence[Latents], clips: Clips, swapped: Sequence[Latents] | None) -> Sensitivity:
    """Every window seen with its views swapped."""
    if swapped is None:
        return Sensitivity(reason="one camera")
    by_id = {s.window_id: s for s in swapped}
    known = [s for s in samples if s.window_id in by_id]
    if not known:
        return Sensitivity(reason="no held-out window was encoded with its views swapped")
    return sensitivity(arm, known, [by_id[s.window_id] for s in known], clips)


def sensitivity(arm: Arm, right: Sequence[Latents], wrong: Sequence[Latents], clips: Clips) -> Sensitivity:
    """Change of the actions by a wrong input over their change by another noise seed; errors with both inputs."""
    windows = last_chunks(right, clips, arm.backbone.time_base)
    as_is, told = arm.act(right).action, arm.act(wrong).action
    again = arm.act(right, seed=arm.seed + OTHER_SEED).action
    steps = windows.valid.sum(1).astype(float)
    error = window_errors(windows, {"right": as_is, "wrong": told})
    parts = [
        (_change(as_is, told, windows), _change(as_is, again, windows), "the noise seed changes nothing"),
        (error["right"], steps, "no step"),
        (error["wrong"], steps, "no step"),
    ]
    change, of_right, of_wrong = measure_ratios(parts, windows.episode, windows.start)
    return Sensitivity(windows=len(windows), change=change, right=of_right, wrong=of_wrong)


def _change(one: Float, other: Float, windows: ActionWindows) -> Float:
    """(N,) mean absolute difference over columns, summed over valid steps."""
    return np.where(windows.valid[..., None], np.abs(one - other), 0.0).mean(2).sum(1)


def loss_by_level(
    backbone: Backbone,
    model: nn.Module,
    samples: Sequence[Latents],
    *,
    levels: Sequence[float] = LEVELS,
    seed: int = 0,
) -> tuple[tuple[LevelLoss, ...], str]:
    """Held-out losses at each noise level with fixed noise, or why there are none.

    Two looks draw the same noise, so that a difference between them is one of the model.
    """
    if not isinstance(backbone, HasLossAt):
        return (), f"{backbone.name} has no loss at a given noise level"
    whole = [s for s in samples if s.chunks == backbone.time_base.chunks]
    if not whole:
        return (), "no held-out window is as long as a training window"
    model.eval()
    return tuple(LevelLoss(level=v, losses=backbone.loss_at(model, whole, level=v, seed=seed)) for v in levels), ""


def judge_forgetting(
    before: Callable[[], Mapping[str, float]], after: Callable[[], Mapping[str, float]]
) -> tuple[Forgetting, ...]:
    """The same scores, lower is better, on the base's own held-out windows: of the base, and of the adapted model."""
    first, then = before(), after()
    assert first.keys() == then.keys(), (sorted(first), sorted(then))
    return tuple(Forgetting(name=name, before=first[name], after=then[name]) for name in first)
