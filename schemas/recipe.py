"""The one file that determines a run. The resolved copy is written into the run folder."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from schemas.mix import MixPart
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
    where: str | None = None
    labels: tuple[str, ...] = ()  # tables, see wamdata/labels.py; their content is part of a run's identity
    keep_ranges: str | None = None  # see wamdata/keep_ranges.py; its content is part of a run's identity
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
    """LoRA as peft understands it; scale is alpha / rank.

    Args:
        options: further options of `peft.LoraConfig`, by its names: use_dora, init_lora_weights, rank_pattern, ...
    """

    rank: int = Field(default=32, ge=1)  # peers converge on 32; 2 and 4 are said to lack capacity (GR00T, DreamZero)
    alpha: float = 32.0  # scale 1: a rank may be changed without changing the learning rate
    dropout: float = Field(default=0.0, ge=0, lt=1)
    rslora: bool = False
    options: dict[str, Any] = {}


class Augment(Record):
    """What varies between the copies of a training window; copy 0 is plain. Values of the public reference."""

    copies: int = Field(default=1, ge=1)
    crop: float = Field(default=0.95, gt=0, le=1)
    brightness: float = Field(default=0.3, ge=0, le=1)
    contrast: float = Field(default=0.4, ge=0, le=1)
    saturation: float = Field(default=0.5, ge=0, le=1)
    hue: float = Field(default=0.08, ge=0, le=0.5)
    phase: bool = True


class LossWeights(Record):
    """How much each part of the loss counts."""

    video: float = Field(default=1.0, ge=0)
    action: float = Field(default=1.0, ge=0)


Weights = Literal["float32", "bf16", "fp8", "int8", "nf4"]
Activations = Literal["keep", "selective", "full", "offload"]


class Hardware(Record):
    """How a run is computed; None lets the plan choose. Nothing of it is part of a run's identity.

    Args:
        precision: of what is not quantised; bf16 on a GPU and float32 elsewhere by default.
        gpus: processes, one to a GPU (or to a CPU share where there is none); 0 is all GPUs there are, or one CPU.
        shard: divide the base over the GPUs (FSDP2) in place of a copy on each.
        threads: CPU threads of one process. One: nano's tensors are so small that a second one gains little when the
            machine is idle, and where other processes run its barriers cost 19 times the work.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: int = Field(default=0, ge=0)
    shard: bool = False
    precision: Literal["float32", "float64", "bf16"] | None = None
    weights: Weights | None = None
    fp8_matmul: bool = False
    activations: Activations | None = None
    selective_blocks: int | None = None
    optimizer: Literal["adamw", "adamw8bit"] | None = None
    micro_batch: int | None = Field(default=None, ge=1)
    compile: bool | None = None
    fused_lora: bool | None = None
    threads: int = Field(default=1, ge=1)
    encode_ahead: bool = True


class AdaptRecipe(Record):
    """From shards to an adapter. A field that is None gets its backbone's default (`adapt.defaults`)."""

    schema_id: Literal["wamkit/adapt@1"] = Field(default="wamkit/adapt@1", alias="schema")
    parts: tuple[MixPart, ...]
    backbone: str = "nano"
    base: str | None = None
    start: str | None = None  # an earlier adapter, to go on from
    style: str | None = None  # DreamZero: whose channels, words and time base: agibot, droid or yam
    tokenizer: str | None = None  # DreamZero: folder of umt5-xxl's, where it does not lie beside the base
    time_base: TimeBase | None = None
    derived_state: tuple[Literal["velocity", "last_command"], ...] | None = None
    lora: Lora = Lora()
    augment: Augment | None = None
    imitate: tuple[Literal["human", "intervention", "scripted", "policy"], ...] = ("human", "intervention", "scripted")
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0)
    heads_lr: float | None = Field(default=None, gt=0)  # as a share of lr
    warmup: int | None = Field(default=None, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)
    losses: LossWeights = LossWeights()
    ema: float | None = Field(default=None, ge=0, lt=1)
    patience: int | None = Field(default=None, ge=0)  # held-out looks without gain before stopping; 0 never stops
    window_stride_s: float | None = Field(default=None, gt=0)
    eval_every: int | None = Field(default=None, ge=1)
    eval_windows: int = Field(default=256, ge=1)
    save_every: int | None = Field(default=None, ge=1)
    denoise_steps: int | None = Field(default=None, ge=1)
    samples: int = Field(default=8, ge=1)
    seed: int = Field(default=0, ge=0)
    until: str | None = None  # when all must be done: "07:30", "2026-11-23T07:30" or "+8h"; shortens the budget
    hardware: Hardware = Hardware()

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps ({self.steps}) and epochs ({self.epochs:g}) are both given, wanted one of them")
        names = [p.name for p in self.parts]
        if len(set(names)) < len(names):
            raise ValueError(f"parts: {names} holds a name twice")
        return self

    @property
    def play(self) -> MixPart:
        """The part whose robot the adapter is for: the first with role play, or the first film of a video-only run."""
        return next((p for p in self.parts if p.role == "play"), self.parts[0])

    @property
    def plays(self) -> tuple[MixPart, ...]:
        """All parts of the adapter's robot: what is normalised by, judged on and counted in epochs."""
        return tuple(p for p in self.parts if p.role == "play") or (self.play,)
