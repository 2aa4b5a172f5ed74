"""What is measured of one shot, and whether it is kept."""

from dataclasses import dataclass

import numpy as np

from schemas.curate import CurateRules
from wamdata.curate.bars import Box
from wamdata.curate.samples import Samples
from wamdata.curate.spans import Kind
from wamdata.doctor.pixels import BLANK_STD

Reason = tuple[str, str]  # a code, and what was found, in words


@dataclass(frozen=True)
class Scores:
    """Levels are grey levels of small frames.

    Args:
        sharpness: see `CurateRules.min_sharpness`; None where nothing has texture.
        contrast: deviation among blocks of a picture.
        camera_motion: change of the middle block within a fifth of a second, in the middle of the shot's pictures.
        scene_motion: that of the most changed block.
        crop: the picture inside its black bars, in pixels of the file as shown; None without bars.
    """

    brightness: float
    contrast: float
    sharpness: float | None
    camera_motion: float
    scene_motion: float
    crop: Box | None = None


def scores_of(samples: Samples, here: slice, crop: Box | None) -> Scores | None:
    """Scores of some samples; None without any."""
    blocks = samples.blocks[here]
    if not len(blocks):
        return None
    focus = samples.sharpness[here]
    steps = np.abs(np.diff(blocks, axis=0)).max(axis=1)
    camera = samples.camera[here][1:]  # the first sample's change is from the shot before
    return Scores(
        brightness=round(float(samples.brightness[here].mean()), 1),
        contrast=round(float(blocks.std(axis=1).mean()), 1),
        sharpness=None if np.isnan(focus).all() else round(float(np.nanmedian(focus)), 4),
        camera_motion=round(float(np.median(camera)), 2) if len(camera) else 0.0,
        scene_motion=round(float(np.median(steps)), 2) if len(steps) else 0.0,
        crop=crop,
    )


def why_dropped(
    kind: Kind, seconds: float, size: tuple[int, int], scores: Scores | None, rules: CurateRules
) -> Reason | None:
    """Why a shot is dropped for what it is; None where it is not.

    Args:
        size: (width, height) of the file, as shown.
    """
    if kind == "black":
        return "black", f"black for {seconds:.1f} s"
    if kind == "static":
        return "static", f"nothing moves for {seconds:.1f} s (allowed {rules.static_s:g} s)"
    if size[0] < rules.min_width or size[1] < rules.min_height:
        return "small", f"{size[0]}x{size[1]} pixels (wanted {rules.min_width}x{rules.min_height})"
    if seconds < rules.min_s or scores is None:
        return "short", f"{seconds:.1f} s long (wanted {rules.min_s:g} s)"
    if scores.contrast < BLANK_STD:
        return "blank", "of one single colour"
    if rules.max_brightness and scores.brightness > rules.max_brightness:
        return "blown_out", f"blown out: brightness {scores.brightness:.0f} (allowed {rules.max_brightness:g})"
    if scores.sharpness is not None and scores.sharpness < rules.min_sharpness:
        return "blurred", f"blurred: sharpness {scores.sharpness:.3f} (wanted {rules.min_sharpness:g})"
    if rules.max_camera_motion and scores.camera_motion > rules.max_camera_motion:
        return "shaky", f"camera moves by {scores.camera_motion:.1f} levels (allowed {rules.max_camera_motion:g})"
    return None
