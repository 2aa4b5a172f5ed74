"""`wam curate`: which spans of films are worth training on."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def curate(
    source: Annotated[Path, typer.Argument(help="Films, folders of pictures, or any log with a camera.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Label table (csv) to write.")] = None,
    rules: Annotated[Path | None, typer.Option(help="YAML file of limits; options below stand over it.")] = None,
    min_s: Annotated[float | None, typer.Option(help="Shortest shot, in seconds.")] = None,
    static_s: Annotated[float | None, typer.Option(help="Longest stretch without motion; 0 allows any.")] = None,
    min_height: Annotated[int | None, typer.Option(help="Fewest rows of pixels.")] = None,
    min_sharpness: Annotated[float | None, typer.Option(help="Least sharpness; 0 keeps blurred shots.")] = None,
    duplicates: Annotated[bool | None, typer.Option(help="Drop copies of earlier shots.")] = None,
    camera: Annotated[str | None, typer.Option(help="Which camera is the film, where episodes have several.")] = None,
    robot: Annotated[str, typer.Option(help="Robot that ingest will be given: it times untimed pictures.")] = (
        "video_only"
    ),
    reader: Annotated[str, typer.Option(help="Format, or your own module; default: told by content.")] = "auto",
    embed: Annotated[
        Path | None, typer.Option(help="Folder of a CLIP model: drop shots that show the same by it, too.")
    ] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Find shots, measure them, and say which to drop and why; films are only read, and nothing is encoded.

    Give the table to `wam ingest --labels`: no clip will cross a cut, and dropped spans teach nothing.
    """
    from schemas.errors import UsageError
    from schemas.files import write_atomic
    from wamdata.curate.curation import curate as curate_films
    from wamdata.curate.embedding import clip_encoder
    from wamdata.curate.table import table_of
    from wamdata.label_table import write_table
    from wamdata.source import Source

    if out and out.suffix != ".csv":
        raise UsageError(f"--out {out}: is written as .csv. Name it so.")
    given = {
        "min_s": min_s, "static_s": static_s, "min_height": min_height, "min_sharpness": min_sharpness,
        "duplicates": duplicates,
    }  # fmt: skip
    limits = _rules(rules, {name: value for name, value in given.items() if value is not None})
    encoder = clip_encoder(embed) if embed else None
    with console.progress("curate", quiet=quiet or json) as bar:
        curation = curate_films(
            Source.at(source),
            limits,
            reader=reader,
            camera=camera,
            robot=robot,
            encoder=encoder,
            on_film=lambda done, total: bar(done, total, "films"),
        )
    if out:
        write_atomic(out, write_table(table_of(curation)))
    if json:
        console.as_json(_facts(curation))
        return
    _print(curation)
    if out:
        console.out(f"table: {out} (look at it, then `wam ingest {source} --labels {out} ...`)")


def _rules(path: Path | None, given: dict):
    from schemas.curate import CurateRules
    from schemas.yaml_io import load_yaml, parse

    return parse(CurateRules, (load_yaml(path) if path else {}) | given, str(path or "options"))


def _facts(curation) -> dict:
    from dataclasses import asdict

    return {
        "source": curation.source,
        "reader": curation.reader,
        "rules": curation.rules.as_dict(),
        "minutes": sum(f.seconds for f in curation.films) / 60,
        "kept_minutes": _kept_s(curation) / 60,
        "dropped_minutes": {reason: s / 60 for reason, (_, s, _) in _dropped(curation).items()},
        "films": [asdict(film) for film in curation.films],
    }


def _kept_s(curation) -> float:
    return sum(shot.seconds for film in curation.films for shot in film.kept)


def _dropped(curation) -> dict[str, tuple[int, float, str]]:
    """Of each reason: how many shots, their seconds, and what the first one says."""
    found: dict[str, tuple[int, float, str]] = {}
    for film in curation.films:
        if film.problem:
            count, s, first = found.get("unreadable", (0, 0.0, film.problem))
            found["unreadable"] = (count + 1, s, first)
        for shot in film.shots:
            if shot.reason:
                words = f"{film.key} at {shot.start_s:.1f} s: {shot.words}"
                count, s, first = found.get(shot.reason, (0, 0.0, words))
                found[shot.reason] = (count + 1, s + shot.seconds, first)
    return found


def _print(curation) -> None:
    shots = sum(len(f.shots) for f in curation.films)
    kept = sum(len(f.kept) for f in curation.films)
    minutes = sum(f.seconds for f in curation.films) / 60
    console.out(
        f"{curation.source}: {len(curation.films)} films, {shots} shots, {minutes:.1f} min; "
        f"{kept} shots kept, {_kept_s(curation) / 60:.1f} min"
    )
    barred = sum(1 for f in curation.films for s in f.kept if s.scores and s.scores.crop)
    if barred:
        console.out(f"{barred} kept shots have black bars; --json says where the picture is")
    dropped = _dropped(curation)
    if not dropped:
        console.out("nothing to drop")
        return
    ranked = sorted(dropped.items(), key=lambda item: -item[1][1])
    rows = [[reason, str(count), f"{s / 60:.1f}", first] for reason, (count, s, first) in ranked]
    console.table(rows, ["dropped because", "shots", "min", "first one says"], right=(1, 2))
