"""What a checkpoint holds, how large it is and what packing costs."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training_jobs import same, toy_job, toy_recipe

from adapt.training import checkpoint
from adapt.training.compact import BOUND, PER_OCTAVE, pack_average, pack_moments, unpack_average, unpack_moments
from adapt.training.job import train_here
from adapt.training.world import World
from schemas.errors import DataError

MOST = 2_000_000_000  # bytes of a checkpoint


def _trained_14b(rank: int) -> dict[str, torch.Tensor]:
    """LoRA and heads of the 14B on the meta device, float32."""
    from adapt.backbones.dreamzero.config import preset
    from adapt.backbones.dreamzero.model import LORA_TARGETS
    from adapt.backbones.dreamzero.names import dit_shapes

    found = {}
    for name, shape in dit_shapes(preset("14b")).items():
        module = name.removesuffix(".weight")
        if name.startswith(("state_encoder", "action_encoder", "action_decoder")):
            found[name] = torch.empty(shape, device="meta")
        elif name.startswith("blocks.") and name != module and module.split(".", 2)[2] in LORA_TARGETS:
            found[f"{module}.lora_A"] = torch.empty(rank, shape[1], device="meta")
            found[f"{module}.lora_B"] = torch.empty(shape[0], rank, device="meta")
    return found


def _size(trained: dict[str, torch.Tensor]) -> int:
    """What `save` would write, but for some headers."""
    one = torch.ones(1)  # packing 242 million of the meta device takes half a minute
    parts = [one, pack_average(one, one), *(t for t in pack_moments(one, one).values() if t.ndim)]
    return sum(p.numel() * sum(t.nbytes for t in parts) + 8 for p in trained.values())  # 8: top and step


@pytest.mark.parametrize(("rank", "millions", "megabytes"), [(32, 242, 1942), (4, 108, 869)])
def test_a_checkpoint_of_the_14b_stays_below_two_gigabytes(rank: int, millions: int, megabytes: int) -> None:
    trained = _trained_14b(rank)
    assert sum(p.numel() for p in trained.values()) // 10**6 == millions
    assert _size(trained) < MOST and round(_size(trained) / 1e6) == pytest.approx(megabytes, abs=2)


def test_a_checkpoint_on_disk_takes_eight_bytes_a_parameter(tmp_path: Path) -> None:
    done = train_here(toy_job(tmp_path), World())
    last = sorted((tmp_path / "train").glob("step-*"))[-1]
    held = sum(p.stat().st_size for p in last.glob("*.safetensors"))
    headers = 40_000  # much, beside a model this small
    assert 8 * done.trainable_parameters < held < 8 * done.trainable_parameters + headers


@given(seed=st.integers(0, 10**6), exponent=st.integers(-30, 6), size=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_packed_moments_are_near_those_that_were_packed(seed: int, exponent: int, size: int) -> None:
    """Moments of gradients whose sizes span many orders, as AdamW makes them; what is lost is half a level of each."""
    draw = torch.Generator().manual_seed(seed)
    scale = 10.0 ** (exponent / 2 + 2 * torch.randn(size, generator=draw).clamp(-2, 2))
    mean, square = torch.zeros(size), torch.zeros(size)
    for _ in range(30):
        gradient = torch.randn(size, generator=draw) * scale
        mean.lerp_(gradient, 0.1)
        square.lerp_(gradient.square(), 0.01)
    again = unpack_moments(pack_moments(mean, square))
    lively = square > square.max() * 2.0**-60
    root, root_again = square.sqrt()[lively], again[1].sqrt()[lively]
    assert ((root_again / root) - 1).abs().max() < 0.05
    step, step_again = mean[lively] / root, again[0][lively] / root_again
    half_root, half_ratio = 2.0 ** (1 / (2 * PER_OCTAVE)) - 1, BOUND / 254
    assert (
        (step - step_again).abs() <= 1.01 * (half_root * step.abs() + half_ratio)
    ).all() and step.abs().max() < BOUND
    assert (step_again * root_again - mean[lively]).abs().le(root_again * BOUND / 254 * 1.01).all()
    assert (again[1][square > 0] > 0).all()  # a second moment of zero would make a leap of the next step


def test_packing_what_was_unpacked_changes_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    square = torch.randn(1000, generator=draw).square() * 10.0 ** torch.randint(-12, 1, (1000,), generator=draw)
    square[::7] = 0
    mean = torch.randn(1000, generator=draw) * square.sqrt() * 0.5
    once = unpack_moments(pack_moments(mean, square))
    twice = unpack_moments(pack_moments(*once))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert (once[1][::7] == 0).all() and (once[0][::7] == 0).all()


def test_the_average_keeps_its_distance_to_the_weight_to_one_part_in_256() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(1000, generator=draw)
    average = weight + 1e-3 * torch.randn(1000, generator=draw)
    again = unpack_average(pack_average(average, weight), weight)
    assert ((again - average).abs() <= (average - weight).abs() / 256 + 1e-7).all()


def test_how_often_is_saved_hardly_changes_the_result(tmp_path: Path) -> None:
    losses = {}
    for every in (1, 100):
        recipe = toy_recipe(steps=30, save_every=every, eval_every=30)
        done = train_here(toy_job(tmp_path / str(every), recipe), World())
        losses[every] = [p.value for p in done.loss]
    assert losses[1] == pytest.approx(losses[100], rel=0.01) and losses[1] != losses[100]


class _Two(nn.Module):
    """One parameter's name ends with the other's."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.ones(3))
        self.a = nn.Module()
        self.a.b = nn.Parameter(torch.ones(5))


def _stepped(model: nn.Module, steps: int) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.arange(parameter.numel(), dtype=torch.float32) + step
        optimizer.step()
    return optimizer


def test_an_optimizer_comes_back_as_its_saved_state(tmp_path: Path) -> None:
    model = _Two()
    names = {p: n for n, p in model.named_parameters()}
    optimizer = _stepped(model, 3)
    state = checkpoint.settled(optimizer, names, keep=True)
    path = checkpoint.save(tmp_path, 3, {}, state, {})
    fresh = torch.optim.AdamW(model.parameters(), lr=1e-2)
    checkpoint.load_optimizer(path, fresh, names)
    for parameter in model.parameters():
        live, loaded = optimizer.state[parameter], fresh.state[parameter]
        assert live.keys() == loaded.keys() and all(torch.equal(live[k], loaded[k]) for k in live)
    assert fresh.param_groups[0]["lr"] == 1e-2


def test_a_parameter_that_no_step_has_reached_has_no_state_after_loading_either(tmp_path: Path) -> None:
    model = _Two()
    names = {p: n for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters())
    model.b.grad = torch.ones(3)
    optimizer.step()
    path = checkpoint.save(tmp_path, 1, {}, checkpoint.settled(optimizer, names, keep=True), {})
    fresh = torch.optim.AdamW(model.parameters())
    checkpoint.load_optimizer(path, fresh, names)
    assert fresh.state[model.b] and not fresh.state[model.a.b]


def test_two_checkpoints_are_kept_whatever_their_step(tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000):
        checkpoint.save(tmp_path, step, {"weight.w": torch.ones(1)}, {}, {})
    found = checkpoint.newest(tmp_path)
    assert found is not None and found[1].step == 1_000_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1000000", "step-999999"]


def test_a_file_says_what_it_is_and_a_damaged_one_nothing(tmp_path: Path) -> None:
    path = checkpoint.write_tensors(tmp_path / "best.safetensors", {"w": torch.ones(2)}, about={"best_step": "4"})
    assert checkpoint.read_about(path) == {"best_step": "4"}
    path.write_bytes(path.read_bytes()[:-3])
    assert checkpoint.read_about(path) == {}
    with pytest.raises(DataError, match=r"best.safetensors: cannot be read"):
        checkpoint.load_tensors(path)


def test_endings_are_told_apart() -> None:
    one = {"step": "s", "curves": {}, "model": {"w": torch.ones(1)}, "optimizer": {}, "best": {}}
    assert same(one, one) and not same(one, one | {"model": {"w": torch.zeros(1)}})
