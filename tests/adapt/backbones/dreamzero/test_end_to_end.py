"""A made-up released checkpoint is trained with LoRA, exported in every layout, and loaded again: equal throughout."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import peft
import pytest
import torch
from dreamzero_checkpoints import TINY, some_inputs, write_released, write_wan
from torch import Tensor, nn
from typer.testing import CliRunner

from adapt.backbones.dreamzero.checkpoint import Checkpoint, open_checkpoint
from adapt.backbones.dreamzero.config import DreamZeroConfig, preset
from adapt.backbones.dreamzero.export import export_full, export_native, export_peft
from adapt.backbones.dreamzero.load import checkpoint_fingerprint, compose, load_dit
from adapt.backbones.dreamzero.lora_weights import LoraWeights, lora_of, read_lora
from adapt.backbones.dreamzero.model import HEAD_MODULES, LORA_TARGETS
from adapt.backbones.dreamzero.names import dit_shapes, fresh_names, is_head
from adapt.backbones.dreamzero.objective import Batch, training_loss
from adapt.backbones.dreamzero.timesteps import draw
from cli.main import app

ATOL = 1e-5
STEPS = 5


@dataclass(frozen=True)
class Trained:
    """A trained model, what it started from, and the losses of one fixed batch before and after."""

    base: Checkpoint
    sha256: str
    model: nn.Module
    lora: LoraWeights
    before: float
    after: float
    outputs: Tensor
    base_outputs: Tensor
    fresh_outputs: Tensor


def batch_of(config: DreamZeroConfig, seed: int) -> Batch:
    """One window of noise with actions in -1..1; the robot has 14 of the action dimensions."""
    inputs, rows = some_inputs(config, seed=seed), config.chunks * config.steps
    valid = torch.zeros(1, rows, config.action_dim, dtype=torch.bool)
    valid[..., :14] = True
    action = inputs["action"].clamp(-1, 1)
    return Batch(
        inputs["clean"],
        inputs["context"],
        (True,),
        action,
        valid,
        state=inputs["state"],
        y=inputs.get("y"),
        clip=inputs["clip"],
    )


def loss_of(model: nn.Module, config: DreamZeroConfig, seed: int) -> Tensor:
    batch = batch_of(config, seed)
    latent_shape = (batch.latents.shape[2], batch.latents.shape[3], batch.latents.shape[4])
    draws = draw(config, seeds=[seed], latent_shape=latent_shape, rows=batch.action.shape[1])
    return training_loss(model, batch, draws).total


def outputs(model: nn.Module, config: DreamZeroConfig = TINY) -> Tensor:
    with torch.no_grad():
        got = model(**some_inputs(config, seed=77))
    return torch.cat([got.video.flatten(), got.action.flatten()])


def train(base: Checkpoint, *, heads_seed: int | None = None) -> Trained:
    """Five steps of AdamW on random batches, in float32."""
    torch.manual_seed(0)
    config, sha256 = base.config, checkpoint_fingerprint(base)
    plain = load_dit(base, dtype=torch.float32, heads_seed=heads_seed or 0)
    base_outputs = outputs(plain, config)
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=[*LORA_TARGETS], modules_to_save=[*HEAD_MODULES])
    model = peft.get_peft_model(plain, lora)
    fresh_outputs = outputs(model, config)
    with torch.no_grad():
        before = loss_of(model, config, seed=50).item()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, config, seed=step).backward()
        optimizer.step()
    with torch.no_grad():
        after = loss_of(model, config, seed=50).item()
    taken = lora_of(model, base_sha256=sha256, heads_seed=heads_seed)
    return Trained(base, sha256, model, taken, before, after, outputs(model, config), base_outputs, fresh_outputs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(open_checkpoint(write_released(tmp_path_factory.mktemp("base") / "base")))


@pytest.fixture(scope="module")
def exports(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out, facts = tmp_path_factory.mktemp("exports"), {"base_name": "base", "base_sha256": trained.sha256}
    return {
        "peft": export_peft(out / "peft", trained.lora, **facts),
        "lora": export_native(out / "lora", trained.lora, TINY, **facts),
        "full": export_full(out / "full", trained.base, trained.lora),
    }


def differ(got: Tensor, want: Tensor) -> float:
    return (got - want).abs().max().item()


def composed(trained: Trained, path: Path) -> nn.Module:
    model, provenance = compose(trained.base, open_checkpoint(path), base_named_by_user=False, dtype=torch.float32)
    assert provenance == f"base verified: sha256 {trained.sha256}"
    return model


def test_a_fresh_adapter_changes_no_bit_of_the_base(trained: Trained) -> None:
    assert torch.equal(trained.fresh_outputs, trained.base_outputs)


def test_training_lowers_the_loss_of_a_fixed_batch_and_leaves_the_base_as_it_was(trained: Trained) -> None:
    assert trained.after < 0.98 * trained.before
    assert differ(trained.outputs, trained.base_outputs) > 100 * ATOL
    state, checked = trained.model.state_dict(), 0
    for name, tensor in trained.base.tensors(dit_shapes(TINY)):
        module, _, leaf = name.rpartition(".")
        head, _, inner = name.partition(".")
        places = (name, f"{module}.base_layer.{leaf}", f"{head}.original_module.{inner}")
        found = [state[f"base_model.model.{p}"] for p in places if f"base_model.model.{p}" in state]
        assert len(found) == 1 and torch.equal(found[0], tensor), name
        checked += 1
    assert checked == len(dit_shapes(TINY))
    assert all(b.abs().max() > 0 for _, b in trained.lora.factors.values())
    changed = dict(trained.base.tensors(trained.lora.heads))
    assert len(changed) == 14 and all(not torch.equal(changed[n], t) for n, t in trained.lora.heads.items())


@pytest.mark.parametrize("layout", ["peft", "lora", "full"])
def test_every_export_gives_the_trained_model_s_outputs(
    trained: Trained, exports: dict[str, Path], layout: str
) -> None:
    ways: dict[str, list[Callable[[], nn.Module]]] = {
        "peft": [
            lambda: peft.PeftModel.from_pretrained(load_dit(trained.base, dtype=torch.float32), str(exports["peft"])),
            lambda: composed(trained, exports["peft"]),
        ],
        "lora": [lambda: composed(trained, exports["lora"])],
        "full": [lambda: load_dit(open_checkpoint(exports["full"]), dtype=torch.float32)],
    }
    for way in ways[layout]:
        assert differ(outputs(way()), trained.outputs) <= ATOL


def test_no_adapter_holds_a_tensor_of_the_base(trained: Trained, exports: dict[str, Path]) -> None:
    for layout in ("peft", "lora"):
        held = open_checkpoint(exports[layout]).entries
        assert len(held) == 2 * 30 + 14
        assert all(".lora_" in name or name in fresh_names(TINY) for name in held)
        again = read_lora(open_checkpoint(exports[layout]))
        assert (again.rank, again.scale, again.base_sha256) == (4, 2.0, trained.sha256)
    base = dict(trained.base.tensors())
    for name, tensor in open_checkpoint(exports["lora"]).tensors():
        assert name not in base or not torch.equal(tensor, base[name]), name


def test_show_and_export_know_what_was_trained(trained: Trained, exports: dict[str, Path], tmp_path: Path) -> None:
    def wam(*words: object) -> str:
        ran = CliRunner().invoke(app, [str(word) for word in words])
        assert ran.exit_code == 0, ran.exception
        return ran.stdout

    titles = {
        "peft": "peft LoRA, its base's sizes are not recorded",
        "lora": "DreamZero LoRA tiny, complete",
        "full": "DreamZero checkpoint tiny, complete",
    }
    for layout, path in exports.items():
        assert wam("show", path).splitlines()[0] == f"{titles[layout]} ({path})"
        if layout != "full":
            assert f"base {trained.sha256[:12]}" in wam("show", path)
    assert wam("show", trained.base.path).startswith("DreamZero checkpoint tiny, complete")
    for layout, to in zip(titles, ("peft", "dreamzero-lora", "dreamzero"), strict=True):
        out, base = tmp_path / layout, trained.base.path
        told = json.loads(wam("export", exports["peft"], "--to", to, "--base", base, "-o", out, "--json", "-q"))
        assert (told["base_check"], told["complete"]) == (f"base verified: sha256 {trained.sha256}", layout != "peft")
        model = load_dit(open_checkpoint(out), dtype=torch.float32) if layout == "full" else composed(trained, out)
        assert differ(outputs(model), trained.outputs) <= ATOL


@pytest.mark.parametrize("size", ["tiny", "tiny-5b"])
def test_a_lora_trained_on_raw_wan_is_the_trained_model_once_merged(size: str, tmp_path: Path) -> None:
    config = preset(size)
    trained = train(open_checkpoint(write_wan(tmp_path / "wan", config)), heads_seed=3)
    assert trained.after < trained.before and torch.equal(trained.fresh_outputs, trained.base_outputs)
    facts = {"base_name": "wan", "base_sha256": trained.sha256}
    adapter = open_checkpoint(export_native(tmp_path / "lora", trained.lora, config, **facts))
    assert sum(map(is_head, adapter.entries)) == 14
    full = export_full(tmp_path / "full", trained.base, read_lora(adapter))
    for model in (load_dit(open_checkpoint(full), dtype=torch.float32), composed(trained, adapter.path)):
        assert differ(outputs(model, config), trained.outputs) <= ATOL
