"""One run, top to bottom: shards -> latents -> training -> held-out evaluation -> adapter.

    run/recipe.yaml    what was asked for, resolved
    run/latents  run/train  run/eval  run/adapter      one folder per stage, `stage.json` written last

A finished stage is recognised by its fingerprint before torch, peft or ray are imported; a changed one is refused.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt import stage
from adapt.backbones.registry import BackboneInfo, backbone_info
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.files import write_atomic
from schemas.manifest import Manifest
from schemas.recipe import AdaptRecipe, TimeBase
from schemas.report import Report, SplitPart
from schemas.yaml_io import write_yaml
from wamdata.lock import locked
from wamdata.shards import read_manifest, verify_shards

RECIPE = "recipe.yaml"
# Part of each stage's fingerprint: when something is made or judged in another way, it is made anew.
MAKING_VERSION, TRAINING_VERSION, JUDGING_VERSION = 1, 1, 1
LATENTS, TRAIN, EVAL, ADAPTER = "latents", "train", "eval", "adapter"


@dataclass(frozen=True)
class Shards:
    """A shard folder and the robot to see it as: an edited robot file maps the rows again at load."""

    folder: Path
    manifest: Manifest
    embodiment: Embodiment

    @classmethod
    def open(cls, folder: Path, embodiment: Embodiment | None = None) -> "Shards":
        """Shards seen as `embodiment`, by default as the robot they were ingested with.

        Raises:
            UsageError: `embodiment` has a camera that the shards do not hold.
        """
        manifest = read_manifest(folder)
        robot = embodiment or manifest.embodiment
        held = [c.key for c in manifest.embodiment.model_cameras]
        missing = [c.key for c in robot.model_cameras if c.key not in held]
        if missing:
            raise UsageError(f"{folder}: holds no camera {missing[0]!r} (it has {', '.join(held)}). Ingest again.")
        return cls(folder, manifest, robot)


@dataclass(frozen=True)
class Watch:
    """How a run tells where it is; the command line turns it into progress bars."""

    stage: Callable[[str, bool], None] = lambda name, skipped: None
    progress: Callable[[str, int, int, str], None] = lambda label, done, total, words: None


@dataclass(frozen=True)
class RunResult:
    report: Report
    html: Path
    adapter: Path


def resolve(recipe: AdaptRecipe, robot: Embodiment) -> AdaptRecipe:
    """The recipe with every default written out: the robot's own first, then its backbone's."""
    info = backbone_info(recipe.backbone)
    derived = info.derived_state
    if robot.derived is not None:
        derived = tuple(d.kind for d in robot.derived)
    return recipe.model_copy(
        update={
            "time_base": recipe.time_base or info.time_base,
            "derived_state": recipe.derived_state if recipe.derived_state is not None else derived,
        }
    )


def adapt(
    run: Path, recipe: AdaptRecipe, play: Shards, video: Shards | None, *, command: str, watch: Watch | None = None
) -> RunResult:
    """Do what is missing of a run and return its report and adapter.

    Args:
        play: shards of the robot; action-free ones make a video-only run.
        video: action-free shards to train on beside them.

    Raises:
        UsageError: the folder holds a run of another recipe.
        DataError: there is nothing to train or judge on.
    """
    watch = watch or Watch()
    recipe = resolve(recipe, play.embodiment)
    info = backbone_info(recipe.backbone)
    _refuse(play, video)
    inputs = _inputs(recipe, info, play, video)
    done = {name: stage.finished(run / name, name, inputs[name]) for name in inputs}
    if not all(done.values()):
        run.mkdir(parents=True, exist_ok=True)
        with locked(run):
            _Work(run, recipe, info, play, video, inputs, done, command, watch).finish()
    else:
        for name in inputs:
            watch.stage(name, True)
    report = Report.read_json(run / EVAL / "report.json")
    return RunResult(report, run / EVAL / "report.html", run / ADAPTER / "export")


def _refuse(play: Shards, video: Shards | None) -> None:
    if video and not video.embodiment.is_action_free:
        raise UsageError(
            f"{video.folder}: robot {video.embodiment.name!r} has actions, and --video is for action-free video. "
            "Merge play data of one robot with `wam shard merge`."
        )
    if not play.embodiment.model_cameras:
        raise UsageError(f"robot {play.embodiment.name!r} has no camera: a world action model needs one at least.")
    if not play.embodiment.is_action_free and not play.embodiment.state_width:
        raise UsageError(f"robot {play.embodiment.name!r} has actions but no state: give its state components.")


def _inputs(recipe: AdaptRecipe, info: BackboneInfo, play: Shards, video: Shards | None) -> dict[str, dict[str, Any]]:
    """What each stage reads; a stage's fingerprint goes into the next one's."""
    values = recipe.as_dict()
    latents = {
        "play": play.manifest.fingerprint,
        "robot": play.embodiment.digest(),
        "video": video.manifest.fingerprint if video else "none",
        "video_robot": video.embodiment.digest() if video else "none",
        "base": _base_id(recipe.base, play.manifest),
        "backbone_version": info.version,
        "version": MAKING_VERSION,
    } | {k: values[k] for k in ("backbone", "time_base", "derived_state", "window_stride_s", "seed")}
    train_fields = (
        "lora",
        "steps",
        "batch",
        "video_share",
        "lr",
        "warmup",
        "weight_decay",
        "ema",
        "eval_every",
        "denoise_steps",
    )
    train = {"latents": stage.Stage(name=LATENTS, inputs=latents).fingerprint, "version": TRAINING_VERSION}
    train |= {k: values[k] for k in train_fields}
    judged = {"train": stage.Stage(name=TRAIN, inputs=train).fingerprint, "version": JUDGING_VERSION}
    judged["samples"] = recipe.samples
    exported = {"eval": stage.Stage(name=EVAL, inputs=judged).fingerprint}
    return {LATENTS: latents, TRAIN: train, EVAL: judged, ADAPTER: exported}


def _base_id(base: str | None, manifest: Manifest) -> str:
    """Hash of a base's weights; a base that was trained on what is held out here is refused."""
    from adapt.adapter import read_record

    if base is None:
        return "none"
    record = read_record(Path(base))
    if record.kind != "full":
        raise UsageError(f"{base}: holds a LoRA adapter, which is no base. Give the base that it was trained on.")
    seen = [s.episode for s in manifest.samples if s.split != "train" and s.content_sha256 in record.trained_on]
    if seen:
        raise UsageError(
            f"{base}: was trained on {seen[0]}, which is held out here, so the report would not be honest. "
            "Use the split that the base was trained with."
        )
    return record.weights_sha256


class _Work:
    """The stages that are missing. Imports torch; made only when there is something to do."""

    def __init__(
        self,
        run: Path,
        recipe: AdaptRecipe,
        info: BackboneInfo,
        play: Shards,
        video: Shards | None,
        inputs: dict[str, dict[str, Any]],
        done: dict[str, stage.Stage | None],
        command: str,
        watch: Watch,
    ) -> None:
        import torch

        from adapt.latents import Clips

        torch.set_num_threads(recipe.threads)  # results are bit-equal at a fixed number only
        self.run, self.recipe, self.info = run, recipe, info
        self.play = Clips(play.folder, play.manifest, play.embodiment)
        self.video = Clips(video.folder, video.manifest, video.embodiment) if video else None
        self.inputs, self.done, self.command, self.watch = inputs, done, command, watch
        self.time_base: TimeBase = recipe.time_base
        self.started = time.monotonic()

    def finish(self) -> None:
        write_yaml(self.run / RECIPE, self.recipe)
        for name, work in (
            (LATENTS, self._latents),
            (TRAIN, self._train),
            (EVAL, self._judge),
            (ADAPTER, self._export),
        ):
            self.watch.stage(name, self.done[name] is not None)
            if self.done[name] is None:
                stage.begin(self.run / name, name, self.inputs[name])
                started = time.monotonic()
                facts = work(self.run / name) | {"seconds": round(time.monotonic() - started, 1)}
                self.done[name] = stage.finish(self.run / name, name, self.inputs[name], facts)

    def _latents(self, folder: Path) -> dict[str, Any]:
        from adapt.latents import encode_to, judged_windows, training_windows

        for clips in (self.play, self.video):
            if clips:
                verify_shards(clips.folder, clips.manifest)
        stride = max(1, round(self.recipe.window_stride_s * self.time_base.action_hz))
        fit_on = [self.play] + ([self.video] if self.video else [])
        if self.recipe.base:
            backbone = self.info.load().load(Path(self.recipe.base)).for_robot(self.play, self.recipe)
        else:
            backbone = self.info.load().fit(
                self.play,
                fit_on,
                self.recipe,
                on_progress=lambda n: self.watch.progress("fit encoders", n, 0, "windows"),
            )
        for name, content in backbone.files().items():
            write_atomic(folder / name, content)
        size = backbone.view_size(self.play.embodiment)
        sets = {"train": training_windows(self.play, self.time_base, stride=stride, view_size=size)}
        for split in ("val", "test"):
            sets[split] = judged_windows(self.play, self.time_base, split=split, view_size=size)
        if self.video:
            view = backbone.view_size(self.video.embodiment)
            sets["video"] = training_windows(self.video, self.time_base, stride=stride, view_size=view)
        counts, total = {}, 0
        for name, windows in sets.items():
            robot = self.video.embodiment if name == "video" else self.play.embodiment
            before = total
            counts[name] = encode_to(
                folder / f"{name}.tar", windows, backbone, robot, judged=name in ("val", "test"),
                on_window=lambda n, before=before: self.watch.progress("encode", before + n, 0, "windows"),
            )  # fmt: skip
            total += counts[name]
        self.watch.progress("encode", total, total, "windows")
        if not counts["train"] + counts.get("video", 0):
            need = self.time_base.window_rows / self.time_base.action_hz
            raise DataError(
                f"no training clip holds a whole window of {need:.1f} s. Log longer episodes or lower chunk_s."
            )
        return {"windows": counts, "encoder_sha256": backbone.fingerprint}

    def _backbone(self):
        return self.info.load().load(self.run / LATENTS)

    def _models(self):
        """The backbone, the model to train, and the un-adapted base (None without one)."""
        from adapt.adapter import FULL
        from adapt.lora import with_lora

        backbone = self._backbone()
        model = backbone.build(self.recipe.seed)
        if not self.recipe.base:
            return backbone, model, None
        backbone.load_base(model, Path(self.recipe.base) / FULL)
        base = backbone.build(self.recipe.seed)
        backbone.load_base(base, Path(self.recipe.base) / FULL)
        return backbone, with_lora(model, self.recipe.lora, backbone, seed=self.recipe.seed), base

    def _train(self, folder: Path) -> dict[str, Any]:
        from adapt.latents import load_latents
        from adapt.train import Tick, train

        backbone, model, _ = self._models()
        latents = self.run / LATENTS
        video = load_latents(latents / "video.tar") if self.video else []

        def show(tick: Tick) -> None:
            words = f"loss {tick.loss:.3f}" + (f", held-out error {tick.val_error:.4f}" if tick.val_error else "")
            self.watch.progress("train", tick.step, tick.steps, words)

        training = train(
            backbone, model, load_latents(latents / "train.tar"), video, load_latents(latents / "val.tar"),
            self.recipe, folder, on_tick=show,
        )  # fmt: skip
        return {"training": training.as_dict()}

    def _trained(self):
        from adapt.checkpoint import load_tensors
        from adapt.train import BEST, load_trainable

        backbone, model, base = self._models()
        load_trainable(model, load_tensors(self.run / TRAIN / BEST))
        return backbone, model, base

    def _judge(self, folder: Path) -> dict[str, Any]:
        from adapt.evaluate import judge
        from adapt.latents import load_latents
        from adapt.report import write_report
        from adapt.scoring import verdict

        backbone, model, base = self._trained()
        test = load_latents(self.run / LATENTS / "test.tar")
        self.watch.progress("judge", 0, 1, f"{len(test)} held-out windows")
        judged = judge(backbone, {"model": model} | ({"base": base} if base else {}), test, self.play, self.recipe)
        held_out = self._split()["test"].episodes
        if self.play.embodiment.is_action_free:
            words = verdict(None, has_base=False, episodes=0)
        elif not test:
            words = ("FAIL", "no episode could be held out (three sessions are needed), so nothing was judged")
        else:
            words = verdict(judged.action, has_base=base is not None, episodes=len(held_out))
        write_report(folder, self._report(backbone, judged, words), judged.figures)
        self.watch.progress("judge", 1, 1, words[0])
        return {"verdict": words[0]}

    def _export(self, folder: Path) -> dict[str, Any]:
        import shutil

        from adapt.export import export_adapter

        backbone, model, _ = self._trained()
        shutil.rmtree(folder / "export", ignore_errors=True)
        report = Report.read_json(self.run / EVAL / "report.json")
        export_adapter(folder / "export", backbone, model, self.recipe, self.play, report, licences=self._licences())
        return {}

    def _licences(self) -> tuple[str, ...]:
        manifests = [self.play.manifest] + ([self.video.manifest] if self.video else [])
        return tuple(dict.fromkeys(x for m in manifests for x in m.licences))

    def _split(self) -> dict[str, SplitPart]:
        return episode_split(self.play.manifest, self.done[LATENTS].facts["windows"])

    def _report(self, backbone, judged, words: tuple[str, str]) -> Report:
        from schemas.report import Training

        rejects: dict[str, list[str]] = {}
        for reject in self.play.manifest.rejects:
            rejects.setdefault(reject.reason, []).append(reject.episode)
        return Report(
            verdict=words[0],
            reason=words[1],
            robot=self.play.embodiment.name,
            backbone=self.recipe.backbone,
            base=self.recipe.base or "none: trained in full from a seed, no pretrained base",
            information=self._information(),
            chunk_s=self.time_base.chunk_s,
            action_hz=self.time_base.action_hz,
            split=self._split(),
            action=judged.action,
            video=judged.video,
            training=Training.model_validate(self.done[TRAIN].facts["training"]),
            rejects={k: tuple(v) for k, v in rejects.items()},
            notes=self._notes(backbone),
            provenance=self._provenance(),
        )

    def _information(self) -> tuple[str, ...]:
        """What the model was given, in words: a reader must be able to judge what the error is worth."""
        if self.play.embodiment.is_action_free:
            return ("video", "instruction")
        known = ["present state", "video of the last chunks", "instruction"]
        known += ["joint velocity (differences over the last frames)"] * ("velocity" in self.recipe.derived_state)
        known += ["the last command"] * ("last_command" in self.recipe.derived_state)
        return tuple(known)

    def _notes(self, backbone) -> tuple[str, ...]:
        notes = [backbone.about]
        if self.video:
            count = self.done[LATENTS].facts["windows"]["video"]
            notes.append(f"{count} windows of action-free video were trained on: they teach looks, not control")
        for manifest in [self.play.manifest] + ([self.video.manifest] if self.video else []):
            wordless = sum(f.code == "blank_text" for f in manifest.findings)
            if wordless:
                notes.append(f"{wordless} episodes of {', '.join(manifest.sources)} have no instruction")
            notes += [f.message for f in manifest.findings if f.code == "same_length"][:1]
        if self.play.embodiment.is_action_free:
            notes.append("no actions: this model can imagine video, it cannot control a robot")
        duplicates = [f.message for f in self.play.manifest.findings if f.code == "duplicate"]
        return tuple(notes + duplicates[:3])

    def _provenance(self) -> dict[str, str]:
        from importlib.metadata import version

        manifest = self.play.manifest
        return {
            "command": self.command,
            "made with": f"wamkit {version('wamkit')}, torch {version('torch')}, Python {platform.python_version()}",
            "machine": f"{platform.machine()}, {_cores()} cores",
            "seconds": f"{time.monotonic() - self.started:.0f} for the stages this command ran",
            "source": ", ".join(manifest.sources),
            "source fingerprint": manifest.fingerprint[:16],
            "robot file": self.play.embodiment.digest()[:16],
            "licences": ", ".join(self._licences()),
        }


def episode_split(manifest: Manifest, windows: dict[str, int]) -> dict[str, SplitPart]:
    """Episodes, minutes and windows of each part of the split."""
    parts = {}
    for name in ("train", "val", "test"):
        samples = [s for s in manifest.samples if s.split == name]
        parts[name] = SplitPart(
            episodes=tuple(dict.fromkeys(s.episode for s in samples)),
            minutes=sum(s.seconds for s in samples) / 60,
            windows=windows.get(name, 0),
        )
    return parts


def _cores() -> int:
    import os

    return os.cpu_count() or 1
