"""Judging with a backbone so simple that every answer is known: pixels are its latents, its policy is a formula."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapt.backbones.base import Latents, Prediction
from adapt.backbones.nano.batch import Batch
from adapt.backbones.nano.config import tiny
from adapt.backbones.nano.model import build
from adapt.backbones.nano.policy import act as nano_act
from adapt.backbones.nano.policy import noise_for
from adapt.clips import Clips
from adapt.evaluate import Arm, Judged, Probes, Serving, deployed, judge, judge_forgetting, loss_by_level
from adapt.evaluate.free import chains_of, with_past
from adapt.evaluate.predictions import Predictions
from adapt.report import Figures, WindowErrors, write_report
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, TimeBase
from schemas.report import Report
from wamdata.windows import cut_windows, judged_starts, on_time_base

TIME_BASE = TimeBase(chunk_s=0.8, video_fps=5, steps=24, chunks=3)
FRAMES = TIME_BASE.frames_per_chunk
SERVING = Serving(denoise_steps=1)


class Formula(nn.Module):
    """Its one weight says how far towards the record a command lies: 0 stands still, 1 is perfect."""

    def __init__(self, skill: float) -> None:
        super().__init__()
        self.skill = nn.Parameter(torch.tensor(skill))

    @contextmanager
    def disabled(self) -> Iterator[None]:
        kept = self.skill.data.clone()
        self.skill.data.zero_()
        try:
            yield
        finally:
            self.skill.data.copy_(kept)


class Pixels:
    """A backbone whose latents are pixels. Imagined video is the last frame, one grey level brighter per frame.

    Commands lie `skill` of the way from the present state to the recorded ones; darker past video, other words and
    other seeds move them by known amounts, and the recorded future makes them perfect.
    """

    name, time_base = "pixels", TIME_BASE

    def __init__(self, hold: Sequence[int]) -> None:
        self.hold = np.array(hold)
        self.asked: list[tuple[int, int]] = []  # (denoise steps, draws)

    def decode(self, context: Tensor, video: Tensor) -> np.ndarray:
        return video.round().clamp(0, 255).to(torch.uint8).numpy()

    def act(
        self,
        model: nn.Module,
        samples: Sequence[Latents],
        *,
        denoise_steps: int,
        draws: int,
        seed: int,
        hide_video: bool = False,
        future: str = "imagined",
    ) -> Prediction:
        self.asked.append((denoise_steps, draws))
        actions, videos = [], []
        for sample in samples:
            still = np.append(sample.state[-1], 0.0)[self.hold]
            skill = 1.0 if future == "true" else float(model.skill.detach())
            action = still + skill * (sample.action[-1] - still)
            action = action + 0.01 * seed + (0.05 if sample.text.startswith("wrong") else 0.0)
            past = sample.video[: -sample.latents_per_chunk].float()
            action = action + 0.001 * float(past[-1].mean() - past[0].mean()) * (not hide_video)
            brighter = torch.arange(1, FRAMES + 1).reshape(-1, 1, 1, 1)
            actions.append(action)
            videos.append((past[-1:] + brighter).clamp(0, 255))
        return Prediction(np.stack(actions), torch.stack(videos))


class WithLosses(Pixels):
    def loss_at(self, model: nn.Module, samples: Sequence[Latents], *, level: float, seed: int) -> dict[str, float]:
        return {"video": level, "action": len(samples) + level}


@pytest.fixture(scope="module")
def clips(g1_shards: Path) -> Clips:
    return Clips.open(g1_shards)


@pytest.fixture(scope="module")
def samples(clips: Clips) -> list[Latents]:
    """The held-out windows, small pictures as latents."""
    found, robot = [], clips.embodiment
    for clip in clips.stream("test"):
        rows = on_time_base(clip, robot, TIME_BASE)
        starts, chunks = judged_starts(clip, rows, TIME_BASE)
        for window in cut_windows(clip, rows, starts, robot, TIME_BASE, view_size=(24, 32), chunks=chunks):
            pixels = np.ascontiguousarray(window.frames[robot.model_cameras[0].key])
            rest = {n: getattr(window, n) for n in ("state", "history", "last_action", "action", "action_valid")}
            found.append(
                Latents(
                    window.id, 0, window.clip_key, window.start, window.text, robot.digest(),
                    {"video": torch.from_numpy(pixels).float()}, pixels[-FRAMES - 1 :], **rest,
                )
            )  # fmt: skip
    return found


def recipe() -> AdaptRecipe:
    parts = (MixPart(name="play", shards="shards", share=1.0, losses=("video", "action"), role="play"),)
    return AdaptRecipe(parts=parts, denoise_steps=1, samples=2)


@pytest.fixture(scope="module")
def judged(clips: Clips, samples: list[Latents]) -> Judged:
    backbone, model = WithLosses(clips.embodiment.hold_columns()), Formula(0.5)
    models = {"model": model, "base": Arm(backbone, model, SERVING, view=model.disabled)}
    return judge(backbone, models, samples, clips, recipe(), probes=Probes(perceptual=False))


def report_of(judged: Judged) -> Report:
    return Report(
        verdict="FAIL", reason="made up", robot="g1", backbone="pixels", base="", information=(), chunk_s=0.8,
        action_hz=30, split={}, training=None, rejects={}, notes=judged.notes, provenance={}, **judged.fields,
    )  # fmt: skip


def test_a_model_half_way_to_the_record_halves_standing_stills_error(judged: Judged) -> None:
    error = judged.action.error
    assert error["without_video"] == pytest.approx(0.5 * error["stand_still"], rel=1e-4)
    assert {"model", "mean_of_2", "base", "last_command", "mean", "ridge", "ridge_state"} <= set(error)
    assert judged.action.motion["without_video"].amplitude.value == pytest.approx(0.5, rel=1e-3)
    assert judged.action.motion["without_video"].cosine.value == pytest.approx(1, abs=1e-3)


def test_a_view_of_the_same_module_is_an_arm_of_its_own_and_leaves_the_module_as_it_was(clips, samples) -> None:
    backbone, model = Pixels(clips.embodiment.hold_columns()), Formula(0.5)
    base = Arm(backbone, model, SERVING, view=model.disabled)
    still = base.act(samples[:3], hide_video=True).action
    for at in range(3):
        held = np.append(samples[at].state[-1], 0.0)[backbone.hold]
        np.testing.assert_allclose(still[at], np.broadcast_to(held, still[at].shape), atol=1e-6)
    assert float(model.skill.detach()) == 0.5


def test_errors_are_also_told_by_past_chunks(judged: Judged, samples: list[Latents]) -> None:
    context = judged.action.context
    assert [c.past for c in context] == [0, 1, 2]
    assert sum(c.windows for c in context) == judged.action.windows == len(samples)
    whole = sum(c.error["model"] * c.windows for c in context) / len(samples)
    assert whole == pytest.approx(judged.action.error["model"])
    assert all(len(c.step_error["model"]) == TIME_BASE.steps for c in context)


def test_kept_windows_add_up_to_the_reports_errors(judged: Judged, tmp_path: Path) -> None:
    (tmp_path / "windows.npz").write_bytes(judged.windows.to_bytes())
    kept = WindowErrors.read(tmp_path / "windows.npz")
    assert kept.sha256 == judged.windows.sha256 == judged.fields["windows_sha256"]
    for name, error in judged.action.error.items():
        assert kept.error[name].sum() / kept.steps.sum() == pytest.approx(error, rel=1e-5), name


def test_free_running_starts_like_teacher_forcing_and_drifts_by_what_each_chunk_adds(judged, samples) -> None:
    chunks = judged.free_running.chunks
    assert [c.number for c in chunks] == [1, 2, 3]
    assert chunks[0].psnr["free_running"] == chunks[0].psnr["teacher_forced"]
    assert chunks[0].error["free_running"] == pytest.approx(chunks[0].error["teacher_forced"])
    assert chunks[2].psnr["free_running"] != chunks[2].psnr["teacher_forced"]
    assert chunks[0].clips == len({s.clip_key for s in samples})


def test_a_free_running_past_is_what_was_imagined(samples: list[Latents]) -> None:
    chain = chains_of(samples)[0]
    past = torch.full_like(chain[1].video[:-FRAMES], 7.0)
    dreamt = with_past(chain[1], past)
    assert torch.equal(dreamt.video[:-FRAMES], past)
    assert torch.equal(dreamt.video[-FRAMES:], chain[1].video[-FRAMES:])
    assert chain[1].video[:-FRAMES].ne(7.0).any()


def test_a_chain_ends_where_a_window_is_missing(samples: list[Latents]) -> None:
    chain = chains_of(samples)[0]
    assert [s.chunks for s in chain] == [1, 2, 3]
    assert chains_of([chain[0], chain[2]]) == ()


def test_showing_the_recorded_video_takes_the_imaginings_share_of_the_error_away(judged: Judged) -> None:
    gap = judged.future
    assert 0 < gap.true < gap.imagined
    assert gap.share.value == pytest.approx((gap.imagined - gap.true) / gap.imagined)
    assert gap.share.low <= gap.share.value <= gap.share.high


def test_one_instruction_and_one_camera_are_not_measured_and_say_so(judged: Judged) -> None:
    assert judged.language.reason == "one instruction"
    assert judged.camera.reason == "one camera"
    assert judged.language.change.value is None


def test_a_wrong_instruction_is_measured_against_noise_and_by_its_error(clips, samples) -> None:
    backbone = Pixels(clips.embodiment.hold_columns())
    told = [replace(s, text="wrong" if i % 2 else "right") for i, s in enumerate(samples)]
    probes = Probes(said=lambda s, text: replace(s, text=text), free_running=False, future=False, perceptual=False)
    found = judge(backbone, {"model": Formula(1.0)}, told, clips, recipe(), probes=probes).language
    assert found.windows == len(samples)
    # words move a command by 0.05, the other seed by 0.01 for each of its 1,000,003
    assert found.change.value == pytest.approx(0.05 / 10000.03, rel=1e-3)


def test_swapped_cameras_are_found_by_their_windows(clips, samples) -> None:
    backbone = Pixels(clips.embodiment.hold_columns())
    dark = [replace(s, encoded={"video": s.video * 0}) for s in reversed(samples)]
    probes = Probes(swapped=dark[:5], free_running=False, future=False, perceptual=False)
    found = judge(backbone, {"model": Formula(1.0)}, samples, clips, recipe(), probes=probes).camera
    assert found.windows == 5 and found.wrong.value < found.right.value  # without video the formula is exact


def test_losses_by_level_are_of_whole_windows(judged, clips, samples) -> None:
    whole = sum(s.chunks == TIME_BASE.chunks for s in samples)
    assert [v.level for v in judged.levels] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert judged.levels[0].losses == {"video": 0.1, "action": min(whole, 64) + 0.1}
    levels, reason = loss_by_level(Pixels(clips.embodiment.hold_columns()), Formula(1.0), samples)
    assert levels == () and reason == "pixels has no loss at a given noise level"


def test_forgetting_is_the_same_score_twice() -> None:
    (row,) = judge_forgetting(lambda: {"action error": 0.2}, lambda: {"action error": 0.3})
    assert (row.name, row.before, row.after) == ("action error", 0.2, 0.3)


def test_shards_without_a_training_part_are_judged_without_fitted_baselines(clips, samples) -> None:
    untrained = SimpleNamespace(
        embodiment=clips.embodiment,
        manifest=clips.manifest,
        episodes=clips.episodes,
        stream=lambda split: () if split == "train" else clips.stream(split),
    )
    probes = Probes(free_running=False, future=False, perceptual=False)
    found = judge(
        Pixels(clips.embodiment.hold_columns()), {"model": Formula(0.5)}, samples, untrained, recipe(), probes=probes
    )
    assert not {"mean", "ridge", "ridge_state"} & set(found.action.error)
    assert found.notes == ("no training part: baselines that must be fitted are left out",)


def test_another_policys_predictions_are_one_more_arm(clips, samples) -> None:
    rows = [(s, k) for s in samples for k in range(TIME_BASE.steps)]
    perfect = Predictions(
        Path("other.npz"), "policy other", [s.clip_key for s, _ in rows],
        [s.start + (s.chunks - 1) * TIME_BASE.steps for s, _ in rows], [k for _, k in rows],
        [s.action[-1, k] for s, k in rows], in_seconds=False, line="row",
    )  # fmt: skip
    probes = Probes(free_running=False, future=False, perceptual=False)
    backbone = Pixels(clips.embodiment.hold_columns())
    found = judge(backbone, {"model": Formula(0.5)}, samples, clips, recipe(), probes=probes, others=[perfect])
    assert found.action.error["policy other"] == pytest.approx(0, abs=1e-7)
    assert "policy other" in found.windows.error


def test_serving_settings_reach_the_model_or_the_report(clips, samples) -> None:
    backbone = Pixels(clips.embodiment.hold_columns())
    probes = Probes(free_running=False, future=False, perceptual=False)
    serving = Serving(denoise_steps=7, guidance=5.0)
    found = judge(backbone, {"model": Formula(0.5)}, samples[:4], clips, recipe(), probes=probes, serving=serving)
    assert {steps for steps, _ in backbone.asked} == {7}
    assert found.notes == ("judged with 7 denoising steps alone: pixels has no other setting",)
    assert deployed("nano", recipe()) == Serving(1) and Serving(1).words == "1 denoising steps"
    assert deployed("dreamzero", recipe()).words == "16 denoising steps, 8 of them computed, guidance 5, bf16"
    assert deployed("dreamzero", recipe()).guidance == 5.0 and deployed("dreamzero", recipe()).dtype == "bf16"


def test_what_was_judged_becomes_a_report_that_reads_back(judged: Judged, tmp_path: Path) -> None:
    page = write_report(tmp_path, report_of(judged), Figures(), windows=judged.windows)
    assert Report.read_json(tmp_path / "report.json") == report_of(judged)
    text = page.read_text()
    for words in ("Likeness of the motion", "What the inputs are worth", "Free-running", "Loss by noise level"):
        assert words in text, words
    assert "instruction: one instruction" in text and "cameras: one camera" in text


def test_no_held_out_window_is_no_score(clips) -> None:
    found = judge(Pixels(clips.embodiment.hold_columns()), {"model": Formula(0.5)}, [], clips, recipe())
    assert found.action is None and found.video is None and found.windows is None


@torch.no_grad()
def test_nano_acting_from_recorded_video_sees_it_mixed_with_noise_at_every_level() -> None:
    config = tiny()
    model, generator = build(config, 0), torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # its last layers start at zero: nothing would depend on anything
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    batch = Batch(
        latents=torch.randn(2, 1 + config.latents_per_chunk, config.channels, *config.grid),
        state=torch.randn(2, 1, config.state_width),
        history=torch.randn(2, 1, config.lags, config.state_width),
        last_action=torch.zeros(2, 1, config.action_width * config.last_command),
        action=torch.zeros(2, 1, config.steps, config.action_width),
        action_valid=torch.ones(2, 1, config.steps, dtype=torch.bool),
        has_action=torch.ones(2, dtype=torch.bool),
        text=torch.zeros(2, config.text_width),
    )
    noise = noise_for(config, torch.Generator().manual_seed(0), batch=2, samples=2)
    truth = torch.randn(2, config.latents_per_chunk, config.channels, *config.grid)
    imagined = nano_act(model, batch, denoise_steps=3, noise=noise)
    shown = nano_act(model, batch, denoise_steps=3, noise=noise, truth=truth)
    torch.testing.assert_close(shown.video, truth[:, None].expand_as(shown.video))
    assert not torch.allclose(shown.action, imagined.action)
    once = [nano_act(model, batch, denoise_steps=1, noise=noise, truth=t).action for t in (None, truth)]
    torch.testing.assert_close(*once)  # the first level is noise alone, whatever will be shown later
