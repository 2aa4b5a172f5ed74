"""A run's ticks as rates, and as curves in TensorBoard and Weights & Biases.

    writers(run, ("tensorboard",)) -> Watcher: `tick` per training step, `close` at the end

A resumed run repeats steps since its last checkpoint: TensorBoard hides the abandoned ones, W&B overlays them. What a
writer cannot write is noted once and costs that writer, never the run. Imports no torch at its top: `wam show` uses
`Pace`.
"""

import importlib.util
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Protocol, Self

from schemas.errors import UsageError
from schemas.files import write_atomic

if TYPE_CHECKING:
    from adapt.run import Watch
    from adapt.training.loop import Tick

NAMES = ("tensorboard", "wandb")
SPEED_SPAN_S = 60.0  # of training, over which a speed is meant
STEP_SPAN_S = 600.0  # over which the time per step is, so that looks at the held-out part count as often as they come
WRITE_EVERY_S = 1.0  # of training; steps in between are averaged
GB = 1e9


@dataclass(frozen=True)
class Facts:
    """What speeds are measured against; None where it is not known.

    Args:
        tokens: of a window.
        flops: of a window, forward and backward, without recomputation.
        peak_tflops: of all devices together, dense.
    """

    tokens: int | None = None
    flops: float | None = None
    peak_tflops: float | None = None

    def mfu(self, windows_per_s: float) -> float | None:
        """Model FLOPs utilisation: the share of the devices' peak that useful operations take."""
        if not self.flops or not self.peak_tflops:
            return None
        return windows_per_s * self.flops / (self.peak_tflops * 1e12)


@dataclass
class _Slice:
    """About a second of training; `aside` are steps that also looked at the held-out part."""

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    encoded: int = 0
    aside: int = 0
    aside_s: float = 0.0

    @property
    def all_s(self) -> float:
        return self.seconds + self.aside_s


@dataclass
class Pace:
    """Moving means over the ticks of one call of training.

    The first tick of a call holds its start (compilation, the first batch), so it counts only while it is alone. A tick
    that goes back, or was resumed from elsewhere, begins anew.
    """

    _slices: deque[_Slice] = field(default_factory=deque)
    _last: "Tick | None" = None
    _has_start_only: bool = False
    _all_s: float = 0.0

    def add(self, tick: "Tick") -> None:
        last, self._last = self._last, tick
        if last is None or is_new_call(last, tick):
            self._slices, self._all_s = deque([_slice_of(tick, is_look=False)]), tick.seconds
            self._has_start_only = True
            return
        if self._has_start_only:
            self._slices.clear()
            self._all_s, self._has_start_only = 0.0, False
        self._all_s += tick.seconds
        new = _slice_of(tick, is_look=tick.val_error != last.val_error)
        if self._slices and self._slices[-1].all_s < 1.0:
            old = self._slices.pop()
            new = _Slice(*(getattr(old, n) + getattr(new, n) for n in _Slice.__dataclass_fields__))
        self._slices.append(new)
        while self._all_s - self._slices[0].all_s > STEP_SPAN_S:
            self._all_s -= self._slices.popleft().all_s

    @property
    def samples_per_s(self) -> float | None:
        """Windows per second of steps that only train; None before there is one."""
        recent = self._recent()
        seconds = sum(s.seconds for s in recent)
        return sum(s.samples for s in recent) / seconds if seconds > 0 else None

    @property
    def encoded_per_s(self) -> float:
        """Windows per second that were encoded for steps, since nobody had before."""
        recent = self._recent()
        seconds = sum(s.seconds for s in recent)
        return sum(s.encoded for s in recent) / seconds if seconds > 0 else 0.0

    @property
    def wait_share(self) -> float:
        """Of the time, what was spent waiting for data."""
        recent = self._recent()
        seconds = sum(s.seconds for s in recent)
        return sum(s.waited_s for s in recent) / seconds if seconds > 0 else 0.0

    @property
    def seconds_per_step(self) -> float | None:
        """With looks at the held-out part and checkpoints; None before the second tick, which is the first to tell."""
        steps = sum(s.steps + s.aside for s in self._slices)
        return sum(s.all_s for s in self._slices) / steps if steps and not self._has_start_only else None

    def left_s(self, tick: "Tick") -> float | None:
        """Until the last step, if training does not stop sooner."""
        each = self.seconds_per_step
        return None if each is None else each * (tick.steps - tick.step)

    def _recent(self) -> list[_Slice]:
        found: list[_Slice] = []
        seconds = 0.0
        for piece in reversed(self._slices):
            if seconds >= SPEED_SPAN_S:
                break
            found.append(piece)
            seconds += piece.seconds
        return found


def is_new_call(last: "Tick", tick: "Tick") -> bool:
    """Whether training began again between two ticks: resumed, on a lower rung, or with fewer processes."""
    return tick.resumed_from != last.resumed_from or tick.step <= last.step


def _slice_of(tick: "Tick", *, is_look: bool) -> _Slice:
    if is_look:
        return _Slice(aside=1, aside_s=tick.seconds)
    return _Slice(1, tick.samples, tick.seconds, tick.seconds * tick.wait_share, tick.encoded)


class Writer(Protocol):
    """One place where curves are drawn; whatever goes wrong with it is an OSError. `words` say where to look."""

    words: str

    def write(self, step: int, values: dict[str, float]) -> None: ...
    def resume(self, step: int) -> None: ...
    def close(self) -> None: ...


class Board:
    """TensorBoard's event files in `folder`; events after `resume_step` of an earlier call are hidden."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        self._folder = folder
        self.words = f"curves: tensorboard --logdir {folder}"
        self._open(resume_step)

    def _open(self, resume_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=resume_step + 1, flush_secs=10)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def resume(self, step: int) -> None:
        self.close()
        self._open(step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases whose files lie in `folder`; offline unless its own settings hold a login.

    The same run folder is the same W&B run, resumed or not: its id lies in `folder/id`. Project and mode follow W&B's
    own environment variables where they are set.
    """

    def __init__(self, folder: Path, resume_step: int) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.setup().settings
        has_login = bool(wandb.api.api_key)
        mode = "offline" if settings.mode == "online" and not has_login else settings.mode
        with _wandb_failures():
            self._run = wandb.init(
                project=settings.project or "wamkit",
                name=folder.resolve().parents[1].name,
                id=_wandb_id(folder),
                dir=str(folder),
                mode=mode,
                resume="allow" if mode == "online" else None,
                settings=wandb.Settings(console="off", silent=True),
            )
        # W&B's own step may not go back, and a resumed run's does.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.words = (
            f"curves: {self._run.url}" if mode == "online" else f"curves: wandb sync {Path(self._run.dir).parent}"
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        with _wandb_failures():
            self._run.log(values | {"step": step})

    def resume(self, step: int) -> None:
        """Nothing to do: values are drawn over `step`, and those of repeated steps over the earlier ones."""

    def close(self) -> None:
        with _wandb_failures():
            self._run.finish()


@contextmanager
def _wandb_failures() -> Iterator[None]:
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise OSError(str(error)) from None


def _wandb_id(folder: Path) -> str:
    import secrets

    file = folder / "id"
    if not file.exists():
        write_atomic(file, secrets.token_hex(8).encode())
    return file.read_text().strip()


MAKERS: dict[str, Callable[[Path, int], Writer]] = {"tensorboard": Board, "wandb": Wandb}


@dataclass
class Watcher:
    """Ticks to writers, which are opened at the first tick, since only it knows where training goes on from."""

    folders: dict[str, Path]
    on_note: Callable[[str], None] = lambda words: None
    _writers: dict[str, Writer] | None = None
    _pace: Pace = field(default_factory=Pace)
    _held_back: list["Tick"] = field(default_factory=list)
    _last: "Tick | None" = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def watch(self) -> "Watch":
        """What a run tells its ticks to."""
        from adapt.run import Watch

        return Watch(tick=self.tick)

    def tick(self, tick: "Tick") -> None:
        last, self._last = self._last, tick
        if self._writers is None:
            self._writers = {}
            for name, folder in self.folders.items():
                self._open(name, folder, tick.resumed_from)
        elif last is not None and is_new_call(last, tick):
            self._flush(error=None)
            self._each(lambda w: w.resume(tick.resumed_from))
        before = None if last is None or is_new_call(last, tick) else last.val_error
        # A resumed call's first error is that of an earlier step, and is drawn there already.
        is_old = tick.step == tick.resumed_from + 1 and tick.resumed_from > 0
        is_look = tick.val_error is not None and tick.val_error != before and not is_old
        self._pace.add(tick)
        self._held_back.append(tick)
        if is_look or tick.step == tick.steps or sum(t.seconds for t in self._held_back) >= WRITE_EVERY_S:
            self._flush(error=tick.val_error if is_look else None)

    def close(self) -> None:
        self._flush(error=None)
        self._each(lambda w: w.close())
        self._writers = None

    def _flush(self, *, error: float | None) -> None:
        ticks, self._held_back = self._held_back, []
        if ticks:
            values = scalars(ticks, self._pace, error=error)
            self._each(lambda w: w.write(ticks[-1].step, values))

    def _open(self, name: str, folder: Path, resume_step: int) -> None:
        try:
            self._writers[name] = MAKERS[name](folder, resume_step)
        except OSError as error:
            self._lost(name, error)
        else:
            self.on_note(self._writers[name].words)

    def _each(self, work: Callable[[Writer], None]) -> None:
        for name, writer in list((self._writers or {}).items()):
            try:
                work(writer)
            except OSError as error:
                del self._writers[name]
                self._lost(name, error)

    def _lost(self, name: str, error: OSError) -> None:
        self.on_note(f"{name}: no curves from here on ({error}); training goes on")


def writers(run: Path, names: Sequence[str], *, on_note: Callable[[str], None] = lambda words: None) -> Watcher:
    """Where a run's curves are drawn, below `run/train/`.

    Args:
        names: of NAMES.
        on_note: told where the curves can be seen, and when a writer is lost.

    Raises:
        UsageError: a name is not known, or its package is not installed.
    """
    for name in names:
        if name not in NAMES:
            raise UsageError(f"curves in {name!r}: not known. Give one of: {', '.join(NAMES)}.")
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"{name} is not installed. Run `pip install {name}`, or leave it out.")
    return Watcher({name: run / "train" / name for name in dict.fromkeys(names)}, on_note)


def scalars(ticks: Sequence["Tick"], pace: Pace, *, error: float | None) -> dict[str, float]:
    """What is drawn at the last of `ticks`: means over them, and `error` if the held-out part was just looked at."""
    last = ticks[-1]
    series = {"loss/total": [t.loss for t in ticks]}
    series |= {f"loss/{name}": [t.parts.get(name, math.nan) for t in ticks] for name in last.parts}
    values = {name: _mean(found) for name, found in series.items()}
    values |= {"lr": last.lr, "speed/windows_per_s": pace.samples_per_s, "speed/wait_percent": 100 * pace.wait_share}
    if last.encoded or pace.encoded_per_s:
        values["speed/windows_encoded_per_s"] = pace.encoded_per_s
    if last.peak_bytes:
        values["memory/peak_gb"] = last.peak_bytes / GB
    if error is not None:
        values |= {"held_out/error": error, "held_out/standing_still": last.hold}
    return {name: value for name, value in values.items() if value is not None}


def _mean(values: list[float]) -> float | None:
    """Over those that have arrived from the device; None if none has."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return fmean(known) if known else None
