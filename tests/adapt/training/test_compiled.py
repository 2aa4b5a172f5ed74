"""Blocks are compiled where that works; where it does not, the run goes on without and says why."""

import pytest
import torch
from torch import nn

from adapt.training.job import compiled_or_not
from adapt.training.world import World


def failing(graph, inputs):
    raise RuntimeError("no compiler here\nand more lines")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.weight)


def model(backend) -> nn.Module:
    block = Block()
    block.compile(backend=backend)
    return nn.Sequential(block)


def test_what_does_not_compile_is_run_as_it_is() -> None:
    net, told = model(failing), []
    batch = torch.ones(2, 4)
    with pytest.raises(Exception, match="no compiler here"):
        net(batch)
    compiled_or_not(net, lambda: net(batch).sum().backward(), World(), told.append)
    assert len(told) == 1 and told[0].startswith("blocks are not compiled: ") and "no compiler here" in told[0]
    assert net[0].weight.grad is None and net(batch).shape == (2, 4)


def test_what_compiles_stays_compiled() -> None:
    net, told = model("eager"), []
    compiled_or_not(net, lambda: net(torch.ones(2, 4)).sum().backward(), World(), told.append)
    assert told == [] and net[0]._compiled_call_impl is not None and net[0].weight.grad is None


def test_a_lack_of_memory_is_not_taken_for_a_compilers_failure() -> None:
    def step() -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        compiled_or_not(model("eager"), step, World(), lambda words: None)
