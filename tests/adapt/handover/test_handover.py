"""What is exported acts as the trained model: checks, verification in a fresh process, merging, the model card."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.backbones.base import Latents, Prediction
from adapt.backbones.nano.backbone import NanoBackbone
from adapt.clips import Clips
from adapt.fingerprint import base_fingerprint
from adapt.handover.adapter import CHECK, FULL, RECORD, read_record
from adapt.handover.card import base_licence, card
from adapt.handover.check import Settings, Verified, check_bytes, read_check, verify, verify_here
from adapt.handover.export import export_adapter, load_adapter, merge_adapter, read_report
from adapt.planning.rung import Rung
from adapt.training.lora import with_lora
from schemas.errors import DataError, UsageError
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, IngestRecipe, Lora, TimeBase
from schemas.report import Report, SplitPart
from wamdata.ingest import ingest
from wamdata.windows import HISTORY_LAGS

ARM = Path(__file__).resolve().parents[3] / "tests/data/synthetic_arm.yaml"
TIME_BASE = TimeBase(chunk_s=0.8, video_fps=10.0)
FLOAT32 = Rung(weights="float32")


def recipe(shards: Path, **changes) -> AdaptRecipe:
    part = MixPart(name="play", shards=str(shards), share=1.0, losses=("video", "action"), role="play")
    small = {"time_base": TIME_BASE, "denoise_steps": 2, "lora": Lora(rank=4, alpha=4), "derived_state": ("velocity",)}
    return AdaptRecipe(parts=(part,), backbone="nano", **small | changes)


def report_of(robot: str) -> Report:
    """A report of nothing but its verdict, with a machine's paths in it."""
    return Report(
        verdict="FAIL",
        reason="made up",
        robot=robot,
        backbone="nano",
        base="/somewhere/on/this/machine",
        information=(),
        chunk_s=0.8,
        action_hz=30.0,
        split={"train": SplitPart(episodes=("a", "b"), minutes=1.5, windows=7)},
        action=None,
        video=None,
        training=None,
        rejects={},
        notes=(),
        provenance={"command": "wam adapt /somewhere/on/this/machine", "made with": "a test"},
    )


def windows(backbone: NanoBackbone, clips: Clips) -> list[Latents]:
    """Made-up encoded windows of the robot, with one and with three chunks of context."""
    robot, config = clips.embodiment, backbone.config
    made = []
    for chunks in (2, 4):
        rng = np.random.default_rng(chunks)
        shape = (1 + chunks * config.latents_per_chunk, config.channels, *config.grid)
        state = rng.normal(size=(chunks, robot.state_width)).astype(np.float32)
        action = rng.normal(size=(chunks, config.steps, robot.action_width)).astype(np.float32)
        row = {
            "history": rng.normal(size=(chunks, len(HISTORY_LAGS), robot.state_width)).astype(np.float32),
            "last_action": action[:, 0],
            "action_valid": np.ones((chunks, config.steps), bool),
        }
        video = torch.from_numpy(rng.normal(size=shape).astype(np.float32)).half()
        facts = {"copy": 0, "clip_key": "c", "start": 0, "text": "push the blue square", "robot": robot.digest()}
        frames = np.zeros((0, 0, 0, 3), np.uint8)
        made.append(
            Latents(
                window_id=f"w{chunks}",
                encoded={"video": video},
                frames=frames,
                state=state,
                action=action,
                **row,
                **facts,
            )
        )
    return made


def exported(out: Path, settings: AdaptRecipe, clips: Clips, base: Path | None = None) -> Path:
    """An adapter directory as a run would write it, its weights drawn in place of trained."""
    if base is None:
        backbone = NanoBackbone.fit(clips, [clips], settings)
        model = backbone.build(seed=3, base=None, rung=FLOAT32, dtype=torch.float32)
    else:
        backbone = NanoBackbone.on_base(base, clips, settings)
        model = backbone.build(seed=3, base=base, rung=FLOAT32, dtype=torch.float32)
        model = with_lora(model, settings.lora, backbone, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    samples = windows(backbone, clips)
    report = report_of(clips.embodiment.name)
    export_adapter(out, backbone, model, settings, clips, report, licences=("CC-BY-4.0",), samples=samples)
    return out


@pytest.fixture(scope="module")
def arm(lerobot_v3: Path, tmp_path_factory: pytest.TempPathFactory) -> Clips:
    out = tmp_path_factory.mktemp("arm") / "shards"
    ingest(IngestRecipe(sources=(str(lerobot_v3),), robot=str(ARM)), out, executor="local")
    return Clips.open(out)


@pytest.fixture(scope="module")
def full(arm: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("full") / "full", recipe(arm.folder), arm)


@pytest.fixture(scope="module")
def lora(arm: Clips, full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("lora") / "lora", recipe(arm.folder, base=str(full)), arm, full)


def test_a_fresh_process_acts_as_the_trained_model_did(lora: Path, full: Path) -> None:
    found = verify(lora, full)
    assert found.is_equal and found.proves and found.windows == 2
    assert found.unit in ("rad", "fraction") and 0 < found.tolerance < 0.1
    assert "verified: on 2 windows" in found.words


def test_a_lora_without_its_base_cannot_be_verified(lora: Path) -> None:
    with pytest.raises(UsageError, match="a LoRA adapter. Give its base"):
        verify_here(lora)


def test_weights_that_fit_their_hashes_but_act_otherwise_are_found(full: Path, tmp_path: Path) -> None:
    """As after an export that lost or misplaced a tensor: all hashes are right, the actions are not."""
    shutil.copytree(full, tmp_path / "a")
    tensors = load_file(tmp_path / "a" / FULL)
    name = next(n for n in tensors if "action" in n and n.endswith("weight") and tensors[n].abs().max() > 0)
    save_file(tensors | {name: tensors[name] * 1.5}, tmp_path / "a" / FULL)
    record = json.loads((tmp_path / "a" / RECORD).read_text())
    from schemas.files import file_sha256

    record["weights_sha256"] = base_fingerprint(load_file(tmp_path / "a" / FULL))
    record["files"][FULL] = file_sha256(tmp_path / "a" / FULL)
    (tmp_path / "a" / RECORD).write_text(json.dumps(record))
    found = verify_here(tmp_path / "a")
    assert not found.is_equal and "NOT THE TRAINED MODEL" in found.words


def test_numbers_that_are_not_finite_never_verify() -> None:
    assert not Verified(float("nan"), "rad", 1, 1.0, "arm", "float32").is_equal


def test_a_check_comes_back_as_it_was_written(lora: Path, full: Path, tmp_path: Path) -> None:
    check = read_check(lora)
    (tmp_path / CHECK).write_bytes(check_bytes(check.samples, check.prediction, check.settings))
    again = read_check(tmp_path)
    assert again.settings == check.settings and np.array_equal(again.prediction.action, check.prediction.action)
    for one, other in zip(again.samples, check.samples, strict=True):
        assert torch.equal(one.video, other.video) and one.video.dtype == torch.float16
        assert (one.text, one.window_id, one.chunks) == (other.text, other.window_id, other.chunks)
        assert np.array_equal(one.action_valid, other.action_valid) and one.action_valid.dtype == bool


def test_a_damaged_check_is_named(full: Path, tmp_path: Path) -> None:
    (tmp_path / CHECK).write_bytes((full / CHECK).read_bytes()[:100])
    with pytest.raises(DataError, match=r"check\.safetensors: cannot be read"):
        read_check(tmp_path)


def test_the_check_can_be_taken_out_and_its_absence_is_told(full: Path, tmp_path: Path) -> None:
    shutil.copytree(full, tmp_path / "a")
    (tmp_path / "a" / CHECK).unlink()
    load_adapter(tmp_path / "a")
    with pytest.raises(UsageError, match=r"holds no check\.safetensors"):
        verify_here(tmp_path / "a")


def test_a_merged_adapter_acts_alike_is_a_base_and_remembers_what_both_saw(
    lora: Path, full: Path, arm: Clips, tmp_path: Path
) -> None:
    record = merge_adapter(lora, full, tmp_path / "merged")
    found = verify_here(tmp_path / "merged")
    assert found.is_equal and found.max_difference < 1e-4
    below = read_record(full)
    assert record.kind == "full" and record.base_name.startswith("merged: LoRA on")
    assert set(record.trained_on) == {*read_record(lora).trained_on, *below.trained_on}
    assert record.base_sha256 == NanoBackbone.identify(tmp_path / "merged") != below.base_sha256
    settings = recipe(arm.folder, base=str(tmp_path / "merged"))
    on_top = exported(tmp_path / "again", settings, arm, tmp_path / "merged")
    assert verify_here(on_top, tmp_path / "merged").is_equal
    with pytest.raises(UsageError, match="nothing to merge"):
        merge_adapter(full, full, tmp_path / "twice")
    with pytest.raises(DataError, match="is not the base of this adapter"):
        merge_adapter(lora, tmp_path / "merged", tmp_path / "wrong")


def test_without_actions_the_imagined_video_is_compared(droid_shards: Path, tmp_path: Path) -> None:
    clips = Clips.open(droid_shards)
    part = MixPart(name="play", shards=str(droid_shards), share=1.0, losses=("video",), role="video")
    settings = recipe(droid_shards).model_copy(update={"parts": (part,)})
    folder = exported(tmp_path / "v", settings, clips)
    found = verify_here(folder)
    assert found.is_equal and found.unit == "latent units" and found.component == "imagined video"
    check = read_check(folder)
    other = Prediction(check.prediction.action, check.prediction.video + 0.5)
    (folder / CHECK).write_bytes(check_bytes(check.samples, other, check.settings))
    record = json.loads((folder / RECORD).read_text())
    del record["files"][CHECK]
    (folder / RECORD).write_text(json.dumps(record))
    assert not verify_here(folder).is_equal


def test_a_change_below_the_tolerance_is_said_to_prove_little() -> None:
    words = Verified(0.0, "rad", 3, 0.1, "arm", "nf4", proves=False).words
    assert "this proves little" in words


def test_the_card_starts_with_a_header_and_the_verdict_and_hides_this_machine(lora: Path) -> None:
    import yaml

    text = (lora / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    told = yaml.safe_load(header)
    assert told["library_name"] == "wamkit" and told["license"] == "cc-by-4.0" and "lora" in told["tags"]
    assert body.strip().splitlines()[2].startswith("**FAIL**: made up")
    for wanted in ("1.5 min", "rank 4", "load_adapter(", "--verify --base", "exterior 128x96", "blue square"):
        assert wanted in text, wanted
    for file in (p for p in lora.iterdir() if p.suffix in (".json", ".md", ".yaml")):
        assert "/somewhere/on" not in file.read_text(), file
    assert read_report(lora).base == read_record(lora).base_name


def test_a_base_for_research_alone_makes_the_adapter_one(lora: Path) -> None:
    assert base_licence("dreamzero-droid") == base_licence("my-DROID-copy") == "CC-BY-NC-4.0"
    assert base_licence("dreamzero-agibot") == "Apache-2.0" and base_licence("mine") is None
    values = dict(read_record(lora)) | {"base_name": "dreamzero-droid", "base_licence": "CC-BY-NC-4.0"}
    text = card(values, None)
    assert "license: cc-by-nc-4.0" in text and "not for commercial use; an adapter trained on it" in text
    assert "No report lies beside this adapter" in text
    assert "license: other" in card(values | {"base_licence": None}, None)


def test_settings_survive_a_file(full: Path) -> None:
    settings = read_check(full).settings
    assert settings == replace(settings) and settings == Settings(denoise_steps=2, seed=0)
