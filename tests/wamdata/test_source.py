"""Logs lie on this machine or behind a URL; readers cannot tell, and nothing is fetched before it is needed."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from schemas.errors import DataError, UsageError
from wamdata.fingerprint import source_fingerprint
from wamdata.readers import detect_reader
from wamdata.source import Source, _listed


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Source]:
    system = fsspec.filesystem("memory")
    for name, content in {"meta/info.json": b"{}", "a.bin": b"12345", ".git/x": b"no"}.items():
        system.pipe(f"/logs/{name}", content)
    _listed.cache_clear()
    yield Source("memory://logs", str(tmp_path / "cache"))
    system.rm("/logs", recursive=True)


def test_a_remote_source_is_listed_and_fetched_file_by_file(memory: Source, tmp_path: Path) -> None:
    assert memory.files() == ("a.bin", "meta/info.json") and memory.name == "logs" and memory.top() == ("a.bin",)
    assert memory.has("a.bin") and not memory.has("meta") and memory.has_folder("meta") and memory.size("a.bin") == 5
    assert not (tmp_path / "cache").exists()
    assert memory.path("a.bin").read_bytes() == b"12345"
    assert not list((tmp_path / "cache").rglob("info.json"))
    assert (memory.folder("meta") / "info.json").read_bytes() == b"{}"


def test_a_fetched_file_is_used_again_until_it_changes_there(memory: Source) -> None:
    path = memory.path("a.bin")
    path.write_bytes(b"local")
    assert memory.path("a.bin").read_bytes() == b"local"
    before = source_fingerprint(memory)
    fsspec.filesystem("memory").pipe("/logs/a.bin", b"123456")
    _listed.cache_clear()
    assert memory.path("a.bin").read_bytes() == b"123456" and source_fingerprint(memory) != before


def test_what_is_not_there_is_told(memory: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="memory://logs/b.bin: missing"):
        memory.path("b.bin")
    with pytest.raises(UsageError, match="memory://other: nothing is there"):
        Source("memory://other").require()
    with pytest.raises(UsageError, match="no such file or folder"):
        Source.at(tmp_path / "other").require()
    with pytest.raises(UsageError, match=r"nosuch://x: Protocol not known"):
        Source.at("nosuch://x").require()


def test_a_url_that_went_through_a_path_is_mended() -> None:
    assert Source.at(Path("s3://bucket/logs")).url == "s3://bucket/logs"
    assert Source.at("/data/logs").url == "/data/logs" and Source.at("/data/logs").is_local


def test_messages_read_the_same_wherever_the_source_lies(memory: Source, tmp_path: Path) -> None:
    cached = memory.path("meta/info.json")
    assert memory.without_place(f"{cached}: broken") == "meta/info.json: broken"
    assert memory.without_place(f"{memory.where('meta/info.json')}: broken") == "meta/info.json: broken"
    (tmp_path / "logs").mkdir()
    here = Source.at(tmp_path / "logs")
    assert here.without_place(f"{here.where('a.bin')}: broken") == "a.bin: broken"


@pytest.fixture
def served(g1: Path) -> Iterator[str]:
    """The real G1 episodes behind a web server that lists its folders."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(g1.parent))
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{g1.name}/"
        server.shutdown()


def test_logs_behind_a_web_server_read_as_they_do_here(served: str, g1: Path, tmp_path: Path) -> None:
    there, here = Source(served, str(tmp_path / "cache")), Source.at(g1)
    reader = detect_reader(there)
    far, near = reader.list_episodes(there), reader.list_episodes(here)
    assert [e.key for e in far.episodes] == [e.key for e in near.episodes]
    assert not list((tmp_path / "cache").rglob("*.mp4")) and not list((tmp_path / "cache").rglob("*.parquet"))
    a, b = reader.read(far.episodes[1]), reader.read(near.episodes[1])
    assert a.source_sha256 == b.source_sha256 and a.texts == b.texts
    for name, video in a.videos.items():
        assert np.array_equal(video.t_ns, b.videos[name].t_ns)
    assert len(list((tmp_path / "cache").rglob("*.parquet"))) == 1
