"""Episodes are chosen by an SQL condition over a table that is built once."""

import sqlite3
from pathlib import Path

import pytest

from schemas.errors import UsageError
from wamdata import index
from wamdata.readers.base import EpisodeRef
from wamdata.readers.lerobot import reader as lerobot
from wamdata.source import Source


@pytest.fixture
def choose(g1: Path, tmp_path: Path):
    return lambda where: index.chosen(Source.at(g1), lerobot, where, cache=str(tmp_path / "index"))


def test_a_condition_chooses_by_what_the_episodes_are(choose) -> None:
    everything = choose("1")
    assert len(everything) == 17
    assert choose("cameras = 0") == {"episode_000003"}
    assert choose("task LIKE '%bottle%' AND rows > 400") == choose("seconds > 13.3") < everything
    assert choose("outcome = 'failure' OR problem != ''") == set()


def test_the_table_is_built_once_for_a_content(choose, monkeypatch: pytest.MonkeyPatch) -> None:
    before = choose("rows > 400")

    def refuse(ref: EpisodeRef) -> None:
        raise AssertionError(f"{ref.key} read again")

    monkeypatch.setattr(lerobot, "read", refuse)
    assert choose("rows > 400") == before


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("length > 3", "no such column: length. Columns: episode, rows, seconds"),
        ("rows >", "syntax error"),
        ("1); DROP TABLE episodes; --", "one statement at a time"),
        ("episode IN (SELECT name FROM pragma_database_list)", "not authorized|prohibited|no such table"),
        ("load_extension('x') = 1", "not authorized"),
    ],
)
def test_a_condition_that_is_none_is_refused(choose, where: str, says: str) -> None:
    with pytest.raises(UsageError, match=rf"--where .*({says})"):
        choose(where)


def test_the_table_is_plain_sqlite(choose, tmp_path: Path) -> None:
    choose("1")
    (path,) = (tmp_path / "index").glob("*.sqlite")
    rows = sqlite3.connect(path).execute("SELECT rows, texts, session FROM episodes ORDER BY episode").fetchall()
    assert len(rows) == 17 and rows[0] == (393, 1, "episode_000001")
