"""RLDS by our reader and by tensorflow-datasets: seconds to go once over the same records, in turn in one run.

    python -m benchmarks.rlds_reading --out benchmarks/results/NAME.json [--peer PYTHON] [--megabytes 200] [--rounds 3]

The records of the Bridge sample, repeated into one valid TFRecord file. Ours lists the set, reads every episode with
its checksum and streams, and loads the bytes of all pictures. The peer, another interpreter that has tensorflow and
tensorflow_datasets, decodes no picture either, and is asked in two ways:

    batched  `SkipDecoding` of the steps: an episode comes as whole tensors. The least that it can do.
    steps    `SkipDecoding` of each image: an episode's steps come one by one, as users write it; of the first episodes

Rounds take turns, so that a machine that others use slows all of them; the peer starts no clock before its imports, and
goes over the file once to warm up. The wall clock counts its threads' work once; `cpu_s` counts all of it.
"""

import argparse
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from schemas.episode import Pictures
from wamdata.readers.rlds import reader as rlds
from wamdata.source import Source

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "tests/data/bridge_rlds/1.0.0"
RECORDS = "bridge_dataset-train.tfrecord-00000-of-00001"
PEER = """
import json, sys, time
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
names = [n for n, f in builder.info.features["steps"]["observation"].items() if isinstance(f, tfds.features.Image)]
skip = tfds.decode.SkipDecoding()
def batched(episodes):
    for episode in builder.as_dataset(split="train", decoders={"steps": skip}).take(episodes):
        yield from (coded for name in names for coded in episode["steps"]["observation"][name].numpy())
def steps(episodes):
    decoders = {"steps": {"observation": dict.fromkeys(names, skip)}}
    for episode in builder.as_dataset(split="train", decoders=decoders).take(episodes):
        for step in episode["steps"]:
            yield from (step["observation"][name].numpy() for name in names)
for line in sys.stdin:
    how, episodes = line.split()
    started, cpu = time.perf_counter(), time.process_time()
    count = sum(map(len, {"batched": batched, "steps": steps}[how](int(episodes))))
    print(json.dumps([time.perf_counter() - started, time.process_time() - cpu, count]), flush=True)
"""
FEW = 50  # episodes of the way `steps`, which takes long


def repeated(folder: Path, megabytes: float) -> tuple[int, int]:
    """Episodes and bytes of a set of at least so many megabytes that is written into `folder`."""
    content = (SAMPLE / RECORDS).read_bytes()
    times = int(-(-megabytes * 1e6 // len(content)))
    with (folder / RECORDS).open("wb") as file:
        for _ in range(times):
            file.write(content)
    (folder / "features.json").write_bytes((SAMPLE / "features.json").read_bytes())
    info = json.loads((SAMPLE / "dataset_info.json").read_text())
    episodes = times * _count(content)
    split = next(split for split in info["splits"] if split["name"] == "train")
    split["shardLengths"], split["numBytes"] = [str(episodes)], str(times * len(content))
    (folder / "dataset_info.json").write_text(json.dumps({**info, "splits": [split]}))
    return episodes, times * len(content)


def ours(folder: Path) -> list[float]:
    """Seconds, seconds of CPU and bytes of pictures of one pass."""
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    for ref in rlds.list_episodes(Source.at(folder)).episodes:
        for camera in rlds.read(ref).videos.values():
            assert isinstance(camera, Pictures)
            count += sum(map(len, camera.load(0, len(camera.t_ns))))
    return [time.perf_counter() - started, time.process_time() - cpu, count]


def compare(folder: Path, episodes: int, size: int, peer: str | None, rounds: int) -> dict[str, Any]:
    """What each way took: all once to warm up, then round by round."""
    ways = {"ours": lambda: ours(folder)}
    counts = {"ours": episodes}
    process = _started(peer, folder) if peer else None
    if process:
        counts |= {"batched": episodes, "steps": min(FEW, episodes)}
        ways |= {way: partial(_asked, process, way, counts[way]) for way in ("batched", "steps")}
    warm = {way: run() for way, run in ways.items()}
    rows = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            rows[way].append(run())
    if process:
        process.communicate()
        assert warm["batched"][2] == warm["ours"][2], "the peer's pictures have another number of bytes"
    results = {way: _summary(taken, counts[way], size * counts[way] / episodes) for way, taken in rows.items()}
    for way in ways.keys() - {"ours"}:
        rates = ("megabytes_per_s", "megabytes_per_cpu_s")
        results[way]["ours_times_as_fast"] = {rate: results["ours"][rate] / results[way][rate] for rate in rates}
    return results


def _started(peer: str, folder: Path) -> subprocess.Popen[str]:
    command = [peer, "-c", PEER, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _asked(process: subprocess.Popen[str], way: str, episodes: int) -> list[float]:
    assert process.stdin and process.stdout
    process.stdin.write(f"{way} {episodes}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the peer stopped: {(process.communicate()[1] or '').strip().splitlines()[-1:]}")
    return json.loads(line)


def _summary(taken: list[list[float]], episodes: int, size: float) -> dict[str, Any]:
    """Rates are those of the fastest round, which others on the machine lengthened least."""
    wall, cpu = ([each[column] for each in taken] for column in (0, 1))
    return {
        "episodes": episodes,
        "s": wall,
        "cpu_s": cpu,
        "median_s": statistics.median(wall),
        "megabytes_per_s": size / 1e6 / min(wall),
        "megabytes_per_cpu_s": size / 1e6 / min(cpu),
    }


def _count(content: bytes) -> int:
    """Records of a TFRecord file."""
    at = count = 0
    while at < len(content):
        at, count = at + 16 + struct.unpack_from("<Q", content, at)[0], count + 1
    return count


def _commit() -> str:
    ran = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peer", help="a Python with tensorflow and tensorflow_datasets")
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "bridge_dataset/1.0.0"
        folder.mkdir(parents=True)
        episodes, size = repeated(folder, given.megabytes)
        results = compare(folder, episodes, size, given.peer, given.rounds)
    content = {
        "command": "python -m benchmarks.rlds_reading " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} shared cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}",
        "megabytes": size / 1e6,
        "results": results,
    }
    given.out.write_text(json.dumps(content, indent=1) + "\n")
    for way, found in results.items():
        ratio = found.get("ours_times_as_fast", {}).get("megabytes_per_s")
        said = f", ours {ratio:.2f} times as fast" if ratio else ""
        print(f"{way}: {found['megabytes_per_s']:.1f} MB/s, {found['megabytes_per_cpu_s']:.1f} MB per CPU second{said}")


if __name__ == "__main__":
    main()
