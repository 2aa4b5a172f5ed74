"""Adapters out and in again: every way gives the outputs of base plus adapter."""

import copy
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from dreamzero_checkpoints import (
    TINY,
    some_inputs,
    some_lora,
    some_robot,
    write_both,
    write_released,
    write_shards,
    write_wan,
)
from goldens import dit_weights, golden

from adapt.backbones.dreamzero.checkpoint import Checkpoint, open_checkpoint
from adapt.backbones.dreamzero.config import DreamZeroConfig, preset
from adapt.backbones.dreamzero.config_json import config_json
from adapt.backbones.dreamzero.export import export_full, export_native, export_peft, reference_targets
from adapt.backbones.dreamzero.legacy import IMAGE_FILE, TEXT_FILE
from adapt.backbones.dreamzero.load import checkpoint_fingerprint, compose, load_dit
from adapt.backbones.dreamzero.lora_weights import LoraWeights, lora_of, read_lora
from adapt.backbones.dreamzero.model import DreamZeroDiT, Output
from adapt.backbones.dreamzero.names import IMAGE, LORA_TARGETS, MODEL, TEXT, VAE, WRAPPED, lora_only_shapes
from adapt.backbones.dreamzero.served import conf_yaml
from adapt.backbones.dreamzero.shards import read_header
from schemas.errors import DataError, UsageError

ROOT = Path(__file__).resolve().parents[4]
ATOL = 1e-6  # the same weights by another way
MERGED = 5e-6  # weights merged by another formula: rounded once more, through three blocks
UNMERGED = 2e-5  # adapter beside the weights: sums in another order, through three blocks
RANK8 = some_lora(rank=8, scale=2.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(write_released(tmp_path_factory.mktemp("checkpoints") / "base"))


@pytest.fixture(scope="module")
def sha256(base: Checkpoint) -> str:
    return checkpoint_fingerprint(base)


def outputs(model: torch.nn.Module) -> Output:
    with torch.no_grad():
        return model(**some_inputs())


def adapted(lora: LoraWeights) -> Output:
    """Outputs of base plus adapter, worked out module by module with hooks: no code of ours."""
    model = DreamZeroDiT(TINY)
    model.load_state_dict(dit_weights("dit_weights_i2v") | dict(lora.heads))
    for module, (a, b) in lora.factors.items():

        def add(_: object, inputs: tuple, out: torch.Tensor, a: torch.Tensor = a, b: torch.Tensor = b) -> torch.Tensor:
            return out + lora.scale * inputs[0] @ a.T @ b.T

        model.get_submodule(module).register_forward_hook(add)
    return outputs(model)


def differ(got: Output, want: Output) -> float:
    return max((got.video - want.video).abs().max().item(), (got.action - want.action).abs().max().item())


@pytest.fixture(scope="module")
def merged(base: Checkpoint) -> dict[str, torch.Tensor]:
    """The adapted weights by the formula, in float64."""
    weights = {name: tensor.double() for name, tensor in dit_weights("dit_weights_i2v").items()}
    for module, (a, b) in RANK8.factors.items():
        weights[f"{module}.weight"] += RANK8.scale * b.double() @ a.double()
    return weights | {name: tensor.double() for name, tensor in RANK8.heads.items()}


def test_the_made_up_adapter_changes_what_is_measured(base: Checkpoint) -> None:
    plain = outputs(load_dit(base, dtype=torch.float32))
    changed = adapted(RANK8)
    assert (changed.video - plain.video).abs().max() > 0.05 and (changed.action - plain.action).abs().max() > 0.05


def test_a_merged_checkpoint_is_base_plus_adapter(
    base: Checkpoint, sha256: str, merged: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    lora = replace(RANK8, base_sha256=sha256)
    out = export_full(tmp_path / "out", base, lora, robots=[some_robot()], shard_bytes=1_000_000)
    checkpoint = open_checkpoint(out)
    assert checkpoint.kind == "dreamzero" and len(checkpoint.files) > 3
    for file in checkpoint.files:
        held = [entry.num_bytes for entry in checkpoint.entries.values() if entry.file == file]
        assert sum(held) <= 1_000_000 or len(held) == 1
    assert (checkpoint.missing(TINY), checkpoint.unexpected(TINY), checkpoint.misshapen(TINY)) == ([], [], [])
    model = load_dit(checkpoint, dtype=torch.float32)
    worst = max((t.double() - merged[name]).abs().max().item() for name, t in model.state_dict().items())
    assert worst <= 2e-7
    assert differ(outputs(model), adapted(RANK8)) <= UNMERGED


def test_a_merged_checkpoint_carries_the_rest_byte_for_byte(base: Checkpoint, tmp_path: Path) -> None:
    out = open_checkpoint(export_full(tmp_path / "out", base, RANK8, base_named_by_user=True))
    touched = {f"{module}.weight" for module in RANK8.factors} | set(RANK8.heads)
    assert len(touched) == 44
    for name, entry in out.entries.items():
        same = b"".join(entry.content()) == b"".join(base.entries[name].content())
        assert same == (name not in touched), name
    assert all(out.part(prefix) for prefix in (TEXT, IMAGE, VAE, MODEL))


def test_a_merged_checkpoint_keeps_the_base_s_dtype(tmp_path: Path, merged: dict[str, torch.Tensor]) -> None:
    half = open_checkpoint(write_released(tmp_path / "half", dtype=torch.bfloat16))
    out = open_checkpoint(export_full(tmp_path / "out", half, RANK8, base_named_by_user=True))
    assert set(out.dtypes) == {"bfloat16"}
    name = "blocks.1.ffn.0.weight"
    off = (dict(out.tensors([name]))[name].double() - merged[name]).abs()
    assert (off <= merged[name].abs() * 2**-8 + 1e-6).all()  # one rounding to 8 bits, after a sum in float32


def test_a_base_can_be_written_again_in_other_shards(base: Checkpoint, sha256: str, tmp_path: Path) -> None:
    out = open_checkpoint(export_full(tmp_path / "out", base, None, shard_bytes=700_000))
    assert len(out.files) != len(base.files) and checkpoint_fingerprint(out) == sha256


def test_a_native_lora_is_base_plus_adapter(base: Checkpoint, sha256: str, tmp_path: Path) -> None:
    out = export_native(tmp_path / "out", RANK8, TINY, base_name="base", base_sha256=sha256, robots=[some_robot()])
    adapter = open_checkpoint(out)
    assert (adapter.kind, adapter.config, adapter.lora_rank) == ("dreamzero-lora", TINY, 8)
    assert {n: e.shape for n, e in adapter.entries.items()} == lora_only_shapes(TINY, rank=8)
    saved, metadata = read_header(out / "model.safetensors")
    assert set(saved) == {MODEL + WRAPPED + name for name in lora_only_shapes(TINY, rank=8)}
    assert metadata["format"] == "pt" and metadata["wamkit_base_sha256"] == sha256
    head = json.loads((out / "config.json").read_text())["action_head_cfg"]["config"]
    assert (head["train_architecture"], head["lora_rank"], head["lora_alpha"]) == ("lora", 8, 16)
    assert head["lora_target_modules"] == "q,k,v,o,ffn.0,ffn.2"
    model, provenance = compose(base, adapter, base_named_by_user=False, dtype=torch.float32)
    assert provenance == f"base verified: sha256 {sha256}"
    want = load_dit(open_checkpoint(export_full(tmp_path / "full", base, read_lora(adapter))), dtype=torch.float32)
    assert differ(outputs(model), outputs(want)) <= ATOL
    assert differ(outputs(model), adapted(RANK8)) <= UNMERGED


def test_native_names_are_those_that_the_reference_s_peft_would_build(tmp_path: Path) -> None:
    import peft

    targets = (*LORA_TARGETS, "cross_attn.k_img", "cross_attn.v_img")
    lora = some_lora(targets=targets)
    out = export_native(tmp_path / "out", lora, TINY, base_name="base", base_sha256="0" * 64)
    listed = json.loads((out / "config.json").read_text())["action_head_cfg"]["config"]["lora_target_modules"]
    assert set(listed.split(",")) == {"q", "k", "v", "o", "k_img", "v_img", "ffn.0", "ffn.2"}
    with torch.device("meta"):
        model = peft.get_peft_model(DreamZeroDiT(TINY), peft.LoraConfig(r=4, target_modules=listed.split(",")))
    built = {n for n in model.state_dict() if ".lora_" in n}
    assert built == {WRAPPED + name for name in open_checkpoint(out).entries if ".lora_" in name}


def test_peft_reads_the_peft_folder_and_gives_base_plus_adapter(base: Checkpoint, sha256: str, tmp_path: Path) -> None:
    import peft

    out = export_peft(tmp_path / "out", RANK8, base_name="base", base_sha256=sha256)
    wrapped = peft.PeftModel.from_pretrained(load_dit(base, dtype=torch.float32), str(out)).eval()
    got = outputs(wrapped)
    assert differ(got, adapted(RANK8)) <= UNMERGED
    model, _ = compose(base, open_checkpoint(out), base_named_by_user=False, dtype=torch.float32)
    assert differ(outputs(model), outputs(copy.deepcopy(wrapped).merge_and_unload())) <= MERGED
    again = lora_of(wrapped, base_sha256=sha256)
    assert (again.rank, again.scale) == (8, 2.0) and again.heads.keys() == RANK8.heads.keys()
    assert all(
        torch.equal(a, RANK8.factors[m][0]) and torch.equal(b, RANK8.factors[m][1])
        for m, (a, b) in again.factors.items()
    )


def test_peft_s_own_files_are_read_with_its_rank_stabilised_scale(base: Checkpoint, tmp_path: Path) -> None:
    import peft

    config = peft.LoraConfig(
        r=4, lora_alpha=6, use_rslora=True, target_modules=["q", "ffn.2"], modules_to_save=["action_decoder"]
    )
    wrapped = peft.get_peft_model(load_dit(base, dtype=torch.float32), config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name or "action_decoder.modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(tmp_path / "theirs")
    adapter = open_checkpoint(tmp_path / "theirs")
    assert read_lora(adapter).scale == pytest.approx(6 / math.sqrt(4))
    model, provenance = compose(base, adapter, base_named_by_user=True, dtype=torch.float32)
    assert provenance.startswith("base not verifiable") and "base" in provenance
    assert differ(outputs(model), outputs(wrapped.merge_and_unload())) <= MERGED


def test_newer_peft_s_base_layer_names_load_as_the_same_weights(base: Checkpoint, tmp_path: Path) -> None:
    def renamed(name: str) -> str:
        is_target = name.startswith(MODEL) and any(f".{t}." in name for t in LORA_TARGETS)
        return ".base_layer.".join(name.rsplit(".", 1)) if is_target else name

    tensors = {renamed(n if n.startswith("action_head.") else MODEL + n): t.clone() for n, t in base.tensors()}
    assert sum(".base_layer." in name for name in tensors) == 60
    path = write_shards(tmp_path / "new", tensors, shards=2, config=base.config_json)
    assert checkpoint_fingerprint(open_checkpoint(path)) == checkpoint_fingerprint(base)


def test_lora_beside_its_base_loads_merged_and_is_written_merged(base: Checkpoint, tmp_path: Path) -> None:
    both = open_checkpoint(write_both(tmp_path / "both", RANK8))
    model = load_dit(both, dtype=torch.float32)
    assert differ(outputs(model), adapted(RANK8)) <= UNMERGED
    full = open_checkpoint(export_full(tmp_path / "full", both, None))
    assert full.kind == "dreamzero" and not any(".lora_" in name for name in full.entries)
    again = load_dit(full, dtype=torch.float32)
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in again.state_dict().items())
    same = open_checkpoint(export_full(tmp_path / "same", base, RANK8, base_named_by_user=True))
    assert checkpoint_fingerprint(both) == checkpoint_fingerprint(full) == checkpoint_fingerprint(same)
    more = some_lora(rank=2, scale=0.5, seed=9)
    got = load_dit(
        open_checkpoint(export_full(tmp_path / "more", both, more, base_named_by_user=True)), dtype=torch.float32
    )
    want, _ = compose(full, open_checkpoint(native(tmp_path / "n", more)), base_named_by_user=True, dtype=torch.float32)
    assert differ(outputs(got), outputs(want)) == 0 and differ(outputs(got), outputs(model)) > 0.01


def native(out: Path, lora: LoraWeights, config: DreamZeroConfig = TINY) -> Path:
    return export_native(out, lora, config, base_name="base", base_sha256="0" * 64, base_verified=False)


FLAVOURS = {"i2v": preset("tiny"), "ti2v": preset("tiny-5b")}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_lora_trained_on_raw_wan_becomes_a_full_checkpoint(flavour: str, tmp_path: Path) -> None:
    config = FLAVOURS[flavour]
    wan = open_checkpoint(write_wan(tmp_path / "wan", config))
    sha256 = checkpoint_fingerprint(wan)
    targets = (*LORA_TARGETS, "cross_attn.k_img", "cross_attn.v_img")
    trained = some_lora(config, targets=targets, base_sha256=sha256)
    trained = replace(trained, heads_seed=5)
    adapter = open_checkpoint(export_peft(tmp_path / "a", trained, base_name="wan", base_sha256=sha256))
    assert read_lora(adapter).heads_seed == 5 == json.loads((tmp_path / "a" / "wamkit.json").read_text())["heads_seed"]
    full = open_checkpoint(export_full(tmp_path / "full", wan, read_lora(adapter), robots=[some_robot()]))
    assert (full.kind, full.config) == ("dreamzero", config)
    assert (full.missing(config), full.unexpected(config), full.misshapen(config)) == ([], [], [])
    got, inputs = load_dit(full, dtype=torch.float32), some_inputs(config)
    composed, provenance = compose(wan, adapter, base_named_by_user=False, dtype=torch.float32)
    assert provenance == f"base verified: sha256 {sha256}"
    live = load_dit(wan, dtype=torch.float32, heads_seed=5)  # what was trained, with the adapter beside the weights
    for name, tensor in trained.heads.items():
        live.get_parameter(name).data = tensor
    for module, (a, b) in trained.factors.items():
        live.get_submodule(module).register_forward_hook(lambda _, x, out, a=a, b=b: out + x[0] @ a.T @ b.T)
    with torch.no_grad():
        one, two, three = got(**inputs), composed(**inputs), live(**inputs)
    assert differ(one, two) == 0 and differ(one, three) <= UNMERGED
    vae = golden("encoder_vae38" if flavour == "ti2v" else "encoder_vae16")
    for prefix, fixture in (
        (TEXT, golden("encoder_t5")),
        (IMAGE + "visual.", golden("encoder_clip_vision")),
        (VAE, vae),
    ):
        held = dict(full.tensors(full.part(prefix)))
        assert all(torch.equal(held.pop(prefix + name), tensor) for name, tensor in fixture.under("w.")) and not held


def test_what_the_5b_lacks_is_never_guessed(tmp_path: Path) -> None:
    config = preset("tiny-5b")
    wan = open_checkpoint(write_wan(tmp_path / "wan", config))
    lora = some_lora(config)
    other = open_checkpoint(export_peft(tmp_path / "a", lora, base_name="wan", base_sha256=checkpoint_fingerprint(wan)))
    for use in (
        lambda: export_full(tmp_path / "full", wan, lora, base_named_by_user=True),
        lambda: compose(wan, other, base_named_by_user=True),
    ):
        with pytest.raises(DataError, match=r"raw Wan has no blocks\.0\.cross_attn\.k_img\.weight .*heads_seed"):
            use()
    with pytest.raises(DataError, match=r"raw Wan has no state_encoder\.layer1\.W"):
        export_full(tmp_path / "full", wan, None)
    assert not (tmp_path / "full").exists()


def test_raw_wan_without_an_encoder_says_which_and_takes_it_from_elsewhere(tmp_path: Path) -> None:
    wan = open_checkpoint(write_wan(tmp_path / "wan", without=IMAGE_FILE))
    elsewhere = write_wan(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"has no image encoder, and there is no {IMAGE_FILE} in .*wan"):
        export_full(tmp_path / "full", wan, RANK8, base_named_by_user=True)
    export_full(tmp_path / "full", wan, RANK8, base_named_by_user=True, pth=elsewhere)
    whole = torch.load(elsewhere / TEXT_FILE, weights_only=True)
    whole.pop("blocks.1.attn.q.weight")
    torch.save(whole, wan.path / TEXT_FILE)
    with pytest.raises(DataError, match=r"of the encoders' tensors 1 are missing.*text_encoder\.blocks\.1\.attn\.q"):
        export_full(tmp_path / "again", wan, RANK8, base_named_by_user=True, pth=elsewhere)


def test_bytes_written_are_told_to_the_last(base: Checkpoint, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    out = export_full(tmp_path / "out", base, None, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (base.num_bytes, base.num_bytes) and len(told) == len(base.entries)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert open_checkpoint(out).num_bytes == base.num_bytes


def test_a_base_that_was_only_named_is_not_recorded_as_verified(base: Checkpoint, tmp_path: Path) -> None:
    peft_folder = export_peft(
        tmp_path / "p", RANK8, base_name="base", base_sha256=checkpoint_fingerprint(base), base_verified=False
    )
    for folder in (peft_folder, native(tmp_path / "n", RANK8)):
        assert read_lora(open_checkpoint(folder)).base_sha256 is None
        assert json.loads((folder / "wamkit.json").read_text())["base_verified"] is False


def test_a_base_other_than_the_recorded_one_is_refused(base: Checkpoint, sha256: str, tmp_path: Path) -> None:
    path = export_native(tmp_path / "out", RANK8, TINY, base_name="base", base_sha256=sha256)
    half = open_checkpoint(write_released(tmp_path / "half", dtype=torch.bfloat16))
    for named in (False, True):
        with pytest.raises(DataError, match=f"is not the base of .*wanted {sha256[:12]}"):
            compose(half, open_checkpoint(path), base_named_by_user=named)
    with pytest.raises(DataError, match=f"is not the adapter's base .*wanted {sha256[:12]}"):
        export_full(tmp_path / "full", half, read_lora(open_checkpoint(path)), base_named_by_user=True)
    assert not (tmp_path / "full").exists()


def test_an_adapter_that_records_no_base_needs_it_named(base: Checkpoint, tmp_path: Path) -> None:
    tensors = {MODEL + WRAPPED + name: tensor for name, tensor in RANK8.heads.items()}
    for module, (a, b) in RANK8.factors.items():
        stem = f"{MODEL}{WRAPPED}{module}.lora_"
        tensors |= {stem + "A.default.weight": a, stem + "B.default.weight": b}
    config = config_json(TINY, train_architecture="lora", lora_rank=8, lora_alpha=16)
    adapter = open_checkpoint(write_shards(tmp_path / "theirs", tensors, shards=1, config=config))
    with pytest.raises(UsageError, match=r"does not record its base.*--base"):
        compose(base, adapter, base_named_by_user=False)
    with pytest.raises(UsageError, match=r"does not record its base.*--base"):
        export_full(tmp_path / "full", base, read_lora(adapter))
    model, provenance = compose(base, adapter, base_named_by_user=True, dtype=torch.float32)
    assert provenance.startswith("base not verifiable: the adapter records none; the user named base (sha256 ")
    assert differ(outputs(model), adapted(RANK8)) <= UNMERGED
    export_full(tmp_path / "full", base, read_lora(adapter), base_named_by_user=True)
    assert json.loads((tmp_path / "full" / "wamkit.json").read_text())["base_verified"] is False


def test_a_lora_is_no_base(base: Checkpoint, sha256: str, tmp_path: Path) -> None:
    adapter = open_checkpoint(export_native(tmp_path / "a", RANK8, TINY, base_name="base", base_sha256=sha256))
    for use in (
        lambda: load_dit(adapter),
        lambda: compose(adapter, adapter, base_named_by_user=True),
        lambda: export_full(tmp_path / "b", adapter, RANK8, base_named_by_user=True),
        lambda: checkpoint_fingerprint(adapter),
    ):
        with pytest.raises(UsageError, match=r"holds a LoRA \(dreamzero-lora\), which is no base"):
            use()


def test_an_adapter_of_another_width_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    wide = some_lora(preset("tiny", dim=256))
    with pytest.raises(
        DataError, match=r"LoRA of blocks\.0\.self_attn\.q is for \(256, 256\), the base's is \(128, 128\)"
    ):
        export_full(tmp_path / "out", base, wide, base_named_by_user=True)


def test_what_the_reference_cannot_say_is_refused(tmp_path: Path) -> None:
    def native(lora: LoraWeights) -> Path:
        return export_native(tmp_path / "out", lora, TINY, base_name="base", base_sha256="0" * 64)

    with pytest.raises(DataError, match=r"scale 1\.06066 at rank 8 is alpha 8\.48528.*[Ee]xport the merged"):
        native(replace(RANK8, scale=3 / math.sqrt(8)))
    with pytest.raises(DataError, match=r"no state_encoder\.layer1\.W.*Export it merged"):
        native(replace(RANK8, heads={}))
    two = {m: f for m, f in RANK8.factors.items() if not m.startswith("blocks.1.ffn")}
    with pytest.raises(DataError, match=r"blocks\.1\.ffn\.0: .*endings only.*merged"):
        native(replace(RANK8, factors=two))
    assert not list(tmp_path.iterdir())
    some = {m: f for m, f in RANK8.factors.items() if "self_attn" in m}
    want = "self_attn.q,self_attn.k,self_attn.v,self_attn.o"
    assert reference_targets(replace(RANK8, factors=some), TINY) == want


def test_an_export_replaces_nothing(base: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for use in (
        lambda: export_full(out, base, None),
        lambda: export_native(out, RANK8, TINY, base_name="b", base_sha256="0"),
        lambda: export_peft(out, RANK8, base_name="b", base_sha256="0"),
    ):
        with pytest.raises(UsageError, match=r"out: exists already\. Give a new --out"):
            use()


KILLED = """
import os, signal, sys
from pathlib import Path
from adapt.backbones.dreamzero import export, shards
from adapt.backbones.dreamzero.checkpoint import open_checkpoint
base, out, at = open_checkpoint(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def watch(frame, event, arg, calls=[0]):
    if event == "call" and frame.f_code.co_name in ("write_file", "write_experiment", "_json"):
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(watch)
export.export_full(out, base, None, shard_bytes=1_000_000)
"""


@pytest.mark.parametrize("at", [3, 8])
def test_a_killed_export_leaves_nothing_that_opens_and_can_be_repeated(
    base: Checkpoint, tmp_path: Path, at: int
) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    command = [sys.executable, "-c", KILLED, str(base.path), str(out), str(at)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == -9, ran.stderr
    assert not out.exists() and partial.is_dir() and not (partial / "config.json").exists()
    with pytest.raises(DataError, match=r"out\.partial: an export that was cut short"):
        open_checkpoint(partial)
    export_full(out, base, None)
    assert not partial.exists() and open_checkpoint(out).missing(TINY) == []


def test_servers_find_flags_transforms_and_statistics(base: Checkpoint, tmp_path: Path) -> None:
    robot = some_robot()
    out = export_full(
        tmp_path / "out",
        base,
        RANK8,
        robots=[robot],
        base_named_by_user=True,
        wan="/models/wan",
        tokenizer="/models/umt5",
    )
    head = json.loads((out / "config.json").read_text())["action_head_cfg"]["config"]
    flags = ("train_architecture", "defer_lora_injection", "skip_component_loading")
    assert tuple(head[flag] for flag in flags) == ("full", False, True)
    assert head["vae_cfg"]["vae_pretrained_path"] == "/models/wan/Wan2.1_VAE.pth"
    assert head["diffusion_model_cfg"]["diffusion_model_pretrained_path"] == "/models/wan"
    text = (out / "experiment_cfg" / "conf.yaml").read_text()
    conf = yaml.safe_load(text)
    assert conf == conf_yaml([robot], TINY, save_lora_only=False, tokenizer="/models/umt5") and "&id" not in text
    assert conf["model"] == {"_target_": "groot.vla.model.dreamzero.base_vla.VLA"}
    assert (conf["save_lora_only"], conf["eval_bf16"], conf["relative_action"]) == (False, True, True)
    steps = conf["transforms"]["yam"]["transforms"]
    names = [step["_target_"].rpartition(".")[2] for step in steps]
    assert names[:5] == ["VideoToTensor", "VideoCrop", "VideoResize", "VideoColorJitter", "VideoToNumpy"]
    assert names[5:] == [*["StateActionToTensor", "StateActionTransform"] * 2, "ConcatTransform", "DreamTransform"]
    assert (steps[2]["height"], steps[2]["width"]) == (16, 24) and steps[-1]["tokenizer_path"] == "/models/umt5"
    assert steps[-1]["embodiment_tag_mapping"]["yam"] == 32
    assert conf["modality_configs"]["yam"]["video"]["eval_delta_indices"] == [0]
    metadata = json.loads((out / "experiment_cfg" / "metadata.json").read_text())["yam"]
    assert metadata["modalities"]["video"]["top"] == {"resolution": [640, 480], "channels": 3, "fps": 30.0}
    assert metadata["modalities"]["action"]["left_joint_pos"]["shape"] == [6]
    assert metadata["statistics"]["state"]["right_gripper_pos"]["q99"] == [0.5]


def test_the_released_view_sizes_are_the_reference_s() -> None:
    def resize(size: str) -> tuple[int, int]:
        conf = conf_yaml([some_robot()], preset(size), save_lora_only=False, tokenizer="t")
        step = conf["transforms"]["yam"]["transforms"][2]
        return step["height"], step["width"]

    assert (resize("14b"), resize("5b")) == ((176, 320), (160, 320))


def test_robots_that_a_server_would_trip_over_are_refused() -> None:
    def conf(*robots: object, size: str = "14b") -> dict:
        return conf_yaml(robots, preset(size), save_lora_only=False, tokenizer="t")

    with pytest.raises(UsageError, match=r"'g1': the reference has no prompt for it"):
        conf(some_robot("g1"))
    assert conf(some_robot("g1", embodiment_id=32))["transforms"]["g1"]
    with pytest.raises(DataError, match="action has 14 components, the model 8 slots"):
        conf_yaml([some_robot()], preset("14b", action_dim=8), save_lora_only=False, tokenizer="t")
    with pytest.raises(DataError, match=r"hand is relative, but no key of both"):
        some_robot(relative_keys=("hand",))
    with pytest.raises(DataError, match=r"statistics of state\.waist lack mean"):
        some_robot(state_keys=("waist",))
    with pytest.raises(UsageError, match="no robot to serve"):
        conf()
