"""`wam adapt`: one command from logs to an adapter."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import console


def adapt(
    sources: Annotated[list[Path], typer.Argument(help="Robot logs, or a folder of shards.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; finished or resumed if it exists.")],
    robot: Annotated[
        str | None, typer.Option(help="Built-in robot or YAML file. Default: drafted from the data.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Action-free videos (or their shards) to train on as well.")
    ] = None,
    video_task: Annotated[str | None, typer.Option(help="Instruction for the action-free videos.")] = None,
    task: Annotated[str | None, typer.Option(help="Instruction for every episode, in place of the log's.")] = None,
    backbone: Annotated[str | None, typer.Option(help="nano, the default and the only one yet.")] = None,
    base: Annotated[Path | None, typer.Option(help="Exported `full` adapter to train a LoRA on.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML with training settings; options given here win.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    last_command: Annotated[bool, typer.Option(help="Also give the model its last command.")] = False,
    split_by: Annotated[
        str | None, typer.Option(help="hash (of sessions, the default) or order: hold out the last.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 unless the verdict is OFFLINE PASS.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Ingest and plan, but do not train.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept a drafted robot with open questions.")] = False,
    executor: Annotated[str, typer.Option(help="Where ingest runs: ray or local.")] = "ray",
    ray_address: Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster to use.")] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Logs in, adapter and honest report out: ingest, encode, train, judge on held-out episodes, export.

    Run it again to finish what was interrupted; a finished run is recognised in seconds. Not yet: DreamZero's
    14B and 5B, several GPUs, budgets in hours.
    """
    hide = quiet or json
    options = {"yes": yes, "executor": executor, "ray_address": ray_address, "quiet": hide}
    split = {"by": split_by} if split_by else None
    given = {"backbone": backbone, "base": str(base) if base else None}
    given |= {"steps": steps, "batch": batch, "lr": lr, "seed": seed}
    settings = _settings(recipe, given, last_command=last_command)
    from cli import sources as source
    from schemas.errors import UsageError

    for path in (*sources, *([video] if video else []), *([base] if base else [])):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder. Check the path.")
    _recipe(settings, None, None)  # a mistake in the settings is told before anything is ingested
    play = source.shards_of(sources, out / "shards", robot=robot, task=task, split=split, **options)
    films = None
    if video is not None:
        whole = None if source.is_shards(video) else {"val": 0, "test": 0}
        films = source.shards_of(
            [video], out / "video_shards", robot=None, task=video_task, split=whole, blank_text=True, **options
        )
    from adapt.run import Watch
    from adapt.run import adapt as run_adapt

    resolved = _recipe(settings, play, films)
    if dry_run:
        from cli.plan import print_plan

        print_plan(resolved, play, films, json=json)
        return
    with _Bars(quiet=hide) as bars:
        watch = Watch(stage=bars.stage, progress=bars.progress)
        command = "wam " + " ".join(shlex.quote(a) for a in sys.argv[1:])
        result = run_adapt(out, resolved, play, films, command=command, watch=watch)
    if json:
        console.as_json(
            result.report.as_dict() | {"html": str(result.html), "adapter": str(result.adapter), "run": str(out)}
        )
    else:
        print_result(result)
    if strict and result.report.verdict != "OFFLINE PASS":
        raise typer.Exit(1)


LABELS = {
    "stand_still": "standing still",
    "mean": "mean motion",
    "ridge_state": "ridge on state",
    "without_video": "model, video hidden",
    "base": "un-adapted base",
}


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


def _settings(recipe: Path | None, given: dict, *, last_command: bool) -> dict:
    """Training settings: the recipe file's, overruled by what was given on the command line."""
    from schemas.yaml_io import load_yaml

    settings = load_yaml(recipe) if recipe else {}
    settings |= {k: v for k, v in given.items() if v is not None}
    if last_command:
        settings["derived_state"] = ["velocity", "last_command"]
    return settings


def _recipe(settings: dict, play, films):
    from adapt.backbones.registry import backbone_info
    from schemas.recipe import AdaptRecipe
    from schemas.yaml_io import parse

    folders = {"play": str(play.folder) if play else "", "video": str(films.folder) if films else None}
    recipe = parse(AdaptRecipe, settings | folders, "settings")
    backbone_info(recipe.backbone)
    return recipe


class _Bars:
    """One bar per stage, shown while it runs."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = None
        self._context = None
        self._label = ""

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *error) -> None:
        self._close(*error)

    def stage(self, name: str, skipped: bool) -> None:
        self._close(None, None, None)
        if skipped and not self._quiet:
            console.note(f"{name}: done before")

    def progress(self, label: str, done: int, total: int, words: str) -> None:
        if label != self._label:
            self._close(None, None, None)
            self._context = console.progress(label, quiet=self._quiet)
            self._bar, self._label = self._context.__enter__(), label
        self._bar(done, total or None, words)

    def _close(self, *error) -> None:
        if self._context is not None:
            self._context.__exit__(*(error or (None, None, None)))
        self._context, self._label = None, ""
