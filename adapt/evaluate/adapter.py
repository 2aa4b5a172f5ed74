"""An exported adapter judged on any shards of its robot: `wam eval`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adapt.backbones.base import Backbone
from adapt.cache.catalogue import Catalogue, Naming, judged_part
from adapt.cache.samples import Cache, Encoding, ahead
from adapt.cache.store import Store
from adapt.clips import Clips
from adapt.evaluate import Arm, Probes, Serving, deployed, judge
from adapt.evaluate.predictions import read_predictions
from adapt.handover.adapter import CHECK, AdapterRecord, read_record
from adapt.handover.check import DTYPES, read_check
from adapt.handover.export import load_adapter
from adapt.report import write_report
from adapt.run import episode_split
from adapt.scoring import verdict
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.recipe import AdaptRecipe
from schemas.report import Report
from wamdata.augment import Augmentation

SCRATCH = "encoded.partial"  # in the report's folder while it is judged
TEST = "test"


def judge_adapter(
    folder: Path,
    shards: Clips,
    out: Path,
    *,
    base: Path | None,
    as_served: bool = False,
    predictions: Path | None = None,
    device: torch.device | None = None,
    on_progress: Callable[[int, int, str], None],
) -> tuple[Report, Path]:
    """Report and page of an adapter on the held-out part of `shards`.

    Args:
        as_served: precision, denoising steps and guidance of deployment, in place of the recipe's.
        predictions: another policy's predictions (`adapt.evaluate.predictions`), as one more arm.
        device: the GPU by default, where there is one.

    Raises:
        UsageError: the shards are of another robot.
        DataError: nothing is held out, or a row of `predictions` belongs to no judged window.
    """
    others = (read_predictions(predictions),) if predictions else ()
    record = read_record(folder)
    recipe = AdaptRecipe.model_validate(record.recipe)
    serving = deployed(record.backbone, recipe) if as_served else Serving(recipe.denoise_steps)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    form = _form(folder, serving)
    backbone, model, robot, record = load_adapter(folder, base, device=device, **form)
    _refuse_other_robot(shards, robot)
    clips = Clips.open(shards.folder, robot)
    if not clips.manifest.split_keys("test"):
        raise DataError(f"{shards.folder}: nothing is held out. Assign parts with `wam shard split`.")
    torch.set_num_threads(recipe.hardware.threads)
    out.mkdir(parents=True, exist_ok=True)
    cache = encoded(backbone, clips, recipe, out / SCRATCH, on_progress)
    try:
        test = cache.all(TEST)
        if not test:
            raise DataError(f"{shards.folder}: no held-out clip is as long as one chunk. Hold out longer episodes.")
        models: dict[str, Any] = {"model": model}
        if record.kind == "lora":
            models["base"] = Arm(backbone, model, serving, recipe.seed, view=model.disable_adapter)
        probes = Probes(said=cache.said, swapped=cache.swapped(TEST))
        judged = judge(backbone, models, test, clips, recipe, probes=probes, serving=serving, others=others)
    finally:
        shutil.rmtree(out / SCRATCH, ignore_errors=True)
    split = episode_split(shards, {"test": len(test)})
    words = verdict(judged.action, has_base="base" in models, episodes=len(split["test"].episodes))
    seen = _seen(shards, record)
    if seen and judged.action is not None:
        words = "FAIL", f"{_seen_words(seen)}, so this is no held-out error and no verdict; {words[1]}"
    report = Report(
        verdict=words[0],
        reason=words[1],
        robot=robot.name,
        backbone=record.backbone,
        base=record.base_name,
        information=("as trained: see the adapter's README",),
        chunk_s=backbone.time_base.chunk_s,
        action_hz=backbone.time_base.action_hz,
        split=split,
        **judged.fields,
        training=None,
        rejects={},
        notes=(_overlap(seen), _settings(serving, as_served=as_served), *judged.notes),
        provenance={
            "adapter weights": record.weights_sha256[:16],
            "source fingerprint": shards.manifest.fingerprint[:16],
        },
    )
    return report, write_report(out, report, judged.figures, windows=judged.windows)


def encoded(
    backbone: Backbone,
    clips: Clips,
    recipe: AdaptRecipe,
    folder: Path,
    on_progress: Callable[[int, int, str], None],
) -> Cache:
    """The held-out windows of `clips` through the encoders, in `folder`; views swapped as well where there are two."""
    naming = Naming(backbone.fingerprint, backbone.layout_id, backbone.time_base, Augmentation(), recipe.seed)
    part = judged_part(TEST, "play", clips, backbone, recipe, naming, split="test", frames=True)
    cache = Cache(Catalogue({TEST: part}), Store(folder))
    encoding = Encoding(backbone, {"play": clips}, frozenset(recipe.imitate))
    needs = cache.needs()
    encoding.embed(cache)
    ahead(encoding, cache, needs, lambda done: on_progress(done, len(needs), "windows"))
    backbone.free()
    return cache


def _form(folder: Path, serving: Serving) -> dict[str, Any]:
    """In what the model computes: as deployed, or as it did when it was trained."""
    if serving.dtype is not None:
        return {"dtype": DTYPES[serving.dtype]}
    if not (folder / CHECK).exists():
        return {}
    told = read_check(folder).settings
    return {"dtype": DTYPES[told.dtype], "weights": told.weights}


def _refuse_other_robot(shards: Clips, robot: Embodiment) -> None:
    held = shards.manifest.embodiment
    if robot.action_width != held.action_width or robot.state_width != held.state_width:
        raise UsageError(
            f"{shards.folder}: robot {held.name!r} has {held.state_width} state and "
            f"{held.action_width} action columns, the adapter's {robot.name!r} {robot.state_width} and "
            f"{robot.action_width}. Ingest with the adapter's embodiment.yaml."
        )


def _settings(serving: Serving, *, as_served: bool) -> str:
    return f"judged {'as served' if as_served else 'with the settings of its recipe'}: {serving.words}"


def _seen(shards: Clips, record: AdapterRecord) -> list[str]:
    """Episodes it is judged on here that the adapter was trained on."""
    samples = shards.manifest.samples
    return sorted({s.episode for s in samples if s.split == "test" and s.content_sha256 in record.trained_on})


def _seen_words(seen: list[str]) -> str:
    return f"NOT HELD OUT: the adapter was trained on {len(seen)} of these episodes, {seen[0]} among them"


def _overlap(seen: list[str]) -> str:
    return _seen_words(seen) if seen else "judged again by `wam eval` on episodes that the adapter was not trained on"
