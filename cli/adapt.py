"""`wam adapt`: one command from logs to an adapter."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console

if TYPE_CHECKING:
    from schemas.recipe import AdaptRecipe


def adapt(
    sources: Annotated[list[Path] | None, typer.Argument(help="Robot logs, a folder of shards, or a pack.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; finished or resumed if it exists.")] = Path(),
    play: Annotated[list[Path] | None, typer.Option(help="The same as SOURCES.")] = None,
    add: Annotated[Path | None, typer.Option(help="More play data of the robot; half of its windows.")] = None,
    video: Annotated[
        Path | None, typer.Option(help="Action-free videos (or their shards) to train on as well.")
    ] = None,
    replay: Annotated[list[Path] | None, typer.Option(help="Shards of other data, against forgetting.")] = None,
    mix: Annotated[str | None, typer.Option(help="The video's share of each batch, or a mix.yaml.")] = None,
    robot: Annotated[
        str | None, typer.Option(help="Built-in robot or YAML file. Default: drafted from the data.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Instruction for every episode, in place of the log's.")] = None,
    video_task: Annotated[str | None, typer.Option(help="Instruction for the action-free videos.")] = None,
    split_by: Annotated[
        str | None, typer.Option(help="hash (of sessions, the default) or order: hold out the last.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="nano or dreamzero. Default: as the base, else nano.")] = None,
    base: Annotated[str | None, typer.Option(help="What to adapt: a name (`wam base list`) or a folder.")] = None,
    style: Annotated[str | None, typer.Option(help="DreamZero: channels and words of agibot, droid or yam.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Earlier adapter of this robot to go on from.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML with training settings; options given here win.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Training steps, as epochs of the play data.")] = None,
    until: Annotated[str | None, typer.Option(help="When all must be done: 07:30, +8h, or a date with time.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows per step, over all GPUs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank; alpha equals it.")] = None,
    copies: Annotated[int | None, typer.Option(help="Augmented copies of each window in the cache.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    last_command: Annotated[bool, typer.Option(help="Also give the model its last command (nano).")] = False,
    gpus: Annotated[int | None, typer.Option(help="Processes to train with. Default: all GPUs, or one.")] = None,
    shard: Annotated[bool, typer.Option(help="Divide the base over the GPUs (FSDP2).")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: cuda where there is one.")] = None,
    weights: Annotated[str | None, typer.Option(help="Form of the base: bf16, fp8, int8 or nf4.")] = None,
    lazy: Annotated[bool, typer.Option(help="Encode windows when they are first needed, not before.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder of encoded windows to share between runs.")] = None,
    sync: Annotated[str | None, typer.Option(help="URL to which the run is mirrored while it goes.")] = None,
    log: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb; may be given twice.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 unless the verdict is OFFLINE PASS.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Ingest and plan, but do not train.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept a drafted robot with open questions.")] = False,
    executor: Annotated[str, typer.Option(help="Where ingest runs: ray or local.")] = "ray",
    ray_address: Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster to use.")] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Logs in, adapter and honest report out: ingest, encode, train, judge on held-out episodes, export.

    Run it again to finish what was interrupted; a finished run is recognised in seconds.
    """
    from cli.parts import Asked, parts_of
    from schemas.errors import UsageError

    if out == Path():
        raise UsageError("--out: is missing. Give the run folder.")
    hide = quiet or json
    given: dict[str, Any] = {"backbone": backbone, "base": base, "style": style, "steps": steps, "epochs": epochs}
    given |= {"until": until, "batch": batch, "lr": lr, "seed": seed, "start": None if start is None else str(start)}
    hardware = {"gpus": gpus, "shard": shard or None, "device": device, "weights": weights}
    hardware |= {"encode_ahead": False if lazy else None}
    everything = [*(sources or []), *(play or [])]
    pack = _pack(everything)
    if pack is not None:
        everything, video, robot = [pack.shards], pack.video or video, robot or str(pack.robot)
        recipe, given["base"] = recipe or pack.recipe, base or (None if pack.base is None else str(pack.base))
    settings = _settings(recipe, given, hardware, rank=rank, copies=copies, last_command=last_command)
    settings = _with_base(settings)
    _check_start(settings.get("start"))
    _refuse_idle(settings, rank=rank)
    end = _end(_recipe(settings, _PLACEHOLDER))  # a mistake in the settings is told before anything is ingested
    _check_writers(out, log or [])
    if sync:
        _bring_back(sync, out, quiet=hide)
    options = {"yes": yes, "executor": executor, "ray_address": ray_address, "quiet": hide}
    asked = Asked(
        play=everything, add=add, video=video, replay=replay or [], mix=mix, robot=robot, task=task,
        video_task=video_task, split_by=split_by, ingest=options,
    )  # fmt: skip
    parts, found = parts_of(asked, out)
    resolved = _recipe(settings, [p.as_dict() for p in parts])
    if dry_run:
        from cli.plan import print_plan

        print_plan(resolved, found, json=json, gpus=max(1, gpus or 1), folder=out.parent)
        return
    command = "wam " + " ".join(shlex.quote(a) for a in sys.argv[1:])
    result = _run(
        out, resolved, found, command,
        quiet=hide, address=ray_address, cache=cache, sync=sync, log=log or [], end=end,
    )  # fmt: skip
    if json:
        console.as_json(
            result.report.as_dict() | {"html": str(result.html), "adapter": str(result.adapter), "run": str(out)}
        )
    else:
        print_result(result)
    if strict and result.report.verdict != "OFFLINE PASS":
        raise typer.Exit(1)


def _run(
    out: Path,
    recipe: "AdaptRecipe",
    found: dict,
    command: str,
    *,
    quiet: bool,
    address: str | None,
    cache: Path | None,
    sync: str | None,
    log: list[str],
    end: float | None,
):
    from contextlib import ExitStack

    from adapt.handover.sync import Mirror
    from adapt.run import Means, Watch, adapt, joined
    from adapt.training.watch import writers
    from cli.bars import Bars

    with ExitStack() as stack:
        bars = stack.enter_context(Bars(quiet=quiet))
        watches = [bars.watch]
        if log:
            watches.append(stack.enter_context(writers(out, log, on_note=bars.note)).watch)
        if sync:
            out.mkdir(parents=True, exist_ok=True)
            mirror = stack.enter_context(Mirror(out, sync, on_trouble=bars.note))
            watches.append(Watch(save=mirror.poke))
        means = Means(address=address, store=cache, ends_at=end)
        return adapt(out, recipe, found, command=command, watch=joined(watches), means=means)


def _bring_back(url: str, out: Path, *, quiet: bool) -> None:
    """A run that was mirrored from another machine goes on here."""
    from adapt.handover.sync import bring_back, without_secrets

    found = bring_back(url, out)
    if found is not None and not quiet:
        console.note(f"brought back {found} files of this run from {without_secrets(url)}")


def _check_writers(out: Path, names: list[str]) -> None:
    """A missing package is told before anything is ingested."""
    from adapt.training.watch import writers

    writers(out, names).close()


def _end(recipe: "AdaptRecipe") -> float | None:
    """When all must be done, `time.time()`."""
    from datetime import datetime

    from adapt.planning.until import ends_at

    return None if recipe.until is None else ends_at(recipe.until, datetime.now().astimezone())


LABELS = {
    "stand_still": "standing still",
    "mean": "mean motion",
    "ridge_state": "ridge on state",
    "without_video": "model, video hidden",
    "base": "un-adapted base",
}
_PLACEHOLDER = [{"name": "play", "shards": "", "share": 1.0, "losses": ["video", "action"], "role": "play"}]


def print_result(result) -> None:
    report = result.report
    console.out(f"{report.verdict}: {report.reason}")
    if report.action:
        units = " and ".join(dict.fromkeys(c.unit for c in report.action.components))
        ranked = sorted(report.action.error.items(), key=lambda item: item[1])
        rows = [[LABELS.get(name, name.replace("_", " ")), f"{error:.4f}"] for name, error in ranked]
        console.table(rows, [f"mean absolute error, all columns alike ({units})", ""], right=(1,))
    if report.video:
        console.out(
            "video PSNR: " + ", ".join(f"{n.replace('_', ' ')} {v:.1f} dB" for n, v in report.video.psnr.items())
        )
    console.out("offline only: this says nothing about a robot in the loop")
    console.out(f"report:  {result.html}")
    console.out(f"adapter: {result.adapter}")


def _pack(sources: list[Path]):
    """The pack that is pointed at, opened; None for other sources."""
    from adapt.handover.pack import is_pack, open_pack

    if len(sources) != 1 or not sources[0].exists() or not is_pack(sources[0]):
        return None
    return open_pack(sources[0])


def _settings(
    recipe: Path | None,
    given: dict[str, Any],
    hardware: dict[str, Any],
    *,
    rank: int | None,
    copies: int | None,
    last_command: bool,
) -> dict[str, Any]:
    """Training settings: the recipe file's, overruled by what was given on the command line."""
    from schemas.yaml_io import load_yaml

    settings = load_yaml(recipe) if recipe else {}
    settings |= {k: v for k, v in given.items() if v is not None}
    if ("steps" in settings) and ("epochs" in settings) and ((given["steps"] is None) != (given["epochs"] is None)):
        settings.pop("steps" if given["steps"] is None else "epochs")  # the option replaces the file's budget
    if own := {k: v for k, v in hardware.items() if v is not None}:
        settings["hardware"] = settings.get("hardware", {}) | own
    if rank is not None:
        settings["lora"] = settings.get("lora", {}) | {"rank": rank, "alpha": float(rank)}
    if copies is not None:
        settings["augment"] = settings.get("augment", {}) | {"copies": copies}
    if last_command:
        settings["derived_state"] = ["velocity", "last_command"]
    return settings


def _with_base(settings: dict[str, Any]) -> dict[str, Any]:
    """Names of known bases become folders, and what a base is says which backbone it needs."""
    if settings.get("base") is None:
        return settings
    from adapt.handover import bases
    from adapt.handover.adapter import RECORD, read_record
    from cli.base import bases_home

    folder = bases.find(str(settings["base"]), bases_home())
    own = read_record(folder).backbone if (folder / RECORD).exists() else "dreamzero"
    return {"backbone": own} | settings | {"base": str(folder)}


def _check_start(start: str | None) -> None:
    """An adapter to start from is looked at before anything is ingested."""
    if start is None:
        return
    from adapt.handover.adapter import read_record

    read_record(Path(start))


def _refuse_idle(settings: dict[str, Any], *, rank: int | None) -> None:
    """Options that would do nothing are mistakes."""
    from schemas.errors import UsageError

    if rank is not None and settings.get("base") is None:
        raise UsageError(f"--rank {rank}: LoRA needs what it is put on. Give --base, or leave it out.")
    for name in ("style", "tokenizer"):
        if settings.get(name) and settings.get("backbone", "nano") == "nano":
            raise UsageError(f"{name} {settings[name]}: is for DreamZero. Give --base, or leave it out.")


def _recipe(settings: dict[str, Any], parts: list[dict[str, Any]]) -> "AdaptRecipe":
    from adapt.backbones.registry import backbone_info
    from schemas.recipe import AdaptRecipe
    from schemas.yaml_io import parse

    recipe = parse(AdaptRecipe, settings | {"parts": parts}, "settings")
    backbone_info(recipe.backbone)
    return recipe
