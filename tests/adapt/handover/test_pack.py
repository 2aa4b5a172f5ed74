"""Packs: whole, checked on the other side, without a path of the machine they were made on."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from dreamzero_checkpoints import write_released

from adapt.handover import bases
from adapt.handover.pack import RECORD, check, contents, is_pack, open_pack, pack
from schemas.embodiment import Embodiment, load_embodiment
from schemas.errors import DataError, UsageError
from schemas.files import file_sha256
from schemas.yaml_io import load_yaml, read_yaml
from wamdata.shards import read_manifest, verify_shards


@pytest.fixture
def shards(g1_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(g1_shards, tmp_path / "g1"))


def tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def test_a_pack_opens_as_the_same_training(g1_shards: Path, droid_shards: Path, tmp_path: Path) -> None:
    settings = {"steps": 7, "time_base": {"chunk_s": 0.8, "video_fps": 10.0}}
    pack(contents([droid_shards, g1_shards], settings=settings), tmp_path / "p")
    got = open_pack(Path(shutil.move(tmp_path / "p", tmp_path / "elsewhere")))
    play = read_manifest(got.shards)
    assert play == read_manifest(g1_shards) and read_manifest(got.video) == read_manifest(droid_shards)
    assert read_yaml(got.robot, Embodiment).digest() == play.embodiment.digest()
    assert load_yaml(got.recipe) == {"schema": "wamkit/adapt@1"} | settings and got.base is None
    verify_shards(got.shards, play)


def test_a_pack_names_no_path_of_this_machine_and_says_the_next_command(shards: Path, tmp_path: Path) -> None:
    what = contents([shards], robot=load_embodiment("g1_inspire"), base="dreamzero-agibot")
    record = pack(what, tmp_path / "mine")
    for name in ("README.md", "recipe.yaml", "robot.yaml", RECORD):
        assert str(tmp_path) not in (tmp_path / "mine" / name).read_text()
    words = (tmp_path / "mine" / "README.md").read_text()
    assert "wam adapt mine --out runs/mine" in words and "wam base pull dreamzero-agibot" in words
    assert record.base == "dreamzero-agibot" == open_pack(tmp_path / "mine").base and record.licences == ("MIT",)


def test_shards_are_linked_unless_a_copy_is_wanted(shards: Path, tmp_path: Path) -> None:
    pack(contents([shards]), tmp_path / "linked")
    pack(contents([shards]), tmp_path / "copied", copy=True)
    for tar in tars(shards):
        assert tar.samefile(tmp_path / "linked" / "shards" / tar.name)
        assert not tar.samefile(tmp_path / "copied" / "shards" / tar.name)
    assert (
        json.loads((tmp_path / "linked" / RECORD).read_text())["files"].keys()
        == check(tmp_path / "copied").files.keys()
    )


def test_a_shard_that_differs_from_its_manifest_is_not_packed(shards: Path, tmp_path: Path) -> None:
    content = bytearray(tars(shards)[0].read_bytes())
    content[700] ^= 1
    tars(shards)[0].write_bytes(content)
    with pytest.raises(DataError, match=f"{tars(shards)[0].name}: content differs from the sha256"):
        pack(contents([shards]), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_packing_cut_short_goes_on_and_is_no_pack_until_then(shards: Path, droid_shards: Path, tmp_path: Path) -> None:
    seen = []

    def stop(what: str, done: int, total: int) -> None:
        seen.append(done)
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(contents([shards], video=droid_shards), tmp_path / "p", copy=True, progress=stop)
    partial = tmp_path / "p.partial"
    with pytest.raises(UsageError, match="cut short"):
        open_pack(partial)
    inode = (partial / "shards" / tars(shards)[0].name).stat().st_ino
    (partial / "video").mkdir(exist_ok=True)
    (partial / "video" / "of-another-attempt.tar").write_bytes(b"")
    pack(contents([shards]), tmp_path / "p", copy=True)
    assert (tmp_path / "p" / "shards" / tars(shards)[0].name).stat().st_ino == inode
    assert not (tmp_path / "p" / "video").exists() and not partial.exists()
    with pytest.raises(UsageError, match="exists already"):
        pack(contents([shards]), tmp_path / "p")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_check_names_the_first_file_that_differs_or_is_missing(kind: str, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / ("p" if kind == "folder" else "p.tar")
    record = pack(contents([shards]), out, copy=True)
    assert check(out) == record and is_pack(out)
    shard = f"shards/{tars(shards)[0].name}"
    if kind == "folder":
        file = out / shard
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        with pytest.raises(DataError, match=f"{shard}: content differs"):
            check(out)
        file.unlink()
        with pytest.raises(DataError, match=f"{shard}: is missing"):
            open_pack(out)
        return
    content = out.read_bytes()
    with tarfile.open(out) as tar:
        place = tar.getmember(f"p/{shard}").offset_data
    out.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(DataError, match=f"{shard}: content differs"):
        check(out)
    out.write_bytes(content[: place - 512])
    with pytest.raises(DataError, match=r"shards/.* is missing|cannot be read"):
        check(out)


def test_a_tar_is_the_folder_and_equal_contents_give_equal_bytes(shards: Path, tmp_path: Path) -> None:
    pack(contents([shards]), tmp_path / "p.tar")
    pack(contents([shards]), tmp_path / "other" / "p.tar") if (tmp_path / "other").mkdir() is None else None
    assert file_sha256(tmp_path / "p.tar") == file_sha256(tmp_path / "other" / "p.tar")
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["p.tar"]
    with pytest.raises(UsageError, match=r"tar -xf p\.tar"):
        open_pack(tmp_path / "p.tar")
    with tarfile.open(tmp_path / "p.tar") as tar:
        tar.extractall(tmp_path / "there")  # our own, just written
    assert open_pack(tmp_path / "there" / "p").record == check(tmp_path / "there" / "p")


def test_a_base_travels_in_the_pack_with_its_record_and_nothing_else(shards: Path, tmp_path: Path) -> None:
    base = write_released(tmp_path / "base")
    (base / "optimizer.pt").write_bytes(b"what nobody needs")
    bases.verify(base)
    record = pack(contents([shards], settings={"base": str(base)}, home=tmp_path), tmp_path / "p")
    got = open_pack(tmp_path / "p")
    assert got.base == tmp_path / "p" / "base" and not (got.base / "optimizer.pt").exists()
    assert bases.verify(got.base).record == bases.read_record(base)
    assert record.base == "base" and "base" not in load_yaml(got.recipe)
    assert record.licences == ("MIT", "unknown (base)")


def test_what_cannot_be_trained_elsewhere_is_refused(g1_shards: Path, droid_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a path means nothing on another machine"):
        contents([g1_shards], base=str(tmp_path))
    with pytest.raises(UsageError, match="wam shard merge"):
        contents([g1_shards, g1_shards])
    with pytest.raises(UsageError, match="has actions"):
        contents([g1_shards], video=g1_shards)
    with pytest.raises(UsageError, match="Did you mean 'steps'"):
        contents([g1_shards], settings={"stps": 4})
    with pytest.raises(UsageError, match="parts names shards by path, which is not packed"):
        contents([g1_shards], settings={"parts": []})
    with pytest.raises(UsageError, match="holds no camera"):
        contents([g1_shards], robot=load_embodiment("droid"))
    with pytest.raises(UsageError, match="no base is named"):
        contents([g1_shards], home=tmp_path)
    assert contents([droid_shards]).video is None


def test_a_record_that_reaches_outside_of_the_pack_is_refused(shards: Path, tmp_path: Path) -> None:
    pack(contents([shards]), tmp_path / "p")
    file = tmp_path / "p" / RECORD
    values = json.loads(file.read_text())
    values["files"]["../secret"] = {"bytes": 1, "sha256": "00"}
    file.write_text(json.dumps(values))
    with pytest.raises(DataError, match="outside of the pack"):
        open_pack(tmp_path / "p")
