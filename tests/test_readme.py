"""What the README tells a reader to type works."""

import re
from pathlib import Path

import torch
from dreamzero_checkpoints import write_released

from adapt.backbones.dreamzero.lora_weights import LoraWeights

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_for_a_lora_on_a_checkpoint_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = next(block for block in blocks if "load_dit" in block)
    write_released(tmp_path / "base")
    names: dict = {}
    exec(code.replace("DreamZero-AgiBot", str(tmp_path / "base")).replace('"cuda"', '"cpu"'), names)
    assert isinstance(names["adapter"], LoraWeights)
    assert names["adapter"].rank == 32 and len(names["adapter"].heads) == 14
    assert next(names["model"].parameters()).dtype in (torch.bfloat16, torch.float32)
