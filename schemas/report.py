"""What an evaluation found. `report.json` is this record; `report.html` is drawn from it alone.

A number that is not finite is `null` in the file, which JSON demands, and `not_finite` says which it was:

    {"verdict": "FAIL", "action": {"error": {"model": null, ...}}, ..., "not_finite": {"action/error/model": "nan"}}

Reading puts it back. A `Measure` without a value is something else: it could not be measured, and says why.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import ConfigDict, model_validator

from schemas.record import Record

Verdict = Literal["OFFLINE PASS", "FAIL", "NO ACTION VERDICT"]


# A broken prediction may be NaN, and the report has to say so.
_NAN_ALLOWED = ConfigDict(allow_inf_nan=True)


class Measure(Record):
    """A number with its 95 % interval where there is one, or `reason`, why it could not be measured."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @classmethod
    def missing(cls, reason: str) -> Self:
        return cls(reason=reason)

    @classmethod
    def of(cls, value: float, low: float | None = None, high: float | None = None) -> Self:
        """A number, or why there is none: not finite."""
        if not math.isfinite(value):
            return cls(reason="not finite")
        whole = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
        return cls(value=value, low=low, high=high) if whole else cls(value=value)


NOT_ASKED = Measure(reason="not asked for")


class Paired(Record):
    """Model minus another on the same windows: mean difference, 95 % interval over episodes and windows, share won."""

    model_config = _NAN_ALLOWED

    difference: float
    low: float
    high: float
    share_better: float


class ComponentScore(Record):
    """Errors of one action component in its own physical unit; how its motion is like the recorded one."""

    model_config = _NAN_ALLOWED

    name: str
    unit: str
    labels: tuple[str, ...]
    error: dict[str, float]
    column_error: dict[str, tuple[float, ...]]
    amplitude_ratio: float
    cosine: Measure = NOT_ASKED
    gripper_f1: Measure = NOT_ASKED


class Motion(Record):
    """How the motion of one method is like the recorded one; `adapt.scoring.motion` has the formulas.

    Args:
        amplitude: predicted over recorded motion; 1 is right.
        cosine: of the angle between predicted and recorded displacement; 1 is right, 0 is unrelated.
        gripper_f1: of open and close events; 1 is right.
        jerk: predicted over recorded mean third difference; 1 is as smooth as the record.
        onset_share: share of recorded movement onsets that are predicted; onset_delay_s: how much later.
    """

    amplitude: Measure
    cosine: Measure
    gripper_f1: Measure
    jerk: Measure
    onset_share: Measure
    onset_delay_s: Measure


class ContextScore(Record):
    """Errors of the windows that had `past` whole chunks of context; step errors of the model and standing still."""

    model_config = _NAN_ALLOWED

    past: int
    windows: int
    error: dict[str, float]
    step_error: dict[str, tuple[float, ...]]


class ActionScore(Record):
    """Mean absolute error over held-out windows; keys of `error` are the model, its variants and the baselines."""

    model_config = _NAN_ALLOWED

    windows: int
    steps: int
    error: dict[str, float]
    step_error: dict[str, tuple[float, ...]]
    components: tuple[ComponentScore, ...]
    paired: dict[str, Paired]
    amplitude_ratio: float
    motion: dict[str, Motion] = {}
    context: tuple[ContextScore, ...] = ()


class VideoScore(Record):
    """Likeness to recorded frames, teacher-forced; `ceiling` is what the latents alone can hold.

    Args:
        psnr: dB; ssim: 0..1; both per method, and per frame under `frame_...`.
        lpips: lower is better; empty where it could not be measured.
        unmeasured: why a measure of this record is empty, by its name.
    """

    model_config = _NAN_ALLOWED

    windows: int
    frame_s: tuple[float, ...]
    psnr: dict[str, float]
    frame_psnr: dict[str, tuple[float, ...]]
    ssim: dict[str, float] = {}
    frame_ssim: dict[str, tuple[float, ...]] = {}
    lpips: dict[str, float] = {}
    unmeasured: dict[str, str] = {}


class FreeChunk(Record):
    """One chunk of free-running prediction, over the clips that have it.

    Args:
        number: 1 is the first chunk, which free-running and teacher-forced share.
        psnr, ssim: of `free_running`, `teacher_forced` and `copy_last`, the first frame shown again.
        error: mean absolute action error of `free_running`, `teacher_forced` and `stand_still`.
    """

    model_config = _NAN_ALLOWED

    number: int
    clips: int
    psnr: dict[str, float]
    ssim: dict[str, float]
    error: dict[str, float]


class FreeRunning(Record):
    """Each predicted chunk's video feeds the next prediction; states are the recorded ones."""

    chunks: tuple[FreeChunk, ...] = ()
    reason: str = ""


class FutureGap(Record):
    """Actions with the chunk's video imagined against the same with its recorded video shown.

    `share` is (imagined - true) / imagined: the part of the error that imagining the video causes.
    """

    model_config = _NAN_ALLOWED

    windows: int = 0
    imagined: float = 0.0
    true: float = 0.0
    share: Measure = NOT_ASKED


class Sensitivity(Record):
    """What a wrong input changes.

    Args:
        change: mean change of the actions by the wrong input, over their change by another noise seed; 1 is no more
            than noise.
        right, wrong: mean absolute error with each.
        reason: why it could not be measured.
    """

    windows: int = 0
    change: Measure = NOT_ASKED
    right: Measure = NOT_ASKED
    wrong: Measure = NOT_ASKED
    reason: str = ""


class LevelLoss(Record):
    """Losses of held-out windows at one noise level (0 clean, 1 noise), the noise the same at every look."""

    model_config = _NAN_ALLOWED

    level: float
    losses: dict[str, float]


class Forgetting(Record):
    """One score on the base's own held-out windows, before and after adapting; lower is better."""

    model_config = _NAN_ALLOWED

    name: str
    before: float
    after: float


class CurvePoint(Record):
    model_config = _NAN_ALLOWED

    step: int
    value: float


class Training(Record):
    """What the training says of itself.

    Args:
        val_error: of the weights that were judged; raw_val_error, average_val_error: of the weights as trained and of
            their moving average, at the same looks.
        chosen: which of the two the adapter holds; "" in reports from before there were two.
        stopped: why training ended; rung, budget: how it was computed and what it was allowed, in words.
    """

    model_config = _NAN_ALLOWED

    steps: int
    chosen_step: int
    seconds: float
    trainable_parameters: int
    total_parameters: int
    windows: int
    video_windows: int
    epochs: float
    loss: tuple[CurvePoint, ...]
    val_error: tuple[CurvePoint, ...]
    raw_val_error: tuple[CurvePoint, ...] = ()
    average_val_error: tuple[CurvePoint, ...] = ()
    chosen: Literal["", "average", "raw"] = ""
    stopped: str = ""
    rung: str = ""
    budget: str = ""


class SplitPart(Record):
    episodes: tuple[str, ...]
    minutes: float
    windows: int


class Report(Record):
    """First `verdict` and `reason`, then everything that led to them."""

    model_config = _NAN_ALLOWED

    schema_id: Literal["wamkit/report@1"] = "wamkit/report@1"
    verdict: Verdict
    reason: str
    robot: str
    backbone: str
    base: str
    information: tuple[str, ...]
    chunk_s: float
    action_hz: float
    split: dict[str, SplitPart]
    action: ActionScore | None
    video: VideoScore | None
    training: Training | None
    rejects: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    provenance: dict[str, str]
    free_running: FreeRunning | None = None
    future: FutureGap | None = None
    language: Sensitivity | None = None
    camera: Sensitivity | None = None
    levels: tuple[LevelLoss, ...] = ()
    levels_reason: str = ""
    forgetting: tuple[Forgetting, ...] = ()
    windows_sha256: str = ""  # what the judged windows are, so that reports on the same ones are known

    @model_validator(mode="before")
    @classmethod
    def _not_finite_again(cls, content: Any) -> Any:
        if not (isinstance(content, dict) and "not_finite" in content):
            return content
        content = copy.deepcopy(content)
        for path, word in content.pop("not_finite").items():
            *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]
            holder = content
            for part in parents:
                holder = holder[int(part) if isinstance(holder, list) else part]
            holder[int(last) if isinstance(holder, list) else last] = float(word)
        return content

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: no number that is not finite, which `not_finite` names instead."""
        content = super().as_dict()
        found: dict[str, str] = {}
        for holder, key, path in list(_leaves(content, "")):
            if isinstance(holder[key], float) and not math.isfinite(holder[key]):
                found[path] = str(holder[key])
                holder[key] = None
        return content | ({"not_finite": found} if found else {})


def _leaves(value: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """(holder, key, path) of everything below; `/` and `~` in names are escaped as in a JSON pointer."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        name = str(key).replace("~", "~0").replace("/", "~1")
        where = f"{path}/{name}" if path else name
        if isinstance(below, dict | list):
            yield from _leaves(below, where)
        else:
            yield value, key, where
