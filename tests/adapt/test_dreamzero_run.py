"""A whole run on a made-up DreamZero base of the tiny size: cache, LoRA, judging, adapter, and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dreamzero_checkpoints import RUNNABLE, write_runnable
from safetensors.torch import load_file

from adapt.backbones.dreamzero.cost import DreamZeroCost
from adapt.cache.samples import open_cache
from adapt.clips import Clips
from adapt.fingerprint import base_fingerprint
from adapt.handover.adapter import read_record
from adapt.handover.export import load_adapter
from adapt.run import Means, Watch, adapt
from schemas.errors import DataError, UsageError
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, Augment, Hardware, IngestRecipe, Lora, TimeBase
from wamdata.ingest import ingest

ARM = Path(__file__).resolve().parents[2] / "tests/data/synthetic_arm.yaml"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runnable(tmp_path_factory.mktemp("base") / "tiny-agibot")


@pytest.fixture(scope="module")
def shards(lerobot_v3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("arm") / "shards"
    ingest(IngestRecipe(sources=(str(lerobot_v3),), robot=str(ARM)), out, executor="local")
    return out


def recipe(base: Path, shards: Path, films: Path, **changes) -> AdaptRecipe:
    parts = (
        MixPart(name="play", shards=str(shards), share=0.5, losses=("video", "action"), role="play"),
        MixPart(name="video", shards=str(films), share=0.5, losses=("video",), role="video"),
    )
    small = {"steps": 3, "batch": 2, "warmup": 1, "eval_every": 2, "save_every": 2, "eval_windows": 2}
    small |= {"time_base": TimeBase(chunk_s=0.8, video_fps=10.0)}  # episodes are shorter than the paper's window
    small |= {
        "window_stride_s": 3.2,
        "denoise_steps": 1,
        "samples": 2,
        "augment": Augment(copies=2),
        "lora": Lora(rank=2, alpha=2.0),
    }
    return AdaptRecipe(parts=parts, backbone="dreamzero", base=str(base), **small | changes)


def run(folder: Path, settings: AdaptRecipe, **told):
    return adapt(folder, settings, {p.name: Clips.open(Path(p.shards)) for p in settings.parts}, command="", **told)


@pytest.fixture(scope="module")
def made(base: Path, shards: Path, droid_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dz") / "run"
    run(folder, recipe(base, shards, droid_shards))
    return folder


def test_a_run_on_dreamzero_judges_against_its_base_and_leaves_a_bound_adapter(made: Path, base: Path) -> None:
    record = read_record(made / "adapter/export")
    assert record.kind == "lora" and record.backbone == "dreamzero"
    assert {"adapter_model.safetensors", "dreamzero.json", "embodiment.yaml", "statistics.json"} <= set(record.files)
    backbone, model, _, _ = load_adapter(made / "adapter/export", base)
    test = open_cache(made / "latents").all("test")
    served = backbone.act(model, test[:2], denoise_steps=1, draws=1, seed=0)
    assert np.isfinite(served.action).all() and served.action.shape == (2, 24, 7)
    assert record.base_sha256 == backbone.identify(base)


def test_what_trained_is_lora_and_heads_in_float32_and_the_base_stays(made: Path, base: Path) -> None:
    from adapt.backbones.dreamzero.backbone import dit_of
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.load import load_dit

    _, model, _, _ = load_adapter(made / "adapter/export", base)
    plain = dict(load_dit(open_checkpoint(base), dtype=torch.float32).named_parameters())
    with model.disable_adapter():
        frozen = {
            n.replace(".base_layer", "").replace(".original_module", ""): p
            for n, p in dit_of(model).named_parameters()
            if ".lora_" not in n and ".modules_to_save" not in n
        }
    assert frozen.keys() == plain.keys() and all(torch.equal(frozen[n], plain[n]) for n in plain)
    heads = [p for n, p in model.named_parameters() if p.requires_grad]
    assert heads and all(p.dtype == torch.float32 for p in heads)


def test_another_base_is_refused(made: Path, base: Path, tmp_path: Path) -> None:
    other = write_runnable(tmp_path / "other-agibot", seed=1)
    with pytest.raises(DataError, match="is not the base of this adapter"):
        load_adapter(made / "adapter/export", other)
    with pytest.raises(UsageError, match="Give its base"):
        load_adapter(made / "adapter/export")


@pytest.mark.slow
def test_encoding_on_first_use_trains_like_encoding_ahead(
    made: Path, base: Path, shards: Path, droid_shards: Path, tmp_path: Path
) -> None:
    ticks = []
    settings = recipe(base, shards, droid_shards, hardware=Hardware(encode_ahead=False))
    run(tmp_path / "lazy", settings, watch=Watch(tick=ticks.append))
    assert sum(t.encoded for t in ticks) > 0
    ahead, lazy = (load_file(folder / "train/best.safetensors") for folder in (made, tmp_path / "lazy"))
    assert ahead.keys() == lazy.keys() and all(torch.equal(ahead[n], lazy[n]) for n in ahead)


def test_a_window_of_the_14b_takes_2_69_megabytes_in_the_cache() -> None:
    """adaptation.md 2.4: latents and first-frame latents of 9 x 16 x 44 x 80, CLIP features of 257 x 1280, bfloat16."""
    from adapt.backbones.dreamzero.config import preset

    assert DreamZeroCost(preset("14b")).cached_bytes == 2 * (2 * 9 * 16 * 44 * 80 + 257 * 1280) == 2_685_440


def test_its_cache_holds_what_that_formula_says(made: Path) -> None:
    sample = open_cache(made / "latents").all("play")[0]
    encoded = {n: t for n, t in sample.encoded.items() if n != "words"}
    assert sum(t.nbytes for t in encoded.values()) == DreamZeroCost(RUNNABLE).cached_bytes


@pytest.mark.slow
def test_an_earlier_adapter_is_gone_on_from_with_its_own_normalisation(
    made: Path, base: Path, shards: Path, droid_shards: Path, tmp_path: Path
) -> None:
    start = made / "adapter/export"
    settings = recipe(base, shards, droid_shards, start=str(start), steps=1, lr=1e-9, ema=0.0)
    run(tmp_path / "more", settings)
    before, after = (load_adapter(f, base)[1] for f in (start, tmp_path / "more/adapter/export"))
    pairs = zip(before.named_parameters(), after.named_parameters(), strict=True)
    assert max(float((a - b).abs().max()) for (_, a), (_, b) in pairs) < 1e-6
    old, new = ((f / "dreamzero.json").read_text() for f in (start, tmp_path / "more/adapter/export"))
    assert old == new
    assert read_record(start).weights_sha256 != "" and base_fingerprint(dict(before.named_parameters()))


def test_dreamzero_without_a_base_is_refused_in_one_line(shards: Path, droid_shards: Path, tmp_path: Path) -> None:
    settings = recipe(Path("x"), shards, droid_shards).model_copy(update={"base": None})
    with pytest.raises(UsageError, match="needs a base to adapt"):
        run(tmp_path / "none", settings)


@pytest.mark.slow
def test_replayed_robots_keep_their_own_numbers_and_forgetting_is_told(
    base: Path, shards: Path, tmp_path: Path
) -> None:
    """The same data as another robot's: its statistics and channels are its own, and what it loses is measured."""
    play = Clips.open(shards)
    other = Clips.open(shards, play.embodiment.model_copy(update={"name": "other_arm"}))
    settings = recipe(base, shards, shards, steps=2, derived_state=("velocity",))
    parts = (
        settings.parts[0],
        MixPart(name="before", shards=str(shards), share=0.5, losses=("video", "action"), role="replay"),
    )
    settings = settings.model_copy(update={"parts": parts})
    result = adapt(tmp_path / "run", settings, {"play": play, "before": other}, command="")
    assert [row.name for row in result.report.forgetting] == ["before: action error"]
    backbone, _, _, _ = load_adapter(tmp_path / "run/adapter/export", base)
    assert backbone.robots.keys() == {play.embodiment.digest(), other.embodiment.digest()}
    sample = open_cache(tmp_path / "run/latents").all("play")[0]
    moving = backbone.batch([sample]).state[0]
    still = replace(backbone, robots={d: replace(r, velocity=None) for d, r in backbone.robots.items()}, _spaces={})
    used, told = still.batch([sample]).state[0] != 0, moving != 0
    assert (told & ~used).any() and torch.equal(moving[used], still.batch([sample]).state[0][used])


@pytest.mark.slow
def test_video_alone_trains_dreamzero_and_gets_no_action_verdict(
    base: Path, droid_shards: Path, tmp_path: Path
) -> None:
    settings = recipe(base, droid_shards, droid_shards, steps=2)
    parts = (MixPart(name="play", shards=str(droid_shards), share=1.0, losses=("video",), role="video"),)
    settings = settings.model_copy(update={"parts": parts})
    result = adapt(tmp_path / "run", settings, {"play": Clips.open(droid_shards)}, command="")
    assert result.report.verdict == "NO ACTION VERDICT" and result.report.video is not None
    _, model, _, _ = load_adapter(tmp_path / "run/adapter/export", base)
    heads = {n: p for n, p in model.named_parameters() if "state_encoder" in n or "action_" in n}
    trained = [p for n, p in heads.items() if "modules_to_save" in n]
    kept = [p for n, p in heads.items() if "original_module" in n]
    assert trained and all(torch.equal(a, b) for a, b in zip(trained, kept, strict=True))


@pytest.mark.slow  # two processes that import torch, and three runs
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_base_divided_over_two_ranks_trains_like_a_whole_one(
    precision: str, made: Path, base: Path, shards: Path, droid_shards: Path, tmp_path: Path
) -> None:
    """A step has two windows, often one of play and one of film: then only one rank has commands."""
    ends, means, told = {}, Means(store=made / "latents/store"), []
    for name, hardware in {"whole": {}, "divided": {"gpus": 2, "shard": True, "micro_batch": 1}}.items():
        settings = recipe(base, shards, droid_shards, hardware=Hardware(precision=precision, **hardware))
        run(tmp_path / name, settings, means=means, watch=Watch(note=told.append))
        ends[name] = load_file(tmp_path / name / "train/best.safetensors")
    assert not [words for words in told if "lost" in words]
    assert ends["whole"].keys() == ends["divided"].keys()
    close = {"rtol": 1e-6, "atol": 1e-9} if precision == "float64" else {"rtol": 1e-3, "atol": 1e-5}
    for name, tensor in ends["whole"].items():
        torch.testing.assert_close(ends["divided"][name], tensor, **close, msg=name)
