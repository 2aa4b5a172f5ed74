"""What the encoders promise beside equal numbers: loading, batches, refusals; and the pickles that weights come in."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from dreamzero_checkpoints import write_tokenizer
from torch import Tensor

from adapt.backbones.dreamzero import legacy
from adapt.backbones.dreamzero.encoders import image, text, video
from schemas.errors import DataError

ROOT = Path(__file__).resolve().parents[4]
SIZES = [
    pytest.param(video, video.TINY_WAN21, id="wan21"),
    pytest.param(video, video.TINY_WAN22, id="wan22"),
    pytest.param(text, text.TINY_UMT5, id="umt5"),
    pytest.param(image, image.TINY_VIT, id="vit"),
]
Config = video.VideoConfig | text.TextConfig | image.ImageConfig
Encoder = video.VideoEncoder | text.TextEncoder | image.ImageEncoder
LOADERS = {video: video.VideoEncoder, text: text.TextEncoder, image: image.ImageEncoder}


def random_weights(module: ModuleType, config: Config) -> dict[str, Tensor]:
    """Every original tensor, of small random numbers around 0, or around 1 where it is a norm's gain."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in module.shapes(config).items():
        is_gain = "gamma" in name or ("norm" in name and name.endswith("weight"))
        weights[name] = torch.randn(shape, generator=generator) * 0.1 + is_gain
    return weights


def loaded(module: ModuleType, config: Config, dtype: torch.dtype = torch.float32) -> Encoder:
    return LOADERS[module].load(random_weights(module, config), config, dtype=dtype)


def inputs(module: ModuleType, batch: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    if module is text:
        lengths = torch.arange(1, batch + 1) * 3
        return torch.randint(1, 64, (batch, 12), generator=generator), (torch.arange(12) < lengths[:, None]).long()
    shape = (batch, 3, 5, 16, 32) if module is video else (batch, 3, 20, 36)
    return (torch.rand(shape, generator=generator) * 2 - 1,)


def test_encoders_import_torch_and_their_errors_alone() -> None:
    code = (
        "import sys, torch, adapt.backbones.dreamzero\n"
        "before = set(sys.modules)\n"
        "from adapt.backbones.dreamzero.encoders import image, text, video\n"
        "added = {name.split('.')[0] for name in sys.modules.keys() - before}\n"
        "print(sorted(added - set(sys.stdlib_module_names)), 'schemas.recipe' in sys.modules.keys() - before)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    packages, pulls_in_recipes = ran.stdout.strip().rsplit(" ", 1)
    assert set(ast.literal_eval(packages)) <= {"adapt", "schemas", "torch"}
    assert pulls_in_recipes == "False"


@pytest.mark.parametrize(("module", "config"), SIZES)
def test_a_batch_is_encoded_as_its_samples_are_alone(module: ModuleType, config: Config) -> None:
    encoder = loaded(module, config)
    batch = inputs(module, 3)
    together = encoder.encode(*batch)
    alone = torch.cat([encoder.encode(*(t[i : i + 1] for t in batch)) for i in range(3)])
    assert (together - alone).abs().max() < 1e-5
    assert (together[0] - together[1]).abs().max() > 1e-2


@pytest.mark.parametrize(("module", "config"), SIZES)
def test_weights_load_as_bfloat16_unless_told_otherwise(module: ModuleType, config: Config) -> None:
    encoder = LOADERS[module].load(random_weights(module, config), config)
    assert {p.dtype for p in encoder.model.parameters()} == {torch.bfloat16}
    exact = loaded(module, config).encode(*inputs(module, 2))
    rounded = encoder.encode(*inputs(module, 2))
    assert rounded.dtype == (torch.float32 if module is video else torch.bfloat16)
    assert (rounded.float() - exact).norm() / exact.norm() < 0.03


@pytest.mark.parametrize(("module", "config"), SIZES)
def test_loaded_weights_are_frozen_complete_and_not_copied(module: ModuleType, config: Config) -> None:
    weights = random_weights(module, config)
    encoder = LOADERS[module].load(weights, config, dtype=torch.float32)
    assert not encoder.model.training
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert not any(t.is_meta for t in (*encoder.model.parameters(), *encoder.model.buffers()))
    storages = {t.untyped_storage().data_ptr() for t in weights.values()}
    assert {p.untyped_storage().data_ptr() for p in encoder.model.parameters()} <= storages
    assert not encoder.encode(*inputs(module, 1)).requires_grad


@pytest.mark.parametrize(("module", "config"), SIZES)
def test_every_original_tensor_but_the_unused_reaches_the_model(module: ModuleType, config: Config) -> None:
    encoder = loaded(module, config)
    held = sum(p.numel() for p in encoder.model.parameters())
    unused = image.unused(config) if module is image else {}
    needed = {name: shape for name, shape in module.shapes(config).items() if name not in unused}
    assert held == sum(torch.Size(shape).numel() for shape in needed.values())


@pytest.mark.parametrize(("module", "config"), SIZES)
def test_missing_and_unknown_tensors_are_counted_and_named(module: ModuleType, config: Config) -> None:
    weights = random_weights(module, config)
    absent, *_ = (name for name in sorted(weights) if "norm" in name)
    wrong = {f"extra.{n}" if n == absent else n: t for n, t in weights.items()}
    with pytest.raises(DataError, match=rf"1 missing \(first '{absent}'\), 1 not known \(first 'extra.{absent}'\)"):
        LOADERS[module].load(wrong, config)


@pytest.mark.parametrize(("module", "config"), SIZES)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(module: ModuleType, config: Config) -> None:
    weights = random_weights(module, config)
    name = next(name for name in sorted(weights) if "norm" in name)
    shape = tuple(weights[name].shape)
    weights[name] = torch.ones(7)
    with pytest.raises(DataError) as error:
        LOADERS[module].load(weights, config)
    assert f"{name!r} is (7,), wanted {shape}" in str(error.value)


def test_only_the_logit_scale_and_the_projection_are_ignored_and_either_may_be_absent() -> None:
    weights = random_weights(image, image.TINY_VIT)
    features = image.ImageEncoder.load(weights, image.TINY_VIT, dtype=torch.float32).encode(*inputs(image, 1))
    for name in ("log_scale", "visual.head"):
        del weights[name]
    without = image.ImageEncoder.load(weights, image.TINY_VIT, dtype=torch.float32).encode(*inputs(image, 1))
    assert torch.equal(features, without)
    with pytest.raises(DataError, match=r"1 not known \(first 'visual.tail'\)"):
        image.ImageEncoder.load(weights | {"visual.tail": torch.ones(1)}, image.TINY_VIT)


def test_three_thirds_of_qkv_go_to_query_key_and_value_in_this_order() -> None:
    weights = random_weights(image, image.TINY_VIT)
    layer = loaded(image, image.TINY_VIT).model.vision_model.encoder.layers[1].self_attn
    whole = weights["visual.transformer.1.attn.to_qkv.weight"]
    got = torch.cat([layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight])
    assert torch.equal(got, whole)


def test_pixels_become_minus_one_to_one() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert torch.allclose(video.to_model_range(pixels), torch.tensor([-1.0, -0.6, 1.0]))


@pytest.mark.parametrize("frames", [2, 4, 8, 0])
def test_a_video_whose_frames_do_not_fill_latent_frames_is_refused(frames: int) -> None:
    encoder = loaded(video, video.TINY_WAN21)
    with pytest.raises(DataError, match=r"T = 1, 5, 9"):
        encoder.encode(torch.zeros(1, 3, frames, 16, 16))


def test_a_picture_that_does_not_fill_latent_cells_is_refused() -> None:
    encoder = loaded(video, video.TINY_WAN22)
    with pytest.raises(DataError, match=r"24x32 pixels: wanted multiples of 16"):
        encoder.encode(torch.zeros(1, 3, 1, 24, 32))


@pytest.mark.parametrize("config", [video.TINY_WAN21, video.TINY_WAN22], ids=["wan21", "wan22"])
def test_latents_depend_on_no_later_frame(config: video.VideoConfig) -> None:
    encoder = loaded(video, config)
    (frames,) = inputs(video, 1)
    changed = frames.clone()
    changed[:, :, 1:] = -changed[:, :, 1:]
    before, after = encoder.encode(frames), encoder.encode(changed)
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert (before[:, :, 1] - after[:, :, 1]).abs().max() > 1e-3


def test_first_frame_conditioning_marks_frame_0_and_still_sees_it_in_the_grey_ones() -> None:
    encoder = loaded(video, video.TINY_WAN21)
    (frames,) = inputs(video, 2)
    conditioning = encoder.first_frame(frames[:, :, 0], frames=33)
    assert conditioning.shape == (2, 20, 9, 2, 4)
    assert (conditioning[:, :4, 0] == 1).all() and not conditioning[:, :4, 1:].any()
    assert (conditioning[:, 4:, 0] - encoder.encode(frames[:, :, :1])[:, :, 0]).abs().max() < 1e-6
    assert (conditioning[0, 4:, 1:] != conditioning[1, 4:, 1:]).flatten(2).any(dim=2).any(dim=0).all()


def test_decoded_video_has_its_frames_back_and_stays_in_range() -> None:
    encoder = loaded(video, video.TINY_WAN22)
    latents = torch.randn(2, 48, 3, 1, 2, generator=torch.Generator().manual_seed(0)) * 50
    pixels = encoder.decode(latents)
    assert pixels.shape == (2, 3, 9, 16, 32) and pixels.dtype == torch.float32
    assert pixels.abs().max() <= 1


def test_denormalising_undoes_normalising() -> None:
    latents = torch.randn(2, 48, 3, 1, 2, generator=torch.Generator().manual_seed(0))
    back = video.denormalise(video.normalise(latents, video.WAN22), video.WAN22)
    assert (back - latents).abs().max() < 1e-6


def test_embeddings_do_not_depend_on_what_fills_the_padding() -> None:
    encoder = loaded(text, text.TINY_UMT5)
    ids, mask = inputs(text, 2)
    other = torch.where(mask == 1, ids, 63 - ids)
    assert torch.equal(encoder.encode(ids, mask), encoder.encode(other, mask))


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  pick\tup \n the  cup ", "pick up the cup"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("a &lt;b&gt;", "a <b>"),
        ("", ""),
    ],
)
def test_prompts_are_cleaned_of_entities_and_stray_blanks(raw: str, cleaned: str) -> None:
    assert text.clean(raw) == cleaned


def test_ftfy_repairs_a_prompt_before_the_rest_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    straight = ModuleType("ftfy")
    straight.fix_text = lambda raw: raw.replace("\u2019", "'").replace("[gap]", "&amp;nbsp;")
    monkeypatch.setitem(sys.modules, "ftfy", straight)
    assert text.clean("the cup\u2019s[gap]lid") == "the cup's lid"
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert text.clean("the cup\u2019s  lid") == "the cup\u2019s lid"


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("umt5"))


def test_prompts_are_cleaned_tokenized_ended_and_padded_on_the_right(tokenizer_path: Path) -> None:
    ids, mask = text.tokenize(["pick  up the cup", "the &amp;amp; cup\n", ""], tokenizer_path)
    assert ids.shape == mask.shape == (3, 512)
    assert ids.dtype == torch.int64
    assert ids[0, :6].tolist() == [3, 4, 5, 6, 1, 0]
    assert ids[1, :5].tolist() == [5, 7, 6, 1, 0]
    assert ids[2, :2].tolist() == [1, 0]
    assert mask.sum(dim=1).tolist() == [5, 4, 1]
    assert (mask == (torch.arange(512) < mask.sum(dim=1, keepdim=True))).all()


def test_a_long_prompt_is_cut_and_still_ended(tokenizer_path: Path) -> None:
    ids, mask = text.tokenize(["cup " * 600], tokenizer_path)
    assert ids[0].tolist() == [6] * 511 + [1]
    assert mask.all()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no umt5 tokenizer to read"):
        text.tokenize(["pick"], tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        text.tokenize(["pick"], tmp_path / "absent")


WEIGHTS = {"encoder.conv1.weight": torch.arange(6.0).view(2, 3), "conv1.bias": torch.ones(2, dtype=torch.bfloat16)}


@pytest.mark.parametrize("name", [legacy.TEXT_FILE, *legacy.VIDEO_FILES])
@pytest.mark.parametrize("wrapper", [None, "model_state", "state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_published_pickles_are_read(tmp_path: Path, name: str, wrapper: str | None, zipped: bool) -> None:
    content = {wrapper: WEIGHTS, "epoch": 3} if wrapper else WEIGHTS
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    tensors = legacy.read_pth(tmp_path / name)
    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[n], t) and tensors[n].dtype == t.dtype for n, t in WEIGHTS.items())


def test_of_the_clip_pickle_only_the_picture_tower_is_kept(tmp_path: Path) -> None:
    names = ("visual.head", "log_scale", "textual.head.0.weight", "textual.token_embedding.weight")
    torch.save({name: torch.ones(1) for name in names}, tmp_path / legacy.IMAGE_FILE)
    assert legacy.read_pth(tmp_path / legacy.IMAGE_FILE).keys() == {"visual.head", "log_scale"}


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_in_one_line_and_its_code_does_not_run(tmp_path: Path, zipped: bool) -> None:
    path, evidence = tmp_path / legacy.VIDEO_FILES[0], tmp_path / "evidence"
    content = WEIGHTS | {"payload": Payload(evidence)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match="not a file of plain tensors") as error:
        legacy.read_pth(path)
    assert "\n" not in str(error.value)
    assert not evidence.exists()
    pickle.loads(pickle.dumps(Payload(evidence)))
    assert evidence.exists(), "the payload does nothing, so its silence above proves nothing"


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / legacy.TEXT_FILE
    torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="Download it again"):
        legacy.read_pth(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="Download it again"):
        legacy.read_pth(path)


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / legacy.TEXT_FILE
    torch.save({"epoch": 3}, path)
    with pytest.raises(DataError, match="wanted names and tensors"):
        legacy.read_pth(path)


def test_no_other_file_is_unpickled(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "model.pth")
    with pytest.raises(DataError, match=r"model.pth: not unpickled.*\.safetensors"):
        legacy.read_pth(tmp_path / "model.pth")
    with pytest.raises(DataError, match="no such file"):
        legacy.read_pth(tmp_path / legacy.TEXT_FILE)
