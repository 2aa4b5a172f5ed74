"""`wam robot`: embodiment files."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console

app = typer.Typer(
    help="Draft, list, show and check robots (embodiment files).", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def draft(
    source: Annotated[Path, typer.Argument(help="Robot logs to look at.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: stdout.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the robot.")] = None,
    reader: Annotated[
        str, typer.Option(help="Format of the logs, or your own module; default: told by content.")
    ] = "auto",
) -> None:
    """Write a robot's YAML from its data, every guess with its reason; what is uncertain is marked QUESTION.

    How late a camera is against the rows, `wam check --offsets` measures.
    """
    from schemas.errors import UsageError
    from schemas.files import write_atomic
    from wamdata.draft import draft_embodiment
    from wamdata.source import Source

    text = draft_embodiment(Source.at(source), name=name, reader=reader)
    if out is None:
        console.out(text.rstrip())
        return
    if out.exists():
        raise UsageError(f"{out}: exists already. Give another --out.")
    write_atomic(out, text.encode())
    console.out(f"{out}: {text.count('QUESTION')} open questions. Next: wam robot check {out} {source}")


@app.command("list")
def list_(json: console.Json = False) -> None:
    """Robots that ship with wamkit."""
    from schemas.embodiment import built_in_names, load_embodiment

    robots = [load_embodiment(n) for n in built_in_names()]
    if json:
        console.as_json([r.as_dict() for r in robots])
        return
    rows = [
        [
            r.name,
            r.status,
            f"{r.native_hz:g}",
            str(r.state_width),
            str(r.action_width),
            ", ".join(c.key for c in r.cameras),
        ]
        for r in robots
    ]
    console.table(rows, ["robot", "status", "Hz", "state", "action", "cameras"], right=(2, 3, 4))


@app.command()
def show(robot: Annotated[str, typer.Argument(help="Built-in name or YAML file.")], json: console.Json = False) -> None:
    """A robot's cameras and components with their units, as a model sees them."""
    from schemas.embodiment import load_embodiment

    embodiment = load_embodiment(robot)
    if json:
        console.as_json(embodiment.as_dict())
        return
    console.out(
        f"{embodiment.name}: {embodiment.status}"
        + (f" with {embodiment.verified_with}" if embodiment.verified_with else "")
        + f"; {embodiment.native_hz:g} Hz, state {embodiment.state_width}, action {embodiment.action_width}, "
        f"licence {embodiment.licence}"
    )
    console.table(
        [[c.key, c.source, c.kind, str(c.rotate), c.use] for c in embodiment.cameras],
        ["camera", "from", "kind", "rotate", "use"],
    )
    for what, components in (("state", embodiment.state), ("action", embodiment.action)):
        rows = [
            [
                c.name,
                c.kind,
                str(c.width),
                _units(c.units),
                _units(c.mapped_units),
                c.source,
                c.relative_to or "-",
                c.use,
            ]
            for c in components
        ]
        console.out()
        console.table(rows, [what, "kind", "width", "logged in", "mapped to", "from", "relative to", "use"], right=(2,))


@app.command()
def check(
    robot: Annotated[str, typer.Argument(help="Built-in name or YAML file.")],
    source: Annotated[Path | None, typer.Argument(help="Logs that it should fit.")] = None,
    json: console.Json = False,
) -> None:
    """Whether a robot's file is right in itself, and fits a source if one is given."""
    from cli.ingest import open_questions
    from schemas.embodiment import load_embodiment

    embodiment = load_embodiment(robot)
    facts = {"robot": embodiment.name, "state": embodiment.state_width, "action": embodiment.action_width}
    facts["questions"] = open_questions(Path(robot))
    if source is not None:
        facts |= _fits(embodiment, source)
    if json:
        console.as_json(facts)
        return
    for question in facts["questions"]:
        console.out(f"{robot}: open question at {question}")
    state = "reads well" if facts["questions"] else "fine in itself"
    console.out(f"{robot}: {state}; state {facts['state']}, action {facts['action']} columns")
    if source is not None:
        console.out(f"{source}: {facts['episode']} maps to {facts['rows']} rows at {embodiment.native_hz:g} Hz")


@app.command()
def preview(
    shards: Annotated[Path, typer.Argument(help="Shard folder of the robot (`wam ingest` makes one).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for mosaic.png, slots.png and slots.json.")],
    base: Annotated[str, typer.Option(help="Robot of the DreamZero checkpoint: agibot, droid or yam.")] = "agibot",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of the base checkpoint, for its own time base.")
    ] = None,
    style: Annotated[str | None, typer.Option(help="Mosaic: droid, agibot, yam, whole, stack, quad or wide.")] = None,
    slot: Annotated[
        list[str] | None, typer.Option(help="COMPONENT=CHANNEL or COMPONENT=BASE_COMPONENT; may be repeated.")
    ] = None,
    size: Annotated[str, typer.Option(help="Model: 14b or 5b.")] = "14b",
    task: Annotated[str | None, typer.Option(help="Instruction; by default the first clip's own.")] = None,
    json: console.Json = False,
) -> None:
    """What DreamZero would be given of a robot: mosaic with its exact prompt, channel slots, time base.

    The mosaic is of real frames. Nothing is trained.
    """
    from json import dumps as dump

    from adapt.backbones.dreamzero import house
    from adapt.backbones.dreamzero.channels import slots_as_dict
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.config import PRESETS
    from adapt.backbones.dreamzero.preview import preview_png
    from adapt.backbones.dreamzero.slots import BASES, describe, draw
    from adapt.backbones.dreamzero.views import prompt
    from adapt.clips import Clips
    from schemas.errors import UsageError

    if size not in PRESETS:
        raise UsageError(f"--size {size!r}: not known. Give one of: {', '.join(PRESETS)}.")
    if out.exists():
        raise UsageError(f"{out}: exists already. Give a new --out.")
    if checkpoint and (theirs := open_checkpoint(checkpoint).config.flavour) != PRESETS[size].flavour:
        raise UsageError(f"--size {size}: {checkpoint} is of the other flavour, {theirs}. Give the size that it has.")
    opened = Clips.open(shards)
    robot = opened.embodiment
    time_base, origin = house.time_base_of(base, checkpoint=checkpoint)
    mosaic = house.mosaic_of(robot, base=base, style=style)
    slots = house.slots_of(robot, base=base, overrides=_overrides(slot or []))
    frames, instruction = _first_frames(opened, time_base)
    out.mkdir(parents=True)
    preview_png(frames, mosaic, instruction if task is None else task, out / "mosaic.png", canvas=PRESETS[size].canvas)
    draw(slots, out / "slots.png", base=BASES[base])
    (out / "slots.json").write_text(dump(slots_as_dict(slots), indent=1) + "\n")
    words = prompt(mosaic, instruction if task is None else task)
    if json:
        facts = {"robot": robot.name, "base": base, "style": mosaic.style, "prompt": words}
        console.as_json(
            facts | {"slots": slots_as_dict(slots), "time_base": time_base.as_dict(), "from": origin, "out": str(out)}
        )
        return
    console.out(f"{robot.name} on DreamZero's {base} base, {size}: {out}/mosaic.png, {out}/slots.png")
    console.out(f"mosaic: {mosaic.style}; prompt: {words}")
    console.out(
        f"time base: {time_base.chunk_s:g} s to a chunk of {time_base.steps} steps ({time_base.action_hz:g} Hz), "
        f"video at {time_base.video_fps:g} frames/s ({origin}); the robot logs at {robot.native_hz:g} Hz "
        "and is resampled"
    )
    console.out()
    console.out(describe(slots))


def _overrides(words: list[str]) -> dict[str, str | int]:
    from schemas.errors import UsageError

    found: dict[str, str | int] = {}
    for word in words:
        name, equals, wish = word.partition("=")
        if not (name and equals and wish):
            raise UsageError(f"--slot {word!r}: wanted COMPONENT=CHANNEL or COMPONENT=BASE_COMPONENT.")
        found[name] = int(wish) if wish.isdigit() else wish
    return found


def _first_frames(shards, time_base) -> tuple[dict, str]:
    """Frames of the first clip that holds a chunk, by camera, and its instruction."""
    from schemas.errors import DataError
    from wamdata.shards import stream_clips
    from wamdata.windows import cut_windows, has_frames, on_time_base

    for clip in stream_clips(shards.folder, shards.manifest, embodiment=shards.embodiment):
        rows = on_time_base(clip, shards.embodiment, time_base)
        if len(rows) >= time_base.steps and has_frames(clip, rows, 0, 1, time_base):
            window = next(cut_windows(clip, rows, [0], shards.embodiment, time_base, chunks=[1]))
            return window.frames, window.text
    raise DataError(f"{shards.folder}: no clip holds a chunk of {time_base.chunk_s:g} s. Log longer episodes.")


def _fits(embodiment, source: Path) -> dict:
    from schemas.errors import DataError
    from wamdata.mapping import map_episode
    from wamdata.readers import detect_reader
    from wamdata.source import Source

    logs = Source.at(source)
    reader = detect_reader(logs)
    for ref in reader.list_episodes(logs).episodes:
        try:
            episode = reader.read(ref)
        except DataError:
            continue
        missing = [c.source for c in embodiment.model_cameras if c.source not in episode.videos]
        if missing and episode.videos:
            raise DataError(
                f"{source} {ref.key}: no camera {missing[0]!r}; the log has {', '.join(episode.videos)}. Mend `from`."
            )
        if not missing:
            return {"source": str(source), "episode": ref.key, "rows": len(map_episode(episode, embodiment).t_ns)}
    raise DataError(f"{source}: no episode with all cameras can be read. Run `wam check {source}`.")


def _units(units: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(units))
