"""Label tables: every row finds its episode, what it says reaches the shards, and what does not fit is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robots import episode

from schemas.errors import DataError, UsageError
from schemas.recipe import IngestRecipe
from wamdata.clips import Clip
from wamdata.ingest import ingest
from wamdata.label_table import COLUMNS, Label, read_table, write_table
from wamdata.labels import labelled, read_labels, why_dropped
from wamdata.readers.base import EpisodeRef
from wamdata.shards import read_clip
from wamdata.source import Source
from wamdata.use import clip_feeds

SECOND = 10**9


def refs(*keys: str, source: str = "logs", file: str | None = None) -> list[EpisodeRef]:
    place = {} if file is None else {"path": file}
    return [EpisodeRef(Source(f"/somewhere/{source}"), key, 0, place) for key in keys]


def table(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_bytes(write_table(rows))
    return path


def row(**values: str) -> Label:
    return Label("t.csv, row 2", {"episode": "e0", **values})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "xlsx"])
def test_three_kinds_of_file_say_the_same(suffix: str, tmp_path: Path) -> None:
    rows = [
        {"episode": "e_000001", "task": "Pour, \"slowly\"", "start_s": 0.5, "quality": 4},
        {"episode": "e_000002", "use": "drop", "reason": "hung"},
    ]  # fmt: skip
    names = ["episode", "start_s", "task", "quality", "use", "reason"]
    path = tmp_path / f"labels.{suffix}"
    if suffix == "csv":
        path.write_bytes(b"\xef\xbb\xbf" + write_table(rows))  # as Excel writes it
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([{n: r.get(n) for n in names} for r in rows]), path)
    else:
        import openpyxl

        book = openpyxl.Workbook()
        for cells in (names, *([r.get(n) for n in names] for r in rows), []):
            book.active.append(cells)
        book.save(path)
    first, second = read_table(path)
    assert first.values == {"episode": "e_000001", "task": 'Pour, "slowly"', "start_s": "0.5", "quality": "4"}
    assert (second.use, second.place) == ("drop", f"labels.{suffix}, row 3")
    assert why_dropped([first]) is None and why_dropped([first, second]) == f"labels.{suffix}, row 3: hung"


def test_episodes_are_named_by_key_by_number_and_by_file(tmp_path: Path) -> None:
    listed = refs("demo_0", "demo_10", file="kitchen/a.hdf5") + refs("clip_2", file="kitchen/b.mp4")
    path = table(tmp_path / "t.csv", {"episode": "demo_0", "task": "x"}, {"episode": "10"}, {"episode": "2"},
                 {"episode": "a.hdf5", "quality": "3"}, {"episode": "kitchen/b.mp4", "use": "video"})  # fmt: skip
    labels = read_labels([path], listed, listed)
    assert [len(labels.of(ref)) for ref in listed] == [2, 2, 2]
    assert labels.of(listed[2])[1].use == "video" and labels.of(listed[1])[1].values["quality"] == "3"
    assert set(labels.only(listed[:1]).rows) == {("logs", "demo_0")}


def test_tables_add_up(tmp_path: Path) -> None:
    listed = refs("a1", "b2")
    one = table(tmp_path / "one.csv", {"episode": "a1", "task": "go"})
    two = table(tmp_path / "two.csv", {"episode": "a1", "use": "none"}, {"episode": "b2"})
    labels = read_labels([one, two], listed, listed)
    assert [label.place for label in labels.of(listed[0])] == ["one.csv, row 2", "two.csv, row 2"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"episode": "a1"}], r"1 of 2 episodes have no row \(b2\)"),
        (
            [{"episode": "a1"}, {"episode": "b2"}, {"episode": "c3"}],
            r"row 4: no episode 'c3' \(1 of 3 rows name none\)",
        ),
        ([{"episode": "a1", "use": "maybe"}], "use is 'maybe', wanted one of both, video, none, drop"),
        ([{"episode": "a1", "outcome": "meh"}], "outcome is 'meh', wanted one of success"),
        ([{"episode": "a1", "start_s": "soon"}], "start_s is 'soon', wanted seconds"),
        ([{"episode": "a1", "end_s": "nan"}], "end_s is 'nan', wanted seconds"),
        ([{"episode": "a1", "use": "drop", "end_s": 3}], "`drop` leaves out whole episodes"),
        ([{"task": "go"}], "no `episode`"),
        ([], "holds no rows"),
    ],
)
def test_what_does_not_fit_is_refused(rows: list[dict[str, Any]], words: str, tmp_path: Path) -> None:
    listed = refs("a1", "b2")
    with pytest.raises(UsageError, match=words):
        read_labels([table(tmp_path / "t.csv", *rows)], listed, listed)


def test_names_that_two_episodes_have_are_refused(tmp_path: Path) -> None:
    listed = refs("e1", source="left") + refs("e1", source="right")
    path = table(tmp_path / "t.csv", {"episode": "e1"})
    with pytest.raises(UsageError, match="'e1' is in left, right. Add a column `source`"):
        read_labels([path], listed, listed)
    path = table(tmp_path / "t.csv", {"episode": "e1", "source": "left"}, {"episode": "e1", "source": "right"})
    assert len(read_labels([path], listed, listed).rows) == 2
    with pytest.raises(UsageError, match="'1' may be a_1, b_1. Give the key"):
        read_labels([table(tmp_path / "u.csv", {"episode": "1"})], refs("a_1", "b_1"), [])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"episode,task\na,b,c\n", b"PK\x03\x04rest"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".xlsx", ".ods"])
def test_a_file_that_is_no_table_is_refused_in_one_line(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"t{suffix}").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_table(tmp_path / f"t{suffix}")
    assert "\n" not in str(caught.value)


def test_words_of_the_table_stand_over_those_of_the_log() -> None:
    log = episode(rows=100)
    assert [t.text for t in labelled(log, [row(task="pour")]).texts] == ["pour"]
    part = labelled(log, [row(task="pour", start_s="2", end_s="4"), row(subtask="reach", end_s="1")])
    assert [(t.text, t.level) for t in part.texts] == [("wave", "task"), ("pour", "task"), ("reach", "subtask")]
    assert (part.texts[1].start_ns, part.texts[1].stop_ns) == (2 * SECOND, 4 * SECOND)
    assert part.texts[1].origin == "labels"


def test_a_rows_other_words_reach_the_episode() -> None:
    said = labelled(episode(rows=100), [row(outcome="No", quality="4", operator="ada"), row(use="video", start_s="9")])
    assert (said.outcome, said.quality, said.operator) == ("failure", "4", "ada")
    assert [(u.start_ns, u.stop_ns, u.losses) for u in said.use] == [(9 * SECOND, 10 * SECOND, ("video",))]


@pytest.mark.parametrize("wrong", [{"start_s": "5", "end_s": "5"}, {"start_s": "10.1"}, {"start_s": "-1"}])
def test_a_span_outside_its_episode_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"is no span of 'e0', which lasts 10\.00 s"):
        labelled(episode(rows=100), [row(use="none", **wrong)])


@given(st.lists(st.fixed_dictionaries({c: st.text(st.characters(blacklist_categories=["Cs", "Cc"])) for c in COLUMNS
                                       if c not in ("start_s", "end_s", "outcome", "use")}), min_size=1))  # fmt: skip
def test_a_table_written_is_read_as_it_was(rows: list[dict[str, str]]) -> None:
    import tempfile

    rows = [{**r, "episode": f"e{n}"} for n, r in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        path = table(Path(folder) / "t.csv", *rows)
        assert [dict(label.values) for label in read_table(path)] == [
            {c: text for c, value in r.items() if (text := value.strip())} for r in rows
        ]


def test_labels_reach_the_shards(g1: Path, tmp_path: Path) -> None:
    from test_ingest import few

    source = few(g1, tmp_path / "logs", (1, 2, 3, 4))
    path = table(
        tmp_path / "labels.csv",
        {"episode": 1, "task": "Take the bottle.", "quality": "good", "operator": "ada"},
        {"episode": 1, "end_s": 2.0, "use": "none", "reason": "idle"},
        {"episode": 2, "outcome": "failure"},
        {"episode": 3, "use": "drop", "reason": "its film is lost"},
        {"episode": 4, "use": "video"},
    )
    recipe = IngestRecipe(sources=(str(source),), robot="g1_inspire", labels=(str(path),))
    manifest = ingest(recipe, tmp_path / "out", executor="local")
    clips: dict[str, Clip] = {s.episode: read_clip(tmp_path / "out", manifest, s.key) for s in manifest.samples}
    assert sorted(clips) == ["episode_000001", "episode_000002", "episode_000004"]
    (reject,) = manifest.rejects
    assert (reject.episode, reject.reason) == ("episode_000003", "dropped")
    assert reject.detail == "labels.csv, row 5: its film is lost"
    first = clips["episode_000001"]
    assert first.text_at(0) == "Take the bottle." and (first.meta.quality, first.meta.operator) == ("good", "ada")
    feeds = clip_feeds(first)
    assert not feeds.video[first.t_ns < 2 * SECOND].any() and feeds.action[first.t_ns >= 2 * SECOND].all()
    for episode_key in ("episode_000002", "episode_000004"):
        feeds = clip_feeds(clips[episode_key])
        assert feeds.video.all() and not feeds.action.any()
    assert ingest(recipe, tmp_path / "out", executor="local") == manifest
    table(path, *({"episode": n} for n in (1, 2, 3, 4)))
    with pytest.raises(UsageError, match="the labels changed"):
        ingest(recipe, tmp_path / "out", executor="local")


def test_cut_episodes_keep_their_part_of_what_was_said() -> None:
    from schemas.embodiment import EpisodeCut
    from schemas.episode import Event
    from wamdata.cutting import cut_recording

    events = (Event("/try", 2 * SECOND, "go"), Event("/try", 6 * SECOND, "go"))
    log = replace(labelled(episode(rows=100), [row(use="none", start_s="5", end_s="7")]), events=events)
    parts = cut_recording(log, EpisodeCut(start="/try=go"))
    assert [(u.start_ns, u.stop_ns) for p in parts for u in p.use] == [
        (5 * SECOND, 6 * SECOND),
        (6 * SECOND, 7 * SECOND),
    ]
    assert np.array_equal(parts[0].streams["state"].t_ns, log.streams["state"].t_ns[20:60])
