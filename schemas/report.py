"""What an evaluation found. `report.json` is this record; `report.html` is drawn from it alone."""

from typing import Literal

from pydantic import ConfigDict

from schemas.record import Record

Verdict = Literal["OFFLINE PASS", "FAIL", "NO ACTION VERDICT"]


# A broken prediction may be NaN, and the report has to say so.
_NAN_ALLOWED = ConfigDict(allow_inf_nan=True)


class Paired(Record):
    """Model minus another on the same windows: mean difference, 95 % interval over episodes and windows, share won."""

    model_config = _NAN_ALLOWED

    difference: float
    low: float
    high: float
    share_better: float


class ComponentScore(Record):
    """Errors of one action component in its own physical unit."""

    model_config = _NAN_ALLOWED

    name: str
    unit: str
    labels: tuple[str, ...]
    error: dict[str, float]
    column_error: dict[str, tuple[float, ...]]
    amplitude_ratio: float


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


class VideoScore(Record):
    """PSNR in dB per predicted frame, teacher-forced; `ceiling` is what the latents alone can hold."""

    model_config = _NAN_ALLOWED

    windows: int
    frame_s: tuple[float, ...]
    psnr: dict[str, float]
    frame_psnr: dict[str, tuple[float, ...]]


class CurvePoint(Record):
    model_config = _NAN_ALLOWED

    step: int
    value: float


class Training(Record):
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
