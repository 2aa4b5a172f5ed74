"""`wam show`: what a folder is."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console

KNOWN = (
    "Give robot logs (LeRobot's folder with meta/info.json, or videos), shards, a run, an adapter, a DreamZero or Wan "
    "checkpoint (*.safetensors at its top), or a robot's YAML file."
)


def show(
    path: Annotated[Path, typer.Argument(help="Logs, shards, a run, an adapter, a checkpoint or a robot file.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Of a checkpoint: read weights too, for its sha256 as a base.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Of a run: refresh every 2 s until it is done.")] = False,
    json: console.Json = False,
) -> None:
    """Say what a path holds: logs, a pack, shards (with rejects and findings), a run (with its stages, and how training
    goes while it runs), an adapter, or a DreamZero or Wan checkpoint (with what it lacks).

    Not yet: pictures of clips.
    """
    from schemas.errors import UsageError

    if not path.exists():
        _source(path, json=json)  # a URL, or nothing
        return
    if verify and not _is_checkpoint(path):
        raise UsageError(f"{path}: holds no checkpoint, and --verify is for those. Leave it out.")
    if watch and (json or not _is_run(path)):
        raise UsageError(f"{path}: --watch is for runs, in a terminal. Leave it{' or --json' * json} out.")
    if path.suffix in (".yaml", ".yml"):
        from cli.robot import show as show_robot

        show_robot(str(path), json=json)
    elif (path / "adapter.json").exists():
        _adapter(path, json=json)
    elif (path / "pack.json").exists():
        from cli.pack import show_pack

        show_pack(path, json=json)
    elif _is_run(path):
        from cli.show_run import show_run

        show_run(path, json=json, watch=watch)
    elif (path / "manifest.json").exists():
        _shards(path, json=json)
    elif _is_checkpoint(path):
        _checkpoint(path, verify=verify, json=json)
    else:
        _source(path, json=json)


def _is_run(path: Path) -> bool:
    """Whether a folder is one that `wam adapt` writes, however far it has come."""
    signs = (path / "recipe.yaml", path / "shards" / "manifest.json", path / "shards" / ".lock")
    has_stage = any((path / stage).is_dir() for stage in ("latents", "train"))
    return has_stage or ((path / "shards").is_dir() and any(sign.exists() for sign in signs))


def _adapter(path: Path, *, json: bool) -> None:
    from adapt.handover.adapter import read_record

    record = read_record(path)
    if json:
        console.as_json(record.as_dict())
        return
    console.out(f"adapter ({record.kind}) of {record.robot} on {record.backbone}, base {record.base_name}")
    console.out(f"{record.verdict}: {record.reason}")
    rows = [
        ["chunk", f"{record.time_base.chunk_s:g} s, {record.time_base.steps} steps"],
        *([["base sha256", record.base_sha256]] if record.kind == "lora" else []),
        ["weights sha256", record.weights_sha256],
        ["encoder sha256", record.encoder_sha256],
        ["licences", ", ".join(record.licences)],
        *([k, v] for k, v in record.provenance.items() if k != "licences"),
    ]
    console.table(rows, ["", ""])


def _is_checkpoint(path: Path) -> bool:
    """Whether safetensors, or an index of them, lie at the top of a folder."""
    if path.is_file():
        return path.suffix == ".safetensors"
    return any(next(path.glob(f"*.safetensors{end}"), None) is not None for end in ("", ".index.json"))


def _checkpoint(path: Path, *, verify: bool, json: bool) -> None:
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.describe import describe

    checkpoint = open_checkpoint(path)
    told = describe(checkpoint)
    identity = {}
    if verify:
        from adapt.backbones.dreamzero.load import checkpoint_fingerprint

        identity = {"base_sha256": checkpoint_fingerprint(checkpoint)}
    if json:
        console.as_json(told.as_dict() | identity)
        return
    console.out(f"{told.title} ({path})")
    rows = [*told.rows(), *(("base sha256", sha256) for sha256 in identity.values())]
    _aligned(rows)


def _aligned(rows: list[tuple[str, str]]) -> None:
    """Labels and words in two columns, folded to a terminal; a label is said once."""
    import shutil
    import sys
    import textwrap

    margin = max(len(label) for label, _ in rows) + 2
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100_000
    last = ""
    for label, words in rows:
        shown = "" if label == last else label
        folded = textwrap.wrap(words, max(columns - margin, 30), break_long_words=False, break_on_hyphens=False)
        for at, line in enumerate(folded or [""]):
            console.out(f"{'' if at else shown:<{margin}}{line}")
        last = label


def _shards(path: Path, *, json: bool) -> None:
    from cli.ingest import print_summary, summary
    from wamdata.shards import read_manifest

    manifest = read_manifest(path)
    if json:
        console.as_json(summary(manifest, path) | {"manifest": manifest.as_dict()})
        return
    print_summary(manifest, path)
    rows = [[s.key, s.split, str(s.rows), f"{s.seconds:.1f}", s.session] for s in manifest.samples[:40]]
    console.table(rows, ["clip", "split", "rows", "seconds", "session"], right=(2, 3))
    if len(manifest.samples) > 40:
        console.out(f"and {len(manifest.samples) - 40} more clips")
    seen: dict[str, list] = {}
    for finding in manifest.findings:
        seen.setdefault(finding.code, []).append(finding)
    rows = [[code, found[0].severity, str(len(found)), found[0].message] for code, found in seen.items()]
    if rows:
        console.table(rows, ["finding", "severity", "n", "first one says"], right=(2,))


def _source(path: Path, *, json: bool) -> None:
    from schemas.errors import UsageError

    if path.is_dir() and not any(path.iterdir()):
        raise UsageError(f"{path}: is empty. {KNOWN}")
    from wamdata.readers import READERS, detect_reader
    from wamdata.source import Source

    source = Source.at(path).require()
    if not any(reader.detect(source) for reader in READERS):
        raise UsageError(f"{path}: is nothing that wam knows. {KNOWN}")
    reader = detect_reader(source)
    listing = reader.list_episodes(source)
    facts = {
        "source": str(path),
        "reader": listing.reader,
        "episodes": len(listing.episodes),
        "rows": sum(e.rows for e in listing.episodes),
        "hints": listing.hints,
        "findings": [vars(f) for f in listing.findings],
    }
    if json:
        console.as_json(facts)
        return
    hints = ", ".join(f"{k} {v}" for k, v in listing.hints.items())
    console.out(f"{path}: {listing.reader} logs, {facts['episodes']} episodes, {facts['rows']} rows; {hints}")
    for finding in listing.findings:
        console.out(f"{finding.severity}: {finding.code}: {finding.message}")
    console.out(f"next: wam check {path}")
