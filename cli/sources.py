"""What a user may point at: raw logs or finished shards. Shared by `wam adapt` and `wam plan`."""

from pathlib import Path

from cli.ingest import drafted_robot, refuse_open_questions, run


def is_shards(source: Path) -> bool:
    return (source / "manifest.json").exists() and not (source / "meta" / "info.json").exists()


def opened(folder: Path, robot: str | None):
    """Finished shards, seen as `robot` if one is named."""
    from adapt.clips import Clips
    from schemas.embodiment import load_embodiment

    return Clips.open(folder, load_embodiment(robot) if robot else None)


def shards_of(
    sources: list[Path],
    out: Path,
    *,
    robot: str | None,
    task: str | None,
    yes: bool,
    executor: str,
    ray_address: str | None,
    quiet: bool,
    split: dict | None = None,
    blank_text: bool = False,
):
    """Open shards: the folder itself, or those ingested from logs into `out` (finished ones are recognised)."""
    from adapt.clips import Clips
    from schemas.embodiment import load_embodiment
    from schemas.errors import UsageError
    from schemas.recipe import IngestRecipe
    from schemas.yaml_io import parse
    from wamdata.source import Source

    if len(sources) == 1 and is_shards(sources[0]):
        if task or split:
            raise UsageError(
                f"{sources[0]}: shards hold their words and split. Use `wam ingest`, or `wam shard split`."
            )
        return opened(sources[0], robot)
    if (out.parent / "latents").exists() and not out.exists():
        raise UsageError(f"{out.parent}: is a run on other shards. Give a new --out.")
    shards = [s for s in sources if is_shards(s)]
    if shards:
        raise UsageError(f"{shards[0]}: holds shards, the others raw logs. Merge shards with `wam shard merge` first.")
    if robot:
        refuse_open_questions(Path(robot), yes=yes)
    name = robot or drafted_robot(sources[0], out.with_name(out.name + ".robot.yaml"), yes=yes)
    values = {"sources": [str(Source.at(s)) for s in sources], "robot": name, "task": task} | (
        {"split": split} if split else {}
    )
    values |= {"filters": {"blank_text": "keep"}} if blank_text else {}
    recipe = parse(IngestRecipe, values, "options")
    run(recipe, out, executor=executor, ray_address=ray_address, quiet=quiet)
    return Clips.open(out, load_embodiment(name))
