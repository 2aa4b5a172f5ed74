"""`wam stats`: the numbers that a robot's columns are normalised by."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console


def stats(
    shards: Annotated[Path, typer.Argument(help="A folder of shards.")],
    robot: Annotated[str | None, typer.Option(help="Another robot file to see them by.")] = None,
    chunk_s: Annotated[float, typer.Option(help="Seconds of a chunk of commands.")] = 1.6,
    steps: Annotated[int, typer.Option(help="Commands in a chunk.")] = 24,
    step: Annotated[int | None, typer.Option(help="One step of the chunk, from 0, in place of all.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all of them as JSON, with a hash.")] = None,
    json: console.Json = False,
) -> None:
    """Mean, std, min, max and exact q01, q99 of the training split: state, command, and command relative to the state.

    Rows whose action may be learnt count, at the chunk's rate; the relative ones are what training normalises by.
    """
    from schemas.embodiment import load_embodiment
    from schemas.errors import UsageError
    from schemas.recipe import TimeBase
    from schemas.yaml_io import parse
    from wamdata.shards import read_manifest, stream_clips
    from wamdata.stats import statistics
    from wamdata.windows import on_time_base

    base = parse(TimeBase, {"chunk_s": chunk_s, "video_fps": 1 / chunk_s, "steps": steps}, "options")
    manifest = read_manifest(shards)
    embodiment = load_embodiment(robot) if robot else manifest.embodiment
    if embodiment.is_action_free:
        raise UsageError(f"{shards}: holds no actions, so nothing is normalised. Give shards of a robot.")
    if step is not None and not 0 <= step < steps:
        raise UsageError(f"--step {step}: a chunk has steps 0 to {steps - 1}.")
    clips = stream_clips(shards, manifest, split="train", embodiment=embodiment)
    found = statistics((on_time_base(clip, embodiment, base) for clip in clips), embodiment, base)
    if out is not None:
        found.write_json(out)
    if json:
        console.as_json(found.as_dict() | {"sha256": found.digest()})
        return
    chunks = f"{found.relative_step[0].count} chunks of {steps}"
    console.out(f"{shards}: {found.state.count} rows at {found.action_hz:g} Hz, {chunks}; sha256 {found.digest()[:16]}")
    relative = found.relative if step is None else found.relative_step[step]
    named = f"relative, step {step}" if step is not None else "relative"
    units = {what: [(la, u) for c in parts for la, u in zip(c.labels, c.mapped_units, strict=True)]
             for what, parts in (("state", embodiment.model_state), ("action", embodiment.model_action))}  # fmt: skip
    for title, moments, labels in (
        ("state", found.state, units["state"]),
        ("action", found.action, units["action"]),
        (named, relative, units["action"]),
    ):
        rows = [
            [
                label,
                unit,
                *(f"{getattr(moments, name)[at]:.4g}" for name in ("mean", "std", "min", "q01", "q99", "max")),
            ]
            for at, (label, unit) in enumerate(labels)
        ]
        console.out()
        console.table(
            rows, [title, "unit", "mean", "std", "min", "q01", "q99", "max"], right=(2, 3, 4, 5, 6, 7)
        )  # fmt: skip
