"""The report's tables as rows of text; the template only lays them out. What was not measured says why."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapt.report.numbers import change, decimals, fixed, measured, measured_interval, order, short
from adapt.report.styles import Style, css_colour, style_of
from schemas.report import (
    ActionScore,
    Forgetting,
    FreeRunning,
    FutureGap,
    Measure,
    Motion,
    Report,
    Sensitivity,
    Training,
    VideoScore,
)

COLUMNS = {
    "amplitude": ("amplitude", "1 is right"),
    "cosine": ("direction", "cosine, 1 is right"),
    "gripper_f1": ("gripper events", "F1, 1 is right"),
    "jerk": ("jerk", "1 as the record"),
    "onset_share": ("onsets found", "share"),
    "onset_delay_s": ("onset delay", "s"),
}
BINS = 6
FULL_TINT = 60  # percent of the colour where a cell's error is nothing, or twice standing still's


@dataclass(frozen=True)
class Cell:
    """A number, its interval or what it is against, and a tint: how much of which colour, 0 for none."""

    text: str
    small: str = ""
    title: str = ""
    colour: str = ""
    tint: int = 0


@dataclass(frozen=True)
class Row:
    label: str
    cells: tuple[Cell, ...]
    gloss: str = ""
    colour: str = ""
    is_model: bool = False


@dataclass(frozen=True)
class Table:
    """Header as (name, unit) pairs without the first column, rows, and what could not be measured."""

    header: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()


def motion_table(action: ActionScore) -> Table | None:
    """How each method's motion is like the recorded one; a measure that nobody has is told below instead."""
    if not action.motion:
        return None
    names = tuple(action.error)
    shown = [c for c in COLUMNS if any(getattr(m, c).value is not None for m in action.motion.values())]
    first = next(iter(action.motion.values()))
    missing = tuple(f"{COLUMNS[c][0]}: {getattr(first, c).reason}" for c in COLUMNS if c not in shown)
    ranked = sorted(action.motion, key=lambda n: order(action.error[n]))
    rows = tuple(_motion_row(style_of(n, names), action.motion[n], shown, is_model=n == "model") for n in ranked)
    return Table(tuple(COLUMNS[c] for c in shown), rows, missing)


def _motion_row(style: Style, motion: Motion, shown: Sequence[str], *, is_model: bool) -> Row:
    cells = tuple(_measure_cell(getattr(motion, name)) for name in shown)
    return Row(style.label, cells, colour=css_colour(style.light), is_model=is_model)


def component_table(action: ActionScore) -> Table:
    """The model's motion, component by component."""
    grips = any(c.gripper_f1.value is not None for c in action.components)
    header = [("amplitude", "1 is right"), ("direction", "cosine, 1 is right")]
    header += [("gripper events", "F1, 1 is right")] * grips
    rows = []
    for part in action.components:
        ratio = short(part.amplitude_ratio) if part.amplitude_ratio < 100 else "over 100"
        cells = [Cell(ratio), _measure_cell(part.cosine)] + [_measure_cell(part.gripper_f1)] * grips
        rows.append(Row(part.name, tuple(cells), part.unit))
    return Table(tuple(header), tuple(rows))


def _measure_cell(measure: Measure, digits: int = 2) -> Cell:
    return Cell(measured(measure, digits), measured_interval(measure, digits), title=measure.reason)


def heat_table(action: ActionScore, *, action_hz: float) -> Table | None:
    """The model's error by past chunks and by time in the chunk, tinted by what it is against standing still."""
    if not action.context:
        return None
    bins = [b for b in np.array_split(np.arange(action.steps), min(BINS, action.steps)) if len(b)]
    header = (*((f"to {(b[-1] + 1) / action_hz:.2g}", "s") for b in bins), ("all", "steps"))
    digits = decimals(action.error["stand_still"])
    rows = []
    for part in action.context:
        model, still = (np.array(part.step_error[n]) for n in ("model", "stand_still"))
        pairs = [(_mean(model[b]), _mean(still[b])) for b in bins]
        pairs.append((part.error["model"], part.error["stand_still"]))
        label = "none: the start" if part.past == 0 else f"{part.past} chunk{'s' if part.past > 1 else ''}"
        gloss = f"{part.windows} window{'' if part.windows == 1 else 's'}"
        rows.append(Row(label, tuple(_heat(m, s, digits) for m, s in pairs), gloss))
    return Table(header, tuple(rows))


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _heat(model: float, still: float, digits: int) -> Cell:
    if not (np.isfinite(model) and still > 0):
        return Cell(fixed(model, digits))
    gain = 1 - model / still
    tint = round(min(abs(gain), 1.0) * FULL_TINT)
    return Cell(fixed(model, digits), change(model, still), colour="better" if gain > 0 else "worse", tint=tint)


def video_table(video: VideoScore) -> Table:
    """PSNR, SSIM and LPIPS of each method, teacher-forced."""
    names, missing = tuple(video.psnr), tuple(f"{n.upper()}: {why}" for n, why in video.unmeasured.items())
    header = [("PSNR", "dB, higher is better")]
    header += [("SSIM", "1 is equal")] * bool(video.ssim) + [("LPIPS", "0 is equal")] * bool(video.lpips)
    rows = []
    for name in names:
        style = style_of(name, names)
        cells = [Cell(fixed(video.psnr[name], 1))]
        cells += [Cell(fixed(video.ssim[name], 3))] if video.ssim else []
        cells += [Cell(fixed(video.lpips[name], 3))] if video.lpips else []
        rows.append(Row(style.label, tuple(cells), style.gloss, css_colour(style.light), name == "model"))
    return Table(tuple(header), tuple(rows), missing)


FREE = {"free_running": "free-running", "teacher_forced": "from true video", "copy_last": "first frame kept"}


def free_running_table(free: FreeRunning | None) -> Table | None:
    """Chunk by chunk: likeness and action error when predictions feed predictions, and when they do not."""
    if free is None:
        return None
    if not free.chunks:
        return Table((), (), (free.reason,))
    with_ssim, with_error = any(c.ssim for c in free.chunks), any(c.error for c in free.chunks)
    header = [("PSNR, dB", words) for words in FREE.values()]
    header += [("SSIM", words) for words in FREE.values()] * with_ssim
    errors = {"free_running": FREE["free_running"], "teacher_forced": FREE["teacher_forced"], "stand_still": "still"}
    header += [("action error", words) for words in errors.values()] * with_error
    rows = []
    for chunk in free.chunks:
        digits = decimals(chunk.error.get("stand_still", 0.0))
        cells = [Cell(fixed(chunk.psnr[n], 1)) for n in FREE]
        cells += [Cell(fixed(chunk.ssim[n], 3)) for n in FREE] if with_ssim else []
        cells += [Cell(fixed(chunk.error[n], digits) if n in chunk.error else "–") for n in errors] * with_error
        rows.append(Row(str(chunk.number), tuple(cells), f"{chunk.clips} clip{'' if chunk.clips == 1 else 's'}"))
    return Table(tuple(header), tuple(rows))


def probe_rows(report: Report) -> Table | None:
    """What inputs are worth: instruction, cameras, the video so far, the chunk's own video."""
    if report.action is None or (report.language is None and report.camera is None and report.future is None):
        return None
    header = (("error", "right input"), ("error", "wrong input"), ("actions change", "1 is noise alone"))
    rows, missing = [], []
    for name, gloss, found in (
        ("instruction", "another instruction of the data in its place", report.language),
        ("cameras", "two views swapped", report.camera),
    ):
        if found is None or found.reason:
            missing += [f"{name}: {found.reason if found else 'not asked for'}"]
        else:
            rows.append(_sensitivity_row(name, gloss, found))
    hidden = report.action.error.get("without_video")
    if hidden is not None:
        pair = (Cell(short(report.action.error["model"])), Cell(short(hidden)), Cell("–"))
        rows.append(Row("video so far", pair, "the past hidden from the actions"))
    if report.future is not None and report.future.windows:
        rows.append(_future_row(report.future))
    return Table(header, tuple(rows), tuple(missing))


def _sensitivity_row(name: str, gloss: str, found: Sensitivity) -> Row:
    error = (Cell(short(m.value), title=m.reason) if m.value is not None else Cell("–", title=m.reason) for m in
             (found.right, found.wrong))  # fmt: skip
    return Row(name, (*error, _measure_cell(found.change)), f"{gloss}; {found.windows} windows")


def _future_row(gap: FutureGap) -> Row:
    share = gap.share
    words = "–" if share.value is None else f"{share.value * 100:.0f} % of the error".replace("-", "−")
    cells = (Cell(short(gap.true)), Cell(short(gap.imagined)), Cell(words, "is from imagining", share.reason))
    return Row("the chunk's video", cells, f"recorded against imagined; {gap.windows} windows")


def forgetting_rows(found: Sequence[Forgetting]) -> Table | None:
    if not found:
        return None
    header = (("before", "the base"), ("after", "adapted"), ("change", ""))
    rows = [Row(f.name, (Cell(short(f.before)), Cell(short(f.after)), Cell(change(f.after, f.before)))) for f in found]
    return Table(header, tuple(rows))


def training_words(training: Training) -> tuple[str, ...]:
    """Sentences on which weights were chosen, why training stopped and how it was computed."""
    words = []
    at = {
        name: next((p.value for p in points if p.step == training.chosen_step), None)
        for name, points in (("average", training.average_val_error), ("raw", training.raw_val_error))
    }
    if training.chosen and at["average"] is not None and at["raw"] is not None:
        told = "their moving average" if training.chosen == "average" else "the weights as trained"
        words.append(
            f"Validation error at that step: {short(at['raw'])} of the weights as trained, {short(at['average'])} of "
            f"their moving average; the adapter holds {told}."
        )
    names = (("Stopped", training.stopped), ("Computed", training.rung), ("Budget", training.budget))
    return (*words, *(f"{name}: {text}." for name, text in names if text))
