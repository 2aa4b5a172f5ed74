"""Charts as inline SVG text: real text in the page's font, colours as CSS variables, nothing fetched.

Each function takes scores or an example and returns one `<svg>` element.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt.report.figures import Chunk, Example, Floats
from adapt.report.styles import INK, MUTED, RULE, css_variables, style_of
from schemas.report import ActionScore, ComponentScore, CurvePoint, LevelLoss, Training, VideoScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.6  # inches; 72 SVG units each, so text is as large as it says
PANELS = 4
TEXT = 8.5
SMALLEST_SPAN = 0.1  # of the widest column of that unit: a joint that rests must not look as if it shook
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": TEXT, "color": INK.light, "parse_math": False}


def error_over_chunk(action: ActionScore, *, action_hz: float) -> str:
    """Error at each step of the chunk, one line per method."""
    step_s = np.arange(1, action.steps + 1) / action_hz
    lines = {name: np.asarray(error) for name, error in action.step_error.items()}
    figure, (axes,) = _figure(1, 1, height=3.1)
    _lines(axes, step_s, lines, bold="model")
    axes.set_xlabel("seconds after the chunk's start")
    axes.set_ylabel("mean absolute error")
    axes.set_ylim(bottom=0)
    return _svg(figure, "Error at each step of the chunk")


def joint_errors(components: Sequence[ComponentScore]) -> str:
    """Model and standing still per action column, one panel per component with its own scale."""
    columns = min(2, len(components))
    rows = -(-len(components) // columns)
    longest = max(len(c.labels) for c in components)
    figure, panels = _figure(rows, columns, height=rows * (0.75 + 0.19 * longest))
    for axes, part in zip(panels, components, strict=False):
        y = np.arange(len(part.labels))
        still, model = (np.asarray(part.column_error[n]) for n in ("stand_still", "model"))
        axes.hlines(y, np.minimum(still, model), np.maximum(still, model), color=RULE.light, linewidth=2.2)
        names = tuple(part.column_error)
        axes.plot(still, y, "o", color=style_of("stand_still", names).light, markersize=5, fillstyle="none")
        axes.plot(model, y, "o", color=style_of("model", names).light, markersize=5.5)
        axes.set_yticks(y, part.labels, parse_math=False)
        axes.set_ylim(longest - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_title(f"{part.name}, {part.unit}", **_TITLE)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    for axes in panels[len(components) :]:
        axes.set_visible(False)
    return _svg(figure, "Error of each action column, model and standing still")


def episode_curves(example: Example, part: ComponentScore, *, columns: slice, smallest_span: float) -> str:
    """One panel per action column of a component: recorded and predicted over time, chunk starts marked.

    Args:
        columns: where the component lies in the action.
        smallest_span: the least height of a panel, in the component's unit.
    """
    count = len(part.labels)
    rows = -(-count // PANELS)
    figure, panels = _figure(rows, PANELS, height=0.25 + 1.25 * rows, share_x=True)
    truth = example.truth[:, columns]
    predictions = {
        name: [Chunk(c.start, c.action[: len(truth) - c.start, columns]) for c in chunks]
        for name, chunks in example.predictions.items()
    }
    shown = np.concatenate([truth, *(c.action for chunks in predictions.values() for c in chunks)])
    limits = _limits(shown, smallest_span)
    for i, axes in enumerate(panels):
        if i >= count:
            axes.set_visible(False)
            continue
        axes.plot(example.t_s, truth[:, i], color=INK.light, linewidth=1.1)
        for name, chunks in predictions.items():
            colour = style_of(name, tuple(predictions)).light
            strong = name == "model"
            for chunk in chunks:
                t_s = example.t_s[chunk.start : chunk.start + len(chunk.action)]
                axes.plot(t_s, chunk.action[:, i], color=colour, linewidth=1.3 if strong else 0.7)
                axes.plot(t_s[:1], chunk.action[:1, i], "o", color=colour, markersize=2.8 if strong else 1.6)
        axes.set_title(part.labels[i], **_TITLE)
        axes.set_ylim(*limits[i])
        axes.set_xlim(example.t_s[0], example.t_s[-1])
        axes.locator_params(axis="y", nbins=3)
        axes.locator_params(axis="x", nbins=4)
        below = i + PANELS >= count
        axes.tick_params(labelbottom=below)
        if below:
            axes.set_xlabel("s", labelpad=1)
    return _svg(figure, f"{part.name}: recorded and predicted commands of episode {example.name}")


def frame_psnr(video: VideoScore) -> str:
    """PSNR of each predicted frame."""
    figure, (axes,) = _figure(1, 1, height=2.8)
    _lines(axes, np.asarray(video.frame_s), {n: np.asarray(p) for n, p in video.frame_psnr.items()}, bold="model")
    axes.set_xlabel("seconds after the last known frame")
    axes.set_ylabel("PSNR, dB (higher is better)")
    return _svg(figure, "PSNR of each predicted frame")


def training_curves(training: Training) -> str:
    """Loss and validation error over steps, the chosen checkpoint marked."""
    curves = [("training loss", training.loss, ()), ("validation error", training.val_error, _unchosen(training))]
    curves = [curve for curve in curves if curve[1]]
    figure, panels = _figure(1, max(len(curves), 1), height=2.5)
    colour = style_of("model", ()).light
    for axes, (title, points, beside) in zip(panels, curves, strict=False):
        step, value = _points(points)
        if beside:
            axes.plot(*_points(beside), color=MUTED.light, linewidth=1.1, linestyle=(0, (2, 1.5)), zorder=1)
            title = f"{title}; dashed: {'weights as trained' if training.chosen == 'average' else 'averaged weights'}"
        dots = "o-" if len(points) <= 30 else "-"
        axes.plot(step, value, dots, color=colour, linewidth=1.4, markersize=3.5)
        axes.axvline(training.chosen_step, color=MUTED.light, linewidth=0.9, linestyle=(0, (2, 2)))
        right = training.chosen_step > 0.75 * max(training.steps, 1)
        axes.annotate(
            f"chosen: {training.chosen_step}",
            (training.chosen_step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, -2),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            color=MUTED.light,
            fontsize=TEXT,
        )
        axes.set_title(title, **_TITLE)
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=6)
        if (value > 0).all() and value.max() > 20 * value.min():
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:g}")
    return _svg(figure, "Training curves")


def loss_by_level(levels: Sequence[LevelLoss]) -> str:
    """Held-out loss at each noise level, one panel per loss."""
    names = tuple(levels[0].losses)
    figure, panels = _figure(1, len(names), height=2.4)
    at = [level.level for level in levels]
    for axes, name in zip(panels, names, strict=True):
        axes.plot(at, [level.losses[name] for level in levels], "o-", color=INK.light, linewidth=1.3, markersize=3.5)
        axes.set_title(f"{name} loss", **_TITLE)
        axes.set_xlabel("noise level: 0 clean, 1 noise alone")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
    return _svg(figure, "Held-out loss at each noise level")


def _unchosen(training: Training) -> tuple[CurvePoint, ...]:
    """The validation errors of the weights that the adapter does not hold."""
    return {"average": training.raw_val_error, "raw": training.average_val_error}.get(training.chosen, ())


def _points(points: Sequence[CurvePoint]) -> tuple[Floats, Floats]:
    return np.array([p.step for p in points]), np.array([p.value for p in points])


def _limits(values: Floats, smallest_span: float) -> list[tuple[float, float]]:
    """Range of each column's finite values, no narrower than `smallest_span`."""
    finite = [column[np.isfinite(column)] for column in values.T]
    ends = [(float(c.min()), float(c.max())) if len(c) else (0.0, 0.0) for c in finite]
    half = [0.55 * max(high - low, smallest_span, 1e-6) for low, high in ends]
    return [((low + high) / 2 - h, (low + high) / 2 + h) for (low, high), h in zip(ends, half, strict=True)]


def _lines(axes: "Axes", x: Floats, lines: Mapping[str, Floats], *, bold: str) -> None:
    """Lines with their names at the right end, moved apart where they would overlap."""
    names = tuple(lines)
    for name, y in lines.items():
        style = style_of(name, names)
        dash = (0, style.dash) if style.dash and name != bold else "-"
        front = 3 if name == bold else 2
        axes.plot(x, y, color=style.light, linewidth=2.4 if name == bold else 1.2, linestyle=dash, zorder=front)
    axes.set_xlim(0, x[-1] * 1.005)
    finite = np.concatenate([y[np.isfinite(y)] for y in lines.values()])
    if not len(finite):
        return
    bottom, top = min(axes.get_ylim()[0], float(finite.min())), axes.get_ylim()[1]
    ends = {name: float(y[np.isfinite(y)][-1]) for name, y in lines.items() if np.isfinite(y).any()}
    order = sorted(ends, key=lambda name: ends[name])
    places = _spread([ends[name] for name in order], gap=(top - bottom) * 0.075)
    for name, place in zip(order, places, strict=True):
        style = style_of(name, names)
        weight = "bold" if name == bold else "normal"
        axes.annotate(
            style.label,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            color=style.light,
            va="center",
            fontsize=TEXT,
            weight=weight,
            annotation_clip=False,
        )


def _spread(values: Sequence[float], *, gap: float) -> list[float]:
    """Rising `values` moved as little as a few passes allow until neighbours are `gap` apart."""
    places = list(values)
    for _ in range(100):
        moved = False
        for i in range(len(places) - 1):
            short = gap - (places[i + 1] - places[i])
            if short > 1e-3 * gap:
                places[i] -= short / 2
                places[i + 1] += short / 2
                moved = True
        if not moved:
            break
    return places


def _figure(rows: int, columns: int, *, height: float, share_x: bool = False) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=share_x).flat)
    for axes in panels:
        axes.patch.set_alpha(0)
        axes.grid(color=RULE.light, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=RULE.light)
        axes.tick_params(colors=MUTED.light, labelsize=TEXT - 1, length=0)
        axes.xaxis.label.set(color=MUTED.light, fontsize=TEXT)
        axes.yaxis.label.set(color=MUTED.light, fontsize=TEXT)
    return figure, panels


def _svg(figure: "Figure", title: str) -> str:
    """The figure as an `<svg>` element that takes its font and colours from the page."""
    import matplotlib

    out = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": TEXT}
    with matplotlib.rc_context(settings):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", text)  # figure_1, axes_1: the same in every chart
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # a rule for `*` would reach the whole page
    text = re.sub(r' d="[^"]*"', lambda d: re.sub(r"(\.\d\d)\d+", r"\1", d[0]), text)
    text = re.sub(r"font:\s*(\w+ )?([\d.]+)px [^;\"]*", lambda f: _font(f[1], f[2]), text)
    text = re.sub(r"font-family:[^;\"]*;?", "", text)
    for name, (light, _) in css_variables().items():
        text = text.replace(light, f"var(--{name})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)


def _font(weight: str | None, size: str) -> str:
    return f"font-size: {size}px" + (f"; font-weight: {weight.strip()}" if weight else "")
