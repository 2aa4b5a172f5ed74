"""The one file that determines a run. The resolved copy is written into the run folder."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.record import Record


class SplitRule(Record):
    """Three parts by session (an episode is its own session where the log names none).

    `hash` orders sessions by a hash of their content, so a duplicate never straddles; `order` takes the last
    ones of the listing for the report, as most published figures do.
    """

    by: Literal["hash", "order"] = "hash"
    val: float = Field(default=0.125, ge=0, lt=1)
    test: float = Field(default=0.25, ge=0, lt=1)
    seed: int = 0


class Filters(Record):
    """Limits of the checks that reject an episode or a span."""

    min_s: float = 0.5
    max_gap_s: float = 0.5
    max_nan_rows: int = 0
    blank_text: Literal["reject", "keep"] = "reject"


class IngestRecipe(Record):
    """From logs to shards."""

    schema_id: Literal["wamkit/ingest@1"] = Field(default="wamkit/ingest@1", alias="schema")
    sources: tuple[str, ...]
    robot: str
    reader: str = "auto"
    task: str | None = None
    licence: str | None = None
    max_clip_s: float = Field(default=60.0, gt=1)
    shard_mb: float = Field(default=256.0, gt=0)
    episodes_per_part: int = Field(default=8, ge=1)
    filters: Filters = Filters()
    split: SplitRule = SplitRule()


class TimeBase(Record):
    """How long a chunk lasts and how fast the video runs, in seconds; the base checkpoint's own by default.

    A window is `chunks` chunks of `steps` control steps, `chunk_s` seconds each, and one closing frame:
    DreamZero's 4 x 24 steps, 33 frames (dreamzero.md 1.6).
    """

    chunk_s: float = Field(gt=0)
    video_fps: float = Field(gt=0)
    steps: int = Field(default=24, ge=1)
    chunks: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _whole_frames(self) -> Self:
        frames = self.chunk_s * self.video_fps
        if abs(frames - round(frames)) > 1e-6 or frames < 1:
            raise ValueError(f"chunk_s * video_fps = {frames:g} frames per chunk, wanted a whole number")
        return self

    @property
    def action_hz(self) -> float:
        return self.steps / self.chunk_s

    @property
    def frames_per_chunk(self) -> int:
        return round(self.chunk_s * self.video_fps)

    @property
    def window_rows(self) -> int:
        """Rows a window needs, the closing frame's row included."""
        return self.steps * self.chunks + 1

    @property
    def num_frames(self) -> int:
        return self.frames_per_chunk * self.chunks + 1


class Lora(Record):
    """LoRA as peft understands it; scale is alpha / rank."""

    rank: int = Field(default=32, ge=1)
    alpha: float = 32.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    rslora: bool = False


class AdaptRecipe(Record):
    """From shards to an adapter."""

    schema_id: Literal["wamkit/adapt@1"] = Field(default="wamkit/adapt@1", alias="schema")
    play: str
    video: str | None = None
    backbone: str = "nano"
    base: str | None = None
    time_base: TimeBase | None = None
    derived_state: tuple[Literal["velocity", "last_command"], ...] | None = None
    lora: Lora = Lora()
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=8, ge=1)
    # Of each batch: enough to teach looks, little enough not to take the actions' share of a short training.
    video_share: float = Field(default=0.125, gt=0, lt=1)
    lr: float = Field(default=2e-3, gt=0)
    warmup: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    ema: float = Field(default=0.98, ge=0, lt=1)
    window_stride_s: float = Field(default=2 / 15, gt=0)
    eval_every: int = Field(default=100, ge=1)
    save_every: int = Field(default=100, ge=1)
    denoise_steps: int = Field(default=2, ge=1)
    samples: int = Field(default=8, ge=1)
    # One thread: nano's tensors are so small that a second one gains little when the machine is idle, and where other
    # processes run its barriers cost 19 times the work (5.2 s against 0.28 s a step).
    threads: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
