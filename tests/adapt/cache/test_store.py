"""Encoded windows on disk: whole or absent, checked when read, added to by any number of writers."""

import multiprocessing
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest
import torch

from adapt.cache.store import STALE_S, Store
from schemas.errors import DataError


def made(*keys: str, seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    found = {}
    for key in keys:
        draw = torch.Generator().manual_seed(seed + sum(key.encode()))
        found[key] = {"video": torch.randn(3, 4, generator=draw).half(), "clip": torch.randn(2, generator=draw)}
    return found


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


def test_what_was_added_is_read_back_by_this_store_and_a_later_one(tmp_path: Path) -> None:
    store, content = Store(tmp_path), made("a", "b", "c")
    store.add(content)
    for reader in (store, Store(tmp_path)):
        assert all(equal(reader.load(k), content[k]) for k in content)
        assert "a" in reader and reader.missing(["a", "d", "b", "d", "e"]) == ["d", "e"]
    with pytest.raises(DataError, match="holds no window d. Run the same command again"):
        store.load("d")


def test_a_shard_is_plain_webdataset(tmp_path: Path) -> None:
    Store(tmp_path).add(made("a"))
    (shard,) = tmp_path.glob("*.tar")
    with tarfile.open(shard) as tar:
        assert sorted(tar.getnames()) == ["a.json", "a.safetensors"]


def test_another_writer_s_keys_are_found_after_a_refresh_and_not_written_again(tmp_path: Path) -> None:
    one, other = Store(tmp_path), Store(tmp_path)
    one.add(made("a", "b"))
    assert "a" not in other
    other.refresh()
    assert "a" in other
    other.add(made("a", "b"))
    assert len(list(tmp_path.glob("*.tar"))) == 1


def test_the_same_keys_with_other_content_do_not_replace_what_a_reader_knows(tmp_path: Path) -> None:
    """Two GPUs may encode a window to different last bits; a place that was looked up must stay right."""
    one, other = Store(tmp_path), Store(tmp_path)
    first, second = made("a"), made("a", seed=1)
    one.add(first)
    other.add(second)
    assert equal(one.load("a"), first["a"])
    later = Store(tmp_path).load("a")
    assert equal(later, first["a"]) or equal(later, second["a"])


def _add(folder: Path, keys: list[str], dies_at: int) -> None:
    store, calls = Store(folder), 0
    plain = tarfile.TarFile.addfile

    def addfile(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == dies_at:
            self.fileobj.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *arguments)

    tarfile.TarFile.addfile = addfile
    for at in range(0, len(keys), 3):
        store.add(made(*keys[at : at + 3]))


def _apart(*writers: tuple[Path, list[str], int]) -> None:
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_add, args=w) for w in writers]
    for process in running:
        process.start()
    for process in running:
        process.join(60)


def test_two_processes_add_to_one_store_at_once(tmp_path: Path) -> None:
    keys = [f"k{i:02d}" for i in range(30)]
    _apart((tmp_path, keys[:20], 0), (tmp_path, keys[10:], 0))
    store, wanted = Store(tmp_path), made(*keys)
    assert all(equal(store.load(k), wanted[k]) for k in keys)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("dies_at", [1, 2, 5, 9])
def test_a_kill_while_writing_leaves_no_half_shard(dies_at: int, tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(6)]
    _apart((tmp_path, keys, dies_at))
    store, wanted = Store(tmp_path), made(*keys)
    there = [k for k in keys if k in store]
    assert len(there) == 3 * ((dies_at - 1) // 6) and all(equal(store.load(k), wanted[k]) for k in there)
    store.add(made(*store.missing(keys)))
    assert all(equal(store.load(k), wanted[k]) for k in keys)


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    old, new = tmp_path / "old.partial", tmp_path / "new.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - STALE_S - 10,) * 2)
    Store(tmp_path)
    assert not old.exists() and new.exists()


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    """In the tensors when they are read, in headers and hashes when the store is opened or then."""
    content = made("a", "b")
    Store(tmp_path / "good").add(content)
    (shard,) = (tmp_path / "good").glob("*.tar")
    plain = shard.read_bytes()
    found = 0
    for at in range(0, len(plain), 97):
        damaged = bytearray(plain)
        damaged[at] ^= 4
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / shard.name).write_bytes(bytes(damaged))
        try:
            store = Store(folder)
            assert all(equal(store.load(k), content[k]) for k in content if k in store)
        except DataError as error:
            found += 1
            assert "Delete" in str(error) and shard.name in str(error)
    assert found > 5


def test_a_torn_shard_is_refused_with_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(made("a"))
    (shard,) = tmp_path.glob("*.tar")
    os.truncate(shard, 600)
    with pytest.raises(DataError, match=rf"{shard.name}.*Delete"):
        store.load("a")


def test_a_disk_that_is_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match="No room"):
        store.add(made("a"))
    assert not list(tmp_path.iterdir()) and "a" not in store


def _full(descriptor: int) -> None:
    raise OSError(28, "No room")


def test_texts_of_runs_that_share_windows_stay_apart(tmp_path: Path) -> None:
    """A prompt's file does not name the text encoder, as a window's key does."""
    one = Store(tmp_path / "shared", texts=tmp_path / "one")
    other = Store(tmp_path / "shared", texts=tmp_path / "other")
    one.add_texts({"wave": {"words": torch.ones(2)}})
    assert one.has_text("wave") and not other.has_text("wave") and other.text("wave") == {}
    other = Store(tmp_path / "shared", texts=tmp_path / "other")
    other.add_texts({"wave": {"words": torch.zeros(2)}})
    assert one.text("wave")["words"].sum() == 2 and other.text("wave")["words"].sum() == 0


def test_a_damaged_text_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_texts({"wave": {"words": torch.ones(2)}})
    (path,) = tmp_path.glob("text-*")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="text-.*cannot be read"):
        Store(tmp_path).text("wave")
