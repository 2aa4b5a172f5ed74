"""Rows and pictures on clocks that drift apart: a frame then shows another moment than the row beside it.

Row clock and container clock are compared where they can disagree: where there is one frame to a row, by how much
longer one of them says that the episode lasts; elsewhere by where they start and end. A constant lag between the two
is not seen here, both clocks may be right and the picture late.
"""

import numpy as np

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Finding, Int64
from schemas.recipe import Filters

LEAST_MS = 20.0  # drift that is told, and
PERIODS = 1.0  # of a frame
FEW = 0.2  # of the frames: with more of them missing, the video is a part of the episode and `gap` says so


def check(episode: Episode, embodiment: Embodiment, limits: Filters) -> list[Finding]:
    rows = _row_clock(episode, embodiment)
    if rows is None or len(rows) < 2:
        return []
    found = []
    for camera in embodiment.model_cameras:
        footage = episode.videos.get(camera.source)
        if footage is not None and len(footage.t_ns) > 1:
            found += _of_camera(episode.key, camera.source, rows, footage.t_ns)
    return found


def _of_camera(key: str, camera: str, rows: Int64, shown: Int64) -> list[Finding]:
    lasts, runs = int(rows[-1]) - int(rows[0]), int(shown[-1]) - int(shown[0])
    period_ns = float(np.median(np.diff(shown)))
    missing = len(rows) - len(shown)
    rate = (len(rows) - 1) / max(lasts, 1) * 1e9, (len(shown) - 1) / max(runs, 1) * 1e9
    one_to_a_row = abs(missing) <= FEW * len(rows) and abs(period_ns / np.median(np.diff(rows)) - 1) < 0.1
    drift_ms = (runs - lasts) / 1e6
    if not one_to_a_row or abs(drift_ms) < max(LEAST_MS, PERIODS * period_ns / 1e6):
        return []
    words = f"{camera}: rows last {lasts / 1e9:.2f} s, its frames {runs / 1e9:.2f} s: {drift_ms:+.0f} ms at the end"
    counts = f"{len(shown)} frames at {rate[1]:.3f}/s for {len(rows)} rows at {rate[0]:.3f}/s"
    even_s = period_ns / 1e9 * lasts / abs(runs - lasts)  # if it grows evenly, where it exceeds one frame
    advice = f"if it grows evenly, more than one frame from {even_s:.1f} s on: train on its video alone there"
    numbers = (("drift_ms", drift_ms), ("row_hz", rate[0]), ("video_hz", rate[1]))
    end_s = lasts / 1e9
    return [
        Finding("clock_drift", "warning", key, f"{words} ({counts}). {advice[0].upper()}{advice[1:]}",
                (min(even_s, end_s), end_s), numbers, "video")
    ]  # fmt: skip


def _row_clock(episode: Episode, embodiment: Embodiment) -> Int64 | None:
    used = [c.source for c in (*embodiment.model_state, *embodiment.model_action)]
    stream = next((episode.streams[name] for name in used if name in episode.streams), None)
    return None if stream is None or episode.counted_hz else stream.t_ns
