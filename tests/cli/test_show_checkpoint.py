"""`wam show CHECKPOINT`: what it is, what it lacks, what a server would stumble over."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import wam
from dreamzero_checkpoints import (
    TINY,
    change_file,
    some_lora,
    some_robot,
    write_both,
    write_released,
    write_shards,
    write_wan,
)
from goldens import dit_weights

from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.config_json import IMAGE_FILE, TEXT_FILE, VAE_FILE
from adapt.backbones.dreamzero.describe import describe
from adapt.backbones.dreamzero.export import export_full, export_native, export_peft
from adapt.backbones.dreamzero.load import checkpoint_fingerprint
from adapt.backbones.dreamzero.names import MODEL, is_head

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_released(tmp_path / "base")


def to_serve(path: Path) -> tuple[str, ...]:
    return describe(open_checkpoint(path)).to_serve


def test_show_says_in_its_first_line_that_a_checkpoint_is_complete(released: Path) -> None:
    ran = wam("show", released)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == f"DreamZero checkpoint tiny, complete ({released})"
    assert "394 tensors, 12.4 MB, float32, 3 files" in ran.stdout
    assert "text encoder, image encoder, vae" in ran.stdout
    facts = json.loads(wam("show", released, "--json").stdout)
    assert (facts["kind"], facts["size"], facts["complete"], facts["files"]) == ("dreamzero", "tiny", True, 3)
    model = sum(tensor.numel() for tensor in dit_weights("dit_weights_i2v").values())
    assert facts["parameters"]["model"] == model and set(facts["parameters"]) - {"model"} == set(facts["encoders"])


LIGHT = """
import sys
sys.argv = ["wam", "show", *sys.argv[1:]]
from cli.main import main
try:
    main()
except SystemExit:
    pass
print([name for name in ("torch", "numpy", "safetensors") if name in sys.modules])
"""


def test_show_reads_headers_without_torch(released: Path, tmp_path: Path) -> None:
    lora = some_lora(rank=4, scale=2.0)
    paths = [released, write_both(tmp_path / "both", lora), write_wan(tmp_path / "wan")]
    paths.append(export_native(tmp_path / "native", lora, TINY, base_name="base", base_sha256="ab" * 32))
    paths.append(export_peft(tmp_path / "peft", lora, base_name="base", base_sha256="ab" * 32))
    for path in paths:
        command = [sys.executable, "-c", LIGHT, str(path)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        lines = ran.stdout.splitlines()
        assert lines[-1] == "[]" and lines[0].endswith(f"({path})"), lines
        told = describe(open_checkpoint(path))
        assert lines[0] == f"{told.title} ({path})" and len(lines) == 2 + len(told.rows())
        margin = max(len(label) for label, _ in told.rows()) + 2
        assert all(line[margin - 1] == " " and line[margin] != " " for line in lines[1:-1])


def test_the_identity_as_a_base_is_told_on_request_only(released: Path) -> None:
    sha256 = checkpoint_fingerprint(open_checkpoint(released))
    assert sha256 not in wam("show", released).stdout
    lines = wam("show", released, "--verify").stdout.splitlines()
    assert lines[-1].split() == ["base", "sha256", sha256]
    assert json.loads(wam("show", released, "--verify", "--json").stdout)["base_sha256"] == sha256
    refused = wam("show", ROOT / "tests" / "data" / "synthetic_arm.yaml", "--verify")
    assert refused.returncode == 2 and "--verify is for those" in refused.stderr


def test_show_counts_and_names_what_is_missing(released: Path) -> None:
    for file in released.glob("*.safetensors"):
        change_file(file, without=MODEL + "head.head.bias")
    (released / "model.safetensors.index.json").unlink()
    lines = wam("show", released).stdout.splitlines()
    assert lines[0].startswith("DreamZero checkpoint tiny, NOT complete: 1 missing")
    assert any(line.split() == ["missing", "head.head.bias"] for line in lines)


def test_show_refuses_a_shard_that_is_cut_off_in_one_line(released: Path) -> None:
    file = released / "model-00003-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    ran = wam("show", released)
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.startswith(f"wam: {file}: has ") and len(ran.stderr.splitlines()) == 1


def test_raw_wan_says_what_starts_anew(tmp_path: Path) -> None:
    tensors = {name: t for name, t in dit_weights("dit_weights_i2v").items() if not is_head(name)}
    path = write_shards(tmp_path / "wan", tensors, shards=2, config=None, stem="diffusion_pytorch_model")
    told = describe(open_checkpoint(path))
    assert told.title == "raw Wan weights tiny, complete" and len(told.fresh) == 14
    assert told.to_serve == ("raw Wan has no heads for a robot: adapt it first",)


def test_a_lora_tells_rank_alpha_and_base(tmp_path: Path) -> None:
    lora = some_lora(rank=4, scale=2.0)
    native = export_native(tmp_path / "native", lora, TINY, base_name="base", base_sha256="ab" * 32)
    told = describe(open_checkpoint(native))
    assert told.title == "DreamZero LoRA tiny, complete" and told.parameters["heads"] > 0
    assert (told.lora["rank"], told.lora["alpha"], told.lora["base"]) == (4, 8, "abababababab")
    assert "puts a LoRA on raw Wan" in told.to_serve[0]
    told = describe(open_checkpoint(export_peft(tmp_path / "peft", lora, base_name="base", base_sha256="cd" * 32)))
    assert told.title == "peft LoRA, its base's sizes are not recorded"
    assert (told.lora["rank"], told.lora["alpha"], told.lora["base"]) == (4, 8, "cdcdcdcdcdcd")


def test_what_a_server_stumbles_over_is_listed_until_it_is_mended(released: Path, tmp_path: Path) -> None:
    told = to_serve(released)
    assert "config.json: skip_component_loading is false, set true" in told
    assert "experiment_cfg/conf.yaml is missing: export the checkpoint with its robot" in told
    assert any(problem.startswith("config.json: 4 of 4 files of raw Wan are not where it says") for problem in told)
    weights = tmp_path / "wan"
    weights.mkdir()
    for name in (TEXT_FILE, IMAGE_FILE, VAE_FILE):
        (weights / name).touch()
    robot = some_robot("oxe_droid")
    out = export_full(tmp_path / "out", open_checkpoint(released), None, robots=[robot], wan=str(weights))
    assert to_serve(out) == ()
    config = (out / "config.json").read_text()
    (out / "config.json").write_text(config.replace('"train_architecture": "full"', '"train_architecture": "lora"'))
    assert to_serve(out) == ('config.json: train_architecture is "lora", set "full"',)
    (out / "config.json").write_text(config)
    conf = out / "experiment_cfg" / "conf.yaml"
    conf.write_text(conf.read_text().replace("save_lora_only: false", "save_lora_only: true"))
    assert to_serve(out) == ("conf.yaml: save_lora_only is true, set false",)
    (out / "experiment_cfg" / "metadata.json").write_text("{}")
    assert "tag oxe_droid: not in conf.yaml and metadata.json alike" in to_serve(out)
