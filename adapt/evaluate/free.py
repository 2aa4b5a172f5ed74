"""Free-running: a model's own imagined video is the past that its next chunk is predicted from.

A chain starts where a held-out clip does, from its one recorded frame, and goes on as long as a training window
(four chunks by default). States and instructions are the recorded ones, so that what is measured is the video's
drift and what it does to the actions; a policy on a robot sees real frames again after every chunk.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from adapt.backbones.base import Latents, Prediction
from adapt.clips import Clips
from adapt.evaluate.arms import Arm
from adapt.evaluate.windows import last_chunks
from adapt.scoring import copy_last, mean_error, psnr, ssim
from adapt.scoring.baselines import Float, stand_still
from adapt.scoring.video import SIDE
from schemas.report import FreeChunk, FreeRunning

Chain = tuple[Latents, ...]  # the windows of a clip that start alike, of 1, 2, 3, ... chunks


def run_free(arm: Arm, samples: Sequence[Latents], forced: Prediction, clips: Clips) -> FreeRunning:
    """Video and actions of every chain, chunk by chunk, beside the teacher-forced ones.

    Args:
        forced: the model's predictions of `samples`, from recorded video.
    """
    chains = chains_of(samples)
    if not chains:
        return FreeRunning(reason="no held-out clip holds two chunks that are predicted from its start")
    at = {s.window_id: i for i, s in enumerate(samples)}
    imagined: dict[str, Tensor] = {chain[0].window_id: chain[0].video[:1].float().cpu() for chain in chains}
    found = []
    for number in range(1, max(map(len, chains)) + 1):
        going = [chain for chain in chains if len(chain) >= number]
        dreamt = [with_past(chain[number - 1], imagined[chain[0].window_id]) for chain in going]
        free = arm.act(dreamt)
        places = [at[chain[number - 1].window_id] for chain in going]
        teacher = Prediction(forced.action[places], torch.stack([forced.video[i] for i in places]))
        found.append(_scored(arm, number, going, dreamt, free, teacher, clips))
        for chain, video in zip(going, free.video, strict=True):
            key = chain[0].window_id
            imagined[key] = torch.cat([imagined[key], video.float().cpu()])
    return FreeRunning(chunks=tuple(found))


def chains_of(samples: Sequence[Latents]) -> tuple[Chain, ...]:
    """Windows of one clip and start with 1, 2, ... chunks, none left out; chains of one are none."""
    by_start: dict[tuple[str, int], dict[int, Latents]] = {}
    for sample in samples:
        by_start.setdefault((sample.clip_key, sample.start), {})[sample.chunks] = sample
    chains = []
    for windows in by_start.values():
        length = next(n for n in range(len(windows) + 1) if n + 1 not in windows)
        if length > 1:
            chains.append(tuple(windows[n] for n in range(1, length + 1)))
    return tuple(chains)


def with_past(sample: Latents, past: Tensor) -> Latents:
    """`sample` with its video before the last chunk replaced; `past` (T, ...) starts with frame 0."""
    video = sample.video
    assert len(past) == len(video) - sample.latents_per_chunk, (len(past), len(video))
    whole = torch.cat([past.to(video), video[-sample.latents_per_chunk :]])
    return replace(sample, encoded={**sample.encoded, "video": whole})


def _scored(
    arm: Arm,
    number: int,
    chains: Sequence[Chain],
    dreamt: Sequence[Latents],
    free: Prediction,
    teacher: Prediction,
    clips: Clips,
) -> FreeChunk:
    recorded = [chain[number - 1] for chain in chains]
    count = arm.backbone.time_base.frames_per_chunk
    truth = np.stack([s.frames[-count:] for s in recorded])
    first = np.stack([chain[0].frames[0] for chain in chains])
    frames = {
        "free_running": decoded(arm, dreamt, free),
        "teacher_forced": decoded(arm, recorded, teacher),
        "copy_last": copy_last(first, count),
    }
    small = min(truth.shape[2:4]) < SIDE
    return FreeChunk(
        number=number,
        clips=len(chains),
        psnr={name: float(psnr(truth, f).mean()) for name, f in frames.items()},
        ssim={} if small else {name: float(ssim(truth, f).mean()) for name, f in frames.items()},
        error=_action_errors(arm, recorded, free.action, teacher.action, clips),
    )


def decoded(arm: Arm, samples: Sequence[Latents], prediction: Prediction) -> np.ndarray:
    """(N, F, H, W, 3) frames of predicted chunks, each after its own past."""
    return np.concatenate(
        [arm.backbone.decode(context(s)[None], p[None]) for s, p in zip(samples, prediction.video, strict=True)]
    )


def context(sample: Latents) -> Tensor:
    """(T, ...) float32 latents before the sample's last chunk."""
    return sample.video[: -sample.latents_per_chunk].float()


def _action_errors(arm: Arm, samples: Sequence[Latents], free: Float, teacher: Float, clips: Clips) -> dict[str, float]:
    rows = [i for i, s in enumerate(samples) if s.has_action]
    if not rows:
        return {}
    windows = last_chunks([samples[i] for i in rows], clips, arm.backbone.time_base)
    still = stand_still(windows, clips.embodiment)
    predicted = {"free_running": free[rows], "teacher_forced": teacher[rows], "stand_still": still}
    return {name: mean_error(windows, p) for name, p in predicted.items()}
