"""Bases pulled from a folder, and from a server that acts like the hub: pinned, whole, or not under their names."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from released_bases import shards, write_repository
from safetensors.torch import load_file, save_file

from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.load import checkpoint_fingerprint
from adapt.handover.bases import RECORD, BaseRecord, FileFacts, Progress, find, pulling, verify
from adapt.handover.pull import FolderSource, HubSource, Listing, pull
from adapt.handover.released import KNOWN, Base
from schemas.errors import DataError, UsageError
from schemas.files import file_sha256

TINY = replace(KNOWN["dreamzero-agibot"], name="tiny-base", size="tiny")
TOKENIZER = KNOWN["umt5-xxl-tokenizer"]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "released")


def nudge(file: Path) -> None:
    """Other weights of the same names, shapes and size, in a new file."""
    tensors = {name: t.clone() for name, t in load_file(file).items()}
    first = next(iter(tensors))
    tensors[first] = tensors[first] + 1
    file.unlink()
    save_file(tensors, file, {"format": "pt"})


def test_a_pulled_base_holds_what_is_needed_and_a_record_of_it(released: Path, tmp_path: Path) -> None:
    got = pull(TINY, tmp_path / "home", FolderSource(released))
    assert got.path == tmp_path / "home" / "tiny-base" and not pulling(got.path).exists()
    names = {p.relative_to(got.path).as_posix() for p in got.path.rglob("*") if p.is_file()}
    kept = {p.name for p in shards(released)} | {"config.json", "model.safetensors.index.json", "README.md"}
    assert names == kept | {"experiment_cfg/conf.yaml", RECORD}
    record = BaseRecord.read_json(got.path / RECORD)
    assert record.files.keys() == names - {RECORD}
    for name, facts in record.files.items():
        assert (facts.bytes, facts.sha256) == ((released / name).stat().st_size, file_sha256(released / name))
    assert record.licence == "Apache-2.0" and (record.repo, record.revision) == (None, None)
    assert record.base_sha256 == checkpoint_fingerprint(open_checkpoint(released))
    assert verify(got.path).hashed == len(record.files)


def test_a_folder_is_linked_unless_a_copy_is_wanted_and_stays_as_it_was(released: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in released.rglob("*") if p.is_file()}
    linked = pull(TINY, tmp_path / "a", FolderSource(released)).path
    copied = pull(TINY, tmp_path / "b", FolderSource(released, copy=True)).path
    for file in shards(released):
        assert file.samefile(linked / file.name) and not file.samefile(copied / file.name)
    assert before == {p: p.read_bytes() for p in released.rglob("*") if p.is_file()}


def test_a_base_pulled_from_another_keeps_its_origin_and_its_hashes(released: Path, tmp_path: Path) -> None:
    first = pull(TINY, tmp_path / "a", FolderSource(released, copy=True)).path
    record = BaseRecord.read_json(first / RECORD)
    record.model_copy(update={"repo": "some/where", "revision": "c" * 40}).write_json(first / RECORD)
    second = pull(TINY, tmp_path / "b", FolderSource(first, copy=True))
    assert (second.record.repo, second.record.revision) == ("some/where", "c" * 40)
    nudge(shards(first)[1])
    with pytest.raises(DataError, match=f"{shards(first)[1].name}: sha256 is .*, wanted .*again"):
        pull(TINY, tmp_path / "c", FolderSource(first, copy=True))
    assert not (tmp_path / "c" / "tiny-base").exists()


def test_a_snapshot_of_the_hubs_cache_tells_repository_and_commit(released: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--GEAR-Dreams--DreamZero-AgiBot" / "snapshots" / ("ab" * 20)
    snapshot.mkdir(parents=True)
    for file in [*shards(released), released / "config.json", released / "model.safetensors.index.json"]:
        (snapshot / file.name).symlink_to(file)
    got = pull(TINY, tmp_path / "home", FolderSource(snapshot))
    assert (got.record.repo, got.record.revision) == ("GEAR-Dreams/DreamZero-AgiBot", "ab" * 20)
    assert not any(p.is_symlink() for p in got.path.iterdir())


def test_a_pull_cut_short_is_never_mistaken_for_a_base_and_goes_on(released: Path, tmp_path: Path) -> None:
    home, seen, base = tmp_path / "home", [], replace(TINY, name="dreamzero-agibot")

    def stop(what: str, done: int, total: int) -> None:
        seen.append(what)
        if len(seen) == 5:  # card, two settings, two shards
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(base, home, FolderSource(released, copy=True), progress=stop)
    with pytest.raises(UsageError, match="not there .*cut short"):
        find("dreamzero-agibot", home)
    begun = {p.name: p.stat().st_ino for p in pulling(home / base.name).iterdir() if p.suffix == ".safetensors"}
    done = pull(base, home, FolderSource(released, copy=True)).path
    assert begun and all((done / name).stat().st_ino == inode for name, inode in begun.items())
    assert find("dreamzero-agibot", home) == done


def test_another_model_is_refused_under_a_known_name(released: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a DreamZero checkpoint tiny.*not dreamzero-agibot \(dreamzero 14b\)"):
        pull(KNOWN["dreamzero-agibot"], tmp_path / "home", FolderSource(released))


def test_a_pull_leaves_a_base_that_is_there_alone(released: Path, tmp_path: Path) -> None:
    first = pull(TINY, tmp_path / "home", FolderSource(released)).path
    inode = first.stat().st_ino
    shutil.rmtree(released)
    assert pull(TINY, tmp_path / "home", FolderSource(released)).path.stat().st_ino == inode
    with pytest.raises(UsageError, match="revision unknown, not abc"):
        pull(TINY, tmp_path / "home", FolderSource(released), revision="abc")


class TooLarge:
    """A source of more than any disk holds."""

    def listing(self, base: Base, revision: str | None) -> Listing:
        return Listing(None, None, {"tokenizer.json": FileFacts(bytes=1 << 60)})

    def fetch(self, listing: Listing, folder: Path, progress: Progress) -> None:
        raise AssertionError("fetched without asking for space")

    def needs_space(self, folder: Path) -> bool:
        return True


def test_the_disk_is_asked_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1152921504.6 GB are still to come, .* GB are free"):
        pull(TOKENIZER, tmp_path / "home", TooLarge())


class Hub:
    """A server that speaks like the hub and serves one folder; `gated` and `cut` make it fail like the real one."""

    COMMIT = "d" * 40

    def __init__(self, folder: Path) -> None:
        self.newest = self.COMMIT
        self.folder, self.gated, self.cut, self.asked = folder, False, "", []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *words: object) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = request.path.partition("?")[0]
        self.asked.append((request.command, path))
        if self.gated:
            return self._send(request, 401, b"no", {"X-Error-Code": "GatedRepo"}, with_body=with_body)
        if path.startswith("/api/models/"):
            commit = path.partition("/revision/")[2] or self.newest
            return self._send(request, 200, json.dumps(self._info(commit)).encode(), {}, with_body=with_body)
        commit, _, name = path.partition("/resolve/")[2].partition("/")
        content = (self.folder / name).read_bytes() if name else b""
        digest = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
        if self.cut and name.endswith(self.cut) and with_body:
            return self._send(request, 410, b"", {}, with_body=True)
        return self._send(request, 200 if name else 404, content, headers, with_body=with_body)

    def _info(self, commit: str) -> dict:
        files = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        siblings = []
        for file in files:
            facts = {"rfilename": file.relative_to(self.folder).as_posix(), "size": file.stat().st_size}
            if file.suffix == ".safetensors":
                facts["lfs"] = {"sha256": file_sha256(file), "size": file.stat().st_size, "pointerSize": 130}
            siblings.append(facts)
        return {"id": "a/b", "modelId": "a/b", "sha": commit, "siblings": siblings, "private": False}

    def _send(self, request: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict, *, with_body: bool) -> None:
        request.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            request.send_header(name, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body)


@pytest.fixture
def hub(released: Path) -> Iterator[Hub]:
    server = Hub(released)
    yield server
    server.close()


def test_the_hub_is_pulled_from_at_a_pinned_commit_and_only_what_is_needed(hub: Hub, tmp_path: Path) -> None:
    got = pull(TINY, tmp_path / "home", HubSource(hub.url))
    assert (got.record.repo, got.record.revision) == (TINY.repo, Hub.COMMIT)
    fetched = {path.rpartition("/")[2] for method, path in hub.asked if method == "GET" and "/resolve/" in path}
    assert fetched == {Path(name).name for name in got.record.files}
    assert not (got.path / ".cache").exists()
    assert verify(got.path).title == "DreamZero checkpoint tiny, complete"


def test_a_pull_from_the_hub_goes_on_with_what_it_has(hub: Hub, released: Path, tmp_path: Path) -> None:
    hub.cut = shards(released)[-1].name
    source = HubSource(hub.url, workers=1)
    with pytest.raises(UsageError, match="answers with 410. Try again"):
        pull(TINY, tmp_path / "home", source)
    hub.cut, hub.asked, hub.newest = "", [], "e" * 40
    assert pull(TINY, tmp_path / "home", source).record.revision == Hub.COMMIT
    again = [path for method, path in hub.asked if method == "GET"]
    assert any(path.endswith(shards(released)[-1].name) for path in again)
    assert not any(path.endswith(shards(released)[0].name) for path in again)


def test_a_gated_repository_is_one_line_with_what_to_do(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    with pytest.raises(UsageError, match="refuses it.*hf auth login"):
        pull(TINY, tmp_path / "home", HubSource(hub.url))


def test_without_a_network_the_way_with_a_copied_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be reached.*wam base verify DIR"):
        pull(TINY, tmp_path / "home", HubSource("http://127.0.0.1:9"))
