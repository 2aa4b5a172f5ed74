"""Mirrors of run folders: whole or not listed, whatever breaks and whenever."""

import gc
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from fsspec.spec import AbstractBufferedFile

from adapt.handover.sync import INDEX, LOCAL, Mirror, State, Store, restore, without_secrets
from schemas.errors import DataError, UsageError

ROOT = Path(__file__).resolve().parents[3]
QUICK = {"backoff_s": 0.0, "retries": 2}


class Shaky(MemoryFileSystem):
    """Memory whose next `failing` writes raise; `calls` holds what was asked of it."""

    protocol = "shaky"
    failing = 0
    calls: list[tuple[str, str]] = []

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode:
            Shaky.calls.append(("write", path))
            if Shaky.failing > 0:
                Shaky.failing -= 1
                raise RuntimeError("503: slow down")
        return super()._open(path, mode, **options)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        Shaky.calls.append(("move", path2))
        super().mv(path1, path2, **options)

    def rm_file(self, path: str) -> None:
        Shaky.calls.append(("remove", path))
        super().rm_file(path)


fsspec.register_implementation("shaky", Shaky, clobber=True)


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4().hex}/run" if request.param == "memory" else f"file://{tmp_path / 'store' / 'run'}"


@pytest.fixture
def shaky() -> Iterator[str]:
    Shaky.failing, Shaky.calls = 0, []
    yield f"shaky://{uuid.uuid4().hex}/run"
    Shaky.failing = 0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write(folder / "recipe.yaml", "steps: 4\n")
    checkpoint(folder, 100)
    checkpoint(folder, 200)
    write(folder / "latents" / "a.safetensors", "latents")
    write(folder / "latents" / "stage.json", "{}")
    return folder


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def checkpoint(run: Path, step: int) -> None:
    for name in ("model.safetensors", "optimizer.safetensors", "checkpoint.json"):
        write(run / "train" / f"step-{step:06d}" / name, f"{name} of {step}")


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()} | {LOCAL: b""}


def at(url: str) -> dict[str, bytes]:
    fs, root = fsspec.url_to_fs(url)
    return {path[len(root) :].lstrip("/"): fs.cat_file(path) for path in fs.find(root)} if fs.exists(root) else {}


def listed(url: str) -> set[str]:
    return set(json.loads(at(url)[INDEX])["files"])


def mirrored(run: Path, url: str, **options: Any) -> bool:
    return Mirror(run, url, **(QUICK | options)).close()


def test_a_mirrored_run_comes_back_the_same(run: Path, url: str, tmp_path: Path) -> None:
    assert mirrored(run, url)
    assert restore(url, tmp_path / "back", **QUICK) == 9
    assert files(tmp_path / "back") == files(run)
    assert at(url).keys() - {INDEX} == files(run).keys() - {LOCAL} == listed(url)


def test_what_is_not_whole_is_not_mirrored(run: Path, url: str) -> None:
    write(run / "train" / "step-000300.partial" / "model.safetensors", "half")
    write(run / "train" / "curves.json.partial", "half")
    write(run / "train" / "step-000050.broken" / "model.safetensors", "bad")
    write(run / ".lock", "")
    assert mirrored(run, url, skip=("latents",))
    assert not any("partial" in name or "broken" in name or "lock" in name for name in at(url))
    assert not any(name.startswith("latents/") for name in at(url))


def test_poke_brings_what_is_new_and_removes_what_was_removed(run: Path, url: str) -> None:
    theirs = url + "/notes.txt"
    with fsspec.open(theirs, "w", auto_mkdir=True) if url.startswith("file") else fsspec.open(theirs, "w") as file:
        file.write("of somebody else")
    mirror = Mirror(run, url, **QUICK)
    checkpoint(run, 300)
    shutil.rmtree(run / "train" / "step-000100")
    mirror.poke()
    assert mirror.close()
    assert at(url).keys() == (files(run).keys() - {LOCAL}) | {INDEX, "notes.txt"}


def test_a_second_pass_writes_only_what_changed(run: Path, shaky: str) -> None:
    mirrored(run, shaky)
    Shaky.calls.clear()
    (run / "recipe.yaml").touch()
    assert mirrored(run, shaky) and not Shaky.calls
    write(run / "recipe.yaml", "steps: 5\n")
    checkpoint(run, 300)
    assert mirrored(run, shaky)
    moved = {path.partition("/run/")[2] for kind, path in Shaky.calls if kind == "move"}
    step = {f"train/step-000300/{n}" for n in ("model.safetensors", "optimizer.safetensors", "checkpoint.json")}
    assert moved == step | {"recipe.yaml", INDEX}


def test_records_come_after_their_content_and_go_before_it(run: Path, shaky: str) -> None:
    write(run / "train" / "stage.json", "{}")
    mirrored(run, shaky)
    names = [path.partition("/run/")[2] for kind, path in Shaky.calls if kind == "move"]
    names = [name for name in names if name != INDEX]
    records = [n for n in names if n.endswith(("stage.json", "checkpoint.json"))]
    assert names[-len(records) :] == records and names[-1].endswith("stage.json")
    Shaky.calls.clear()
    shutil.rmtree(run / "train" / "step-000100")
    mirrored(run, shaky)
    removed = [path.partition("/run/")[2] for kind, path in Shaky.calls if kind == "remove"]
    removed = [name for name in removed if "uploading" not in name]
    assert removed[:2] == ["train/stage.json", "train/step-000100/checkpoint.json"] and len(removed) == 4
    assert "train/stage.json" in at(shaky)


KILLED = """
import os, sys
from pathlib import Path
import fsspec
from fsspec.implementations.local import LocalFileSystem

class Dying(LocalFileSystem):
    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        if "w" in mode and sys.argv[3] in path:
            file.write(b"half of")
            file.flush()
            os._exit(9)
        return file

fsspec.register_implementation("file", Dying, clobber=True)
from adapt.handover.sync import Mirror
Mirror(Path(sys.argv[1]), sys.argv[2], backoff_s=0.0).close()
"""


def killed(run: Path, url: str, uploading: str) -> None:
    """A mirror in a process of its own, which dies in the middle of one upload."""
    ran = subprocess.run([sys.executable, "-c", KILLED, str(run), url, uploading], check=False, cwd=ROOT)
    assert ran.returncode == 9


@pytest.mark.parametrize("name", [".model.safe", "step-000200/.checkpoint", "latents/.stage", ".recipe", f".{INDEX}"])
def test_killed_in_any_upload_no_half_file_is_under_its_name_nor_listed(name: str, run: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    killed(run, url, name)
    held = at(url)
    assert any(content == b"half of" for content in held.values())
    for file in held.keys() - {INDEX}:
        assert file.endswith(".uploading") or held[file] == (run / file).read_bytes()
    assert not (listed(url) if INDEX in held else set()) - held.keys()
    assert mirrored(run, url)
    restore(url, tmp_path / "back", **QUICK)
    assert files(tmp_path / "back") == files(run)
    assert not any(file.endswith(".uploading") for file in at(url))


def test_killed_while_a_checkpoint_is_replaced_restore_sees_no_mixture(run: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    mirrored(run, url)
    for name in ("model.safetensors", "optimizer.safetensors", "checkpoint.json"):
        write(run / "train" / "step-000200" / name, f"new {name}")
    killed(run, url, "step-000200/.optimizer")
    assert "train/step-000200/checkpoint.json" not in at(url)
    restore(url, tmp_path / "back", **QUICK)
    assert not (tmp_path / "back" / "train" / "step-000200").exists()
    assert (tmp_path / "back" / "train" / "step-000100" / "checkpoint.json").exists()


class Objects(MemoryFileSystem):
    """Acts like S3: an object appears when its upload ends, and an upload can be given up."""

    protocol = "s3"
    names: list[str] = []
    given_up: list[str] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("s3://", "memory://"))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return Upload(self, path, mode) if "w" in mode else super()._open(path, mode, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise AssertionError("an object store has no folders")


class Upload(AbstractBufferedFile):
    def _initiate_upload(self) -> None:
        self.parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self.parts.append(self.buffer.getvalue())
        if final:
            Objects.names.append(self.path)
            with MemoryFileSystem._open(self.fs, self.path, "wb") as file:
                file.write(b"".join(self.parts))
        return True

    def discard(self) -> None:
        Objects.given_up.append(self.path)
        self.buffer = None


@pytest.fixture
def bucket() -> Iterator[str]:
    fsspec.register_implementation("s3", Objects, clobber=True)
    Objects.names, Objects.given_up = [], []
    yield f"s3://{uuid.uuid4().hex}/run"
    _registry.pop("s3")


def test_an_object_store_gets_objects_under_their_own_names(run: Path, bucket: str, tmp_path: Path) -> None:
    assert mirrored(run, bucket)
    assert not any(".uploading" in name for name in Objects.names)
    restore(bucket, tmp_path / "back", **QUICK)
    assert files(tmp_path / "back") == files(run)


def test_no_object_comes_of_an_upload_that_is_given_up(run: Path, bucket: str) -> None:
    store = Store(bucket, retries=0, backoff_s=0.0)
    assert store.upload(Growing(run / "recipe.yaml"), "recipe.yaml") is None
    gc.collect()
    assert Objects.names == [] and not at(bucket) and len(Objects.given_up) == 1
    assert store.upload(run / "recipe.yaml", "recipe.yaml") is not None and len(Objects.names) == 1


def test_a_store_that_fails_twice_is_tried_again_and_nobody_is_told(run: Path, shaky: str) -> None:
    told: list[str] = []
    Shaky.failing = 2
    assert mirrored(run, shaky, on_trouble=told.append) and not told
    assert listed(shaky) == files(run).keys() - {LOCAL}


def test_a_store_that_stays_down_is_told_once_and_at_the_end(run: Path, shaky: str) -> None:
    told: list[str] = []
    Shaky.failing = 10_000
    mirror = Mirror(run, shaky, on_trouble=told.append, again_s=0.001, **QUICK)
    mirror.poke()
    assert not mirror.close()
    assert len(told) == 2 and "The run goes on" in told[0] and "503: slow down" in told[0]
    assert "NOT up to date at the end" in told[1]
    Shaky.failing = 0
    assert mirrored(run, shaky)


def test_another_run_at_the_url_is_refused(run: Path, url: str, tmp_path: Path) -> None:
    mirrored(run, url)
    write(tmp_path / "other" / "recipe.yaml", "steps: 1\n")
    with pytest.raises(UsageError, match="mirrors another run"):
        Mirror(tmp_path / "other", url, **QUICK)
    assert "train/step-000100/checkpoint.json" in listed(url)


def test_a_restored_run_goes_on_with_its_mirror(run: Path, url: str, tmp_path: Path) -> None:
    mirrored(run, url)
    restore(url, tmp_path / "back", **QUICK)
    checkpoint(tmp_path / "back", 300)
    shutil.rmtree(tmp_path / "back" / "train" / "step-000100")
    assert mirrored(tmp_path / "back", url)
    steps = {name.split("/")[1] for name in listed(url) if name.startswith("train/")}
    assert steps == {"step-000200", "step-000300"}


def test_a_new_folder_gets_the_run_that_lies_at_its_url_and_no_other_folder_does(run: Path, tmp_path: Path) -> None:
    from adapt.handover.sync import bring_back

    url = f"file://{tmp_path / 'mirror'}"
    assert bring_back(url, tmp_path / "back", **QUICK) is None and not (tmp_path / "back").exists()
    Mirror(run, url, **QUICK).close()
    assert bring_back(url, run, **QUICK) is None  # it is here
    (tmp_path / "other").mkdir()
    (tmp_path / "other/recipe.yaml").write_text("mine")
    assert bring_back(url, tmp_path / "other", **QUICK) is None
    assert bring_back(url, tmp_path / "back", **QUICK) == len(State.read(run).files)
    assert bring_back(url, tmp_path / "back", **QUICK) is None


def test_a_restore_cut_short_goes_on_and_is_not_mirrored_before(run: Path, url: str, tmp_path: Path) -> None:
    mirrored(run, url)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(url, tmp_path / "back", progress=stop, **QUICK)
    with pytest.raises(UsageError, match="in part only"):
        Mirror(tmp_path / "back", url, **QUICK)
    restore(url, tmp_path / "back", **QUICK)
    assert files(tmp_path / "back") == files(run)
    with pytest.raises(UsageError, match="holds a run already"):
        restore(url, tmp_path / "back", **QUICK)


def test_restore_refuses_what_was_changed_behind_the_mirror(run: Path, url: str, tmp_path: Path) -> None:
    mirrored(run, url)
    fs, root = fsspec.url_to_fs(url)
    fs.pipe_file(f"{root}/recipe.yaml", b"steps: 6\n")
    with pytest.raises(DataError, match=r"recipe\.yaml: sha256 is"):
        restore(url, tmp_path / "back", **QUICK)
    with pytest.raises(UsageError, match="no mirrored run"):
        restore(url + "/nothing", tmp_path / "new", **QUICK)
    with pytest.raises(UsageError, match="not empty"):
        restore(url, run.parent, **QUICK)


def test_an_emptied_run_folder_does_not_empty_the_mirror(run: Path, url: str) -> None:
    told: list[str] = []
    mirrored(run, url)
    before = listed(url)
    for path in run.iterdir():
        if path.name != LOCAL:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not mirrored(run, url, on_trouble=told.append)
    assert listed(url) == before and "nothing is removed" in told[0]


class Growing(type(Path())):
    """A file to which something is added each time it is opened."""

    def open(self, *words: Any, **options: Any) -> Any:
        with Path(self).open("a") as file:
            file.write("more\n")
        return Path(self).open(*words, **options)


def test_a_file_that_changes_while_it_is_read_is_left_for_later(run: Path, shaky: str) -> None:
    store = Store(shaky, retries=0, backoff_s=0.0)
    write(run / "log.jsonl", "one\n")
    assert store.upload(Growing(run / "log.jsonl"), "log.jsonl") is None
    assert "log.jsonl" not in at(shaky)
    assert store.upload(run / "log.jsonl", "log.jsonl").size == 9 and at(shaky)["log.jsonl"] == b"one\nmore\n"


def test_a_missing_package_is_named_with_the_line_that_installs_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match="s3:// needs the package s3fs.*pip install s3fs"):
        Mirror(run, "s3://bucket/run")
    with pytest.raises(UsageError, match="Give s3://"):
        Mirror(run, "nonsense://x")
    with pytest.raises(UsageError, match="lies in the run folder itself"):
        Mirror(run, f"file://{run}/mirror")


def test_no_secret_of_a_url_is_shown_or_recorded() -> None:
    assert without_secrets("sftp://me:pass@host/run/") == "sftp://host/run"
    assert without_secrets("s3://bucket/run?token=abc") == "s3://bucket/run"
