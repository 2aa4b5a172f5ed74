"""`wam export RUN --to ...` of an adapter directory: nothing to type by hand, a card, and a verification at the end."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import refused
from dreamzero_checkpoints import RUNNABLE, write_runnable
from typer.testing import CliRunner, Result

from adapt.backbones.base import Latents
from adapt.backbones.dreamzero.backbone import DreamZeroBackbone
from adapt.backbones.dreamzero.channels import file_order
from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.load import load_dit
from adapt.backbones.dreamzero.slots import ACTION_CHANNELS, Slot, Slots
from adapt.clips import Clips
from adapt.handover import check as handover
from adapt.handover.adapter import CHECK
from adapt.handover.check import read_check, read_handover
from adapt.handover.export import export_adapter
from adapt.planning.rung import Rung
from adapt.training.lora import with_lora
from cli.main import app
from schemas.errors import DataError, UsageError, WamError
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, IngestRecipe, Lora, TimeBase
from schemas.report import Report
from schemas.yaml_io import write_yaml
from wamdata.ingest import ingest

ARM = Path(__file__).resolve().parents[2] / "tests/data/synthetic_arm.yaml"
LAYOUTS = ("peft", "dreamzero", "dreamzero-lora")


def wam(*words: object) -> Result:
    """The command in this process; its error is raised."""
    ran = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(ran.exception, WamError):
        raise ran.exception
    assert ran.exit_code == 0, (ran.output, ran.exception)
    return ran


def windows(clips: Clips) -> list[Latents]:
    """Made-up encoded windows, of two chunks and of four."""
    robot, made = clips.embodiment, []
    for chunks in (2, 4):
        generator = torch.Generator().manual_seed(chunks)

        def some(*shape: int, generator=generator) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        grid = (RUNNABLE.out_dim, *RUNNABLE.latent_grid)
        encoded = {
            "video": some(1 + chunks * RUNNABLE.latents_per_chunk, *grid),
            "first": some(RUNNABLE.window_latents, *grid),
            "clip": some(RUNNABLE.clip_tokens, RUNNABLE.clip_dim),
            "words": some(5, RUNNABLE.text_dim),
        }
        state = (0.3 * some(chunks, robot.state_width)).numpy()
        action = (0.3 * some(chunks, RUNNABLE.steps, robot.action_width)).numpy()
        made.append(
            Latents(
                window_id=f"w{chunks}",
                copy=0,
                clip_key="c",
                start=0,
                text="push the blue square",
                robot=robot.digest(),
                encoded={n: t.to(torch.bfloat16) for n, t in encoded.items()},
                frames=np.zeros((0, 0, 0, 3), np.uint8),
                state=state,
                history=np.zeros((chunks, 4, robot.state_width), np.float32),
                last_action=action[:, 0],
                action=action,
                action_valid=np.ones((chunks, RUNNABLE.steps), bool),
            )
        )
    return made


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    """Verification without a process of its own, which costs seconds each time; `refused` has the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handover, "verify", handover.verify_here)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runnable(tmp_path_factory.mktemp("base") / "tiny-agibot")


@pytest.fixture(scope="module")
def run(base: Path, lerobot_v3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as far as an export looks at it, its weights drawn in place of trained."""
    shards = tmp_path_factory.mktemp("arm") / "shards"
    ingest(IngestRecipe(sources=(str(lerobot_v3),), robot=str(ARM)), shards, executor="local")
    clips, folder = Clips.open(shards), tmp_path_factory.mktemp("run")
    part = MixPart(name="play", shards=str(shards), share=1.0, losses=("video", "action"), role="play")
    small = {"time_base": TimeBase(chunk_s=0.8, video_fps=10.0), "denoise_steps": 2, "lora": Lora(rank=2, alpha=2.0)}
    small |= {"derived_state": ()}
    settings = AdaptRecipe(parts=(part,), backbone="dreamzero", base=str(base), **small)
    write_yaml(folder / "recipe.yaml", settings)
    backbone = DreamZeroBackbone.on_base(base, clips, settings)
    model = backbone.build(seed=0, base=base, rung=Rung(weights="float32"), dtype=torch.float32)
    model = with_lora(model, settings.lora, backbone, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    report = Report(
        verdict="FAIL", reason="made up", robot=clips.embodiment.name, backbone="dreamzero", base=str(base),
        information=(), chunk_s=0.8, action_hz=30.0, split={}, action=None, video=None, training=None, rejects={},
        notes=(), provenance={},
    )  # fmt: skip
    (folder / "adapter").mkdir()
    export_adapter(
        folder / "adapter/export", backbone, model, settings, clips, report, licences=("MIT",), samples=windows(clips)
    )
    return folder


@pytest.fixture(scope="module")
def exports(run: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict, str]]:
    """Each layout with nothing but --to, --base and --out: its folder, what it said as JSON, its notes."""
    home, made = tmp_path_factory.mktemp("out"), {}
    for layout in LAYOUTS:
        ran = wam("export", run, "--to", layout, "--base", base, "--out", home / layout, "--json", "-q")
        made[layout] = (home / layout, json.loads(ran.stdout), ran.stderr)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_needs_nothing_else_and_acts_as_trained(exports: dict, layout: str) -> None:
    folder, said, _ = exports[layout]
    assert said["kind"] == layout and said["verified"]["windows"] == 2
    assert said["verified"]["max_difference"] <= 1e-4 < said["verified"]["tolerance"]
    assert said["verified"]["proves"] and said["verification"].startswith("verified: on 2 windows")
    told = read_handover(folder)
    assert told.layout == layout and told.channels == ("slots" if layout == "peft" else "file order")
    assert {"README.md", "wamkit/adapter.json", "wamkit/dreamzero.json", f"wamkit/{CHECK}"} <= set(told.files)
    text = (folder / "README.md").read_text()
    assert "**FAIL**: made up" in text and "license: other" in text
    assert not folder.with_name(folder.name + ".unverified").exists()


def test_heads_go_into_file_order_for_the_references_servers_and_it_is_said(exports: dict) -> None:
    assert "heads reordered to file order from the channels of synthetic_arm on agibot" in exports["dreamzero"][2]
    assert "heads reordered" not in exports["peft"][2]


def test_in_file_order_columns_from_channel_0_on_give_the_trained_actions(
    exports: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server does it: columns, states and noise in the file's order; nothing of the loaded heads is undone."""
    folder = exports["dreamzero"][0]
    check, backbone = read_check(folder / "wamkit"), DreamZeroBackbone.load(folder / "wamkit")
    digest = check.samples[0].robot
    space = backbone.space(digest)
    order = file_order(space.slots.action, ACTION_CHANNELS)
    assert order[:7] != list(range(7)), "its slots are file order already, which would show nothing"

    def packed(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
        starts = np.cumsum([0, *(s.width for s in slots)])
        return tuple(replace(s, channel=int(at)) for s, at in zip(slots, starts, strict=False))

    backbone._spaces[digest] = replace(space, slots=Slots(packed(space.slots.action), packed(space.slots.state)))
    drawn = DreamZeroBackbone._noise

    def noise(self, *given):
        video, action = drawn(self, *given)
        return video, action[..., order]

    monkeypatch.setattr(DreamZeroBackbone, "_noise", noise)
    model = load_dit(open_checkpoint(folder), dtype=torch.float32)
    got = backbone.act(model, check.samples, denoise_steps=2, draws=1, seed=0).action
    assert np.abs(got - check.prediction.action).max() < 1e-4


def test_its_own_robot_is_served_under_the_tag_of_the_bases_robots(exports: dict) -> None:
    folder, said, notes = exports["dreamzero"]
    assert said["robots"] == ["agibot"]
    told = json.loads((folder / "experiment_cfg/metadata.json").read_text())["agibot"]
    assert told["modalities"]["video"]["exterior"]["resolution"] == [128, 96]
    conf = yaml.safe_load((folder / "experiment_cfg/conf.yaml").read_text())
    assert conf["modality_configs"]["agibot"]["action"]["modality_keys"] == ["action.arm", "action.gripper"]
    assert "do not fit the tiling of agibot" in notes


def test_kept_channels_verify_too(run: Path, base: Path, tmp_path: Path) -> None:
    words = ("--to", "dreamzero", "--base", base, "--keep-channels", "--out", tmp_path / "kept")
    ran = wam("export", run, *words, "-q")
    assert "heads reordered" not in ran.stderr and "verified: on 2 windows" in ran.stdout
    assert read_handover(tmp_path / "kept").channels == "slots"


def test_the_base_of_a_run_is_its_recipes(run: Path, tmp_path: Path) -> None:
    assert "verified: on 2 windows" in wam("export", run, "--out", tmp_path / "copy").stdout
    assert "verified: on 2 windows" in wam("export", run, "--verify").stdout
    ran = wam("export", run / "adapter/export", "--out", tmp_path / "alone")
    assert "not verified: give --base" in ran.stdout
    ran = wam("export", run, "--out", tmp_path / "quick", "--no-verify")
    assert "not verified: --no-verify" in ran.stdout and (tmp_path / "quick/adapter.json").exists()


def test_a_folder_that_acts_otherwise_is_one_line_and_exit_code_2(exports: dict, tmp_path: Path) -> None:
    """Its channels are said to be others than they are, with every hash right."""
    import shutil

    folder = tmp_path / "odd"
    shutil.copytree(exports["dreamzero"][0], folder)
    told = folder / "wamkit/handover.json"
    told.write_text(told.read_text().replace('"file order"', '"slots"'))
    line = refused("export", folder, "--verify")
    assert "NOT THE TRAINED MODEL" in line and "Do not use it" in line
    weights = next(folder.glob("model*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match="content differs from its sha256"):
        wam("export", folder, "--verify")


def test_all_that_is_missing_is_said_at_once(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        wam("export", run / "adapter/export", "--to", "dreamzero", "--robot", "droid")
    line = str(raised.value)
    assert all(word in line for word in ("--out DIR", "--base DIR", "--resolution WxH", "--tag or --embodiment-id"))
    assert "\n" not in line and "--statistics" not in line
    with pytest.raises(UsageError, match="Give --to dreamzero, which `wam adapt --base` takes"):
        wam("export", run, "--to", "merged", "--out", tmp_path / "m")
    with pytest.raises(UsageError, match="contradict each other"):
        wam("export", run, "--to", "dreamzero", "--slots", "x.json", "--keep-channels", "--out", tmp_path / "m")
    with pytest.raises(UsageError, match="--to peft: needs --out DIR"):
        wam("export", run, "--to", "peft", "--verify")


def test_a_lora_on_another_base_is_refused(run: Path, tmp_path: Path) -> None:
    other = write_runnable(tmp_path / "other-agibot", seed=1)
    for words in (("--to", "dreamzero"), ("--to", "peft"), ()):
        with pytest.raises(DataError, match=r"is not the base of"):
            wam("export", run, *words, "--base", other, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_neither_adapter_nor_exported_cannot_be_verified(base: Path) -> None:
    with pytest.raises(UsageError, match="so it cannot be verified"):
        wam("export", base, "--verify")
