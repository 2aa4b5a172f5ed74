"""DreamZero and the training loop need torch, safetensors and peft alone: a rented GPU machine has little else."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BLOCKER = """
import sys
class Bare:
    blocked = {"pydantic", "yaml", "ray", "lerobot", "decord", "diffusers", "datasets", "webdataset", "av", "pyarrow",
               "typer", "rich", "matplotlib", "jinja2", "PIL"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked or (name.startswith("schemas.") and name not in
                                                  ("schemas.errors", "schemas.files")):
            raise ImportError(f"{name} is not on this machine")
sys.meta_path.insert(0, Bare())
"""
FORGET = "for m in [m for m in sys.modules if m.split('.')[0] in Bare.blocked]: del sys.modules[m]\n"


def run_bare(code: str) -> str:
    """Run code where only the bare packages can be imported.

    peft asks transformers, which asks for PIL and yaml: it is imported before the door closes, as on such a machine.
    """
    program = f"import peft, torch, safetensors\n{BLOCKER}{FORGET}{code}"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.slow
def test_every_module_of_dreamzero_and_the_loop_imports_on_a_bare_machine() -> None:
    modules = [
        str(f.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for f in sorted((ROOT / "adapt/backbones/dreamzero").rglob("*.py"))
        if f.name not in ("house.py", "backbone.py")  # these know robot files
    ]
    modules += [
        "adapt.training.loop",
        "adapt.training.lora",
        "adapt.training.checkpoint",
        "adapt.fingerprint",
        "adapt.training.optim",
        "adapt.training.world",
    ]
    assert len(modules) > 20
    assert run_bare(f"import importlib\nfor m in {modules!r}: importlib.import_module(m)\nprint('fine')") == "fine\n"


@pytest.mark.slow
def test_a_lora_step_and_a_decision_run_on_a_bare_machine() -> None:
    code = """
import torch
from adapt.backbones.dreamzero.model import build, LORA_TARGETS, HEAD_MODULES
from adapt.backbones.dreamzero.objective import Batch, training_loss
from adapt.backbones.dreamzero.policy import Policy, Sampling
from adapt.backbones.dreamzero.timesteps import draw
model = build("tiny", device="cpu", seed=0)
config = model.config
lora = peft.LoraConfig(r=2, target_modules=[*LORA_TARGETS], modules_to_save=[*HEAD_MODULES])
wrapped = peft.get_peft_model(model, lora)
video = torch.randn(1, 16, 9, 4, 6)
batch = Batch(video, torch.randn(1, 16, 48), (True,), torch.rand(1, 96, 32), torch.ones(1, 96, 32, dtype=torch.bool),
              torch.randn(1, 4, 64), torch.randn(1, 20, 9, 4, 6), torch.randn(1, 257, 1280))
losses = training_loss(wrapped, batch, draw(config, seeds=[0], latent_shape=(9, 4, 6), rows=96))
losses.total.backward()
policy = Policy(model, Sampling(steps=2, computed=2))
session = policy.start(batch.context, video[:, :, :1], clip=batch.clip, y=batch.y)
print(float(losses.total) > 0, policy.act(session, batch.state[:, :1]).action.shape)
"""
    assert run_bare(code) == "True torch.Size([1, 24, 32])\n"
