"""Twelve defects that are known of the public DreamZero trainer: ours has none of them.

Each test fails if its defect comes in; the thorough tests of the same behaviour lie with their modules.
"""

import gc
import os
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dreamzero_checkpoints import (
    RUNNABLE,
    some_inputs,
    some_lora,
    write_released,
    write_runnable,
    write_shards,
    write_wan,
)
from robots import episode, robot
from safetensors.torch import load_file
from torch import Tensor
from training_jobs import distance, endings, toy_cache, toy_job, toy_recipe, train_in

from adapt.backbones.base import Latents, Totals, trainable
from adapt.backbones.dreamzero.backbone import DreamZeroBackbone, dit_of
from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.config_json import config_json, config_of
from adapt.backbones.dreamzero.export import export_native
from adapt.backbones.dreamzero.load import checkpoint_fingerprint, compose, load_dit
from adapt.backbones.dreamzero.model import Output, Settings, build
from adapt.backbones.dreamzero.names import MODEL, dit_shapes
from adapt.backbones.dreamzero.objective import Batch, Losses, training_loss
from adapt.backbones.dreamzero.timesteps import draw
from adapt.cache.feed import Feed, Step
from adapt.clips import Clips
from adapt.defaults import resolve
from adapt.planning.rung import Rung
from adapt.stage import begin, finish, finished
from adapt.training.job import order_of, taught
from adapt.training.loop import Course, HeldOut, train
from adapt.training.lora import with_lora
from schemas.embodiment import load_embodiment
from schemas.errors import DataError, UsageError
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, Lora, TimeBase
from wamdata.clips import cut_clip
from wamdata.mapping import map_episode
from wamdata.windows import cut_windows, on_time_base, window_starts

TINY = preset("tiny")
KEEP = Rung(weights="float32", activations="keep", micro_batch=2)
NEW_ROBOT = """\
schema: wamkit/embodiment@1
name: one_arm_of_my_own
native_hz: 30
clock: row
cameras:
  - {role: head, from: observation.images.cam_high}
state:
  - {name: arm, part: arm, kind: joint, unit: rad, from: observation.state, columns: "7:14"}
action:
  - {name: arm, like: state.arm, from: action, relative_to: state.arm}
"""


# What several tests share


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runnable(tmp_path_factory.mktemp("base") / "tiny-agibot")


@pytest.fixture(scope="module")
def recipe(base: Path, g1_clips: Clips) -> AdaptRecipe:
    play = MixPart(name="play", shards=str(g1_clips.folder), share=1.0, losses=("video", "action"), role="play")
    small = {"steps": 2, "batch": 2, "warmup": 1, "eval_every": 2, "save_every": 1, "eval_windows": 2}
    small |= {
        "time_base": TimeBase(chunk_s=0.8, video_fps=10.0),
        "lora": Lora(rank=2, alpha=2.0),
        "ema": 0.0,
        "derived_state": (),
    }
    settings = AdaptRecipe(parts=(play,), backbone="dreamzero", base=str(base), denoise_steps=1, **small)
    return resolve(settings, g1_clips.embodiment)


@pytest.fixture(scope="module")
def g1_clips(g1_shards: Path) -> Clips:
    return Clips.open(g1_shards)


@pytest.fixture(scope="module")
def new_clips(g1_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """The same logs, seen as a robot that no code knows: one YAML file."""
    path = tmp_path_factory.mktemp("robot") / "one_arm_of_my_own.yaml"
    path.write_text(NEW_ROBOT)
    return Clips.open(g1_shards, load_embodiment(str(path)))


@pytest.fixture(scope="module")
def backbone(base: Path, recipe: AdaptRecipe, g1_clips: Clips, new_clips: Clips) -> DreamZeroBackbone:
    """Of two robots."""
    return DreamZeroBackbone.on_base(base, g1_clips, recipe).with_robot(new_clips, recipe, has_actions=True)


@pytest.fixture
def model(backbone: DreamZeroBackbone, recipe: AdaptRecipe) -> torch.nn.Module:
    built = backbone.build(seed=0, base=backbone.base, rung=KEEP, dtype=torch.float32)
    return backbone.adapted(built, KEEP, lambda m: with_lora(m, recipe.lora, backbone, seed=0))


def encoded_window(clips: Clips, *, seed: int, acts: bool = True) -> Latents:
    """Recorded states and commands of a clip, and made-up encodings; without `acts` none of it is to be learnt."""
    time_base, generator = TimeBase(chunk_s=0.8, video_fps=10.0), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    clip = next(clips.stream("train"))
    rows = on_time_base(clip, clips.embodiment, time_base)
    chunks, steps, latent = RUNNABLE.chunks, RUNNABLE.steps, (RUNNABLE.window_latents, 16, *RUNNABLE.latent_grid)
    state, width = rows.state[: chunks * steps : steps], rows.state.shape[-1]
    return Latents(
        window_id=f"{clip.meta.key}@{seed}", copy=0, clip_key=clip.meta.key, start=0, text="pick up the cup",
        robot=clips.embodiment.digest(),
        encoded={"video": normal(*latent), "first": normal(*latent), "words": normal(3, 32), "clip": normal(5, 32)},
        frames=np.zeros((0, 0, 0, 3), np.uint8), state=state, history=np.zeros((chunks, 4, width), np.float32),
        last_action=np.zeros((chunks, rows.action.shape[-1]), np.float32),
        action=rows.action[: chunks * steps].reshape(chunks, steps, -1), action_valid=np.full((chunks, steps), acts),
    )  # fmt: skip


def losses_of(
    backbone: DreamZeroBackbone, model: torch.nn.Module, samples: list[Latents], of: Totals
) -> dict[str, Tensor]:
    return backbone.loss(model, samples, seed=0, epochs=[0] * len(samples), of=of)


def objective(*, dims: int, has_action: tuple[bool, ...]) -> Losses:
    """The loss of a network that answers 0, where all valid action entries miss by 1 and all samples have one level."""
    frames, rows, grid = TINY.window_latents, TINY.chunks * TINY.steps, TINY.latent_grid
    size = len(has_action)
    valid = torch.zeros(size, rows, TINY.action_dim, dtype=torch.bool)
    valid[[i for i, has in enumerate(has_action) if has], :, :dims] = True
    batch = Batch(
        latents=torch.zeros(size, TINY.out_dim, frames, *grid),
        context=torch.zeros(size, 1, 1),
        has_action=has_action,
        action=torch.zeros(valid.shape),
        action_valid=valid,
        state=torch.zeros(size, TINY.chunks, TINY.state_dim),
    )
    draws = draw(TINY, seeds=[7] * size, latent_shape=(frames, *grid), rows=rows)
    draws = replace(draws, action_noise=torch.ones(valid.shape))
    answer = Output(torch.zeros(batch.latents.shape), torch.zeros(valid.shape))
    return training_loss(lambda *_, **__: answer, batch, draws)


# The twelve, in the order of the list


def test_an_adapter_is_put_on_its_own_base_or_refused(tmp_path: Path) -> None:
    """Theirs puts a LoRA of the post-trained model on raw Wan, with 9.9 times the error and no word."""
    base = open_checkpoint(write_released(tmp_path / "agibot"))
    raw_wan = open_checkpoint(write_wan(tmp_path / "wan"))
    sha256 = checkpoint_fingerprint(base)
    adapter = open_checkpoint(
        export_native(tmp_path / "lora", some_lora(), TINY, base_name="agibot", base_sha256=sha256)
    )
    with pytest.raises(DataError, match=f"is not the base of .*wanted {sha256[:12]}"):
        compose(raw_wan, adapter, base_named_by_user=True)
    composed, _ = compose(base, adapter, base_named_by_user=False, dtype=torch.float32)
    assert composed(**some_inputs()).video.isfinite().all()


def test_a_batch_with_and_without_actions_is_its_samples_one_by_one(
    backbone: DreamZeroBackbone, model: torch.nn.Module, g1_clips: Clips
) -> None:
    """Theirs multiplies has_real_action (B, 1) into (B, T, D): a shape error for every batch larger than one."""
    samples = [encoded_window(g1_clips, seed=s, acts=s != 1) for s in range(3)]
    of = Totals.of(samples)
    with torch.no_grad():
        together = losses_of(backbone, model, samples, of)
        alone = [losses_of(backbone, model, [s], of) for s in samples]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(one[name] for one in alone), rtol=1e-5, atol=1e-6)
    assert alone[1]["action"] == 0 and alone[0]["action"] > 0


@pytest.mark.parametrize("rows", [8, 9, 12, 16, 17])
def test_all_windows_of_a_clip_have_all_their_chunks_however_long_it_is(rows: int) -> None:
    """Theirs cuts 3 chunks or 4 according to where an episode ends, and stacking them crashes."""
    time_base = TimeBase(chunk_s=0.4, video_fps=10, steps=4, chunks=2)
    clip = cut_clip(map_episode(episode(rows), robot()), 0, rows, prefix="toy")
    on_grid = on_time_base(clip, robot(), time_base)
    starts = window_starts(clip, on_grid, time_base, stride=1)
    windows = list(cut_windows(clip, on_grid, starts, robot(), time_base))
    assert len(windows) == max(0, rows - 8)
    assert {(w.state.shape[0], w.action.shape[:2]) for w in windows} <= {(2, (2, 4))}


def test_no_two_ranks_see_the_same_window_and_together_they_see_each_once(tmp_path: Path) -> None:
    """Theirs shuffles with one seed on every rank and worker, so that all of them train on the same windows."""
    job = toy_job(tmp_path)
    cache = toy_cache(tmp_path)
    order = order_of(job.recipe, cache)

    def seen(rank: int, world: int) -> list[list[str]]:
        with Feed(cache, order, taught(job.recipe, cache), first=0, stop=6, rank=rank, world=world) as feed:
            return [[s.window_id for s in step.samples] for step in feed]

    whole, ranks = seen(0, 1), [seen(rank, 3) for rank in range(3)]
    for number, step in enumerate(whole):
        parts = [ids for rank in ranks for ids in rank[number]]
        assert sorted(parts) == sorted(step) and len(set(parts)) == len(parts)
    play = [i for step in whole for i in step if i.startswith("play")]
    assert len(set(play[:11])) == 11 and play[:11] != play[11:22]


def test_evaluation_needs_no_gradients_and_training_no_recomputation(
    backbone: DreamZeroBackbone, model: torch.nn.Module, g1_clips: Clips
) -> None:
    """Theirs leaves a block's tuple unpacked when gradients or checkpointing are off, so no loss can be held out."""
    sample, dit = encoded_window(g1_clips, seed=0), dit_of(model)
    found, judged = [], []
    for activations in ("keep", "selective", "full"):
        dit.settings = Settings(activations=activations)
        judged.append(backbone.loss_at(model, [sample], level=0.5, seed=0))
        loss = sum(losses_of(backbone, model, [sample], Totals.of([sample])).values())
        loss.backward()
        found.append((loss.item(), {n: p.grad.clone() for n, p in trainable(model).items() if p.grad is not None}))
        model.zero_grad()
    assert judged[0] == judged[1] == judged[2] and all(np.isfinite(list(judged[0].values())))
    for loss, gradients in found[1:]:
        assert loss == found[0][0] and gradients.keys() == found[0][1].keys()
        assert all(torch.allclose(gradients[n], g, rtol=1e-4, atol=1e-7) for n, g in found[0][1].items())


@pytest.mark.parametrize("is_padded", [False, True])
def test_without_actions_no_chunk_sees_its_own_clean_frames_and_all_is_finite(is_padded: bool) -> None:
    """Theirs, given no actions, lets noisy frames see all clean ones, their targets too, and leaves rows unwritten."""
    model, inputs = build(TINY, device="cpu", seed=0), some_inputs()
    padding = {"has_action": (False,)} if is_padded else dict.fromkeys(("state", "action", "action_timestep"))
    with torch.no_grad():
        before = model(**inputs | padding).video
        assert before.isfinite().all()
        for chunk in range(TINY.chunks):
            first = 1 + chunk * TINY.latents_per_chunk
            clean = inputs["clean"].clone()
            clean[:, :, first : first + TINY.latents_per_chunk] += 3
            moved = (model(**inputs | padding | {"clean": clean}).video - before).abs().amax((0, 1, 3, 4)) > 0
            assert moved.tolist() == [frame >= first + TINY.latents_per_chunk for frame in range(TINY.window_latents)]


def test_a_narrow_robot_and_a_mixture_with_video_weigh_actions_as_much(
    backbone: DreamZeroBackbone, model: torch.nn.Module, g1_clips: Clips
) -> None:
    """Theirs is a mean over 32 padded dimensions and masked samples: 14 of them weigh 0.44, beside video half that."""
    whole = objective(dims=32, has_action=(True, True)).action
    assert whole > 0
    for dims, has_action in ((8, (True, True)), (8, (True, False)), (32, (True, False)), (1, (False, True))):
        torch.testing.assert_close(objective(dims=dims, has_action=has_action).action, whole)
    play, video = encoded_window(g1_clips, seed=0), encoded_window(g1_clips, seed=1, acts=False)
    with torch.no_grad():
        alone, mixed = (losses_of(backbone, model, s, Totals.of(s)) for s in ([play], [play, video]))
    torch.testing.assert_close(mixed["action"], alone["action"])


def test_two_robots_of_a_mixture_keep_their_own_channels_and_statistics(
    backbone: DreamZeroBackbone, base: Path, recipe: AdaptRecipe, g1_clips: Clips, new_clips: Clips
) -> None:
    """Theirs overwrites the robot's number with 0: all robots of a mixture go through one set of statistics."""
    both = [encoded_window(clips, seed=i) for i, clips in enumerate((g1_clips, new_clips))]
    mixed = backbone.batch(both)
    for i, clips in enumerate((g1_clips, new_clips)):
        alone = DreamZeroBackbone.on_base(base, clips, recipe).batch(both[i : i + 1])
        for name in ("action", "action_valid", "state"):
            assert torch.equal(getattr(mixed, name)[i], getattr(alone, name)[0])
    assert mixed.action_valid[0].any(0).sum() == 26 and mixed.action_valid[1].any(0).sum() == 7
    as_the_other = replace(both[1], robot=both[0].robot, action=both[0].action, state=both[0].state)
    assert not torch.equal(backbone.batch([as_the_other]).action[0], mixed.action[1])


def test_a_new_robot_is_one_yaml_file_and_no_code(
    base: Path, recipe: AdaptRecipe, new_clips: Clips, model: torch.nn.Module
) -> None:
    """Theirs wants a new tag in a projector's table and a branch in collate(), and says so by a KeyError."""
    own = DreamZeroBackbone.on_base(base, new_clips, recipe)
    sample = encoded_window(new_clips, seed=0)
    found = losses_of(own, model, [sample], Totals.of([sample]))
    assert found["action"] > 0 and all(v.isfinite() for v in found.values())
    with pytest.raises(UsageError, match="no such built-in robot .*Give one of these or a YAML file"):
        load_embodiment("one_arm_of_my_own")


def test_a_checkpoint_holds_what_was_trained_and_none_of_the_base(
    backbone: DreamZeroBackbone, model: torch.nn.Module, recipe: AdaptRecipe, g1_clips: Clips, tmp_path: Path
) -> None:
    """Theirs writes the frozen base into every checkpoint: 85 to 95 GB each."""
    samples = [encoded_window(g1_clips, seed=s) for s in range(2)]
    frozen = {id(p) for p in dit_of(model).parameters() if not p.requires_grad}
    base_bytes = sum(p.nbytes for p in model.parameters() if id(p) in frozen)
    steps = [Step(number, [0, 0], samples, Totals.of(samples)) for number in range(2)]
    held = HeldOut(samples[:1], 1.0)
    train(
        backbone, model, lambda first: nullcontext(iter(steps[first:])), held, recipe, tmp_path,
        course=Course(2), rung=KEEP,
    )  # fmt: skip
    saved = load_file(tmp_path / "step-000002/model.safetensors")
    learnt = trainable(model)
    assert {n.split(".", 1)[1] for n in saved if n.startswith("weight.")} == set(learnt)
    assert all(".lora_" in n or ".modules_to_save" in n for n in learnt)
    on_disk = sum(f.stat().st_size for f in tmp_path.rglob("step-000002/*"))
    assert sum(t.nbytes for t in saved.values()) <= 2 * sum(p.nbytes for p in learnt.values())
    assert base_bytes > 0 and on_disk < base_bytes + 4 * sum(p.nbytes for p in learnt.values())


def test_training_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """Theirs resumes on as many GPUs as before alone, in another order of the data, and begins its schedule anew."""
    settings = toy_recipe(precision="float64")  # sums in another order differ by rounding alone
    train_in(toy_job(tmp_path / "whole", settings), 1)
    train_in(replace(toy_job(tmp_path / "cut", settings), stop_after=5), 2)
    assert not (tmp_path / "cut/train/step-000008").exists()
    train_in(toy_job(tmp_path / "cut", settings), 1)
    whole, cut = endings(tmp_path / "whole"), endings(tmp_path / "cut")
    assert whole["step"] == cut["step"] == "step-000008" and distance(whole, cut) < 1e-6


def test_a_folder_of_another_recipe_is_refused_and_an_unfinished_one_goes_on(tmp_path: Path) -> None:
    """Theirs, finding a config.json where it is to write, trains nothing and ends with exit code 0."""
    begin(tmp_path, "train", {"steps": 300, "lr": 1e-4})
    assert finished(tmp_path, "train", {"steps": 300, "lr": 1e-4}) is None
    with pytest.raises(UsageError, match=r"made by another recipe \(steps was 300, is now 400\)"):
        finished(tmp_path, "train", {"steps": 400, "lr": 1e-4})
    finish(tmp_path, "train", {"steps": 300, "lr": 1e-4}, {"done": 300})
    assert finished(tmp_path, "train", {"steps": 300, "lr": 1e-4}).facts == {"done": 300}


def test_nothing_that_a_checkpoint_holds_is_drawn_at_random_first(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws 16.5 billion random weights on the host, for minutes, and then reads the file over them."""

    def refuse(tensor: object = None, *_: object, **__: object) -> Tensor:
        assert isinstance(tensor, Tensor) and tensor.is_meta, "random weights"  # on the meta device nothing is drawn
        return tensor

    for name in ("normal_", "uniform_", "random_", "trunc_normal_"):
        monkeypatch.setattr(torch.Tensor, name, refuse, raising=False)
    for name in ("randn", "rand", "normal"):
        monkeypatch.setattr(torch, name, refuse)
    model = load_dit(open_checkpoint(base), dtype=torch.float32)
    assert all(p.isfinite().all() for p in model.parameters())


PEAK = Path("/proc/self/clear_refs")  # 5 written to it sets the peak of resident memory back


def resident(field: str) -> int:
    """Bytes of resident memory: VmRSS now, VmHWM at its peak."""
    return int(re.search(field + r":\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.skipif(not os.access(PEAK, os.W_OK), reason="peak memory is read from /proc")
def test_loading_takes_the_model_and_about_one_file_of_host_memory(base: Path, tmp_path: Path) -> None:
    """Theirs needs 66 GB of host memory a rank: the whole model in float32 beside the files."""
    config = preset("mini", dim=1024, ffn_dim=4096, heads=8, layers=4)
    tensors = {MODEL + n: torch.ones(shape, dtype=torch.bfloat16) for n, shape in dit_shapes(config).items()}
    folder = write_shards(tmp_path / "base", tensors, shards=4, config=config_json(config))
    one_file = max(f.stat().st_size for f in folder.glob("*.safetensors"))
    del tensors
    load_dit(open_checkpoint(base))  # what is imported on the way is no memory of loading
    gc.collect()
    PEAK.write_text("5")
    before = resident("VmRSS")
    model = load_dit(open_checkpoint(folder))
    peak, size = resident("VmHWM") - before, sum(p.nbytes for p in model.parameters())
    assert size > 150e6 and peak <= size + 1.5 * one_file, f"{peak / 1e6:.0f} MB for {size / 1e6:.0f} MB"


def test_the_14b_has_40_layers_of_40_heads_wherever_its_sizes_are_told() -> None:
    """Their documentation lists the 14B with 32 layers of 16 heads."""
    config = preset("14b")
    assert (config.layers, config.heads, config.dim, config.head_dim) == (40, 40, 5120, 128)
    written = config_json(config)
    told = written["action_head_cfg"]["config"]["diffusion_model_cfg"]
    assert (told["num_layers"], told["num_heads"]) == (40, 40) and config_of(written) == config
    model = build("14b")
    assert len(model.blocks) == 40 and {b.self_attn.heads for b in model.blocks} == {40}
