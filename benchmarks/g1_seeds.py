"""The G1 demo over several seeds: errors of the model and of every baseline on the same held-out windows.

    python benchmarks/g1_seeds.py --out benchmarks/results/NAME.json [--seeds 0 1 2] [--split-by hash]

Runs `wam adapt` once per seed in a temporary folder, on the shards of the first run. Writes one JSON with the command,
the date, the machine and the commit.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(seed: int, folder: Path, split_by: str, shards: Path | None) -> dict:
    if shards:
        source = [str(shards / "shards"), "--video", str(shards / "video_shards")]
    else:
        source = [str(ROOT / "tests/data/g1_inspire_v21"), "--robot", "g1_inspire", "--split-by", split_by]
        source += ["--video", str(ROOT / "tests/data/droid_video"), "--video-task", "a robot arm works at a table"]
    command = ["adapt", *source, "--out", str(folder), "--seed", str(seed), "--json"]
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(ran.stdout)
    return {
        "seed": seed,
        "verdict": report["verdict"],
        "error": report["action"]["error"],
        "paired_vs_stand_still": report["action"]["paired"]["stand_still"],
        "amplitude_ratio": report["action"]["amplitude_ratio"],
        "psnr": report["video"]["psnr"],
        "windows": report["action"]["windows"],
        "chosen_step": report["training"]["chosen_step"],
        "train_seconds": report["training"]["seconds"],
        "wall_seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split-by", default="hash")
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        first = None
        for seed in given.seeds:
            folder = Path(scratch) / f"seed-{seed}"
            results.append(run(seed, folder, given.split_by, first))
            first = first or folder
            sys.stderr.write(f"seed {seed}: {results[-1]['verdict']} {results[-1]['error']['model']:.4f}\n")
    content = {
        "command": "python benchmarks/g1_seeds.py " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} shared cores, no GPU, Python {platform.python_version()}",
        "results": results,
    }
    given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
