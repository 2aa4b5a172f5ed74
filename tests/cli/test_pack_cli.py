"""`wam pack`: there and back."""

import json
import os
import subprocess
import sys
from pathlib import Path

from commands import Ran, wam

ROOT = Path(__file__).resolve().parents[2]


def pack(*words: object) -> Ran:
    return wam("pack", *words)


def refused(*words: object) -> str:
    ran = pack(*words)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and ran.stderr.startswith("wam: "), ran.stderr
    return ran.stderr


def test_pack_and_check(g1_shards: Path, droid_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("steps: 9\n")
    options = ["--video", droid_shards, "--robot", "g1_inspire", "--recipe", tmp_path / "r.yaml"]
    ran = pack(g1_shards, *options, "--out", tmp_path / "p.tar")
    assert ran.returncode == 0, ran.stderr
    assert "no base" in ran.stdout and "wam adapt p --out runs/p" in ran.stdout and "tar -xf p.tar" in ran.stdout
    facts = json.loads(pack("--check", tmp_path / "p.tar", "--json").stdout)
    assert facts["video"] and "video/manifest.json" in facts["files"]
    with (tmp_path / "p.tar").open("r+b") as file:
        file.seek(-40_000, os.SEEK_END)
        file.write(b"damage")
    assert "content differs" in refused("--check", tmp_path / "p.tar")


def test_a_pack_is_shown_as_one_and_says_that_it_is_linked(g1_shards: Path, tmp_path: Path) -> None:
    assert "files are linked where the disk allows" in pack(g1_shards, "--out", tmp_path / "p").stdout
    shown = subprocess.run(
        [sys.executable, "-m", "cli.main", "show", str(tmp_path / "p")], capture_output=True, text=True
    )
    assert "a pack, " in shown.stdout and "no base" in shown.stdout, shown.stderr


def test_pack_says_what_it_lacks(g1_shards: Path, tmp_path: Path) -> None:
    assert "give shard folders and --out" in refused(g1_shards)
    assert "no pack" in refused("--check", tmp_path)
