"""`wam plan`: what a run would do, before anything is spent."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def plan(
    shards: Annotated[Path, typer.Argument(help="A folder of shards (`wam ingest`).")],
    video: Annotated[Path | None, typer.Option(help="Shards of action-free video.")] = None,
    robot: Annotated[str | None, typer.Option(help="Robot to see the shards as.")] = None,
    backbone: Annotated[str, typer.Option(help="nano.")] = "nano",
    recipe: Annotated[Path | None, typer.Option(help="YAML with training settings.")] = None,
    json: console.Json = False,
) -> None:
    """Count windows, epochs, held-out chunks and bytes of a run, and say what will not work.

    Not yet: seconds per step, GPU memory, the model's prompt and canvas. `wam adapt --dry-run` plans from raw logs.
    """
    from adapt.run import Shards
    from schemas.embodiment import load_embodiment
    from schemas.recipe import AdaptRecipe
    from schemas.yaml_io import load_yaml, parse

    play = Shards.open(shards, load_embodiment(robot) if robot else None)
    films = Shards.open(video) if video else None
    settings = {"backbone": backbone} | (load_yaml(recipe) if recipe else {}) | {"play": str(shards)}
    print_plan(parse(AdaptRecipe, settings, str(recipe or "settings")), play, films, json=json)


def print_plan(recipe, play, films, *, json: bool) -> None:
    from adapt.plan import plan as make_plan

    found = make_plan(recipe, play, films)
    if json:
        console.as_json(vars(found))
        return
    minutes = found.minutes
    console.out(f"{found.robot} on {found.backbone}; base {found.base}")
    console.out(
        "episodes: "
        + ", ".join(f"{n} {part} ({minutes[part]:.1f} min)" for part, n in found.episodes.items())
        + f"; instructions: {len(found.instructions)}"
    )
    films_words = f" and {found.video_windows} of action-free video" if found.video_windows else ""
    console.out(
        f"training: {found.train_windows} windows{films_words}; {recipe.steps} steps x {recipe.batch} = "
        f"{found.epochs:.1f} epochs"
    )
    console.out(
        f"judged: {found.judged_chunks['val']} chunks choose the checkpoint, "
        f"{found.judged_chunks['test']} make the report"
    )
    console.out(f"cache: {console.megabytes(found.cache_bytes)}")
    if found.short_clips:
        console.out(f"too short for a window, not trained on: {', '.join(found.short_clips[:4])}")
    for warning in found.warnings:
        console.out(f"note: {warning}")
