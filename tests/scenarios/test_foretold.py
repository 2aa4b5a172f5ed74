"""What `tests/data/expected.yaml` said of each real sample before its reader was written, done by commands alone."""

import json
from pathlib import Path

import pytest
import yaml
from commands import wam
from robots import tree_hash

DATA = Path(__file__).parent.parent / "data"
EXPECTED = yaml.safe_load((DATA / "expected.yaml").read_text())
# Sets of which a part was copied: episodes listed, and readable.
PARTS = {"g1_inspire_v21": (17, 17), "bridge_rlds/1.0.0": (8, 8), "video_edge_cases": (7, 6)}


def place(name: str) -> Path | None:
    return next((p for p in (DATA / name, DATA / "rosbags" / name) if p.exists()), None)


HERE = [name for name in EXPECTED if place(name) is not None]


def test_most_samples_are_here() -> None:
    assert len(HERE) >= 20


@pytest.mark.parametrize("name", HERE)
def test_a_sample_gives_what_was_foretold(name: str, tmp_path: Path) -> None:
    wanted, source = EXPECTED[name], place(name)
    before = tree_hash(source) if source.is_dir() else source.read_bytes()
    checked = wam("check", source, "--json", "--quiet")
    if wanted["reader"] == "none":
        assert checked.returncode == 2 and wanted["ingest"] in checked.stderr
        return
    facts = json.loads(checked.stdout)
    listed, readable = PARTS.get(name, (wanted["episodes"], wanted["read"]))
    unreadable = [f for f in facts["findings"] if f["code"] == "unreadable"]
    assert (facts["reader"], facts["episodes"], facts["episodes"] - len(unreadable)) == (
        wanted["reader"], listed, readable
    )  # fmt: skip
    assert set(wanted.get("findings", [])) <= {f["code"] for f in facts["findings"]}
    drafted = wam("robot", "draft", source, "--out", tmp_path / "robot.yaml")
    words = ("--out", tmp_path / "shards", "--executor", "local", "--yes", "--quiet", "--task", "do the task")
    ingested = wam("ingest", source, *words)
    if wanted["ingest"] == "clips":
        assert drafted.returncode == 0 and ingested.returncode == 0, (drafted, ingested)
        shown = wam("show", tmp_path / "shards")
        assert shown.returncode == 0 and "clips" in shown.stdout
    else:
        assert ingested.returncode == 2 and wanted["ingest"] in ingested.stderr, ingested
    assert (tree_hash(source) if source.is_dir() else source.read_bytes()) == before
