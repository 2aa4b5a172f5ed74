"""Pictures, words and numbers on their way into nano and back, on real DROID frames where there are pixels."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from adapt.backbones.nano import canvas, text
from adapt.backbones.nano.autoencoder import Autoencoder, AutoencoderFit, hold, psnr
from adapt.backbones.nano.normalizer import ABSOLUTE, Normalizer

DROID = Path(__file__).parents[2] / "data" / "droid_video"


@pytest.fixture(scope="module")
def views() -> dict[str, np.ndarray]:
    """33 frames of each DROID camera."""
    frames = {}
    for path in sorted(DROID.glob("*.mp4")):
        with av.open(str(path)) as container:
            decoded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
            frames[path.stem] = np.stack([frame for _, frame in zip(range(33), decoded, strict=False)])
    return frames


@pytest.fixture(scope="module")
def picture(views: dict[str, np.ndarray]) -> Tensor:
    return canvas.tile(views, canvas.canvas_for(len(views)))[None]


def fitted(picture: Tensor, channels: int = 48, whiten: float = 1.0) -> Autoencoder:
    fit = AutoencoderFit(patch=8, group=4)
    fit.add(picture)
    return fit.finish(static_channels=channels, motion_channels=channels // 3, whiten=whiten)


def test_views_fill_tiles_row_by_row_and_an_empty_tile_is_black() -> None:
    views = {name: np.full((2, 10, 14, 3), value, np.uint8) for name, value in [("a", 10), ("b", 20), ("c", 30)]}
    tiled = canvas.tile(views, (8, 12))
    assert tiled.shape == (2, 8, 12, 3) and tiled.dtype == torch.uint8
    corners = [tiled[1, y, x, 0].item() for y in (0, 7) for x in (0, 11)]
    assert corners == [10, 20, 30, 0]


def test_resizing_averages_areas() -> None:
    frame = np.zeros((1, 4, 4, 3), np.uint8)
    frame[0, :2, :2] = [[[0], [100]], [[100], [200]]]
    assert canvas.tile({"a": frame}, (2, 2))[0, :, :, 0].tolist() == [[100, 0], [0, 0]]


def test_autoencoder_keeps_real_frames_recognisable(picture: Tensor) -> None:
    coder = fitted(picture)
    latents = coder.encode(picture)
    assert latents.shape == (1, 9, 64, 8, 12)
    assert psnr(coder.decode(latents), picture.float() / 255) > 26


def test_all_channels_give_the_frames_back(picture: Tensor) -> None:
    fit = AutoencoderFit(patch=4, group=4)
    fit.add(picture)
    coder = fit.finish(static_channels=48, motion_channels=144)
    assert psnr(coder.decode(coder.encode(picture)), picture.float() / 255) > 60


@pytest.mark.parametrize("whiten", [0.0, 1.0])
def test_latents_have_unit_spread(picture: Tensor, whiten: float) -> None:
    latents = fitted(picture, whiten=whiten).encode(picture)
    assert latents[:, 1:].std().item() == pytest.approx(1, abs=0.2)


def test_one_pass_or_many_fit_the_same_autoencoder(picture: Tensor) -> None:
    fit = AutoencoderFit(patch=8, group=4)
    for part in (picture[:, :, :64], picture[:, :, 64:], picture):
        fit.add(torch.cat([part]))
    once, again = fitted(picture, 8), fit.finish(static_channels=8, motion_channels=2)
    torch.testing.assert_close(once.static_basis, again.static_basis, atol=1e-2, rtol=1e-2)


def test_hold_decodes_to_the_last_frame_repeated(picture: Tensor) -> None:
    coder = fitted(picture)
    latents = coder.encode(picture)
    held = coder.decode_groups(hold(latents[:, -1:], coder.static_channels))
    last = coder.decode(latents)[:, -1:]
    torch.testing.assert_close(held, last.expand_as(held))


def test_the_first_frame_alone_has_the_latent_it_has_in_a_window(picture: Tensor) -> None:
    coder = fitted(picture)
    torch.testing.assert_close(coder.encode(picture[:, :1]), coder.encode(picture)[:, :1], atol=1e-4, rtol=1e-4)


def test_saved_autoencoder_is_the_same_autoencoder(picture: Tensor) -> None:
    coder = fitted(picture)
    again = Autoencoder.from_tensors({name: tensor.clone() for name, tensor in coder.to_tensors().items()})
    assert again.fingerprint == coder.fingerprint
    assert torch.equal(again.encode(picture), coder.encode(picture))
    assert fitted(picture, 12).fingerprint != coder.fingerprint


def test_words_are_hashed_alike_everywhere_and_no_words_are_no_text() -> None:
    first, again, other = (text.embed(t, 64) for t in ("Pick up the cup.", "pick up  the CUP", "pick up the bottle"))
    assert torch.equal(first, again)
    assert first.norm().item() == pytest.approx(1)
    assert 0 < (first @ other).item() < 1
    assert not text.embed(" .", 64).any()


RELATIVE = torch.tensor([2, ABSOLUTE, 0])


def made_up_chunks(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(50, 3, generator=generator) * torch.tensor([1.0, 0.01, 100.0])
    history = state[:, None] + 0.1 * torch.randn(50, 2, 3, generator=generator)
    action = torch.randn(50, 4, 3, generator=generator) + state[:, None, [2, 1, 0]]
    return {"state": state, "history": history, "action": action, "action_valid": torch.rand(50, 4) > 0.3}


@pytest.mark.parametrize("seed", range(5))
def test_normalised_actions_are_undone(seed: int) -> None:
    chunks = made_up_chunks(seed)
    norm = Normalizer.fit(**chunks, relative_columns=RELATIVE)
    model = norm.actions_to_model(chunks["action"], state=chunks["state"])
    back = norm.actions_from_model(model, state=chunks["state"])
    torch.testing.assert_close(back, chunks["action"], atol=1e-4, rtol=1e-5)


def test_zero_means_standing_still_or_the_mean_of_an_absolute_command() -> None:
    chunks = made_up_chunks(0)
    norm = Normalizer.fit(**chunks, relative_columns=RELATIVE)
    action = norm.actions_from_model(torch.zeros(50, 4, 3), state=chunks["state"])
    assert torch.equal(action[:, 0, [0, 2]], chunks["state"][:, [2, 0]])
    torch.testing.assert_close(action[0, 0, 1], chunks["action"][chunks["action_valid"]].mean(0)[1])


def test_a_joint_that_never_moved_is_not_blown_up() -> None:
    chunks = made_up_chunks(0)
    chunks["action"] = chunks["state"][:, None, [2, 1, 0]] + torch.tensor([1.0, 0.0, 1e-7]) * torch.randn(50, 4, 3)
    norm = Normalizer.fit(**chunks, relative_columns=RELATIVE)
    assert norm.actions_to_model(chunks["action"], state=chunks["state"])[..., 2].abs().max() < 1e-4


def test_invalid_rows_do_not_count() -> None:
    chunks = made_up_chunks(0)
    spoilt = dict(chunks, action=torch.where(chunks["action_valid"][..., None], chunks["action"], torch.tensor(1e6)))
    clean, other = (Normalizer.fit(**c, relative_columns=RELATIVE).to_tensors() for c in (chunks, spoilt))
    assert all(torch.equal(clean[name], other[name]) for name in clean)


def test_saved_normalizer_is_the_same_normalizer() -> None:
    norm = Normalizer.fit(**made_up_chunks(0), relative_columns=RELATIVE)
    again = Normalizer.from_tensors(norm.to_tensors())
    assert all(torch.equal(a, again.to_tensors()[name]) for name, a in norm.to_tensors().items())


def test_the_last_command_uses_the_scale_of_a_chunks_first() -> None:
    chunks = made_up_chunks(0)
    norm = Normalizer.fit(**chunks, relative_columns=RELATIVE)
    model = norm.last_action_to_model(chunks["action"][:, 0], state=chunks["state"])
    torch.testing.assert_close(model, norm.actions_to_model(chunks["action"], state=chunks["state"])[:, 0])
