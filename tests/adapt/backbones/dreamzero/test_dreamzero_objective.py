"""Schedule, draws and training loss: what holds for any batch."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.objective import Batch, check_batch, training_loss
from adapt.backbones.dreamzero.schedule import mix, nearest_ids, training_schedule, velocity
from adapt.backbones.dreamzero.timesteps import Draws, biased_ids, draw, draw_for, share_in_chunks, stack
from schemas.errors import DataError

TINY = preset("tiny")
GRID = (4, 6)
MODES = st.sampled_from(["coupled", "decoupled", "high_noise"])
SEEDS = st.integers(0, 2**31)


@dataclass(frozen=True)
class Output:
    video: Tensor
    action: Tensor | None


class Linear(nn.Module):
    """A small network that lets each sample's video and actions see each other, those without actions only video."""

    def __init__(self, action_dim: int = TINY.action_dim) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.video = nn.Parameter(torch.randn(TINY.out_dim, TINY.out_dim, generator=generator) / 4)
        self.action = nn.Parameter(torch.randn(32, 32, generator=generator)[:action_dim, :action_dim] / 6)

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        action: Tensor | None,
        action_timestep: Tensor | None,
        has_action: tuple[bool, ...],
        **rest: Any,
    ) -> Output:
        video = torch.einsum("bcfhw,cd->bdfhw", noisy, self.video) * (timestep / 1000)[:, None, :, None, None]
        if action is None:
            return Output(video, None)
        predicted = action @ self.action * (action_timestep / 1000)[..., None] + noisy.mean((1, 2, 3, 4))[:, None, None]
        seen = torch.tensor(has_action, device=noisy.device) * action.mean((1, 2))
        return Output(video + seen[:, None, None, None, None], predicted)


class Leaky(Linear):
    """Shows every sample's action tensor to its video, whether or not the sample has actions."""

    def forward(self, *args: Any, has_action: tuple[bool, ...], **given: Any) -> Output:
        return super().forward(*args, has_action=(True,) * len(has_action), **given)


def made(seed: int, *, has_action: tuple[bool, ...], chunks: int = 2, dims: int = 8) -> Batch:
    """Random samples whose actions have `dims` valid dimensions, and a few invalid rows at the end of sample 0."""
    generator = torch.Generator().manual_seed(seed)
    size, rows = len(has_action), chunks * TINY.steps
    valid = torch.zeros(size, rows, TINY.action_dim, dtype=torch.bool)
    valid[..., :dims] = True
    valid[0, rows - seed % 7 :] = False
    action = 2 * torch.rand(size, rows, TINY.action_dim, generator=generator) - 1
    return Batch(
        latents=torch.randn(size, TINY.out_dim, 1 + 2 * chunks, *GRID, generator=generator),
        context=torch.randn(size, TINY.text_len, TINY.text_dim, generator=generator),
        has_action=has_action,
        action=action * valid,
        action_valid=valid,
        state=torch.randn(size, chunks, TINY.state_dim, generator=generator),
    )


def drawn(batch: Batch, *, seed: int = 0, mode: Any = "coupled") -> Draws:
    seeds = range(seed, seed + len(batch.latents))
    shape = tuple(batch.latents.shape[2:])
    return draw(TINY, seeds=seeds, latent_shape=shape, rows=batch.action.shape[1], mode=mode)


def sample(whole: Batch | Draws, index: int) -> Any:
    parts = {k: v[index : index + 1] for k, v in vars(whole).items() if v is not None}
    return replace(whole, **parts)


def test_known_levels_have_the_timesteps_sigmas_and_weights_that_the_formula_gives() -> None:
    schedule = training_schedule(torch.device("cpu"))
    want = {
        0: (1000, 1, 0),
        250: (937.5, 0.9375, 0.397952),
        750: (625, 0.625, 1.914043),
        999: (4.98008, 0.00498, 0.03188),
    }
    for level, (timestep, sigma, weight) in want.items():
        got = [x[level].item() for x in (schedule.timesteps, schedule.sigmas, schedule.weights)]
        assert got == pytest.approx([timestep, sigma, weight], rel=1e-5, abs=1e-5)
    assert schedule.weights.mean().item() == pytest.approx(1, abs=1e-6)


def test_every_level_is_its_own_nearest() -> None:
    schedule = training_schedule(torch.device("cpu"))
    assert nearest_ids(schedule, schedule.timesteps.reshape(10, 100)).flatten().tolist() == list(range(1000))


def test_clean_data_are_the_noisy_ones_less_sigma_times_the_target() -> None:
    clean, noise, sigma = torch.randn(3, 5), torch.randn(3, 5), torch.rand(3, 1)
    restored = mix(clean, noise, sigma) - sigma * velocity(clean, noise)
    torch.testing.assert_close(restored, clean)


def test_a_table_first_made_in_inference_mode_can_train() -> None:
    training_schedule.cache_clear()
    with torch.inference_mode():
        training_schedule(torch.device("cpu"))
    batch, model = made(0, has_action=(True,)), Linear()
    training_loss(model, batch, drawn(batch)).total.backward()
    assert model.video.grad.abs().sum() > 0


@settings(max_examples=20, deadline=None)
@given(
    seeds=st.lists(SEEDS, min_size=1, max_size=5), mode=MODES, position=st.integers(0, 4), rows=st.sampled_from([0, 48])
)
def test_a_sample_draws_the_same_whatever_it_is_batched_with(
    seeds: list[int], mode: Any, position: int, rows: int
) -> None:
    position %= len(seeds)
    batch = draw(TINY, seeds=seeds, latent_shape=(5, *GRID), rows=rows, mode=mode)
    alone = draw(TINY, seeds=[seeds[position]], latent_shape=(5, *GRID), rows=rows, mode=mode)
    for ours, theirs in zip(vars(sample(batch, position)).values(), vars(alone).values(), strict=True):
        assert torch.equal(ours, theirs)


@given(seed=SEEDS, mode=MODES)
@settings(max_examples=10, deadline=None)
def test_video_draws_do_not_depend_on_whether_actions_follow(seed: int, mode: Any) -> None:
    play, video = (draw(TINY, seeds=[seed], latent_shape=(5, *GRID), rows=rows, mode=mode) for rows in (48, 0))
    assert torch.equal(play.video_noise, video.video_noise) and torch.equal(play.video_ids, video.video_ids)
    assert video.action_noise.shape == (1, 0, TINY.action_dim) and video.action_ids.shape == (1, 0)


def test_seeds_give_different_noise_and_levels() -> None:
    draws = draw(TINY, seeds=range(50), latent_shape=(9, *GRID), rows=96)
    for tensor in vars(draws).values():
        assert len({tuple(row.flatten().tolist()) for row in tensor}) == 50


def levels(mode: Any) -> tuple[Tensor, Tensor]:
    """(N, 9) video ids and (N, 96) action ids of many samples."""
    samples = [
        draw_for(TINY, generator=torch.Generator().manual_seed(seed), latent_shape=(9, 1, 1), rows=96, mode=mode)
        for seed in range(1500)
    ]
    draws = stack(samples)
    return draws.video_ids, draws.action_ids


@pytest.mark.parametrize("mode", ["coupled", "high_noise"])
def test_coupled_actions_have_the_level_of_their_chunk(mode: Any) -> None:
    video, action = levels(mode)
    assert torch.equal(video[:, 1::2], video[:, 2::2])
    assert torch.equal(action.unflatten(1, (4, 24)), video[:, 1::2, None].expand(-1, -1, 24))
    assert (video[:, 0] != video[:, 1]).float().mean() > 0.95


def test_decoupled_actions_have_a_level_for_every_row() -> None:
    video, action = levels("decoupled")
    assert torch.equal(video[:, 1::2], video[:, 2::2])
    assert (action[:, 1:] != action[:, :-1]).float().mean() > 0.99
    assert action.float().mean().item() == pytest.approx(499.5, abs=5)
    assert action.min() == 0 and action.max() == 999


@pytest.mark.parametrize(("mode", "mean"), [("coupled", 499.5), ("high_noise", 249.5), ("decoupled", 249.5)])
def test_video_levels_have_the_mean_of_their_distribution(mode: Any, mean: float) -> None:
    """1 - Beta(3, 1) averages 1/4. Deviation of the mean of 7,500 ids: 2.2, and 3.3 for uniform ones."""
    video, _ = levels(mode)
    assert video[:, [0, 1, 3, 5, 7]].float().mean().item() == pytest.approx(mean, abs=12)


def test_biased_levels_follow_beta_3_1() -> None:
    """P(id < n) = 1 - (1 - n / 1000)^3, here over 7,500 draws."""
    video, _ = levels("high_noise")
    ids = video[:, [0, 1, 3, 5, 7]].flatten()
    for bound in (100, 300, 600, 900):
        assert (ids < bound).float().mean().item() == pytest.approx(1 - (1 - bound / 1000) ** 3, abs=0.02)


def test_the_ends_of_a_biased_draw_stay_in_the_table() -> None:
    assert biased_ids(torch.tensor([1.0, 0.0, 0.5])).tolist() == [0, 999, 500]


def test_frames_of_a_chunk_take_the_id_of_its_first() -> None:
    assert share_in_chunks(torch.tensor([[9, 1, 2, 3, 4]]), latents_per_chunk=2).tolist() == [[9, 1, 1, 3, 3]]


@pytest.mark.parametrize(("frames", "rows"), [(4, 24), (5, 24), (5, 96), (0, 0)])
def test_a_window_that_is_not_whole_chunks_is_refused(frames: int, rows: int) -> None:
    with pytest.raises(DataError, match=f"draws: {frames} latent frames and {rows} action rows; .* Cut the window"):
        draw(TINY, seeds=[0], latent_shape=(frames, *GRID), rows=rows)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), has_action=st.lists(st.booleans(), min_size=1, max_size=4).map(tuple), mode=MODES)
def test_a_batchs_loss_is_that_of_its_samples(seed: int, has_action: tuple[bool, ...], mode: Any) -> None:
    """Video: the plain mean. Actions: the mean over the samples that have any, weighted by their valid rows."""
    batch, model = made(seed, has_action=has_action), Linear()
    draws = drawn(batch, seed=seed, mode=mode)
    got = training_loss(model, batch, draws, video_weight=0.7, action_weight=1.3)
    alone = [training_loss(model, sample(batch, i), sample(draws, i)) for i in range(len(has_action))]
    rows = batch.action_valid.any(-1).sum(-1) * torch.tensor(has_action)
    video = torch.stack([one.video for one in alone]).mean()
    action = (torch.stack([one.action for one in alone]) * rows).sum() / rows.sum().clamp_min(1)
    torch.testing.assert_close(got.video, video)
    torch.testing.assert_close(got.action, action)
    torch.testing.assert_close(got.total, 0.7 * video + 1.3 * action)


def test_a_mixed_batch_is_its_play_part_and_its_video_part() -> None:
    batch, model = made(3, has_action=(True, False, True, False)), Linear()
    draws = drawn(batch)
    mixed = training_loss(model, batch, draws)
    play, video = ([0, 2], [1, 3])
    part = {}
    for name, index in (("play", play), ("video", video)):
        one = {k: v[index] for k, v in vars(batch).items() if isinstance(v, Tensor)}
        rows = slice(None) if name == "play" else slice(0, 0)
        one |= {"action": one["action"][:, rows], "action_valid": one["action_valid"][:, rows]}
        levels = {k: v[index] for k, v in vars(draws).items()}
        levels |= {k: v[:, rows] for k, v in levels.items() if k.startswith("action")}
        without = {} if name == "play" else {"state": None}
        part[name] = training_loss(
            model, replace(batch, **(one | without), has_action=(name == "play",) * 2), Draws(**levels)
        )
    torch.testing.assert_close(mixed.action, part["play"].action)
    torch.testing.assert_close(mixed.video, (part["play"].video + part["video"].video) / 2)
    assert part["video"].action.item() == 0


@pytest.mark.parametrize("dims", [8, 14])
def test_padded_dimensions_change_no_valid_loss(dims: int) -> None:
    """The same actions, once as wide as the model and once not padded at all."""
    batch = made(5, has_action=(True, True), dims=dims)
    narrow = replace(batch, action=batch.action[..., :dims], action_valid=batch.action_valid[..., :dims])
    draws = drawn(batch)
    cut = replace(draws, action_noise=draws.action_noise[..., :dims])
    wide_model, narrow_model = Blind(), Blind(dims)
    for reduction, same in (("valid", True), ("reference", False)):
        wide = training_loss(wide_model, batch, draws, reduction=reduction)
        assert torch.isclose(wide.action, training_loss(narrow_model, narrow, cut, reduction=reduction).action) == same


class Blind(Linear):
    """Predicts each action dimension from itself alone."""

    def __init__(self, action_dim: int = TINY.action_dim) -> None:
        super().__init__(action_dim)
        self.action = nn.Parameter(torch.eye(action_dim) / 3)

    def forward(self, *args: Any, has_action: tuple[bool, ...], **given: Any) -> Output:
        return super().forward(*args, has_action=(False,) * len(has_action), **given)


def test_a_row_without_valid_dimensions_counts_nowhere() -> None:
    batch = made(0, has_action=(True,))
    assert batch.action_valid.any(-1).all()
    draws, model = drawn(batch), Blind()
    short = replace(batch, action_valid=batch.action_valid.clone())
    short.action_valid[:, 24:] = False
    cut = replace(batch, action=batch.action[:, :24], action_valid=batch.action_valid[:, :24])
    first = replace(draws, action_noise=draws.action_noise[:, :24], action_ids=draws.action_ids[:, :24])
    torch.testing.assert_close(training_loss(model, short, draws).action, training_loss(model, cut, first).action)


@pytest.mark.parametrize("reduction", ["valid", "reference"])
@pytest.mark.parametrize("garbage", [1e3, float("nan")])
def test_what_is_not_a_valid_action_reaches_no_loss_and_no_gradient(reduction: Any, garbage: float) -> None:
    batch = made(2, has_action=(True, False))
    draws = drawn(batch)
    filled = batch.action.masked_fill(~batch.action_valid, garbage)
    filled[1] = garbage
    outcomes = []
    for action in (batch.action, filled):
        model, action = Leaky(), action.clone().requires_grad_()
        losses = training_loss(model, replace(batch, action=action), draws, reduction=reduction)
        losses.total.backward()
        outcomes.append((losses.total.item(), model.video.grad.tolist(), model.action.grad.tolist()))
        assert (action.grad[1] == 0).all() and (action.grad[0][~batch.action_valid[0]] == 0).all()
        assert (action.grad[0][batch.action_valid[0]] != 0).any()
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("rows", [48, 0])
@pytest.mark.parametrize("reduction", ["valid", "reference"])
def test_a_batch_without_actions_has_an_action_loss_of_exactly_0(reduction: Any, rows: int) -> None:
    batch, model = made(1, has_action=(False, False)), Linear()
    batch = replace(batch, action=batch.action[:, :rows], action_valid=batch.action_valid[:, :rows], state=None)
    losses = training_loss(model, batch, drawn(batch), reduction=reduction)
    losses.total.backward()
    assert losses.action.item() == 0 and losses.total.item() == losses.video.item() > 0
    assert model.video.grad.isfinite().all() and model.action.grad is None


def test_samples_with_actions_of_which_none_is_valid_give_no_nan() -> None:
    batch, model = made(1, has_action=(True,)), Linear()
    batch = replace(batch, action_valid=torch.zeros_like(batch.action_valid))
    losses = training_loss(model, batch, drawn(batch))
    losses.total.backward()
    assert losses.action.item() == 0 and model.action.grad.isfinite().all()


def test_a_perfect_prediction_has_no_loss() -> None:
    batch = made(4, has_action=(True, True))
    draws = drawn(batch)
    truth = Output(draws.video_noise - batch.latents, draws.action_noise - batch.action)
    losses = training_loss(lambda *_, **__: truth, batch, draws)
    assert losses.total.item() == 0


def test_the_loss_of_an_odd_grid_is_that_of_its_top_left() -> None:
    batch = made(4, has_action=(True,))
    draws = drawn(batch)
    target = draws.video_noise - batch.latents
    wrong = target.clone()
    wrong[..., -1, :], wrong[..., -1] = 99, 99
    losses = training_loss(lambda *_, **__: Output(wrong[..., :-1, :-1], torch.zeros_like(batch.action)), batch, draws)
    assert losses.video.item() == 0


def test_nothing_in_a_step_reads_a_value_back_from_the_device() -> None:
    """On the meta device there is no value to read: whatever would wait for an accelerator fails here."""
    batch = made(0, has_action=(True, False, True))
    draws = drawn(batch, mode="decoupled").to("meta")

    def network(noisy: Tensor, timestep: Tensor, context: Tensor, *, action: Tensor | None, **rest: Any) -> Output:
        return Output(noisy * timestep.mean(), action)

    for reduction in ("valid", "reference"):
        losses = training_loss(network, batch.to("meta"), draws, reduction=reduction)
        assert losses.total.device.type == "meta"


def test_bfloat16_latents_are_noised_and_judged_in_float32() -> None:
    batch = made(0, has_action=(True,))
    rounded = replace(batch, latents=batch.latents.bfloat16())
    same = replace(batch, latents=rounded.latents.float())
    draws, model = drawn(batch), Linear()
    assert training_loss(model, rounded, draws).total.item() == training_loss(model, same, draws).total.item()


def test_an_action_out_of_range_names_the_sample_and_the_range() -> None:
    batch = made(0, has_action=(True, False, True))
    batch.action[1], batch.action[0][~batch.action_valid[0]] = (
        7,
        7,
    )  # neither a sample without actions nor padding counts
    check_batch(batch)
    batch.action[2, 5, 3], batch.action[2, 6, 3] = 1.25, -1.5
    with pytest.raises(DataError, match=r"actions of sample 2 reach from -1.5 to 1.25, wanted -1 to 1"):
        check_batch(batch)
    batch.action[2, 5, 3] = float("nan")
    with pytest.raises(DataError, match="sample 2"):
        check_batch(batch)


def test_parts_of_a_batch_that_do_not_fit_are_refused() -> None:
    batch = made(0, has_action=(False, True))
    for change, match in (
        ({"has_action": (True,)}, "2 samples of latents, 1 of has_action"),
        ({"action_valid": batch.action_valid[:, :3]}, r"actions \(2, 48, 32\), action_valid \(2, 3, 32\)"),
        ({"state": None}, "sample 1 has actions, but the batch has no states"),
        ({"action": batch.action[:, :0], "action_valid": batch.action_valid[:, :0]}, "sample 1 .* no action rows"),
    ):
        with pytest.raises(DataError, match=match):
            check_batch(replace(batch, **change))
