"""`wam plan`: what a run would do, before anything is spent."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def plan(
    shards: Annotated[list[Path] | None, typer.Argument(help="A folder of shards (`wam ingest`).")] = None,
    add: Annotated[Path | None, typer.Option(help="Shards of more play data of the robot.")] = None,
    video: Annotated[Path | None, typer.Option(help="Shards of action-free video.")] = None,
    replay: Annotated[list[Path] | None, typer.Option(help="Shards of other data, against forgetting.")] = None,
    mix: Annotated[str | None, typer.Option(help="The video's share of each batch, or a mix.yaml.")] = None,
    robot: Annotated[str | None, typer.Option(help="Robot to see the shards as.")] = None,
    backbone: Annotated[str | None, typer.Option(help="nano, or dreamzero (the default with --base or --gpu).")] = None,
    base: Annotated[str | None, typer.Option(help="The base's folder or name; its sizes are planned with.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML with training settings; options win.")] = None,
    style: Annotated[str | None, typer.Option(help="DreamZero: channels and words of agibot, droid or yam.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Training steps, as epochs of the play data.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows per step, over all GPUs.")] = None,
    gpu: Annotated[
        str | None, typer.Option(help="GPU to train on: 24, 32, 48, 80, 141 (GB) or a name. Default: this machine's.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    serve_gpu: Annotated[str | None, typer.Option(help="GPU that will control the robot. Default: --gpu.")] = None,
    json: console.Json = False,
) -> None:
    """Count windows, epochs, hours and bytes of a run, choose how it fits the GPU, and say what will not work.

    Times of DreamZero assume half of the GPU's peak until a run has measured them; nano is measured here, in two
    steps. What cannot fit is refused, with what would. `wam adapt --dry-run` plans from raw logs.
    """
    from cli.parts import Asked, opened_parts
    from schemas.recipe import AdaptRecipe
    from schemas.yaml_io import load_yaml, parse

    asked = Asked(play=shards or [], add=add, video=video, replay=replay or [], mix=mix, robot=robot)
    parts, found = opened_parts(asked)
    settings = load_yaml(recipe) if recipe else {}
    if backbone or "backbone" not in settings:
        settings["backbone"] = backbone or ("dreamzero" if base or gpu else "nano")
    given = {"base": base, "style": style, "steps": steps, "epochs": epochs, "batch": batch}
    settings |= {name: value for name, value in given.items() if value is not None}
    settings["parts"] = [p.as_dict() for p in parts]
    print_plan(
        parse(AdaptRecipe, settings, str(recipe or "settings")),
        found,
        json=json,
        gpu=gpu,
        gpus=gpus,
        serve_gpu=serve_gpu,
        folder=Path(parts[0].shards),
    )


def print_plan(
    recipe,
    sources,
    *,
    json: bool,
    gpu: str | None = None,
    gpus: int = 1,
    serve_gpu: str | None = None,
    folder: Path,
) -> None:
    """The plan of a recipe on opened shards, as a report or as JSON.

    Args:
        gpu: a class or a name; this machine's by default.
        folder: on the disk that the run will be written to.
    """
    from adapt.backbones.registry import backbone_info
    from adapt.planning.gpus import at_hand, named
    from adapt.planning.plan import plan as make_plan

    backbone_info(recipe.backbone)
    on_nano = recipe.backbone == "nano"
    base, licence = (None, None) if on_nano else _base(recipe.base)
    found = make_plan(
        recipe,
        sources,
        gpu=named(gpu) if gpu else (None if on_nano else at_hand()),
        gpus=gpus,
        serve_gpu=named(serve_gpu) if serve_gpu else None,
        base=base,
        base_licence=licence,
        folder=folder,
    )
    if json:
        console.as_json(found.as_dict())
    else:
        _print(found)
        _print_rejects(sources)
        _print_needs(recipe, base)


def _print(found) -> None:
    console.out(found.headline)
    console.out(f"{found.robot} on {found.backbone}; base {found.base}")
    counts, minutes = found.counts, found.counts.minutes
    console.out(
        "episodes: " + ", ".join(f"{n} {part} ({minutes[part]:.1f} min)" for part, n in counts.episodes.items())
    )
    console.out(f"judged: {counts.judged['val']} chunks choose the checkpoint, {counts.judged['test']} make the report")
    if counts.short_clips:
        more = f" and {len(counts.short_clips) - 4} more" if len(counts.short_clips) > 4 else ""
        console.out(f"too short for a window, not trained on: {', '.join(counts.short_clips[:4])}{more}")
    _print_time(found)
    _print_memory(found)
    written = ", ".join(f"{what} {_size(size)}" for what, size in found.disk.items())
    free = f"; {_size(found.disk_free)} are free" if found.disk_free is not None else ""
    console.out(f"on disk: {written}{free}")
    if found.control and found.control.in_time:
        console.out(found.control.words)
    console.out(f"licences: {', '.join(found.licences) or 'none stated'}")
    for warning in found.warnings:
        console.out(f"note: {warning}")


def _print_rejects(sources) -> None:
    """Episodes that ingest left out, by reason; a folder that two parts share is told once."""
    from cli.ingest import print_rejects

    for clips in {c.folder: c for c in sources.values()}.values():
        print_rejects(clips.manifest)


def _print_needs(recipe, base: Path | None) -> None:
    """What the run starts from, and what is not here yet."""
    from adapt.handover.released import KNOWN

    if recipe.base in KNOWN and base is None:
        console.out(f"the base is not here: {KNOWN[recipe.base].gb_words} of disk more, `wam base pull {recipe.base}`")
    if recipe.start:
        console.out(f"starts from {recipe.start}")


def _print_time(found) -> None:
    if found.seconds_per_step is None:
        console.out("time and memory: no GPU here; name one with --gpu 24, 32, 48, 80 or 141")
        return
    each = f" x {found.gpus}" if found.gpus > 1 else ""
    low, high = found.seconds_range
    source = (
        "measured here in two steps" if found.is_measured else f"assumed, {low:.3g} to {high:.3g}; a run measures it"
    )
    console.out(f"{found.gpu}{each}: {found.seconds_per_step:.3g} s a step ({source})")
    hours = ", ".join(f"{stage} {console.duration(3600 * h)}" for stage, h in found.hours.items())
    console.out(f"time: {hours}; decoding video comes on top")


def _print_memory(found) -> None:
    if not found.bytes:
        return
    if found.rung:
        console.out(f"how: {found.rung}")
    for reason in found.reasons:
        console.out(f"  {reason}")
    rows = [[part, _size(size)] for part, size in found.bytes.items()] + [["all", _size(found.peak_bytes)]]
    if found.headroom is not None:
        rows.append(["stays free", _size(found.headroom)])
    if found.host_bytes:
        rows.append(["beside it, in host memory", _size(found.host_bytes)])
    console.table(rows, [f"memory at the peak of a step{' of each GPU' * (found.gpus > 1)}", ""], right=(1,))


def _base(name: str | None) -> tuple[Path | None, str | None]:
    """The base's folder, if it is here, and its licence, if that is known."""
    if not name:
        return None, None
    from adapt.handover.bases import find
    from adapt.handover.released import KNOWN
    from cli.base import bases_home
    from schemas.errors import UsageError

    licence = KNOWN[name].licence or "see its card" if name in KNOWN else None
    try:
        return find(name, bases_home()), licence
    except UsageError:
        if name in KNOWN:  # not pulled yet: its sizes are known by its name
            return None, licence
        raise


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if abs(size) >= 1e9 else console.megabytes(size)
