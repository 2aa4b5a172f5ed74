"""A training step on a GPU asks the device for nothing: the host runs ahead of it."""

import numpy as np
import pytest
import torch
from torch import Tensor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

STEPS, WARM = 6, 3


class Tiny:
    """DreamZero's tiny transformer as the loop needs a backbone: losses of made-up batches, pinned as the real ones."""

    head_modules = ("state_encoder", "action_encoder", "action_decoder")

    def __init__(self, config, device: torch.device) -> None:
        self.config, self.device = config, device

    def loss(self, model, samples, *, seed: int, epochs, of) -> dict[str, Tensor]:
        from dreamzero_checkpoints import some_inputs

        from adapt.backbones.dreamzero.objective import Batch, training_loss
        from adapt.backbones.dreamzero.timesteps import draw

        made = some_inputs(self.config, seed=epochs[0])
        batch = Batch(
            latents=made["clean"],
            context=made["context"],
            has_action=(True,),
            action=made["action"].tanh(),
            action_valid=torch.ones(made["action"].shape, dtype=torch.bool),
            state=made["state"],
            y=made.get("y"),
            clip=made["clip"],
        )
        rows = batch.action.shape[1]
        drawn = draw(self.config, seeds=[seed], latent_shape=tuple(batch.latents.shape[2:]), rows=rows)
        found = training_loss(model, _moved(batch, self.device), _moved(drawn, self.device), of=(1, rows))
        return {"video": found.video, "action": found.action}


def _moved(parts, device: torch.device):
    from adapt.backbones.dreamzero.backbone import _moved

    return _moved(parts, device)


def test_no_step_after_the_first_ones_waits_for_the_device(tmp_path) -> None:
    from types import SimpleNamespace

    from adapt.backbones.base import Totals
    from adapt.backbones.dreamzero.config import preset
    from adapt.backbones.dreamzero.model import build
    from adapt.cache.feed import Step
    from adapt.planning.rung import Rung
    from adapt.training.loop import Course, HeldOut, _Training
    from adapt.training.world import World

    device, config = torch.device("cuda", 0), preset("tiny")
    model = build(config, device=device, seed=0)
    fixed = {"lr": 1e-4, "heads_lr": 1.0, "weight_decay": 0.01, "warmup": 1, "ema": 0.9, "seed": 0, "patience": 0}
    losses = SimpleNamespace(video=1.0, action=1.0)
    recipe = SimpleNamespace(**fixed, base=None, losses=losses, eval_every=100, save_every=100)
    silent = [lambda *_: None] * 3
    rung = Rung(weights="float32", activations="full", micro_batch=1)
    run = _Training(
        Tiny(config, device), model, HeldOut([], None), recipe, tmp_path, Course(100), rung,
        World(device=device), *silent,
    )  # fmt: skip
    for number in range(STEPS):
        if number == WARM:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            run._descend(Step(number, [number], [object()], Totals(1, 1)))
        finally:
            if number == STEPS - 1:
                torch.cuda.set_sync_debug_mode("default")
    found = [step for step, *_ in run.ledger.arrived(wait=True)]
    assert len(run.curves.loss) + len(found) == STEPS and np.isfinite([p.value for p in run.curves.loss]).all()
