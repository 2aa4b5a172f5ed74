"""How wrong predicted actions and frames are, and what may be said of the model because of it. Arrays in, records out.

`actions` measures errors, `motion` what a mean error hides, `video` frames; `bootstrap` gives intervals, `verdict` the
sentence. Nothing here runs a model (see `adapt.evaluate`).
"""

from adapt.scoring.actions import mean_error, score_actions, unit_columns, window_errors
from adapt.scoring.verdict import verdict
from adapt.scoring.video import copy_last, psnr, score_video, ssim

__all__ = [
    "copy_last",
    "mean_error",
    "psnr",
    "score_actions",
    "score_video",
    "ssim",
    "unit_columns",
    "verdict",
    "window_errors",
]
