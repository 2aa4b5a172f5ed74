"""Curation beside bare decoding: frames per second over the same films, in turn in one run.

    python -m benchmarks.curate_speed --out benchmarks/results/NAME.json [--rounds 3] [FILM ...]

Without films, the three DROID cameras of tests/data. Three ways, one after the other in each round:

    decode   every frame decoded by PyAV, and dropped
    small    the frames that all detectors share: decoded, made small, as RGB
    curate   the whole: small frames, cuts, samples, spans, scores, bars and copies

Rounds take turns, so that a machine that others use slows all of them; rates are those of the fastest round.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.curate import CurateRules
from schemas.episode import Footage
from wamdata.curate.curation import curate
from wamdata.curate.small import small_frames
from wamdata.readers.video import reader
from wamdata.source import Source
from wamdata.video import open_video

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "tests/data/droid_video"


def decode(path: Path) -> int:
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        return sum(1 for _ in container.decode(stream))


def small(footage: Footage) -> int:
    return sum(1 for _ in small_frames(footage))


def whole(path: Path) -> int:
    (film,) = curate(Source.at(path), CurateRules()).films
    assert not film.problem, film.problem
    return film.shots[-1].stop


def compare(paths: list[Path], rounds: int) -> dict[str, Any]:
    """What each way took of all films: once to warm up, then round by round."""
    footage = [reader.read(reader.list_episodes(Source.at(p)).episodes[0]).videos[reader.CAMERA] for p in paths]
    ways: dict[str, Callable[[], int]] = {
        "decode": lambda: sum(map(decode, paths)),
        "small": lambda: sum(map(small, footage)),
        "curate": lambda: sum(map(whole, paths)),
    }
    frames = {way: run() for way, run in ways.items()}
    assert len(set(frames.values())) == 1, frames
    taken: dict[str, list[list[float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            started, cpu = time.perf_counter(), time.process_time()
            run()
            taken[way].append([time.perf_counter() - started, time.process_time() - cpu])
    return {way: _summary(rows, frames[way]) for way, rows in taken.items()}


def _summary(taken: list[list[float]], frames: int) -> dict[str, Any]:
    wall, cpu = ([each[column] for each in taken] for column in (0, 1))
    return {
        "frames": frames,
        "s": wall,
        "cpu_s": cpu,
        "frames_per_s": frames / min(wall),
        "frames_per_cpu_s": frames / min(cpu),
    }


def _commit() -> str:
    ran = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    paths = given.films or sorted(SAMPLE.glob("*.mp4"))
    results = compare(paths, given.rounds)
    content = {
        "command": "python -m benchmarks.curate_speed " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} shared cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}",
        "films": [path.name for path in paths],
        "results": results,
    }
    given.out.write_text(json.dumps(content, indent=1) + "\n")
    for way, found in results.items():
        print(f"{way}: {found['frames_per_s']:.0f} frames/s, {found['frames_per_cpu_s']:.0f} per CPU second")


if __name__ == "__main__":
    main()
