"""The doctor's page: findings first, then every episode with its pictures and curves. One file that needs nothing else.

Pictures and curves are drawn for the first DRAWN episodes with findings, and for a few without any to compare; the rest
are told in the table alone.
"""

import base64
import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from schemas.embodiment import with_columns
from schemas.episode import Finding, Trajectory
from schemas.files import write_atomic
from wamdata.doctor.check import CheckResult, Seen, grouped
from wamdata.doctor.look import Look

DRAWN, CLEAN = 200, 4
PICTURES = 10  # of a camera, at most
POINTS = 160  # of a curve
PANEL = (220.0, 64.0)


@dataclass(frozen=True)
class Curves:
    """A component's panel: SVG points of each column, state and command."""

    name: str
    state: tuple[str, ...]
    action: tuple[str, ...]
    low: str
    high: str


@dataclass(frozen=True)
class Drawn:
    key: str
    seconds: float
    strips: tuple[tuple[str, str], ...]  # camera, JPEG in base64
    curves: tuple[Curves, ...]


class Page:
    """Collects what is drawn while episodes pass by, and writes it when all are seen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._drawn: list[Drawn] = []
        self._clean = 0

    def add(self, seen: Seen) -> None:
        """Draw an episode, if there is room."""
        is_clean = not seen.findings
        if len(self._drawn) >= DRAWN + CLEAN or (is_clean and self._clean >= CLEAN) or seen.episode is None:
            return
        self._clean += is_clean
        strips = tuple((camera, _strip(look)) for camera, look in seen.looks.items())
        curves = _curves(seen.trajectory) if seen.trajectory is not None else ()
        self._drawn.append(Drawn(seen.key, seen.seconds, strips, curves))

    def write(self, result: CheckResult) -> None:
        """The page of everything that was drawn."""
        from jinja2 import Environment, PackageLoader, select_autoescape

        pages = Environment(loader=PackageLoader("wamdata.doctor"), autoescape=select_autoescape(["jinja"]),
                            trim_blocks=True, lstrip_blocks=True)  # fmt: skip
        by_key: dict[str, list[Finding]] = {}
        for finding in result.findings:
            by_key.setdefault(finding.where, []).append(finding)
        html = pages.get_template("check.html.jinja").render(
            result=result,
            groups=grouped(result.findings),
            drawn=self._drawn,
            by_key=by_key,
            spans={key: _spans(key, found, self._drawn) for key, found in by_key.items()},
            panel=PANEL,
        )
        write_atomic(self._path, html.encode())


def _spans(key: str, findings: list[Finding], drawn: list[Drawn]) -> list[tuple[float, float]]:
    """Where findings lie in an episode's panels: (left, width) in SVG units."""
    seconds = next((d.seconds for d in drawn if d.key == key), 0.0)
    if not seconds:
        return []
    shares = [(f.span_s[0] / seconds, f.span_s[1] / seconds) for f in findings if f.span_s and f.severity != "info"]
    return [(PANEL[0] * max(a, 0.0), PANEL[0] * max(min(b, 1.0) - max(a, 0.0), 0.01)) for a, b in shares]


def _strip(look: Look) -> str:
    """Pictures side by side, as JPEG in base64."""
    chosen = np.unique(np.linspace(0, len(look.pictures) - 1, min(PICTURES, len(look.pictures))).round().astype(int))
    return base64.b64encode(jpeg(np.concatenate(list(look.pictures[chosen]), axis=1))).decode()


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A (height, width, 3) RGB picture of even sides as JPEG."""
    out = io.BytesIO()
    with av.open(out, "w", format="mjpeg") as file:
        stream = file.add_stream("mjpeg", rate=1, options={"qmin": "4", "qmax": "4"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt, stream.time_base = "yuvj420p", Fraction(1, 1)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return out.getvalue()


def _curves(trajectory: Trajectory) -> tuple[Curves, ...]:
    robot = trajectory.embodiment
    panels: dict[str, list[NDArray[np.float32]]] = {}
    for at, (values, components) in enumerate(
        ((trajectory.state, robot.model_state), (trajectory.action, robot.model_action))
    ):
        for component, columns in with_columns(components):
            panel = panels.setdefault(component.name, [np.zeros((len(values), 0), np.float32)] * 2)
            panel[at] = values[:, columns]
    return tuple(_panel(name, *values) for name, values in panels.items())


def _panel(name: str, state: NDArray[np.float32], action: NDArray[np.float32]) -> Curves:
    both = np.concatenate([state, action], axis=1)
    finite = both[np.isfinite(both)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    reach = max(high - low, 1e-9)

    def lines(values: NDArray[np.float32]) -> tuple[str, ...]:
        rows = np.unique(np.linspace(0, len(values) - 1, min(POINTS, len(values))).round().astype(int))
        x = PANEL[0] * rows / max(len(values) - 1, 1)
        return tuple(
            " ".join(f"{a:.1f},{PANEL[1] * (1 - (v - low) / reach):.1f}" for a, v in zip(x, column, strict=True)
                     if np.isfinite(v))
            for column in values[rows].T
        )  # fmt: skip

    return Curves(name, lines(state), lines(action), f"{low:.3g}", f"{high:.3g}")
