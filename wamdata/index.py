"""A table of a source's episodes, and a choice among them: what is ingested is chosen before it is ingested.

One row an episode, in SQLite, built once for each content of the source and kept in the user's cache. A choice is a
condition in SQL over its columns:

    --where "seconds > 5 AND task LIKE '%cup%' AND outcome != 'failure'"

A condition can read the table and nothing else. Building reads rows and video indexes, and decodes no pixel.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from schemas.episode import Episode
from schemas.errors import DataError, UsageError
from schemas.record import sha256_of
from wamdata.fingerprint import source_fingerprint
from wamdata.readers.base import Reader
from wamdata.source import Source

CACHE = "~/.cache/wamkit/index"
VERSION = 1
COLUMNS = {
    "episode": "TEXT",  # its key
    "rows": "INTEGER",
    "seconds": "REAL",
    "task": "TEXT",  # first instruction, '' where there is none
    "texts": "INTEGER",  # how many instructions
    "outcome": "TEXT",  # success, failure, unknown
    "session": "TEXT",
    "cameras": "INTEGER",  # how many can be read
    "warnings": "INTEGER",
    "problem": "TEXT",  # why it cannot be read, '' where it can
}
ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


def chosen(
    source: Source,
    reader: Reader,
    where: str,
    *,
    cache: str = CACHE,
    on_episode: Callable[[int, int], None] = lambda done, total: None,
) -> set[str]:
    """Keys of the episodes for which an SQL condition holds.

    Raises:
        UsageError: the condition is none, or names another column.
    """
    path = built(source, reader, cache=cache, on_episode=on_episode)
    table = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        table.set_authorizer(_reading_alone)
        return {key for (key,) in table.execute(f"SELECT episode FROM episodes WHERE ({where})")}
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise UsageError(f"--where {where!r}: {error}. Columns: {', '.join(COLUMNS)}.") from None
    finally:
        table.close()


def built(source: Source, reader: Reader, *, cache: str = CACHE, on_episode: Callable[[int, int], None]) -> Path:
    """The table of a source, made if this content of it has none yet."""
    name = sha256_of([VERSION, reader.NAME, reader.VERSION, source_fingerprint(source)])[:32]
    path = Path(cache).expanduser().resolve() / f"{name}.sqlite"
    if path.exists():
        return path
    refs = reader.list_episodes(source).episodes
    rows = []
    for done, ref in enumerate(refs, start=1):
        try:
            rows.append(_row(reader.read(ref)))
        except DataError as error:
            rows.append(_row(None, key=ref.key, problem=source.without_place(str(error))))
        on_episode(done, len(refs))
    _write(path, rows)
    return path


def _row(episode: Episode | None, *, key: str = "", problem: str = "") -> tuple:
    if episode is None:
        return key, 0, 0.0, "", 0, "unknown", "", 0, 0, problem
    return (
        episode.key,
        episode.rows[1] - episode.rows[0],
        episode.length_s,
        episode.texts[0].text if episode.texts else "",
        len(episode.texts),
        episode.outcome,
        episode.session,
        len(episode.videos),
        sum(f.severity != "info" for f in episode.findings),
        "",
    )


def _write(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    table = sqlite3.connect(partial)
    with table:
        table.execute(f"CREATE TABLE episodes ({', '.join(f'{n} {kind}' for n, kind in COLUMNS.items())})")
        table.executemany(f"INSERT INTO episodes VALUES ({', '.join('?' * len(COLUMNS))})", rows)
    table.close()
    os.replace(partial, path)


def _reading_alone(action: int, *details: str | None) -> int:
    return sqlite3.SQLITE_OK if action in ALLOWED and details[1] != "load_extension" else sqlite3.SQLITE_DENY
