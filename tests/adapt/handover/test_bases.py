"""Bases on disk: found, whole or refused, recorded."""

import json
import os
from pathlib import Path

import pytest
import torch
from dreamzero_checkpoints import change_file, write_wan
from released_bases import shards, write_repository
from safetensors.torch import load_file

from adapt.backbones.dreamzero.config import PRESETS
from adapt.backbones.dreamzero.config_json import IMAGE_FILE, TEXT_FILE, config_json
from adapt.backbones.dreamzero.names import EncoderSizes, checkpoint_shapes
from adapt.handover.bases import RECORD, find, needed_files, verify
from adapt.handover.released import KNOWN
from schemas.errors import DataError, UsageError


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "released")


def test_a_damaged_base_is_refused_with_what_differs(released: Path) -> None:
    assert verify(released).record is not None
    middle = shards(released)[1]
    held = middle.read_bytes()
    middle.write_bytes(held[:-8] + bytes(8))
    assert verify(released, quick=True).hashed == 0
    with pytest.raises(DataError, match=f"{middle.name}: sha256 is"):
        verify(released)
    middle.write_bytes(held[:-8])
    with pytest.raises(DataError, match=f"{middle.name}: {len(held) - 8} bytes, wanted {len(held)}"):
        verify(released, quick=True)
    middle.unlink()
    with pytest.raises(DataError, match=f"{middle.name}: is missing"):
        verify(released, quick=True)


def test_a_base_without_a_tensor_is_refused_before_anything_is_hashed_or_recorded(released: Path) -> None:
    file = shards(released)[0]
    name = next(n for n in load_file(file) if n.startswith("action_head.model.blocks"))
    change_file(file, without=name)
    (released / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match=f"1 missing: {name.removeprefix('action_head.model.')}"):
        verify(released)
    assert not (released / RECORD).exists()


@pytest.mark.parametrize("flavour", ["tiny", "5b-like"])
def test_raw_wan_is_complete_with_its_encoders_only(flavour: str, tmp_path: Path) -> None:
    config = PRESETS["tiny"]
    if flavour == "5b-like":
        from goldens import dit_weights

        from adapt.backbones.dreamzero.sizes import config_from_shapes

        config = config_from_shapes({n: tuple(t.shape) for n, t in dit_weights("dit_weights_ti2v").items()})
    folder = write_wan(tmp_path / "wan", config)
    (folder / IMAGE_FILE).unlink() if flavour == "5b-like" else None
    got = verify(folder)
    assert got.title.startswith("raw Wan") and len(got.notes) == (flavour == "5b-like")
    assert {p.name for p in folder.glob("*.pth")} <= got.record.files.keys()
    (folder / TEXT_FILE).unlink()
    with pytest.raises(DataError, match="models_t5.*missing"):
        verify(folder, quick=True)


def test_the_released_14b_is_known_by_its_2146_headers(tmp_path: Path) -> None:
    """A sparse file of 45.8 GB: every name and shape of the released checkpoint, and no byte of weights."""
    folder = tmp_path / "dreamzero-agibot"
    folder.mkdir()
    end, header = 0, {}
    for name, shape in checkpoint_shapes(PRESETS["14b"], EncoderSizes.released("i2v")).items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(config_json(PRESETS["14b"])))
    assert len(header) == 2146
    assert verify(folder, quick=True).title == "DreamZero checkpoint 14b, complete"
    low, high = KNOWN["dreamzero-agibot"].gb
    assert low <= end / 1e9 <= high
    (folder / "model.safetensors").unlink()


def test_an_unknown_base_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'dreamzero-agibot'"):
        find("GEAR-Dreams/DreamZero-AgiBot", tmp_path)
    with pytest.raises(UsageError, match="wam base pull wan2.2-ti2v-5b --to"):
        find("wan2.2-ti2v-5b", tmp_path)
    assert find(str(tmp_path), tmp_path / "home") == tmp_path


def test_needed_files_do_not_reach_into_folders_that_nobody_asked_for(released: Path) -> None:
    names = needed_files(released)
    assert "tensorrt/model.safetensors" not in names and "experiment_cfg/a/b.yaml" not in names
    assert "experiment_cfg/conf.yaml" in names


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_base_is_verified_without_a_record(released: Path) -> None:
    released.chmod(0o500)
    try:
        got = verify(released)
    finally:
        released.chmod(0o700)
    assert not (released / RECORD).exists() and "not recorded" in got.notes[-1]
