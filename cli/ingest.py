"""`wam ingest`: logs to shards."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def ingest(
    sources: Annotated[list[Path], typer.Argument(help="Folders of robot logs, or of plain videos.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the shards; finished or resumed if it exists.")],
    robot: Annotated[
        str | None, typer.Option(help="Built-in robot or YAML file. Default: drafted from the data.")
    ] = None,
    reader: Annotated[
        str, typer.Option(help="Format of the logs, or your own module; default: told by content.")
    ] = "auto",
    where: Annotated[
        str | None, typer.Option(help='Only episodes for which this SQL condition holds: "seconds > 5".')
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Table (csv, xlsx, parquet) of words, outcome and use of episodes; several add up."),
    ] = None,
    keep_ranges: Annotated[
        Path | None, typer.Option(help="Published ranges of rows worth learning from (openpi's JSON for DROID).")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Instruction for every episode, in place of the log's.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the data, in place of the source's.")] = None,
    keep_blank_text: Annotated[bool, typer.Option(help="Keep episodes without an instruction.")] = False,
    max_clip_s: Annotated[float, typer.Option(help="Longest clip, in seconds.")] = 60.0,
    shard_mb: Annotated[float, typer.Option(help="Size of a shard, in MB.")] = 256.0,
    split_by: Annotated[str, typer.Option(help="hash (of sessions) or order (last ones are held out).")] = "hash",
    val: Annotated[float, typer.Option(help="Share of sessions for choosing checkpoints.")] = 0.125,
    test: Annotated[float, typer.Option(help="Share of sessions for the report.")] = 0.25,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept a drafted robot with open questions.")] = False,
    executor: Annotated[str, typer.Option(help="ray or local.")] = "ray",
    ray_address: Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster to use.")] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Read logs or videos and write webdataset shards with a manifest.

    Video packets and pictures are kept as they are, only raw pixels are encoded; nothing is written into a source. Run
    again to finish what an interrupted run left.
    """
    from schemas.recipe import Filters, IngestRecipe, SplitRule
    from schemas.yaml_io import parse
    from wamdata.source import Source

    values = {
        "sources": [str(Source.at(s)) for s in sources],
        "reader": reader,
        "robot": _robot(robot, sources, out, reader=reader, yes=yes),
        "where": where,
        "keep_ranges": str(keep_ranges) if keep_ranges else None,
        "labels": tuple(str(path) for path in labels or ()),
        "task": task,
        "licence": licence,
        "max_clip_s": max_clip_s,
        "shard_mb": shard_mb,
        "filters": Filters(blank_text="keep" if keep_blank_text else "reject"),
        "split": parse(SplitRule, {"by": split_by, "val": val, "test": test}, "split options"),
    }
    recipe = parse(IngestRecipe, values, "options")
    manifest = run(recipe, out, executor=executor, ray_address=ray_address, quiet=quiet or json)
    if json:
        console.as_json(summary(manifest, out))
        return
    print_summary(manifest, out)


def run(recipe, out: Path, *, executor: str, ray_address: str | None, quiet: bool):
    """Ingest with a progress bar."""
    from schemas.errors import UsageError
    from wamdata.ingest import Progress
    from wamdata.ingest import ingest as ingest_logs

    if executor not in ("ray", "local"):
        raise UsageError(f"--executor {executor!r}: give ray or local.")
    with console.progress("ingest", quiet=quiet) as bar:

        def show(p: Progress) -> None:
            rejected = f", {p.rejects} rejected" if p.rejects else ""
            bar(p.episodes_done, p.episodes, f"episodes, {console.megabytes(p.bytes)}{rejected}")

        return ingest_logs(recipe, out, executor=executor, address=ray_address, on_progress=show)


def _robot(robot: str | None, sources: list[Path], out: Path, *, reader: str, yes: bool) -> str:
    """The robot to use: as given, `video_only` for plain video, or drafted beside the shards."""
    if robot is not None:
        refuse_open_questions(Path(robot), yes=yes)
        return robot
    return drafted_robot(sources[0], out.with_name(out.name + ".robot.yaml"), reader=reader, yes=yes)


def drafted_robot(source: Path, path: Path, *, yes: bool, reader: str = "auto") -> str:
    """Path of a robot drafted from `source`, written to `path` once; `video_only` for plain video.

    Raises:
        UsageError: the draft has open questions and `yes` was not given.
    """
    import yaml

    from schemas.embodiment import Embodiment
    from schemas.errors import DataError
    from schemas.files import write_atomic
    from schemas.yaml_io import parse
    from wamdata.draft import draft_embodiment
    from wamdata.readers import detect_reader
    from wamdata.source import Source

    logs = Source.at(source)
    if detect_reader(logs, reader).NAME == "video":
        return "video_only"
    if not path.exists():
        text = draft_embodiment(logs, reader=reader)
        if not parse(Embodiment, yaml.safe_load(text), "draft").cameras:
            raise DataError(
                f"{source}: no camera in the logs, and a world action model learns from pictures. Record one, or give "
                "its films beside."
            )
        write_atomic(path, text.encode())
        console.note(f"robot drafted from the data: {path} (look at it; give --robot to use another)")
    refuse_open_questions(path, yes=yes)
    return str(path)


def open_questions(path: Path) -> list[str]:
    """Lines of a robot's file that still hold a QUESTION; none for a built-in robot's name."""
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").splitlines()
    return [f"line {number}: {line.strip()}" for number, line in enumerate(lines, start=1) if "QUESTION" in line]


def refuse_open_questions(path: Path, *, yes: bool) -> None:
    from schemas.errors import UsageError

    questions = open_questions(path)
    if questions and not yes:
        raise UsageError(
            f"{path}: {len(questions)} open question{'s' * (len(questions) > 1)}, first at {questions[0]} "
            "Answer by editing (remove the word QUESTION), or pass --yes."
        )


def summary(manifest, out: Path) -> dict:
    """What an ingest made, JSON-ready."""
    return {
        "out": str(out),
        "robot": manifest.embodiment.name,
        "source_episodes": manifest.source_episodes,
        "episodes": manifest.episodes,
        "clips": len(manifest.samples),
        "minutes": manifest.seconds / 60,
        "shards": len(manifest.shards),
        "bytes": sum(s.bytes for s in manifest.shards),
        "split": {part: len(manifest.split_keys(part)) for part in ("train", "val", "test")},
        "rejects": rejects_by_reason(manifest),
        "findings": _count(f.code for f in manifest.findings),
        "licences": list(manifest.licences),
    }


def print_summary(manifest, out: Path) -> None:
    facts = summary(manifest, out)
    console.out(
        f"{out}: {facts['episodes']} of {facts['source_episodes']} episodes, {facts['minutes']:.1f} min, "
        f"{facts['clips']} clips in {facts['shards']} shards ({console.megabytes(facts['bytes'])}), "
        f"robot {facts['robot']}"
    )
    console.out("split: " + ", ".join(f"{n} {part}" for part, n in facts["split"].items()))
    print_rejects(manifest)
    if facts["findings"]:
        console.out(
            "noticed: " + ", ".join(f"{n} {code}" for code, n in facts["findings"].items()) + " (see `wam show`)"
        )


def print_rejects(manifest) -> None:
    """Episodes that were left out, by reason, with the first one's own words."""
    for reason, episodes in rejects_by_reason(manifest).items():
        first = next(r for r in manifest.rejects if r.reason == reason)
        console.out(f"rejected {len(episodes)} ({reason}): {', '.join(episodes[:4])}{' ...' * (len(episodes) > 4)}")
        console.out(f"  {first.detail}")


def rejects_by_reason(manifest) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for reject in manifest.rejects:
        found.setdefault(reject.reason, []).append(reject.episode)
    return found


def _count(items) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts
