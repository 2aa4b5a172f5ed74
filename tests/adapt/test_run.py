"""Whole runs, small: from shards to a report and an adapter, with a second robot, with video alone, with LoRA."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from robots import tree_hash
from safetensors.torch import load_file

from adapt.cache.samples import open_cache
from adapt.clips import Clips
from adapt.fingerprint import base_fingerprint
from adapt.handover.adapter import FULL, read_record
from adapt.handover.export import load_adapter
from adapt.planning.rung import Rung
from adapt.run import RunResult, Watch
from adapt.run import adapt as run_adapt
from schemas.embodiment import Derived
from schemas.errors import DataError, UsageError
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, Hardware, IngestRecipe, Lora
from schemas.yaml_io import read_yaml
from wamdata.ingest import ingest

ROOT = Path(__file__).resolve().parents[2]
ARM = ROOT / "tests/data/synthetic_arm.yaml"
SMALL = {
    "steps": 4,
    "batch": 2,
    "eval_every": 2,
    "save_every": 2,
    "denoise_steps": 1,
    "samples": 2,
    "window_stride_s": 0.8,
}


RUNG = Rung(weights="float32")


def recipe(**changes) -> AdaptRecipe:
    """Settings; `adapt` puts the parts in."""
    return AdaptRecipe(parts=(), **{**SMALL, **changes})


def adapt(run: Path, settings: AdaptRecipe, play: Clips, video: Clips | None = None, **told) -> RunResult:
    """A run on play data, or on video alone, and on action-free video beside it."""
    free = play.embodiment.is_action_free
    losses, role = (("video",), "video") if free else (("video", "action"), "play")
    parts = [MixPart(name="play", shards=str(play.folder), share=0.5, losses=losses, role=role)]
    if video is not None:
        parts.append(MixPart(name="video", shards=str(video.folder), share=0.5, losses=("video",), role="video"))
    sources = {"play": play} | ({"video": video} if video is not None else {})
    settings = settings.model_copy(update={"parts": tuple(parts)})
    return run_adapt(run, settings, sources, command=told.pop("command", ""), **told)


def built(backbone) -> torch.nn.Module:
    return backbone.build(seed=0, base=None, rung=RUNG, dtype=torch.float32)


def test_part(run: Path) -> list:
    """The judged windows of a run."""
    return open_cache(run / "latents").all("test")


test_part.__test__ = False


def base_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The un-adapted tensors under their plain names, whether or not peft is wrapped around the model."""
    plain = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name or ".modules_to_save." in name:
            continue
        name = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".original_module.", ".")
        plain[name] = tensor
    return plain


@pytest.fixture(scope="module")
def arm_shards(lerobot_v3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second robot: a LeRobot v3.0 set written by lerobot, read with nothing but its own YAML."""
    out = tmp_path_factory.mktemp("arm") / "shards"
    ingest(IngestRecipe(sources=(str(lerobot_v3),), robot=str(ARM)), out, executor="local")
    return out


@pytest.fixture(scope="module")
def arm_run(arm_shards: Path, droid_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the second robot with action-free video beside it."""
    run = tmp_path_factory.mktemp("run") / "arm"
    adapt(run, recipe(), Clips.open(arm_shards), Clips.open(droid_shards), command="wam adapt ...")
    return run


def test_a_run_leaves_a_report_and_an_adapter_that_says_what_it_is(arm_run: Path) -> None:
    report = json.loads((arm_run / "eval/report.json").read_text())
    assert report["verdict"] in ("OFFLINE PASS", "FAIL") and "no pretrained base" in report["base"]
    assert {"model", "mean_of_2", "without_video", "stand_still", "last_command", "mean", "ridge"} <= set(
        report["action"]["error"]
    )
    assert set(report["video"]["psnr"]) == {"model", "copy_last", "ceiling"}
    assert any("joint velocity" in i for i in report["information"])
    split = report["split"]
    assert not set(split["train"]["episodes"]) & set(split["test"]["episodes"])
    record = read_record(arm_run / "adapter/export")
    assert (
        record.kind == "full"
        and record.robot == "synthetic_arm"
        and "Load it with" in (arm_run / "adapter/export/README.md").read_text()
    )


def test_a_finished_run_is_recognised_without_torch_peft_or_ray(
    arm_run: Path, arm_shards: Path, droid_shards: Path
) -> None:
    before = tree_hash(arm_run)
    parts = read_yaml(arm_run / "recipe.yaml", AdaptRecipe).as_dict()["parts"]
    code = (
        "import sys, time\nfrom pathlib import Path\nt = time.perf_counter()\n"
        "from adapt.clips import Clips\nfrom adapt.run import adapt\nfrom schemas.recipe import AdaptRecipe\n"
        f"r = AdaptRecipe.model_validate(dict(parts={parts!r}, **{SMALL!r}))\n"
        f"sources = dict(play=Clips.open(Path({str(arm_shards)!r})), video=Clips.open(Path({str(droid_shards)!r})))\n"
        f"adapt(Path({str(arm_run)!r}), r, sources, command='')\n"
        "print([m for m in ('torch', 'peft', 'ray', 'webdataset') if m in sys.modules], time.perf_counter() - t)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    modules, seconds = told.strip().rsplit(" ", 1)
    assert modules == "[]" and float(seconds) < 5
    assert tree_hash(arm_run) == before


def test_another_recipe_is_refused_with_the_field(arm_run: Path, arm_shards: Path, droid_shards: Path) -> None:
    with pytest.raises(UsageError, match=r"lr was 0.002, is now 0.001"):
        adapt(arm_run, recipe(lr=0.001), Clips.open(arm_shards), Clips.open(droid_shards))
    with pytest.raises(UsageError, match=r"sources\.video was"):
        adapt(arm_run, recipe(), Clips.open(arm_shards))


def test_an_exported_adapter_acts_like_the_trained_model(arm_run: Path) -> None:
    backbone, model, robot, _ = load_adapter(arm_run / "adapter/export")
    test = test_part(arm_run)
    served = backbone.act(model, test, denoise_steps=1, draws=1, seed=0)
    trained = built(backbone)
    weights = load_file(arm_run / "train/best.safetensors")
    trained.load_state_dict(weights)
    trained.eval()
    assert np.array_equal(served.action, backbone.act(trained, test, denoise_steps=1, draws=1, seed=0).action)
    assert robot.name == "synthetic_arm" and robot.action_width == 7


def test_predictions_do_not_depend_on_how_samples_are_batched(arm_run: Path) -> None:
    backbone, model, _, _ = load_adapter(arm_run / "adapter/export")
    test = test_part(arm_run)
    together = backbone.act(model, test, denoise_steps=2, draws=2, seed=0).action
    alone = np.concatenate([backbone.act(model, [s], denoise_steps=2, draws=2, seed=0).action for s in test[::-1]])[
        ::-1
    ]
    assert np.abs(together - alone).max() < 1e-5


def test_a_damaged_adapter_is_refused(arm_run: Path, tmp_path: Path) -> None:
    shutil.copytree(arm_run / "adapter/export", tmp_path / "a")
    content = bytearray((tmp_path / "a" / FULL).read_bytes())
    content[-1] ^= 1
    (tmp_path / "a" / FULL).write_bytes(content)
    with pytest.raises(DataError, match="content differs from its sha256"):
        load_adapter(tmp_path / "a")


def test_lora_on_a_full_adapter_trains_exports_loads_and_refuses_another_base(
    arm_run: Path, arm_shards: Path, tmp_path: Path
) -> None:
    base = arm_run / "adapter/export"
    settings = recipe(base=str(base), lora=Lora(rank=4, alpha=4))
    result = adapt(tmp_path / "lora", settings, Clips.open(arm_shards))
    assert "base" in result.report.action.error and result.report.training.trainable_parameters < 400_000
    files = {p.name for p in result.adapter.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "embodiment.yaml", "statistics.json"} <= files
    assert FULL not in files
    backbone, model, _, record = load_adapter(result.adapter, base)
    frozen = {n: t for n, t in base_tensors(model).items() if not n.startswith(backbone.head_modules)}
    original = load_file(base / FULL)
    assert all(torch.equal(frozen[n], original[n]) for n in frozen)
    assert record.base_sha256 == base_fingerprint(original)
    test = test_part(tmp_path / "lora")
    assert np.isfinite(backbone.act(model, test, denoise_steps=1, draws=1, seed=0).action).all()
    with pytest.raises(UsageError, match="Give its base"):
        load_adapter(result.adapter)
    other = adapt(tmp_path / "other", recipe(seed=1), Clips.open(arm_shards)).adapter
    with pytest.raises(DataError, match="is not the base of this adapter"):
        load_adapter(result.adapter, other)
    with pytest.raises(UsageError, match="which is no base"):
        adapt(tmp_path / "again", recipe(base=str(result.adapter)), Clips.open(arm_shards))


def test_a_robot_may_declare_what_is_derived_from_its_past(arm_shards: Path) -> None:
    from adapt.defaults import resolve

    arm = Clips.open(arm_shards).embodiment
    told = arm.model_copy(update={"derived": (Derived(kind="velocity"), Derived(kind="last_command"))})
    assert resolve(recipe(), arm).derived_state == ("velocity",)
    assert resolve(recipe(), told).derived_state == ("velocity", "last_command")
    assert resolve(recipe(), arm.model_copy(update={"derived": ()})).derived_state == ()
    assert resolve(recipe(derived_state=()), told).derived_state == ()


def test_a_base_that_saw_what_is_held_out_is_refused(arm_run: Path, arm_shards: Path, tmp_path: Path) -> None:
    from schemas.recipe import SplitRule
    from wamdata.reshard import reshard

    reshard([arm_shards], tmp_path / "again", rule=SplitRule(seed=7))
    with pytest.raises(UsageError, match="which is held out here"):
        settings = recipe(base=str(arm_run / "adapter/export"))
        adapt(tmp_path / "run", settings, Clips.open(tmp_path / "again"))


def test_video_with_actions_is_not_taken_for_action_free(arm_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has actions, and --video is for action-free video"):
        adapt(tmp_path / "run", recipe(), Clips.open(arm_shards), Clips.open(arm_shards))
    assert not (tmp_path / "run").exists()


def test_fresh_lora_weights_depend_on_the_seed_alone(arm_run: Path) -> None:
    from adapt.training.lora import with_lora

    backbone, _, _, _ = load_adapter(arm_run / "adapter/export")
    first, again, other = (with_lora(built(backbone), Lora(rank=2), backbone, seed=s).state_dict() for s in (3, 3, 4))
    names = [n for n in first if "lora_A" in n]
    assert names and all(torch.equal(first[n], again[n]) for n in names)
    assert any(not torch.equal(first[n], other[n]) for n in names)


def test_video_alone_trains_and_never_gets_a_verdict_on_actions(droid_shards: Path, tmp_path: Path) -> None:
    result = adapt(tmp_path / "v", recipe(), Clips.open(droid_shards))
    assert result.report.verdict == "NO ACTION VERDICT" and result.report.action is None
    assert result.report.video is not None and "no controller" in result.report.reason


def test_video_alone_of_shards_that_have_actions_is_judged_on_its_video(arm_shards: Path, tmp_path: Path) -> None:
    play = Clips.open(arm_shards)
    parts = (MixPart(name="watched", shards=str(arm_shards), share=1.0, losses=("video",), role="video"),)
    settings = recipe(steps=2).model_copy(update={"parts": parts})
    report = run_adapt(tmp_path / "run", settings, {"watched": play}, command="").report
    assert report.action is None and report.video.psnr["model"] > 0 and report.split["test"].windows > 0
    assert report.verdict != "OFFLINE PASS"


def test_an_edited_robot_file_is_mapped_at_load_without_ingesting_again(
    arm_shards: Path, lerobot_v3: Path, tmp_path: Path
) -> None:
    from schemas.embodiment import load_embodiment

    edited = tmp_path / "edited.yaml"
    edited.write_text(ARM.read_text().replace("open: 100, closed: 0", "open: 0, closed: 100"))
    ingest(IngestRecipe(sources=(str(lerobot_v3),), robot=str(ARM)), tmp_path / "shards", executor="local")
    before = tree_hash(tmp_path / "shards")
    ingest(IngestRecipe(sources=(str(lerobot_v3),), robot=str(edited)), tmp_path / "shards", executor="local")
    assert tree_hash(tmp_path / "shards") == before
    play = Clips.open(tmp_path / "shards", load_embodiment(str(edited)))
    adapt(tmp_path / "run", recipe(), play)
    adapt(tmp_path / "plain", recipe(), Clips.open(arm_shards))
    turned, plain = (open_cache(tmp_path / name / "latents").all("play")[0] for name in ("run", "plain"))
    assert np.allclose(turned.state[:, 6], 1 - plain.state[:, 6], atol=1e-5)
    assert np.array_equal(turned.state[:, :6], plain.state[:, :6])


def test_too_short_episodes_are_told_not_crashed_on(lerobot_v3: Path, tmp_path: Path) -> None:
    short = IngestRecipe(sources=(str(lerobot_v3),), robot=str(ARM), max_clip_s=2)
    ingest(short, tmp_path / "shards", executor="local")
    with pytest.raises(DataError, match="as long as one window"):
        adapt(tmp_path / "run", recipe(), Clips.open(tmp_path / "shards"))


def test_a_step_that_runs_out_of_memory_goes_on_one_rung_down_and_says_so(
    arm_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pass of more than one window fails, as on a small GPU; the result is that of single windows."""
    from adapt.backbones.nano.backbone import NanoBackbone

    alone = adapt(tmp_path / "alone", recipe(hardware=Hardware(micro_batch=1)), Clips.open(arm_shards))
    whole, notes = NanoBackbone.loss, []

    def loss(self, model, samples, **told):
        if len(samples) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(self, model, samples, **told)

    monkeypatch.setattr(NanoBackbone, "loss", loss)
    short = adapt(tmp_path / "short", recipe(), Clips.open(arm_shards), watch=Watch(note=notes.append))
    assert any("out of memory" in n and "going on with" in n and "micro-batch 1" in n for n in notes)
    weights = [load_file(r.adapter / FULL) for r in (alone, short)]
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])
    assert "out of memory" in (tmp_path / "short/train/log.jsonl").read_text()
    monkeypatch.setattr(NanoBackbone, "loss", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(DataError, match="there is no lower rung"):
        adapt(tmp_path / "never", recipe(), Clips.open(arm_shards))


def test_what_one_part_holds_out_no_other_may_train_on(arm_shards: Path, tmp_path: Path) -> None:
    from schemas.recipe import SplitRule
    from wamdata.reshard import reshard

    reshard([arm_shards], tmp_path / "again", rule=SplitRule(seed=7))
    sources = {"play": Clips.open(arm_shards), "added": Clips.open(tmp_path / "again")}
    parts = tuple(
        MixPart(name=n, shards=str(c.folder), share=0.5, losses=("video", "action"), role="play")
        for n, c in sources.items()
    )
    with pytest.raises(UsageError, match=r"trains on .* holds out as"):
        run_adapt(tmp_path / "run", recipe().model_copy(update={"parts": parts}), sources, command="")


def test_an_adapter_judged_again_on_the_same_shards_gets_the_same_numbers(
    arm_run: Path, arm_shards: Path, tmp_path: Path
) -> None:
    from adapt.evaluate.adapter import judge_adapter
    from schemas.report import Report

    export, told = arm_run / "adapter/export", {"on_progress": lambda *_: None}
    report, html = judge_adapter(export, Clips.open(arm_shards), tmp_path / "again", base=None, **told)
    own = Report.read_json(arm_run / "eval/report.json")
    assert html.exists() and not list((tmp_path / "again").glob("*.partial"))
    assert (report.verdict, report.split["test"]) == (own.verdict, own.split["test"])
    assert report.action.error == pytest.approx(own.action.error, rel=1e-5)
    assert report.video.psnr == pytest.approx(own.video.psnr, rel=1e-4)
    served, _ = judge_adapter(export, Clips.open(arm_shards), tmp_path / "served", base=None, as_served=True, **told)
    assert served.action.error["model"] == pytest.approx(
        own.action.error["model"], rel=1e-5
    )  # nano serves as it trains


def test_an_adapter_judged_on_what_it_was_trained_on_gets_no_pass(
    arm_run: Path, arm_shards: Path, tmp_path: Path
) -> None:
    from adapt.evaluate.adapter import judge_adapter

    manifest = Clips.open(arm_shards).manifest
    swapped = {"train": "test", "test": "train", "val": "val"}
    shards = tuple(
        s.model_copy(update={"samples": tuple(m.model_copy(update={"split": swapped[m.split]}) for m in s.samples)})
        for s in manifest.shards
    )
    shutil.copytree(arm_shards, tmp_path / "shards")
    manifest.model_copy(update={"shards": shards}).write_json(tmp_path / "shards/manifest.json")
    report, html = judge_adapter(
        arm_run / "adapter/export", Clips.open(tmp_path / "shards"), tmp_path / "seen", base=None,
        on_progress=lambda *_: None,
    )  # fmt: skip
    assert report.verdict == "FAIL" and report.reason.startswith("NOT HELD OUT: the adapter was trained on")
    assert "never used in training" not in html.read_text()


def test_a_film_of_a_held_out_episode_is_refused(arm_shards: Path, tmp_path: Path) -> None:
    """The film was cut and has another name; a film of a training episode is welcome."""
    from wamdata.video_cut import cut_packets

    for split, number in (("train", 0), ("test", 1)):
        folder = tmp_path / split
        folder.mkdir()
        clip = next(Clips.open(arm_shards).stream(split))
        (folder / "whole.mp4").write_bytes(next(iter(clip.videos.values())))
        (folder / f"take-{number}.mp4").write_bytes(cut_packets(folder / "whole.mp4", 0, clip.meta.rows - 3)[0])
        (folder / "whole.mp4").unlink()
        whole = {"sources": (str(folder),), "robot": "video_only", "task": "watch", "split": {"val": 0, "test": 0}}
        ingest(IngestRecipe(**whole), tmp_path / f"{split}-shards", executor="local")
    play = Clips.open(arm_shards)
    with pytest.raises(UsageError, match=r"trains on film take-1, which shows .*, held out by"):
        adapt(tmp_path / "leaky", recipe(steps=1), play, Clips.open(tmp_path / "test-shards"))
    adapt(tmp_path / "sound", recipe(steps=1), play, Clips.open(tmp_path / "train-shards"))


def test_all_play_parts_are_normalised_by_judged_on_and_reported(
    arm_run: Path, arm_shards: Path, tmp_path: Path
) -> None:
    """Shards in two folders give what they give in one."""
    from wamdata.reshard import reshard

    episodes = sorted({s.episode for s in Clips.open(arm_shards).manifest.samples})
    half = len(episodes) // 2
    sources = {}
    for name, some in (("play", episodes[:half]), ("added", episodes[half:])):
        reshard([arm_shards], tmp_path / name, where=f"episode in {some}")
        sources[name] = Clips.open(tmp_path / name)
    parts = tuple(
        MixPart(name=n, shards=str(c.folder), share=0.5, losses=("video", "action"), role="play")
        for n, c in sources.items()
    )
    settings = recipe().model_copy(update={"parts": parts})
    halves = run_adapt(tmp_path / "halves", settings, sources, command="").report
    whole = adapt(tmp_path / "whole", recipe(), Clips.open(arm_shards)).report
    assert {n: set(p.episodes) for n, p in halves.split.items()} == {n: set(p.episodes) for n, p in whole.split.items()}
    assert {n: p.windows for n, p in halves.split.items()} == {n: p.windows for n, p in whole.split.items()}
    for name in ("stand_still", "last_command", "mean", "ridge", "ridge_state"):
        assert halves.action.error[name] == pytest.approx(whole.action.error[name], rel=1e-4), name
    fitted = [load_file(tmp_path / run / "latents/encoder.safetensors") for run in ("halves", "whole")]
    for name in ("state_mean", "state_scale", "history_scale", "action_mean", "action_scale"):
        one, other = (tensors[f"normalizer.{name}"] for tensors in fitted)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.slow
def test_ray_actors_encode_the_same_windows(arm_run: Path, arm_shards: Path, tmp_path: Path) -> None:
    """Two actors, each with encoders of its own, write shards whose windows equal those made in this process."""
    from adapt.cache.encode import encode
    from adapt.training.job import Job
    from adapt.training.launch import Where

    settings = read_yaml(arm_run / "recipe.yaml", AdaptRecipe)
    sources = {p.name: (Path(p.shards), Clips.open(Path(p.shards)).embodiment) for p in settings.parts}
    job = Job(arm_run, settings, sources, RUNG, 1, store=tmp_path / "store")
    cache = open_cache(arm_run / "latents", job.store)
    told = []
    encode(job, cache, cache.needs(), Where(processes=2, launcher="ray"), told.append)
    made, own = open_cache(arm_run / "latents", job.store), open_cache(arm_run / "latents")
    assert told and told[-1] == len(own.needs())
    for part in own.catalogue.parts:
        for a, b in zip(made.all(part), own.all(part), strict=True):
            assert torch.equal(a.video, b.video) and np.array_equal(a.frames, b.frames)
