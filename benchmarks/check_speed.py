"""`wam check` on a LeRobot set against decoding every frame of it, and what it says of logs that are known to be clean.

    python -m benchmarks.check_speed LOGS --robot NAME --out benchmarks/results/NAME.json [--rounds 3]

In turn in one run, one thread each: the check with its looks at pictures, the check without them, every frame decoded
to RGB by PyAV, and the same packets demuxed alone, which is the least that a check costs. Warnings and errors
on episodes without an error of their own count as false alarms: they are logs that a person has looked at.
"""

import argparse
import json
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import av

from wamdata.doctor.check import check_source
from wamdata.source import Source
from wamdata.video import _probe_once


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def decode(files: list[Path]) -> int:
    count = 0
    for file in files:
        with av.open(str(file)) as container:
            container.streams.video[0].thread_type = "NONE"
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")
                count += 1
    return count


def demux(files: list[Path]) -> None:
    for file in files:
        with av.open(str(file)) as container:
            sum(packet.size for packet in container.demux(video=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path)
    parser.add_argument("--robot", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    files = sorted(options.logs.rglob("*.mp4"))
    ways = {
        "check": lambda: check_source(Source.at(options.logs), robot=options.robot),
        "check_without_looks": lambda: check_source(Source.at(options.logs), robot=options.robot, looks=False),
        "decode_every_frame": lambda: decode(files),
        "demux_alone": lambda: demux(files),
    }
    demux(files)  # warms the page cache
    times = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, work in ways.items():
            _probe_once.cache_clear()  # a user's check starts with nothing known
            times[name].append(timed(work))
    found = check_source(Source.at(options.logs), robot=options.robot)
    usable = {k for k in found.keys if not any(f.where == k and f.severity == "error" for f in found.findings)}
    alarms = [f for f in found.findings if f.severity != "info" and (f.where in usable or f.where not in found.keys)]
    median = {name: statistics.median(t) for name, t in times.items()}
    result = {
        "command": f"python -m benchmarks.check_speed {options.logs.name} --robot {options.robot}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "videos": len(files), "frames": decode(files), "seconds": times, "median_s": median,
        "times_faster_than_decoding": median["decode_every_frame"] / median["check"],
        "clean_episodes": len(usable), "false_alarms": [f"{f.code} {f.where}" for f in alarms],
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        {k: result[k] for k in ("frames", "median_s", "times_faster_than_decoding", "clean_episodes", "false_alarms")}
    )


if __name__ == "__main__":
    main()
