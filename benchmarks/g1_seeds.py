"""The G1 demo over several seeds: errors of the model and of every baseline on the same held-out windows.

    python benchmarks/g1_seeds.py --out benchmarks/results/NAME.json [--case plain] [--seeds 0 1 2] [--split-by hash]

Runs `wam adapt` in a temporary folder, on shards that are made once. Writes one JSON with the command, the date, the
machine and the commit. Cases, each on the same held-out episodes:

    plain    all training episodes with their actions, and three films of another robot
    base     an adapter of the first five training episodes as the base; LoRA on it with all of them
    films    six training episodes with actions; the same and the other four as action-free film
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
G1 = ROOT / "tests/data/g1_inspire_v21"
DROID = ROOT / "tests/data/droid_video"
FILMED = "videos/chunk-000/observation.images.cam_high"
EARLY, WITH_ACTIONS = 5, 6


def wam(*args: object) -> str:
    """Standard output of `wam`."""
    command = [sys.executable, "-c", "from cli.main import main; main()", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def adapted(folder: Path, *args: object, seed: int) -> dict[str, Any]:
    """What a report says, in short."""
    started = time.monotonic()
    report = json.loads(wam("adapt", *args, "--out", folder, "--seed", seed, "--json"))
    return {
        "seed": seed,
        "verdict": report["verdict"],
        "error": report["action"]["error"],
        "paired": {k: v for k, v in report["action"]["paired"].items() if k in ("stand_still", "base")},
        "amplitude_ratio": report["action"]["amplitude_ratio"],
        "psnr": report["video"]["psnr"],
        "windows": report["action"]["windows"],
        "chosen_step": report["training"]["chosen_step"],
        "train_seconds": report["training"]["seconds"],
        "wall_seconds": round(time.monotonic() - started, 1),
    }


def plain(scratch: Path, shards: Path, seeds: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    with_film = ("--video", DROID, "--video-task", "a robot arm works at a table")
    for seed in seeds:
        yield "plain", adapted(scratch / f"{seed}", shards, *with_film, seed=seed)


def base(scratch: Path, shards: Path, seeds: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    training = episodes(shards, "train")
    wam("shard", "filter", shards, "--where", f"episode not in {training[EARLY:]}", "--out", scratch / "early")
    for seed in seeds:
        yield "un-adapted", adapted(scratch / f"base-{seed}", scratch / "early", seed=seed)
        start = scratch / f"base-{seed}/adapter/export"
        yield "adapted", adapted(scratch / f"{seed}", shards, "--base", start, seed=seed)


def films(scratch: Path, shards: Path, seeds: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    training = episodes(shards, "train")
    wam("shard", "filter", shards, "--where", f"episode not in {training[WITH_ACTIONS:]}", "--out", scratch / "some")
    folder = scratch / "films"
    folder.mkdir()
    for name in training[WITH_ACTIONS:]:
        shutil.copy(G1 / FILMED / f"{name}.mp4", folder)
    task = json.loads((G1 / "meta/tasks.jsonl").read_text().splitlines()[0])["task"]
    for seed in seeds:
        yield "without film", adapted(scratch / f"without-{seed}", scratch / "some", seed=seed)
        with_film = (scratch / "some", "--video", folder, "--video-task", task)
        yield "with film", adapted(scratch / f"with-{seed}", *with_film, seed=seed)


def episodes(shards: Path, split: str) -> list[str]:
    """Names of a split's episodes, in their order."""
    manifest = json.loads((shards / "manifest.json").read_text())
    return sorted({s["episode"] for shard in manifest["shards"] for s in shard["samples"] if s["split"] == split})


CASES = {"plain": plain, "base": base, "films": films}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", choices=CASES, default="plain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split-by", default="hash")
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    results = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shards = scratch / "shards"
        wam("ingest", G1, "--robot", "g1_inspire", "--split-by", given.split_by, "--out", shards)
        for arm, found in CASES[given.case](scratch, shards, given.seeds):
            results.append({"arm": arm} | found)
            sys.stderr.write(f"{arm}, seed {found['seed']}: {found['verdict']} {found['error']['model']:.4f}\n")
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
