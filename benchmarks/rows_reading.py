"""State and action of a LeRobot v3.0 set: MB of decoded numbers a second, by our reader and by a bare pyarrow loop.

    python -m benchmarks.rows_reading --out benchmarks/results/NAME.json [--megabytes 300] [--rounds 3]

A made-up set in v3.0's layout: files of about 100 MB, row groups as lerobot writes them (one a saved episode) and as
other writers do (one a file). Ours lists the set and reads every episode with its checks, names and content hash; the
bare loop reads the same columns of each file into numpy and does nothing else. In turn in one run, one thread each.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wamdata.readers.lerobot import reader as lerobot
from wamdata.source import Source

WIDTH, ROWS, FPS = 28, 900, 30  # columns of state and of action, rows of an episode
FILE_MB = 100


def write(root: Path, megabytes: float, *, one_group: bool) -> tuple[int, int]:
    """Episodes and decoded bytes of state and action."""
    per_episode = ROWS * WIDTH * 2 * 4
    episodes = max(2, round(megabytes * 1e6 / per_episode))
    in_file = max(1, round(FILE_MB * 1e6 / per_episode))
    vector = {"dtype": "float32", "shape": [WIDTH], "names": None}
    plain = {
        n: {"dtype": "int64", "shape": [1], "names": None}
        for n in ("episode_index", "frame_index", "index", "task_index")
    }
    info = {
        "codebase_version": "v3.0", "robot_type": "made_up", "fps": FPS, "total_episodes": episodes,
        "total_frames": episodes * ROWS, "total_tasks": 1, "chunks_size": 1000, "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": None,
        "features": {"observation.state": vector, "action": vector, **plain,
                     "timestamp": {"dtype": "float32", "shape": [1], "names": None}},
    }  # fmt: skip
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table({"task_index": [0], "task": ["move"]}), root / "meta/tasks.parquet")
    rng = np.random.default_rng(0)
    listed = []
    for file, first in enumerate(range(0, episodes, in_file)):
        tables = [_episode(n, rng) for n in range(first, min(first + in_file, episodes))]
        path = root / f"data/chunk-000/file-{file:03d}.parquet"
        with pq.ParquetWriter(path, tables[0].schema, compression="snappy") as writer:
            if one_group:
                writer.write_table(pa.concat_tables(tables), row_group_size=len(tables) * ROWS)
            else:
                for table in tables:
                    writer.write_table(table)
        listed += [{"episode_index": n, "tasks": ["move"], "length": ROWS, "data/chunk_index": 0,
                    "data/file_index": file, "dataset_from_index": n * ROWS, "dataset_to_index": (n + 1) * ROWS}
                   for n in range(first, first + len(tables))]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(listed), root / "meta/episodes/chunk-000/file-000.parquet")
    return episodes, episodes * per_episode


def _episode(number: int, rng: np.random.Generator) -> pa.Table:
    values = np.cumsum(rng.normal(0, 0.01, (ROWS, 2 * WIDTH)), axis=0).astype(np.float32)
    rows = np.arange(ROWS)
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(part).ravel()), WIDTH)
        for name, part in (("observation.state", values[:, :WIDTH]), ("action", values[:, WIDTH:]))
    }
    return pa.table(columns | {
        "timestamp": (rows / FPS).astype(np.float32), "frame_index": rows, "episode_index": np.full(ROWS, number),
        "index": number * ROWS + rows, "task_index": np.zeros(ROWS, np.int64),
    })  # fmt: skip


def ours(root: Path) -> float:
    started = time.perf_counter()
    source = Source.at(root)
    for ref in lerobot.list_episodes(source).episodes:
        episode = lerobot.read(ref)
        assert episode.streams["action"].values.shape == (ROWS, WIDTH)
    return time.perf_counter() - started


def bare(root: Path) -> float:
    started = time.perf_counter()
    for path in sorted(root.glob("data/*/*.parquet")):
        with pq.ParquetFile(path) as file:
            table = file.read(columns=["observation.state", "action", "timestamp", "episode_index"], use_threads=False)
        for name in ("observation.state", "action"):
            for chunk in table[name].chunks:
                np.ascontiguousarray(chunk.flatten().to_numpy(zero_copy_only=False)).reshape(-1, WIDTH)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pa.set_cpu_count(1)
    result = {"command": "python -m benchmarks.rows_reading", "date": datetime.now(UTC).isoformat(timespec="seconds"),
              "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}", "sets": {}}  # fmt: skip
    for name, one_group in (("a row group an episode", False), ("a row group a file", True)):
        with tempfile.TemporaryDirectory() as folder:
            episodes, size = write(Path(folder), options.megabytes, one_group=one_group)
            times = [(ours(Path(folder)), bare(Path(folder))) for _ in range(options.rounds)]
        mine, theirs = (statistics.median(t[i] for t in times) for i in (0, 1))
        result["sets"][name] = {
            "episodes": episodes, "megabytes": size / 1e6, "ours_mb_s": size / 1e6 / mine,
            "bare_mb_s": size / 1e6 / theirs, "ours_s": [t[0] for t in times], "bare_s": [t[1] for t in times],
        }  # fmt: skip
        print(name, {k: round(v, 1) for k, v in result["sets"][name].items() if isinstance(v, float)})
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
