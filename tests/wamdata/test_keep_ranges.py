"""Published keep-ranges: what lies outside feeds nothing, what is not named is left out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from robots import episode
from samples import rlds as made

from schemas.errors import DataError, UsageError
from schemas.recipe import IngestRecipe
from wamdata.ingest import ingest
from wamdata.keep_ranges import kept, read_ranges
from wamdata.readers import detect_reader
from wamdata.shards import read_clip
from wamdata.source import Source
from wamdata.use import clip_feeds

SECOND = 10**9


def test_rows_outside_the_ranges_feed_nothing() -> None:
    log = replace(episode(rows=100), aliases=("a/trajectory.h5", "a/recordings/MP4"))
    found = kept(log, {"a/recordings/MP4--a/trajectory.h5": [[10, 30], [50, 100]]})
    assert [(u.start_ns, u.stop_ns, u.losses) for u in found.use] == [
        (0, SECOND, ("none",)), (3 * SECOND, 5 * SECOND, ("none",))
    ]  # fmt: skip
    assert kept(log, {"another": [[0, 5]]}) is None
    with pytest.raises(DataError, match=r"keep-range \[90, 140\) of 100 rows"):
        kept(log, {"e0": [[90, 140]]})


@pytest.mark.parametrize("content", ["[]", '{"a": [1, 2]}', '{"a": [["0", "5"]]}', "{", '{"a": 3}'])
def test_a_file_that_holds_no_ranges_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(UsageError, match=r"r\.json: wanted a JSON object"):
        read_ranges(tmp_path / "r.json")
    with pytest.raises(UsageError, match="no such file"):
        read_ranges(tmp_path / "none.json")


def test_droids_ranges_choose_rows_of_its_rlds(tmp_path: Path) -> None:
    source = Source.at(made.SAMPLES["droid"](tmp_path))
    reader = detect_reader(source)
    refs = reader.list_episodes(source).episodes
    first = reader.read(refs[0])
    file, folder = first.aliases
    assert file.endswith("trajectory.h5") and folder.endswith("MP4")
    ranges = tmp_path / "droid_sample_ranges.json"
    ranges.write_text(json.dumps({f"{folder}--{file}": [[2, 6]]}))
    recipe = IngestRecipe(
        sources=(str(source),), robot="franka", keep_ranges=str(ranges), filters={"min_s": 0.2, "blank_text": "keep"}
    )  # fmt: skip
    manifest = ingest(recipe, tmp_path / "out", executor="local")
    assert {r.reason for r in manifest.rejects} == {"no_keep_range"} and len(manifest.rejects) == len(refs) - 1
    clip = read_clip(tmp_path / "out", manifest, manifest.samples[0].key)
    assert clip_feeds(clip).video.tolist() == [2 <= row < 6 for row in range(len(clip.t_ns))]
    ranges.write_text(json.dumps({f"{folder}--{file}": [[2, 7]]}))
    with pytest.raises(UsageError, match="the labels changed"):
        ingest(recipe, tmp_path / "out", executor="local")
