"""One run, top to bottom: shards -> latents -> training -> held-out evaluation -> adapter.

    run/recipe.yaml    what was asked for, resolved
    run/latents  run/train  run/eval  run/adapter      one folder per stage, `stage.json` written last

A finished stage is recognised by its fingerprint before torch, peft or ray are imported; a changed one is refused.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import stage
from adapt.backbones.registry import BackboneInfo, backbone_info
from adapt.clips import Clips
from adapt.defaults import resolve
from adapt.leaks import refuse_filmed, refuse_seen, refuse_shared
from adapt.training.watch import Facts
from schemas.errors import DataError, UsageError
from schemas.files import write_atomic
from schemas.manifest import Manifest
from schemas.recipe import AdaptRecipe, TimeBase
from schemas.report import Report, SplitPart
from schemas.yaml_io import write_yaml
from wamdata.fingerprint import source_fingerprint
from wamdata.lock import locked
from wamdata.shards import verify_shards
from wamdata.source import Source

if TYPE_CHECKING:
    from adapt.planning.probe import Planned
    from adapt.planning.rung import Rung
    from adapt.training.curves import Trained
    from adapt.training.job import Job
    from adapt.training.launch import Hear
    from adapt.training.loop import Tick

RECIPE = "recipe.yaml"
# Part of each stage's fingerprint: when something is made or judged in another way, it is made anew.
MAKING_VERSION, TRAINING_VERSION, JUDGING_VERSION = 2, 2, 2
LATENTS, TRAIN, EVAL, ADAPTER = "latents", "train", "eval", "adapter"
TRAIN_FIELDS = (
    "lora", "steps", "epochs", "batch", "lr", "heads_lr", "warmup", "weight_decay", "losses", "ema", "patience",
    "eval_every", "eval_windows", "save_every", "denoise_steps",
)  # fmt: skip
LATENT_FIELDS = ("backbone", "style", "time_base", "derived_state", "window_stride_s", "augment", "imitate", "seed")
FORGETTING_WINDOWS = 64
KEPT_BACK = 0.12  # of the time until `until`, for judging and export
KEPT_BACK_S = 45.0  # at least, but no more than half of it: the report of a minute of G1 takes 30 s on two cores


@dataclass(frozen=True)
class Watch:
    """How a run tells where it is; the command line turns it into progress bars.

    Args:
        save: a checkpoint or a stage is complete on disk.
        facts: told once, before training.
    """

    stage: Callable[[str, bool], None] = lambda name, skipped: None
    progress: Callable[[str, int, int, str], None] = lambda label, done, total, words: None
    tick: "Callable[[Tick], None]" = lambda tick: None
    note: Callable[[str], None] = lambda words: None
    save: Callable[[], None] = lambda: None
    facts: Callable[[Facts], None] = lambda facts: None


def joined(watches: Sequence[Watch]) -> Watch:
    """Everything told to all of them."""

    def each(name: str) -> Callable[..., None]:
        def tell(*args: Any) -> None:
            for watch in watches:
                getattr(watch, name)(*args)

        return tell

    return Watch(*(each(name) for name in ("stage", "progress", "tick", "note", "save", "facts")))


@dataclass(frozen=True)
class RunResult:
    report: Report
    html: Path
    adapter: Path


@dataclass(frozen=True)
class Means:
    """What a run is computed with; nothing of it is part of the run's identity.

    Args:
        address: of a Ray cluster.
        store: folder of encoded windows that several runs share; the run's own by default.
        ends_at: `time.time()` at which all must be done.
    """

    address: str | None = None
    store: Path | None = None
    ends_at: float | None = None


def adapt(
    run: Path,
    recipe: AdaptRecipe,
    sources: Mapping[str, Clips],
    *,
    command: str,
    watch: Watch | None = None,
    means: Means | None = None,
) -> RunResult:
    """Do what is missing of a run and return its report and adapter.

    Args:
        sources: shards of every part of the recipe, by the part's name. The robot is that of `recipe.play`;
            where no part has actions it is a video-only run.

    Raises:
        UsageError: the folder holds a run of another recipe.
        DataError: there is nothing to train or judge on.
    """
    watch, means = watch or Watch(), means or Means()
    recipe = resolve(recipe, sources[recipe.play.name].embodiment)
    info = backbone_info(recipe.backbone)
    _refuse(recipe, sources)
    inputs = _inputs(recipe, info, sources)
    done = {name: stage.finished(run / name, name, inputs[name]) for name in inputs}
    if not all(done.values()):
        run.mkdir(parents=True, exist_ok=True)
        with locked(run):
            _Work(run, recipe, info, dict(sources), inputs, done, command, watch, means).finish()
    else:
        for name in inputs:
            watch.stage(name, True)
    report = Report.read_json(run / EVAL / "report.json")
    return RunResult(report, run / EVAL / "report.html", run / ADAPTER / "export")


def _refuse(recipe: AdaptRecipe, sources: Mapping[str, Clips]) -> None:
    play = sources[recipe.play.name].embodiment
    refuse_shared(recipe, sources)
    for part in recipe.parts:
        robot = sources[part.name].embodiment
        if part.role == "video" and recipe.play.role != "video" and not robot.is_action_free:
            raise UsageError(
                f"{part.shards}: robot {robot.name!r} has actions, and --video is for action-free video. "
                "Merge play data of one robot with `wam shard merge`, or make it a `replay` part of a mix."
            )
        if part.role == "play" and robot.digest() != play.digest():
            raise UsageError(
                f"{part.shards}: robot {robot.name!r} is not {play.name!r} of {recipe.play.shards}. An adapter is for "
                "one robot; other robots' data is a `replay` part."
            )
        if not robot.model_cameras:
            raise UsageError(f"robot {robot.name!r} has no camera: a world action model needs one at least.")
        if not robot.is_action_free and not robot.state_width:
            raise UsageError(f"robot {robot.name!r} has actions but no state: give its state components.")


def _play(recipe: AdaptRecipe, sources: Mapping[str, Clips]) -> Clips:
    """All shards of the adapter's robot."""
    return Clips.joined([sources[p.name] for p in recipe.plays])


def _judged_name(split: str, part: str, recipe: AdaptRecipe) -> str:
    """What the catalogue calls the held-out windows of a part."""
    return split if part == recipe.play.name else f"{split}-{part}"


def _inputs(recipe: AdaptRecipe, info: BackboneInfo, sources: Mapping[str, Clips]) -> dict[str, dict[str, Any]]:
    """What each stage reads; a stage's fingerprint goes into the next one's."""
    values = recipe.as_dict()
    latents = {
        "sources": {n: [c.manifest.fingerprint, c.embodiment.digest()] for n, c in sorted(sources.items())},
        "parts": [[p.name, p.role, list(p.losses)] for p in recipe.parts],
        "base": _base_id(recipe, info, _play(recipe, sources).manifest),
        "start": _start_id(recipe.start),
        "backbone_version": info.version,
        "version": MAKING_VERSION,
    } | {k: values[k] for k in LATENT_FIELDS}
    if recipe.tokenizer is not None:
        latents["tokenizer"] = source_fingerprint(Source.at(recipe.tokenizer))
    train = {"latents": stage.Stage(name=LATENTS, inputs=latents).fingerprint, "version": TRAINING_VERSION}
    train |= {k: values[k] for k in TRAIN_FIELDS}
    train["parts"] = [[p.name, p.role, p.share, list(p.losses)] for p in recipe.parts]
    judged = {"train": stage.Stage(name=TRAIN, inputs=train).fingerprint, "version": JUDGING_VERSION}
    judged["samples"] = recipe.samples
    exported = {"eval": stage.Stage(name=EVAL, inputs=judged).fingerprint}
    return {LATENTS: latents, TRAIN: train, EVAL: judged, ADAPTER: exported}


def _base_id(recipe: AdaptRecipe, info: BackboneInfo, manifest: Manifest) -> str:
    """Hash of a base's weights; a base that was trained on what is held out here is refused."""
    from adapt.handover.adapter import RECORD, read_record

    if recipe.base is None:
        return "none"
    base = Path(recipe.base)
    if not (base / RECORD).exists():
        return info.load().identify(base)
    record = read_record(base)
    if record.kind != "full":
        raise UsageError(f"{base}: holds a LoRA adapter, which is no base. Give the base that it was trained on.")
    refuse_seen(f"{base}", record.trained_on, manifest)
    return record.weights_sha256


def _start_id(start: str | None) -> str:
    from adapt.handover.adapter import read_record

    return "none" if start is None else read_record(Path(start)).weights_sha256


class _Work:
    """The stages that are missing. Imports torch; made only when there is something to do."""

    def __init__(
        self,
        run: Path,
        recipe: AdaptRecipe,
        info: BackboneInfo,
        sources: dict[str, Clips],
        inputs: dict[str, dict[str, Any]],
        done: dict[str, stage.Stage | None],
        command: str,
        watch: Watch,
        means: Means,
    ) -> None:
        import torch

        from adapt.planning.hardware import where_of, with_precision

        self.inputs, self.done, self.command, self.watch = inputs, done, command, watch
        torch.set_num_threads(recipe.hardware.threads)  # results are bit-equal at a fixed number only
        self.run, self.info, self.sources, self.means = run, info, sources, means
        self.where = where_of(recipe.hardware, address=means.address)
        self.recipe = with_precision(recipe, self.where)
        self.planned: Planned | None = None
        self.rung = self._planned_rung()
        self.play = _play(recipe, sources)
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
                self.watch.save()

    def _latents(self, folder: Path) -> dict[str, Any]:
        """Which windows there are; what the judged ones look like to the encoders; and all others, if ahead."""
        from adapt.cache.encode import encode
        from adapt.cache.samples import open_cache

        for clips in self.sources.values():
            verify_shards(clips.folder, clips.manifest)
        refuse_filmed(self.recipe, self.sources)
        backbone = self._made_backbone()
        for name, content in backbone.files().items():
            write_atomic(folder / name, content)
        self._catalogue(backbone).write(folder)
        cache = open_cache(folder, self.means.store)
        counts = {name: len(part.entries) for name, part in cache.catalogue.parts.items()}
        if not sum(counts[p.name] for p in self.recipe.parts):
            need = self.time_base.window_rows / self.time_base.action_hz
            raise DataError(
                f"no training clip holds a whole window of {need:.1f} s. Log longer episodes or lower chunk_s."
            )
        empty = [p.shards for p in self.recipe.parts if not counts[p.name]]
        if empty:
            raise DataError(f"{empty[0]}: no training clip of it holds a whole window. Leave it out, or lower chunk_s.")
        needs = cache.needs()
        if not self.recipe.hardware.encode_ahead:
            needs = [n for n in needs if cache.catalogue.parts[n[0]].split != "train"]
        total = len(cache.missing(needs))
        encode(self._job(1), cache, needs, self.where, lambda n: self.watch.progress("encode", n, total, "windows"))
        self.watch.progress("encode", total, total, "windows")
        facts = {"windows": counts, "encoder_sha256": backbone.fingerprint, "encoded_ahead": len(needs)}
        return facts | {"bytes": cache.store.num_bytes, "copies": self.recipe.augment.copies}

    def _made_backbone(self):
        """The backbone of a new run: fitted, or on its base, or an earlier adapter's own."""
        kind, recipe = self.info.load(), self.recipe
        base = None if recipe.base is None else Path(recipe.base)
        if recipe.start is not None:
            backbone = self._started(kind, base)
        elif base is not None:
            backbone = kind.on_base(base, self.play, recipe)
        else:
            backbone = kind.fit(
                self.play,
                list(self.sources.values()),
                recipe,
                on_progress=lambda n: self.watch.progress("fit encoders", n, 0, "windows"),
            )
        for part in recipe.parts:
            clips, has_actions = self.sources[part.name], "action" in part.losses
            if clips.embodiment.digest() != self.play.embodiment.digest():
                backbone = backbone.with_robot(clips, recipe, has_actions=has_actions)
        return backbone

    def _started(self, kind, base: Path | None):
        """The earlier adapter's encoders and normalisation, without which its weights mean something else."""
        from adapt.handover.adapter import read_record

        record = read_record(Path(self.recipe.start))
        where, base_id = self.recipe.start, self.inputs[LATENTS]["base"]
        if record.backbone != self.recipe.backbone or (record.kind == "lora") != (base is not None):
            wanted = "--base, what it was trained on" if record.kind == "lora" else "no --base: it has all weights"
            raise UsageError(f"{where}: a {record.kind} adapter of {record.backbone}. Go on from it with {wanted}.")
        if record.kind == "lora" and record.base_sha256 != base_id:
            raise UsageError(
                f"{base}: is not the base of {where} (sha256 {base_id[:12]}, wanted {record.base_sha256[:12]}, "
                f"{record.base_name}). On another base it would act wrongly; give the right --base."
            )
        if record.kind == "lora" and record.recipe["lora"] != self.recipe.lora.as_dict():
            raise UsageError(f"{where}: was trained with lora {record.recipe['lora']}. Give the same: scales differ.")
        if record.robot_sha256 != self.play.embodiment.digest():
            raise UsageError(
                f"{self.recipe.start}: is for robot {record.robot!r} (file {record.robot_sha256[:12]}), these shards "
                f"are of {self.play.embodiment.name!r} ({self.play.embodiment.digest()[:12]}). Give --robot with the "
                "adapter's embodiment.yaml, or train without --from."
            )
        if record.time_base != self.time_base:
            raise UsageError(f"{self.recipe.start}: has another time base. Give the chunk_s and video_fps that it has.")
        before = AdaptRecipe.model_validate(record.recipe)
        for name, option in (("derived_state", "--last-command"), ("style", "--style")):
            was, now = getattr(before, name), getattr(self.recipe, name)
            if now is not None and was != now:
                raise UsageError(
                    f"{where}: has {name} {was}, here it is {now}. Give the same ({option}, or the recipe)."
                )
        refuse_seen(str(self.recipe.start), record.trained_on, self.play.manifest)
        return kind.load(Path(self.recipe.start), base=base)

    def _catalogue(self, backbone):
        from adapt.cache.catalogue import Catalogue, Naming, judged_part, training_part
        from wamdata.augment import Augmentation

        recipe = self.recipe
        augment = recipe.augment
        fields = ("crop", "brightness", "contrast", "saturation", "hue", "phase")
        naming = Naming(
            encoder=backbone.fingerprint,
            layout=backbone.layout_id,
            time_base=self.time_base,
            augmentation=Augmentation(**{f: getattr(augment, f) for f in fields}),
            seed=recipe.seed,
        )
        parts = {}
        for part in recipe.parts:
            clips = self.sources[part.name]
            parts[part.name] = training_part(part.name, part.name, clips, backbone, recipe, naming)
            held = {"val": False, "test": True} if part in recipe.plays else {}
            if part.role == "replay" and recipe.base is not None:
                held = {"test": False}
            for split, frames in held.items():
                name = _judged_name(split, part.name, recipe)
                parts[name] = judged_part(name, part.name, clips, backbone, recipe, naming, split=split, frames=frames)
        return Catalogue(parts)

    def _job(self, steps: int):
        from adapt.training.job import Job

        # Other machines' processes, and Ray's, have other working folders.
        sources = {name: (clips.folder.resolve(), clips.embodiment) for name, clips in self.sources.items()}
        paths = {n: str(Path(v).resolve()) for n in ("base", "start", "tokenizer") if (v := getattr(self.recipe, n))}
        recipe = self.recipe.model_copy(update=paths)
        store = None if self.means.store is None else self.means.store.resolve()
        ends_at = {} if self.means.ends_at is None else {"ends_at": self._training_ends()}
        planned = {"planned": self.planned}
        return Job(self.run.resolve(), recipe, sources, self.rung, steps, store=store, **ends_at, **planned)

    def _training_ends(self) -> float:
        left = max(0.0, self.means.ends_at - time.time())
        return self.means.ends_at - max(KEPT_BACK * left, min(KEPT_BACK_S, left / 2))

    def _train(self, folder: Path) -> dict[str, Any]:
        from adapt.training.job import steps_of
        from adapt.training.launch import Hear

        cache = self._complete_cache()
        hear = Hear(self.watch.tick, self.watch.note, self.watch.save)
        facts = self._facts()
        self.watch.facts(facts)
        self._log({"facts": asdict(facts)})
        job = self._job(steps_of(self.recipe, cache))
        if self.planned is not None:
            job = replace(job, planned=replace(self.planned, steps=job.steps))
        while True:
            done, full = self._launched(job, hear)
            if done is not None:
                return {"training": done.as_dict(), "rung": asdict(self.rung)}
            lower = self._lower()
            if lower is None:
                raise DataError(
                    f"out of memory with {self.rung.words}, and there is no lower rung ({full}). Give a smaller "
                    "base, a larger GPU, or `hardware.shard`. `wam plan` says what fits."
                )
            self._remark(f"out of memory with {self.rung.words}; going on with {lower.words}")
            self.rung = lower
            job = replace(job, rung=lower)

    def _launched(self, job: "Job", hear: "Hear") -> "tuple[Trained | None, str]":
        """What training came to; None and the reason where it ran out of memory, all of which is free again."""
        import gc

        import torch

        from adapt.training.launch import launch

        try:
            return launch(job, self.where, hear), ""
        except torch.OutOfMemoryError as error:
            words = str(error)
        gc.collect()  # after the `except`: a trace holds the model, and compiled blocks refer to themselves
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None, words

    def _remark(self, words: str) -> None:
        """Say something now, and to whoever looks at the run's log later."""
        self._log({"note": words})
        self.watch.note(words)

    def _log(self, line: dict[str, Any]) -> None:
        from adapt.training.log import LOG, LogWriter

        writer = LogWriter(self.run / TRAIN / LOG)
        writer.write(line)
        writer.close()

    def _facts(self) -> Facts:
        from adapt.training.job import load_backbone

        tokens = load_backbone(self.run, self.recipe, self._device()).tokens
        if self.recipe.backbone != "dreamzero":
            return Facts(tokens)
        from adapt.planning.gpus import at_hand
        from adapt.planning.plan import cost_of

        flops = cost_of(self.recipe, Path(self.recipe.base)).flops(self.rung).useful
        gpu = at_hand() if self.where.kind == "cuda" else None
        return Facts(tokens, flops, None if gpu is None else gpu.bf16_tflops * self.where.processes)

    def _planned_rung(self) -> "Rung":
        """What the plan chooses for the GPU at hand; on the CPU everything is kept."""
        from adapt.planning.hardware import rung_of

        if self.where.kind == "cpu" or self.recipe.backbone == "nano":
            return rung_of(self.recipe, self.where)
        from adapt.planning.gpus import at_hand
        from adapt.planning.plan import choice_of
        from adapt.planning.probe import Planned

        base, gpu = None if self.recipe.base is None else Path(self.recipe.base), at_hand()
        if gpu is None:
            raise UsageError("device cuda with --ray-address: start it on a machine that has a GPU like the cluster's.")
        choice = choice_of(self.recipe, gpu, gpus=self.where.processes, base=base)
        if choice.ranks > 1 and not self.where.is_sharded:
            self.where = replace(self.where, is_sharded=True)
        later = sum(choice.bytes.get(part, 0) for part in ("optimizer", "moving average"))  # not there in a probe
        self.planned = Planned(self.recipe.steps or 1, choice.seconds_per_step, choice.total - later)
        for reason in (choice.rung.words, *choice.reasons):
            self.watch.note(reason)
        return rung_of(self.recipe, self.where, choice.rung)

    def _lower(self) -> "Rung | None":
        """The next rung down after a step ran out of memory."""
        if self.rung.micro_batch > 1 and self.recipe.hardware.micro_batch is None:
            return replace(self.rung, micro_batch=self.rung.micro_batch // 2)
        if self.recipe.backbone == "nano":
            return None
        from adapt.planning.hardware import given_of
        from adapt.planning.ladder import DIVIDED, lower
        from adapt.planning.plan import cost_of

        cost = cost_of(self.recipe, None if self.recipe.base is None else Path(self.recipe.base))
        ranks = self.where.processes if self.where.is_sharded else 1
        fixed = (DIVIDED if self.where.is_sharded else {}) | given_of(self.recipe.hardware)
        return lower(self.rung, cost, fixed=fixed, ranks=ranks)

    def _complete_cache(self):
        """The cache; what is judged, and every prompt, encoded again where files of it were lost."""
        from adapt.cache.encode import encoding_of
        from adapt.cache.samples import ahead, open_cache

        cache = open_cache(self.run / LATENTS, self.means.store)
        judged = [n for n in cache.needs(copies=False) if cache.catalogue.parts[n[0]].split != "train"]
        if cache.missing(judged) or cache.unread_prompts():
            encoding = encoding_of(self._job(1), self.where)
            encoding.embed(cache)
            ahead(encoding, cache, judged, lambda n: self.watch.progress("encode", n, 0, "windows"))
            encoding.backbone.free()
        return cache

    def _trained(self):
        """The backbone and the model with the chosen weights."""
        from adapt.planning.rung import Rung
        from adapt.training.checkpoint import load_tensors
        from adapt.training.job import DTYPES, build_model, load_backbone
        from adapt.training.loop import BEST, load_trainable

        backbone = load_backbone(self.run, self.recipe, self._device())
        dtype = DTYPES[self.recipe.hardware.precision]
        # What it was trained in, whatever is planned now; a few passes are not worth compiling for.
        self.rung = replace(Rung(**self.done[TRAIN].facts["rung"]), compile=False)
        if self.where.is_sharded and self.rung.weights == "bf16":
            self.watch.note("judged and checked with fp8 weights: the base does not fit one GPU")
            self.rung = replace(self.rung, weights="fp8")
        model = build_model(backbone, self.recipe, self.rung, dtype, start=False)
        load_trainable(model, load_tensors(self.run / TRAIN / BEST))
        return backbone, model

    def _device(self):
        import torch

        return torch.device(self.where.kind)

    def _judge(self, folder: Path) -> dict[str, Any]:
        from adapt.evaluate import Arm, Probes, Serving, judge
        from adapt.report import write_report
        from adapt.scoring import verdict

        backbone, model = self._trained()
        cache = self._complete_cache()
        kept = {p.name for p in self.recipe.parts if p.role == "replay"}
        own = [n for n, part in cache.catalogue.parts.items() if part.split == "test" and part.source not in kept]
        test = [sample for name in own for sample in cache.all(name)]
        swapped = [cache.swapped(name) for name in own if cache.catalogue.parts[name].entries]
        turned = None if None in swapped else [sample for part in swapped for sample in part]
        self.watch.progress("judge", 0, 1, f"{len(test)} held-out windows")
        models: dict[str, Any] = {"model": model}
        if self.recipe.base:
            models["base"] = Arm(backbone, model, Serving(self.recipe.denoise_steps), view=model.disable_adapter)
        probes = Probes(said=cache.said, swapped=turned)
        judged = judge(backbone, models, test, self.play, self.recipe, probes=probes)
        held = self._split()["test"].episodes
        if "action" not in self.recipe.play.losses:
            words = verdict(None, has_base=False, episodes=0)
        elif not test:
            words = ("FAIL", "no episode could be held out (three sessions are needed), so nothing was judged")
        else:
            words = verdict(judged.action, has_base="base" in models, episodes=len(held))
        report = self._report(backbone, judged, words)
        if self.recipe.base:
            report = report.model_copy(update={"forgetting": self._forgetting(backbone, model, cache, kept)})
        write_report(folder, report, judged.figures, windows=judged.windows)
        self.watch.progress("judge", 1, 1, words[0])
        return {"verdict": words[0]}

    def _forgetting(self, backbone, model, cache, kept: set[str]):
        """Errors on held-out windows of replayed data, of the base and of the adapted model."""
        from adapt.evaluate import judge_forgetting
        from adapt.evaluate.probes import spaced
        from adapt.training.loop import errors

        rows = []
        for name in sorted(kept):
            samples = [
                s
                for s in spaced(cache.all(_judged_name("test", name, self.recipe)), FORGETTING_WINDOWS)
                if s.has_action
            ]
            if not samples:
                continue

            def error(samples=samples, name=name) -> dict[str, float]:
                seen = {"denoise_steps": self.recipe.denoise_steps, "draws": 1, "seed": self.recipe.seed}
                total, count = errors(backbone.act(model, samples, **seen).action, samples)
                return {f"{name}: action error": float(total / count)}

            def of_base(error=error) -> dict[str, float]:
                with model.disable_adapter():
                    return error()

            rows += judge_forgetting(of_base, error)
        return tuple(rows)

    def _export(self, folder: Path) -> dict[str, Any]:
        import shutil

        from adapt.cache.samples import open_cache
        from adapt.handover.check import check_windows
        from adapt.handover.export import export_adapter

        backbone, model = self._trained()
        shutil.rmtree(folder / "export", ignore_errors=True)
        report = Report.read_json(self.run / EVAL / "report.json")
        samples = check_windows(open_cache(self.run / LATENTS, self.means.store), self.recipe.play.name)
        export_adapter(
            folder / "export", backbone, model, self.recipe, self.play, report,
            licences=self._licences(), samples=samples, rung=self.rung, trained_on=self._trained_on(),
        )  # fmt: skip
        return {}

    def _trained_on(self) -> tuple[str, ...]:
        """Hashes of all episodes that any part, its base or an earlier adapter was trained on."""
        from adapt.handover.adapter import RECORD, read_record

        earlier = [Path(p) for p in (self.recipe.start, self.recipe.base) if p is not None]
        records = [read_record(path) for path in earlier if (path / RECORD).exists()]
        before = {episode for record in records for episode in record.trained_on}
        own = {s.content_sha256 for c in self.sources.values() for s in c.manifest.samples if s.split == "train"}
        return tuple(sorted({*own, *before}))

    def _licences(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(x for c in self.sources.values() for x in c.manifest.licences))

    def _split(self) -> dict[str, SplitPart]:
        windows, plays = self.done[LATENTS].facts["windows"], self.recipe.plays
        counts = {"train": sum(windows[p.name] for p in plays)}
        counts |= {s: sum(windows[_judged_name(s, p.name, self.recipe)] for p in plays) for s in ("val", "test")}
        return episode_split(self.play, counts)

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
            **judged.fields,
            training=Training.model_validate(self.done[TRAIN].facts["training"]),
            rejects={k: tuple(v) for k, v in rejects.items()},
            notes=self._notes(backbone) + judged.notes,
            provenance=self._provenance(),
        )

    def _information(self) -> tuple[str, ...]:
        """What the model was given, in words: a reader must be able to judge what the error is worth."""
        if "action" not in self.recipe.play.losses:
            return ("video", "instruction")
        known = ["present state", "video of the last chunks", "instruction"]
        known += ["joint velocity (differences over the last frames)"] * ("velocity" in self.recipe.derived_state)
        known += ["the last command"] * ("last_command" in self.recipe.derived_state)
        return tuple(known)

    def _notes(self, backbone) -> tuple[str, ...]:
        notes = [backbone.about]
        windows = self.done[LATENTS].facts["windows"]
        for part in self.recipe.parts:
            if part.role == "video" and part.name != self.recipe.play.name:
                notes.append(
                    f"{windows[part.name]} windows of action-free video were trained on: they teach looks, not control"
                )
            if part.role == "replay":
                notes.append(f"{windows[part.name]} windows of {part.name} were replayed against forgetting")
        for manifest in [c.manifest for c in self.sources.values()]:
            wordless = sum(f.code == "blank_text" for f in manifest.findings)
            if wordless:
                notes.append(f"{wordless} episodes of {', '.join(manifest.sources)} have no instruction")
            notes += [f.message for f in manifest.findings if f.code == "same_length"][:1]
        if "action" not in self.recipe.play.losses:
            notes.append("no actions: this model can imagine video, it cannot control a robot")
        trained = self.done[TRAIN].facts["rung"]["weights"]
        if self.rung.weights != trained:
            notes.append(f"trained with {trained} weights over several GPUs, judged with {self.rung.weights} on one")
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


def episode_split(clips: Clips, windows: dict[str, int]) -> dict[str, SplitPart]:
    """Episodes, minutes and windows of each part of the split."""
    parts = {}
    for name in ("train", "val", "test"):
        samples = [s for s in clips.manifest.samples if s.split == name]
        parts[name] = SplitPart(
            episodes=tuple(dict.fromkeys(clips.episodes[s.key] for s in samples)),
            minutes=sum(s.seconds for s in samples) / 60,
            windows=windows.get(name, 0),
        )
    return parts


def _cores() -> int:
    import os

    return os.cpu_count() or 1
