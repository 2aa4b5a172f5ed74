"""`wam base`: the released checkpoints, and a folder of them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console

if TYPE_CHECKING:
    from adapt.handover.bases import Verified
    from adapt.handover.released import Base

app = typer.Typer(
    help="List, fetch and check released bases. They lie in --to, else in $WAM_BASES, else in ~/.cache/wamkit/bases.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Home = Annotated[
    Path | None, typer.Option("--to", help="Folder of bases. Default: $WAM_BASES or ~/.cache/wamkit/bases.")
]


def bases_home(to: Path | None = None) -> Path:
    """The folder of bases: the one given, else the environment's, else the user's cache."""
    return to or Path(os.environ.get("WAM_BASES") or Path.home() / ".cache" / "wamkit" / "bases")


@app.command("list")
def list_(to: Home = None, json: console.Json = False) -> None:
    """Which bases there are, how large, under which licence, for what, and whether they are here and complete."""
    from adapt.handover.released import KNOWN

    home = bases_home(to)
    states = {name: _state(home / name) for name in KNOWN}
    if json:
        console.as_json({"home": str(home), "bases": [_facts(b) | {"here": states[b.name]} for b in KNOWN.values()]})
        return
    rows = [[b.name, b.gb_words, b.licence or "see its card", b.purpose, states[b.name]] for b in KNOWN.values()]
    console.table(rows, ["base", "needs", "licence", "for", "here"], title=f"bases in {home}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a base, or a folder.")],
    to: Home = None,
    json: console.Json = False,
) -> None:
    """What a base is, what its licence means for an adapter, its fingerprint, time base and use."""
    from adapt.handover.bases import base_sha256, find, read_record, verify
    from adapt.handover.released import KNOWN, consequence

    home = bases_home(to)
    path = None if name in KNOWN and not (home / name).is_dir() else find(name, home)
    record = read_record(path) if path else None
    base = KNOWN.get(record.name if record else name)
    facts: dict[str, Any] = _facts(base) if base else {"name": name}
    licence = (record.licence if record else None) or (base.licence if base else None)
    facts |= {"licence": licence, "consequence": consequence(licence), "path": str(path) if path else None}
    facts |= {"repo": record.repo, "revision": record.revision} if record else {}
    facts["hashes"] = f"{len(record.files)} files on record" if record else "none known: `wam base pull` records them"
    if path is not None:
        facts["state"] = verify(path, True).title
        facts["base_sha256"] = base_sha256(path)
    if json:
        console.as_json(facts)
        return
    for label, words in facts.items():
        console.out(f"{label.replace('_', ' '):<13}{_words(words)}")


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="Name of a base, or a folder.")],
    quick: Annotated[bool, typer.Option("--quick", help="Sizes and headers only, no hash.")] = False,
    to: Home = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Check every tensor's name and shape and every file's sha256; record the hashes where none are recorded yet."""
    from adapt.handover.bases import find
    from adapt.handover.bases import verify as check

    path = find(name, bases_home(to))
    with console.progress("verify", quiet=quiet or json) as bar:
        found = check(path, quick, progress=_megabytes(bar))
    _tell(found, json=json)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Name of a base.")],
    to: Home = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="A local folder that holds it: linked or copied, never moved.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="With --from: copy, do not link.")] = False,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch. Default: the newest, pinned.")] = None,
    json: console.Json = False,
    quiet: console.Quiet = False,
) -> None:
    """Fetch the files of a base that are needed, check them, and record commit and hashes beside them.

    Run it again to go on where it was cut short.
    """
    from adapt.handover.pull import FolderSource, HubSource
    from adapt.handover.pull import pull as bring
    from adapt.handover.released import known
    from schemas.errors import UsageError

    if copy and source is None:
        raise UsageError("--copy: is for --from. Leave it out.")
    if quiet or json:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    origin = FolderSource(source, copy=copy) if source else HubSource()
    base = known(name)
    with console.progress("pull", quiet=quiet or json) as bar:
        found = bring(base, bases_home(to), origin, revision=revision, progress=_megabytes(bar))
    _tell(found, json=json)


def _tell(found: "Verified", *, json: bool) -> None:
    from adapt.handover.released import consequence

    record = found.record
    if json:
        facts = {"path": str(found.path), "title": found.title, "hashed": found.hashed, "notes": list(found.notes)}
        console.as_json(facts | {"record": record.as_dict() if record else None})
        return
    how = f"{found.hashed} files hashed" if found.hashed else "sizes and headers only"
    console.out(f"{found.path}: {found.title}; {how}")
    if record is not None:
        origin = f"{record.repo} at {record.revision}" if record.repo else "origin not recorded"
        console.out(f"from: {origin}; sha256 as a base {record.base_sha256 or 'none'}")
        console.out(f"licence: {record.licence or 'not recorded'}: {consequence(record.licence)}")
    for note in found.notes:
        console.out(f"note: {note}")


def _state(path: Path) -> str:
    from adapt.handover.bases import pulling, verify
    from schemas.errors import WamError

    if not path.is_dir():
        return "begun" if pulling(path).is_dir() else "no"
    try:
        verify(path, True)
    except WamError:
        return "NOT complete"
    return "complete"


def _facts(base: "Base") -> dict[str, Any]:
    return {
        "name": base.name,
        "repo": base.repo,
        "kind": base.kind,
        "size": base.size,
        "gb": base.gb_words,
        "licence": base.licence,
        "purpose": base.purpose,
        "adapt": base.adapt,
        "time_base": base.time_base.as_dict() if base.time_base else None,
    }


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {got:g}" for key, got in value.items())
    return "none" if value is None else str(value)


def _megabytes(bar: Any) -> Any:
    return lambda what, done, total: bar(done // 1_000_000, total // 1_000_000, f"MB ({what})")
