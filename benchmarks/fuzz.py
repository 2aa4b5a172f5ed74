"""Mutated logs, read until the time is up: how many were tried, and how many were answered well.

    python -m benchmarks.fuzz --out benchmarks/results/NAME.json [--minutes 10] [--seed 0] [--only SAMPLE]

Every sample of the contract suite, and real ones, is copied and one of its files changed: cut off, emptied, written
over, bits flipped, blocks moved, numbers of a header or a JSON file made absurd, names made to point elsewhere, columns
of a parquet file exchanged, a frame count of 10^9 put into an mp4, a bomb put into a zip. Then a process of its own
lists it, reads its first episodes and looks at their pictures, with HOME and the working folder in a place of its own.

Answered well means: it reads, or it is refused in one line (`DataError`, `UsageError`), within LIMIT_S seconds and
LIMIT_MB above what the process needs for nothing, and no file outside has come or changed. Everything else is listed
with what makes it again.
"""

import argparse
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

LIMIT_S, LIMIT_MB = 20, 1500
EPISODES = 3
ABSURD = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x00\x00\x00", b"\x3b\x9a\xca\x00"]
WORDS = ["1000000000", "-1", "1e308", "NaN", "null", "[]", "{}", '"../../../../tmp/outside"', '"/etc/passwd"', "true",
         '"' + "x" * 5000 + '"', "0"]  # fmt: skip
Mutation = Callable[[Path, random.Random], str]


def cut_off(file: Path, rng: random.Random) -> str:
    size = rng.randrange(max(file.stat().st_size, 1))
    with file.open("r+b") as out:
        out.truncate(size)
    return f"cut to {size} bytes"


def emptied(file: Path, rng: random.Random) -> str:
    file.write_bytes(b"")
    return "emptied"


def bits(file: Path, rng: random.Random) -> str:
    content = bytearray(file.read_bytes())
    for _ in range(rng.choice([1, 4, 32])):
        if content:
            at = rng.randrange(len(content))
            content[at] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return "bits flipped"


def overwritten(file: Path, rng: random.Random) -> str:
    content = bytearray(file.read_bytes())
    size = min(rng.choice([8, 64, 4096]), len(content))
    at = rng.randrange(max(len(content) - size, 0) + 1)
    content[at : at + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
    file.write_bytes(content)
    return f"{size} bytes at {at} overwritten"


def moved(file: Path, rng: random.Random) -> str:
    content = file.read_bytes()
    a, b, c = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    file.write_bytes(content[:a] + content[b:c] + content[a:b] + content[c:])
    return f"blocks {a}:{b} and {b}:{c} exchanged"


def absurd(file: Path, rng: random.Random) -> str:
    """A number in a header made absurd: somewhere near the start or the end, where headers are."""
    content = bytearray(file.read_bytes())
    near = min(len(content), 4096)
    at = rng.choice([rng.randrange(near or 1), max(len(content) - near, 0) + rng.randrange(near or 1)])
    word = rng.choice(ABSURD)
    content[at : at + len(word)] = rng.choice([word, word[::-1]])
    file.write_bytes(content)
    return f"an absurd number at {at}"


def words(file: Path, rng: random.Random) -> str:
    """A value of a JSON, YAML or text file exchanged for an absurd one; of others, as `absurd`."""
    if file.suffix not in (".json", ".jsonl", ".yaml", ".txt", ".csv", ".srt", ".zattrs", ".zarray", ""):
        return absurd(file, rng)
    text = file.read_text(errors="replace")
    values = list(re.finditer(r'-?\d+(\.\d+)?|"[^"\n]*"|true|false|null', text))
    if not values:
        return emptied(file, rng)
    value, word = rng.choice(values), rng.choice(WORDS)
    file.write_text(text[: value.start()] + word + text[value.end() :])
    return f"{value[0][:40]} became {word[:40]}"


def billion(file: Path, rng: random.Random) -> str:
    """10^9 frames in an mp4's table of sizes or times; of others, as `absurd`."""
    content = bytearray(file.read_bytes())
    box = rng.choice([b"stsz", b"stts", b"stco", b"stsc", b"ctts"])
    at = content.find(box)
    if at < 0:
        return absurd(file, rng)
    at += 12 if box == b"stsz" else 8
    content[at : at + 4] = (10**9).to_bytes(4, "big")
    file.write_bytes(content)
    return f"{box.decode()} of 10^9 entries"


def gone(file: Path, rng: random.Random) -> str:
    file.unlink()
    if rng.random() < 0.5:
        return "taken away"
    file.mkdir()
    return "made a folder"


def columns(file: Path, rng: random.Random) -> str:
    """Two columns of a parquet file exchanged; of others, as `moved`."""
    if file.suffix != ".parquet":
        return moved(file, rng)
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read()
    names = list(table.column_names)
    rng.shuffle(names)
    pq.write_table(table.rename_columns(names), file)
    return "columns exchanged"


def bomb(file: Path, rng: random.Random) -> str:
    """A member of a zip that expands to a gigabyte, and one whose name leads out; of others, as `overwritten`."""
    if not zipfile.is_zipfile(file):
        return overwritten(file, rng)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        name = rng.choice(archive.namelist())
        with archive.open(rng.choice([name, "../../outside"]), "w", force_zip64=True) as out:
            for _ in range(1000):
                out.write(bytes(1_000_000))
    return "a bomb in the zip"


MUTATIONS: tuple[Mutation, ...] = (
    cut_off,
    emptied,
    bits,
    overwritten,
    moved,
    absurd,
    words,
    billion,
    gone,
    columns,
    bomb,
)


def read(place: Path) -> str:
    """What the product makes of a source."""
    from schemas.errors import DataError, UsageError
    from wamdata.doctor.look import look_at
    from wamdata.readers import detect_reader
    from wamdata.source import Source

    lines = []
    try:
        source = Source.at(place)
        reader = detect_reader(source)
        for ref in reader.list_episodes(source).episodes[:EPISODES]:
            try:
                for footage in reader.read(ref).videos.values():
                    look_at(footage)
            except DataError as error:
                lines.append(str(error))
    except (DataError, UsageError) as error:
        lines.append(str(error))
    if any("\n" in line or len(line) > 1000 for line in lines):
        return f"more than a line: {lines[0][:200]!r}"
    return "refused" if lines else "read"


def answer(place: Path, home: Path) -> str:
    """`read` in a process of its own: its answer, or how it ended."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        os.setsid()
        os.environ["HOME"] = str(home)
        os.chdir(home)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_MB * 10**6,) * 2)
        try:
            said = read(place)
        except BaseException as error:  # what nobody foresaw is what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error)[:150]}"
        os.write(into, said.encode()[:4000])
        os._exit(0)
    os.close(into)
    ready, _, _ = select.select([out], [], [], LIMIT_S)
    said = os.read(out, 4096).decode() if ready else f"no answer in {LIMIT_S} s"
    os.close(out)
    if not ready:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return said or f"the process died of signal {os.WTERMSIG(status)}"


def outside(folder: Path) -> set[str]:
    return {str(p) for p in folder.rglob("*")}


def samples() -> dict[str, Callable[[Path], Path]]:
    from samples import all_samples

    made = {s.name: s.make for s in all_samples()}
    data = ROOT / "tests/data"
    for name in ("droid_video", "video_edge_cases", "bridge_rlds/1.0.0", "rosbags/rosbag1"):
        made[f"real {name}"] = lambda folder, n=name: Path(shutil.copytree(data / n, folder / "real"))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    read(ROOT / "tests/data/droid_video")  # imports what all need, before the clock and the forks
    made = {n: make for n, make in samples().items() if options.only in n}
    with tempfile.TemporaryDirectory() as folder:
        originals = {}
        for name, make in made.items():
            place = Path(folder) / "samples" / re.sub(r"\W+", "_", name)
            place.mkdir(parents=True)
            originals[name] = make(place)
        tried, well, bad, seen = Counter(), Counter(), [], Counter()
        until, number = time.monotonic() + options.minutes * 60, options.seed
        while time.monotonic() < until:
            for name, original in originals.items():
                rng = random.Random(number)
                number += 1
                home = Path(folder) / "work"
                shutil.rmtree(home, ignore_errors=True)
                (home / "home").mkdir(parents=True)
                copy = home / original.name
                (shutil.copytree if original.is_dir() else shutil.copy2)(original, copy)
                files = sorted(p for p in copy.rglob("*") if p.is_file()) if copy.is_dir() else [copy]
                file, mutate = rng.choice(files), rng.choice(MUTATIONS)
                what = mutate(file, rng)
                before = outside(home)
                said = answer(copy, home / "home")
                new = {p for p in outside(home) - before if "/.cache/" not in p and not p.endswith("/.cache")}
                said = f"wrote {sorted(new)[0]}" if new else said
                tried[name] += 1
                seen[said if said in ("read", "refused") else "other"] += 1
                if said in ("read", "refused"):
                    well[name] += 1
                else:
                    where = file.name if file == copy else str(file.relative_to(copy))
                    bad.append({"sample": name, "seed": number - 1, "file": where, "how": what, "said": said})
                    print(bad[-1], flush=True)
    result = {
        "command": f"python -m benchmarks.fuzz --minutes {options.minutes:g} --seed {options.seed}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "limit_s": LIMIT_S, "limit_mb": LIMIT_MB,
        "tried": sum(tried.values()), "answered_well": sum(well.values()), "answers": seen,
        "by_sample": {n: [well[n], tried[n]] for n in tried}, "not_well": bad,
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print({k: result[k] for k in ("tried", "answered_well", "answers")})


if __name__ == "__main__":
    main()
