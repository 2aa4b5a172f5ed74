"""`report.json` and `report.html`. Turns the record into rows and charts; the template only lays them out."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapt.report import charts
from adapt.report.figures import Example, Figures, Image
from adapt.report.numbers import change, count, decimals, duration, fixed, interval, order, short
from adapt.report.rows import (
    component_table,
    forgetting_rows,
    free_running_table,
    heat_table,
    motion_table,
    probe_rows,
    training_words,
    video_table,
)
from adapt.report.styles import INK, METHODS, Style, css_colour, css_variables, style_of
from adapt.report.windows import WINDOWS, WindowErrors
from schemas.files import write_atomic
from schemas.report import ActionScore, ComponentScore, Paired, Report

SEES_LAST_COMMAND = ("last_command", "ridge")


def write_report(folder: Path, report: Report, figures: Figures, windows: WindowErrors | None = None) -> Path:
    """Write `report.json`, the self-contained `report.html` and `windows.npz`; the path of the page.

    All are written atomically and the page last, so that a page is never newer than its numbers.
    """
    html = render(report, figures)
    if windows is not None:
        write_atomic(folder / WINDOWS, windows.to_bytes())
    report.write_json(folder / "report.json")
    write_atomic(folder / "report.html", html.encode())
    return folder / "report.html"


def render(report: Report, figures: Figures) -> str:
    """The whole page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "count": count, "minutes": duration}
    return environment.get_template("report.html.jinja").render(
        report=report,
        colours=css_variables(),
        action=_action(report.action, report) if report.action else None,
        video=_video(report, figures),
        examples=[_example(e, report.action) for e in figures.examples] if report.action else [],
        training=charts.training_curves(report.training) if report.training else None,
        training_words=training_words(report.training) if report.training else (),
        probes=probe_rows(report),
        levels=charts.loss_by_level(report.levels) if report.levels else None,
        forgetting=forgetting_rows(report.forgetting),
        legend=_legend,
    )


@dataclass(frozen=True)
class ErrorRow:
    """One method in the table of errors; `interval`, `won` and `whisker` set the model against it, empty for itself."""

    name: str
    style: Style
    colour: str
    error: str
    bar: float
    change: str
    interval: str
    won: str
    whisker: "Whisker | None"


@dataclass(frozen=True)
class Whisker:
    """An interval on a scale of 0 to 100 shared by all rows, the side on which it leaves it, and what it says."""

    low: float
    middle: float
    high: float
    zero: float
    beyond: str
    says: str


@dataclass(frozen=True)
class ComponentRow:
    part: ComponentScore
    errors: tuple[str, ...]
    best: int
    change: str
    is_worse: bool


def _action(action: ActionScore, report: Report) -> dict[str, object]:
    names = tuple(action.error)
    units = tuple(dict.fromkeys(c.unit for c in action.components))
    shown = tuple(sorted(names, key=lambda n: (n != "model", order(action.error[n]))))
    return {
        "rows": _error_rows(action),
        "units": units,
        "columns": sum(len(c.labels) for c in action.components),
        "methods": [(style_of(n, names), css_colour(style_of(n, names).light)) for n in shown],
        "components": [_component_row(c, shown) for c in action.components],
        "over_chunk": charts.error_over_chunk(action, action_hz=report.action_hz),
        "joints": charts.joint_errors(action.components),
        "amplitude": short(action.amplitude_ratio),
        "motion": motion_table(action),
        "parts": component_table(action),
        "heat": heat_table(action, action_hz=report.action_hz),
        "extra": [style_of(n, names).label for n in SEES_LAST_COMMAND if n in names],
    }


def _error_rows(action: ActionScore) -> list[ErrorRow]:
    names = tuple(action.error)
    finite = [e for e in action.error.values() if math.isfinite(e)]
    longest = max(finite, default=0.0) or 1.0
    still = action.error["stand_still"]
    digits = decimals(still)
    whiskers = _whiskers(action.paired)
    rows = []
    for name in sorted(names, key=lambda n: order(action.error[n])):
        error, paired, style = action.error[name], action.paired.get(name), style_of(name, names)
        rows.append(
            ErrorRow(
                name=name,
                style=style,
                colour=css_colour(style.light),
                error=fixed(error, digits),
                bar=100 * error / longest if math.isfinite(error) else 0.0,
                change="" if name == "stand_still" else change(error, still),
                interval=interval(paired, digits) if paired else "",
                won=f"{paired.share_better * 100:.0f} %" if paired else "",
                whisker=whiskers.get(name),
            )
        )
    return rows


def _whiskers(paired: Mapping[str, Paired]) -> dict[str, Whisker]:
    """Intervals on one scale that holds zero and the baselines; an interval of a base or variant may leave it."""
    known = {n: p for n, p in paired.items() if all(math.isfinite(v) for v in (p.low, p.difference, p.high))}
    scaled = [p for n, p in known.items() if n in METHODS and n != "base"] or list(known.values())
    low = min([0.0, *(p.low for p in scaled)])
    high = max([0.0, *(p.high for p in scaled)])
    scale = 100 / ((high - low) or 1.0)

    def place(value: float) -> float:
        return round(min(max((value - low) * scale, 0.0), 100.0), 2)

    return {
        name: Whisker(
            low=place(p.low),
            middle=place(p.difference),
            high=place(p.high),
            zero=place(0.0),
            beyond="left" if p.difference < low else "right" if p.difference > high else "",
            says=_says(p),
        )
        for name, p in known.items()
    }


def _says(paired: Paired) -> str:
    if paired.high < 0:
        return "better"
    return "worse" if paired.low > 0 else "level"


def _component_row(part: ComponentScore, names: Sequence[str]) -> ComponentRow:
    errors = [part.error[name] for name in names]
    model, still = part.error["model"], part.error["stand_still"]
    digits = decimals(still)
    return ComponentRow(
        part=part,
        errors=tuple(fixed(e, digits) for e in errors),
        best=min(range(len(errors)), key=lambda i: order(errors[i])),
        change=change(model, still),
        is_worse=not model < still and still > 0,
    )


def _example(example: Example, action: ActionScore) -> dict[str, object]:
    ends = np.cumsum([len(part.labels) for part in action.components])
    columns = [slice(end - len(part.labels), end) for part, end in zip(action.components, ends, strict=True)]
    widest: dict[str, float] = {}
    for part, at in zip(action.components, columns, strict=True):
        widest[part.unit] = max(widest.get(part.unit, 0.0), float(np.ptp(example.truth[:, at], axis=0).max()))
    curves = [
        charts.episode_curves(example, part, columns=at, smallest_span=charts.SMALLEST_SPAN * widest[part.unit])
        for part, at in zip(action.components, columns, strict=True)
    ]
    parts = list(zip(action.components, curves, strict=True))
    return {"name": example.name, "parts": parts, "legend": (None, *example.predictions)}


def _video(report: Report, figures: Figures) -> dict[str, object] | None:
    sheet = figures.contact_sheet
    if report.video is None and not figures.videos and sheet is None:
        return None
    return {
        "score": report.video,
        "chart": charts.frame_psnr(report.video) if report.video else None,
        "table": video_table(report.video) if report.video else None,
        "free": free_running_table(report.free_running),
        "videos": {caption: base64.b64encode(mp4).decode() for caption, mp4 in figures.videos.items()},
        "sheet": base64.b64encode(_png(sheet)).decode() if sheet is not None else None,
    }


def _legend(names: Sequence[str | None]) -> list[tuple[Style, str]]:
    """Style and CSS colour per method; None is the recording."""
    known = tuple(n for n in names if n is not None)
    styles = [INK if n is None else style_of(n, known) for n in names]
    return [(s, css_colour(s.light)) for s in styles]


def _png(image: Image) -> bytes:
    from matplotlib.image import imsave

    out = io.BytesIO()
    imsave(out, image, format="png", metadata={"Software": None})
    return out.getvalue()
