"""Checkpoints in: what a folder is, what it lacks, and a model out of it."""

import json
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from dreamzero_checkpoints import (
    TINY,
    change_file,
    released_tensors,
    some_inputs,
    some_lora,
    write_both,
    write_released,
    write_shards,
    write_wan,
)
from goldens import dit_weights, golden, golden_json
from safetensors.torch import save_file

from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.config_json import config_json, config_of, size_name
from adapt.backbones.dreamzero.describe import describe
from adapt.backbones.dreamzero.encoders.image import TINY_VIT, ImageEncoder
from adapt.backbones.dreamzero.encoders.load import load_encoders, load_image, load_text, load_video
from adapt.backbones.dreamzero.encoders.text import TINY_UMT5, TextEncoder
from adapt.backbones.dreamzero.encoders.video import TINY_WAN21, TINY_WAN22, VideoEncoder
from adapt.backbones.dreamzero.export import export_peft
from adapt.backbones.dreamzero.legacy import IMAGE_FILE, TEXT_FILE
from adapt.backbones.dreamzero.load import checkpoint_fingerprint, load_dit
from adapt.backbones.dreamzero.model import DreamZeroDiT
from adapt.backbones.dreamzero.names import (
    IMAGE,
    MODEL,
    TEXT,
    VAE,
    checkpoint_shapes,
    dit_shapes,
    fresh_names,
    is_head,
    is_image_branch,
)
from adapt.backbones.dreamzero.shards import Spec, plan_shards, read_header, shard_file, spec_of, write_file
from adapt.backbones.dreamzero.shards import write_shards as write_sharded
from adapt.fingerprint import base_fingerprint
from schemas.errors import DataError, UsageError

ROOT = Path(__file__).resolve().parents[4]
DIT = dit_weights("dit_weights_i2v")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_released(tmp_path / "base")


def wan(folder: Path, tensors: dict[str, torch.Tensor], *, shards: int = 2) -> Path:
    return write_shards(folder, tensors, shards=shards, config=None, stem="diffusion_pytorch_model")


def write_holes(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A bfloat16 file whose header is whole and whose bytes are a hole: 45.8 GB that take no room."""
    header, at = {}, 0
    for name, shape in shapes.items():
        stop = at + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def test_a_released_checkpoint_is_known_to_its_last_tensor(released: Path) -> None:
    checkpoint = open_checkpoint(released)
    assert (checkpoint.kind, checkpoint.config, len(checkpoint.files)) == ("dreamzero", TINY, 3)
    wanted = released_tensors()
    assert len(checkpoint.entries) == len(wanted) and checkpoint.dtypes == {"float32": len(wanted)}
    assert checkpoint.num_bytes == sum(t.nbytes for t in wanted.values())
    assert (checkpoint.missing(TINY), checkpoint.unexpected(TINY), checkpoint.misshapen(TINY)) == ([], [], [])
    got = dict(checkpoint.tensors())
    assert all(torch.equal(got[name.removeprefix(MODEL)], tensor) for name, tensor in wanted.items())


def test_sizes_are_told_from_shapes_where_there_is_no_config(released: Path) -> None:
    (released / "config.json").unlink()
    assert open_checkpoint(released).config == TINY


@pytest.mark.parametrize("size", ["14b", "5b", "mini", "tiny", "tiny-5b"])
def test_sizes_survive_config_json(size: str) -> None:
    assert config_of(json.loads(json.dumps(config_json(preset(size))))) == preset(size)
    assert size_name(preset(size)) == size


def test_loaded_weights_are_the_file_s_and_run(released: Path) -> None:
    model = load_dit(open_checkpoint(released), dtype=torch.float32)
    state = model.state_dict()
    assert state.keys() == DIT.keys() and all(torch.equal(state[name], DIT[name]) for name in DIT)
    reference = DreamZeroDiT(TINY)
    reference.load_state_dict(DIT)
    inputs = some_inputs()
    with torch.no_grad():
        got, want = model(**inputs), reference(**inputs)
    assert torch.equal(got.video, want.video) and torch.equal(got.action, want.action)


def test_weights_are_cast_once_to_the_wanted_dtype(released: Path) -> None:
    state = load_dit(open_checkpoint(released)).state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert all(torch.equal(state[name], DIT[name].bfloat16()) for name in DIT)


def test_loading_takes_nothing_from_the_global_generator(released: Path) -> None:
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    load_dit(open_checkpoint(released))
    assert torch.equal(torch.rand(1), want)


def test_raw_wan_weights_get_fresh_heads_by_seed(tmp_path: Path) -> None:
    path = wan(tmp_path / "wan", {name: t for name, t in DIT.items() if not is_head(name)})
    (path / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"never opened")
    checkpoint = open_checkpoint(path)
    assert (checkpoint.kind, checkpoint.beside) == ("wan", ("models_t5_umt5-xxl-enc-bf16.pth",))
    assert checkpoint.fresh(checkpoint.config) == fresh_names(TINY)
    first, same, other = (load_dit(checkpoint, dtype=torch.float32, heads_seed=seed).state_dict() for seed in (1, 1, 2))
    wide = "action_encoder.W2.W"
    assert torch.equal(first[wide], same[wide]) and not torch.equal(first[wide], other[wide])
    assert abs(first[wide].std().item() / 0.02 - 1) < 0.05 and first["action_encoder.W2.b"].count_nonzero() == 0
    assert torch.equal(first["blocks.1.ffn.0.weight"], DIT["blocks.1.ffn.0.weight"])


def test_raw_wan_of_the_5b_is_not_changed_by_the_branch_it_lacks(tmp_path: Path) -> None:
    config = preset("tiny-5b")
    tensors = {n: t for n, t in dit_weights("dit_weights_ti2v").items() if not is_head(n) and not is_image_branch(n)}
    checkpoint = open_checkpoint(wan(tmp_path / "wan", tensors))
    assert checkpoint.config == config
    fresh = checkpoint.fresh(config)
    assert len(fresh) == 14 + 8 + 5 * config.layers and len(fresh) + len(tensors) == len(dit_shapes(config))
    model = load_dit(checkpoint, dtype=torch.float32)
    inputs = some_inputs(config)
    with torch.no_grad():
        one = model(**inputs).video
        two = model(**(inputs | {"clip": 7 * inputs["clip"]})).video
    assert torch.equal(one, two) and one.isfinite().all()


def test_half_of_the_heads_is_damage_and_not_fresh(tmp_path: Path) -> None:
    path = wan(tmp_path / "wan", {n: t for n, t in DIT.items() if n != "action_decoder.layer2.b"})
    with pytest.raises(DataError, match=r"1 missing: action_decoder\.layer2\.b"):
        load_dit(open_checkpoint(path))


def test_the_fingerprint_is_of_the_weights_not_of_the_files(released: Path, tmp_path: Path) -> None:
    want = base_fingerprint(DIT)
    assert checkpoint_fingerprint(open_checkpoint(released)) == want
    assert checkpoint_fingerprint(open_checkpoint(write_released(tmp_path / "one", shards=1))) == want
    assert checkpoint_fingerprint(open_checkpoint(wan(tmp_path / "bare", DIT))) == want
    other = write_released(tmp_path / "other")
    name = MODEL + "blocks.2.ffn.2.weight"
    file = open_checkpoint(other).entries["blocks.2.ffn.2.weight"].file
    change_file(file, without=name, extra={name: DIT["blocks.2.ffn.2.weight"] + 1e-3})
    assert checkpoint_fingerprint(open_checkpoint(other)) != want


def test_a_missing_shard_is_named_with_or_without_index(released: Path) -> None:
    (released / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(DataError, match=r"1 of 3 shards are missing: model-00002-of-00003"):
        open_checkpoint(released)
    (released / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match=r"1 of 3 shards are missing: model-00002-of-00003"):
        open_checkpoint(released)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_file_that_is_cut_off_is_named(released: Path, keep: int) -> None:
    file = released / "model-00001-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"model-00001-of-00003\.safetensors: .*Fetch the file again"):
        open_checkpoint(released)


def test_a_missing_tensor_is_named_before_anything_is_loaded(released: Path) -> None:
    name = MODEL + "blocks.1.cross_attn.k_img.bias"
    for file in released.glob("*.safetensors"):
        change_file(file, without=name)
    (released / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match=r"1 missing: blocks\.1\.cross_attn\.k_img\.bias"):
        load_dit(open_checkpoint(released))


def test_more_than_five_gaps_are_counted(released: Path, tmp_path: Path) -> None:
    tensors = {n: t for n, t in released_tensors().items() if ".blocks.1." not in n or "text" in n}
    path = write_shards(tmp_path / "gap", tensors, shards=1, config=config_json(TINY))
    with pytest.raises(DataError, match=r"32 missing: blocks\.1\.modulation, .* \(5 of 32\)"):
        load_dit(open_checkpoint(path))


def test_extra_tensors_and_wrong_shapes_are_refused(released: Path) -> None:
    file = released / "model-00001-of-00003.safetensors"
    change_file(file, extra={MODEL + "blocks.3.modulation": torch.zeros(1, 6, 128)})
    (released / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match=r"1 unexpected: blocks\.3\.modulation"):
        load_dit(open_checkpoint(released))
    with pytest.raises(
        DataError, match=r"120 of another shape: state_encoder\.layer2\.W is \(1, 48, 128\), wanted \(1, 48, 64\)"
    ):
        load_dit(open_checkpoint(released), preset("tiny", dim=64))


def test_an_index_that_lies_is_refused(released: Path) -> None:
    index = released / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    name = next(n for n, file in values["weight_map"].items() if "00001" in file)
    values["weight_map"][name] = "model-00002-of-00003.safetensors"
    index.write_text(json.dumps(values))
    with pytest.raises(DataError, match=f"{name} is not in the shard that it names"):
        open_checkpoint(released)


def test_what_is_no_checkpoint_says_what_was_seen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        open_checkpoint(tmp_path / "none")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"holds no checkpoint.*it holds notes\.txt"):
        open_checkpoint(tmp_path / "a")
    save_file({"proj_out.weight": torch.zeros(2)}, tmp_path / "a" / "model.safetensors")
    with pytest.raises(DataError, match=r"1 tensors such as proj_out\.weight: a diffusers layout"):
        open_checkpoint(tmp_path / "a")
    with pytest.raises(DataError, match=r"notes\.txt: is no safetensors file"):
        open_checkpoint(tmp_path / "a" / "notes.txt")


def test_a_training_save_with_lora_beside_the_weights_is_known_to_its_last_tensor(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_both(tmp_path / "both", some_lora(rank=4, scale=2.0)))
    assert (checkpoint.kind, checkpoint.config, checkpoint.is_lora) == ("dreamzero-both", TINY, False)
    assert (checkpoint.missing(TINY), checkpoint.unexpected(TINY), checkpoint.misshapen(TINY)) == ([], [], [])
    told = describe(checkpoint)
    assert told.title == "DreamZero base with unmerged LoRA tiny, complete"
    assert (told.lora["rank"], told.lora["alpha"], "base" in told.lora) == (4, 8, False)
    assert told.parameters["model"] == sum(tensor.numel() for tensor in DIT.values())
    assert told.parameters["LoRA"] == 3 * 4 * (8 * 256 + 2 * 384)
    for file in checkpoint.files:
        change_file(file, without=f"{MODEL}base_model.model.blocks.1.ffn.0.lora_B.default.weight")
    (checkpoint.path / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match=r"1 missing: blocks\.1\.ffn\.0\.lora_B"):
        load_dit(open_checkpoint(checkpoint.path))


def test_the_reference_s_own_listing_of_such_a_save_is_a_whole_14b(tmp_path: Path) -> None:
    listed = golden_json("keys_14b")["lora.checkpoint_keys"]
    write_holes(tmp_path / "model.safetensors", {name: tuple(shape) for name, shape in listed.items()})
    (tmp_path / "config.json").write_text(json.dumps(golden_json("keys_14b")["lora.config_json"]))
    told = describe(open_checkpoint(tmp_path))
    assert told.title == "DreamZero base with unmerged LoRA 14b, complete" and told.tensors == 2946
    assert (told.lora["rank"], told.lora["alpha"], told.parameters["LoRA"]) == (4, 4, 19_169_280)


def test_our_file_is_byte_equal_to_the_safetensors_package_s(tmp_path: Path) -> None:
    tensors = {
        "b": torch.arange(3, dtype=torch.bfloat16),
        "a": torch.tensor([1, 2], dtype=torch.int64),
        "é": torch.tensor(2.0),
        "empty": torch.zeros(0, 4),
        "h": torch.ones(5, dtype=torch.float16),
        "flag": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "theirs", {"format": "pt"})
    specs = {name: spec_of(t) for name, t in tensors.items()}
    write_file(tmp_path / "ours", specs, tensors.__getitem__, metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    entries, metadata = read_header(tmp_path / "ours")
    assert (
        metadata == {"format": "pt"}
        and b"".join(entries["b"].content()) == tensors["b"].view(torch.uint8).numpy().tobytes()
    )


def test_the_released_14b_is_described_from_its_headers_alone(tmp_path: Path) -> None:
    config = preset("14b")
    shapes = checkpoint_shapes(config)
    shards = plan_shards({name: 2 * prod(shape) for name, shape in shapes.items()}, 5_000_000_000)
    for k, held in enumerate(shards):
        write_holes(tmp_path / shard_file("model", k, len(shards)), {name: shapes[name] for name in held})
    (tmp_path / "config.json").write_text(json.dumps(config_json(config)))
    told = describe(open_checkpoint(tmp_path))
    assert told.title == "DreamZero checkpoint 14b, complete"
    assert (told.tensors, told.files, dict(told.dtypes)) == (2146, 10, {"bfloat16": 2146})
    assert dict(told.parameters) == {
        "model": 16_484_292_448,
        "text encoder": 5_680_910_336,
        "image encoder": 632_076_801,
        "vae": 126_892_531,
    }
    (tmp_path / "model-00010-of-00010.safetensors").unlink()
    with pytest.raises(DataError, match=r"1 of 10 shards are missing: model-00010-of-00010"):
        open_checkpoint(tmp_path)


VIDEO = {"i2v": ("encoder_vae16", TINY_WAN21), "ti2v": ("encoder_vae38", TINY_WAN22)}


@pytest.mark.parametrize("layout", ["released", "both", "wan", "wan 5b"])
def test_encoders_come_out_of_every_layout_as_they_went_in(layout: str, tmp_path: Path) -> None:
    match layout:
        case "released":
            path = write_released(tmp_path / "x")
        case "both":
            path = write_both(tmp_path / "x", some_lora())
        case _:
            path = write_wan(tmp_path / "x", preset("tiny-5b" if "5b" in layout else "tiny"))
    checkpoint = open_checkpoint(path)
    encoders = load_encoders(checkpoint, tokenizer=tmp_path / "none", dtype=torch.float32)
    name, config = VIDEO[checkpoint.config.flavour]
    text, image = golden("encoder_t5"), golden("encoder_clip_vision")
    visual = {f"visual.{name}": tensor for name, tensor in image.under("w.")}
    want = (
        VideoEncoder.load(dict(golden(name).under("w.")), config, dtype=torch.float32),
        TextEncoder.load(dict(text.under("w.")), TINY_UMT5, dtype=torch.float32),
        ImageEncoder.load(visual, TINY_VIT, dtype=torch.float32),
    )
    for got, wanted in zip((encoders.video, encoders.text, encoders.image), want, strict=True):
        assert got.config == wanted.config
        state = wanted.model.state_dict()
        assert got.model.state_dict().keys() == state.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in got.model.state_dict().items())
    frames = golden(name)["in.video"][:, :, :5]
    assert torch.equal(encoders.video.encode(frames), want[0].encode(frames))
    assert {t.dtype for t in load_text(checkpoint).model.state_dict().values()} == {torch.bfloat16}
    with pytest.raises(DataError, match="none: no such folder"):
        encoders.tokenize(["pick it up"])


def test_one_encoder_is_loaded_without_the_others(tmp_path: Path) -> None:
    kept = {n: t for n, t in released_tensors().items() if not n.startswith((TEXT, IMAGE))}
    video_only = open_checkpoint(write_shards(tmp_path / "v", kept, shards=1, config=config_json(TINY)))
    wan = write_wan(tmp_path / "wan")
    (wan / TEXT_FILE).write_bytes(b"never opened")
    (wan / IMAGE_FILE).unlink()
    for checkpoint in (video_only, open_checkpoint(wan)):
        assert load_video(checkpoint).config == TINY_WAN21
        with pytest.raises(UsageError, match=f"has no image encoder, and there is no {IMAGE_FILE} in .*raw Wan folder"):
            load_image(checkpoint)
    assert load_image(open_checkpoint(wan), pth=write_wan(tmp_path / "other")).config == TINY_VIT
    adapter = open_checkpoint(export_peft(tmp_path / "a", some_lora(), base_name="base", base_sha256="0" * 64))
    with pytest.raises(UsageError, match="a LoRA, which has no text encoder. Give the base"):
        load_text(adapter)


def test_a_damaged_encoder_is_named(tmp_path: Path) -> None:
    gone = VAE + "decoder.head.2.bias"
    kept = {n: t for n, t in released_tensors().items() if n != gone}
    checkpoint = open_checkpoint(write_shards(tmp_path / "x", kept, shards=2, config=config_json(TINY)))
    with pytest.raises(DataError, match=r"video encoder: of 194 tensors 1 missing \(first 'decoder\.head\.2\.bias'\)"):
        load_video(checkpoint)


LOAD = """
import re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.encoders.image import TINY_VIT, ImageEncoder
from adapt.backbones.dreamzero.encoders.load import load_encoders, load_image, load_text, load_video
from adapt.backbones.dreamzero.encoders.text import TINY_UMT5, TextEncoder
from adapt.backbones.dreamzero.encoders.video import TINY_WAN21, TINY_WAN22, VideoEncoder
from adapt.backbones.dreamzero.export import export_peft
from adapt.backbones.dreamzero.legacy import IMAGE_FILE, TEXT_FILE
from adapt.backbones.dreamzero.load import load_dit
def memory(field): return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before = memory("VmRSS")
model = load_dit(open_checkpoint(sys.argv[1]))
print(memory("VmHWM") - before, sum(p.nbytes for p in model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_needs_the_model_and_one_shard_of_memory(tmp_path: Path) -> None:
    config = preset("mini", dim=1536, ffn_dim=6144, heads=12, layers=6)
    specs = {MODEL + name: Spec("bfloat16", shape) for name, shape in dit_shapes(config).items()}
    limit = 100_000_000
    files = write_sharded(
        tmp_path,
        specs,
        lambda name: torch.ones(specs[name].shape, dtype=torch.bfloat16),
        shard_bytes=limit,
        metadata={},
    )
    (tmp_path / "config.json").write_text(json.dumps(config_json(config)))
    ran = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    peak, size = map(int, ran.stdout.split())
    assert len(files) >= 6 and size >= 550_000_000
    assert peak <= size + 1.5 * limit, f"{peak / 1e6:.0f} MB for a model of {size / 1e6:.0f} MB"
