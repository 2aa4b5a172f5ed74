"""One ROS 2 bag file in SQLite, opened so that nothing is written beside it: no lock, no journal, no recovery."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from schemas.errors import DataError, first_line
from wamdata.readers.messages.bag import COPY_AGAIN, Channel, Message, Place, require_content

MAGIC = b"SQLite format 3\0"


class Sqlite:
    """Messages of one file, in the order they were written.

    Raises:
        DataError: it is missing, empty, damaged, or lacks a bag's tables.
    """

    def __init__(self, path: Path, where: str) -> None:
        require_content(path, where)
        self.problems: list[str] = []
        uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        try:
            self._file = sqlite3.connect(uri, uri=True, check_same_thread=False)
            self._channels = self._read_channels()
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise DataError(f"{where}: not a ROS 2 bag in SQLite ({first_line(error)}). {COPY_AGAIN}") from None
        journal = path.with_name(f"{path.name}-wal")
        if journal.is_file() and journal.stat().st_size:
            self.problems.append(
                f"has messages in {journal.name} that are not in it yet: "
                f"run `sqlite3 {path.name} 'PRAGMA wal_checkpoint'` on a copy to have them"
            )

    def span_ns(self) -> tuple[int, int] | None:
        """First and last time, by the index of times; None where there is no message."""
        try:
            first, last = self._file.execute("SELECT MIN(timestamp), MAX(timestamp) FROM messages").fetchone()
        except sqlite3.Error:
            return None
        return (first, last) if isinstance(first, int) and isinstance(last, int) else None

    def messages(self) -> Iterator[Message]:
        """Every message that can be read."""
        rows = self._rows("SELECT id, topic_id, timestamp, data FROM messages ORDER BY id")
        for number, topic, log_ns, data in rows:
            if topic in self._channels and isinstance(log_ns, int) and isinstance(data, bytes):
                yield Message(self._channels[topic], log_ns, data, (number, 0, 0))

    def fetch(self, place: Place) -> bytes:
        """A message's bytes again.

        Raises:
            DataError: the file changed since.
        """
        try:
            (data,) = self._file.execute("SELECT data FROM messages WHERE id = ?", (place[0],)).fetchone()
        except (sqlite3.Error, TypeError, MemoryError) as error:
            raise DataError(f"message {place[0]}: {first_line(error)}. List the source again.") from None
        return data

    def _rows(self, query: str) -> Iterator[tuple]:
        try:
            yield from self._file.execute(query)
        except (sqlite3.Error, OverflowError, MemoryError) as error:
            self.problems.append(f"is damaged ({first_line(error)}): read up to there")

    def _read_channels(self) -> dict[int, Channel]:
        definitions, distro = {}, ""
        with contextlib.suppress(sqlite3.OperationalError):  # tables that came with ROS 2 Iron
            found = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            definitions = {kind: (str(coding), str(text).encode()) for kind, coding, text in self._file.execute(found)}
            (distro,) = self._file.execute("SELECT ros_distro FROM schema").fetchone() or ("",)
        topics = self._file.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
        return {
            number: Channel(str(name), str(kind), str(coding), *definitions.get(kind, ("", b"")), distro=str(distro))
            for number, name, kind, coding in topics
        }
