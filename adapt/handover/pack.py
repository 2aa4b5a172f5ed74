"""A pack: all that a training needs, in one folder or tar to take to another machine.

    pack.json      what is in it, with size and sha256 of every other file; written last, first in a tar
    README.md      the next command
    robot.yaml     the robot, whole, as the shards are to be seen
    recipe.yaml    training settings, without sources, and without paths of the machine that it was packed on
    shards/        play data: manifest and tars        video/   action-free video, likewise
    base/          the base, if it was packed too

A folder has its name only when it is whole, and packing again goes on where it was cut short; a tar starts anew.
Paths inside are relative. Imports no torch.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import ValidationError

from adapt.handover import bases
from adapt.handover.bases import FileFacts, Progress, silent
from adapt.handover.place import is_placed, link_or_copy
from adapt.handover.released import ANY_FILES, KNOWN
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError
from schemas.files import file_sha256, sync, write_atomic
from schemas.manifest import Manifest
from schemas.recipe import AdaptRecipe
from schemas.record import Record, first_problem
from schemas.yaml_io import dump_yaml, parse, read_yaml, write_yaml
from wamdata.shards import MANIFEST, read_manifest

RECORD, README = "pack.json", "README.md"
SHARDS, VIDEO, ROBOT, RECIPE, BASE = "shards", "video", "robot.yaml", "recipe.yaml", "base"
ADAPTER = "adapter.json"
# Settings of a recipe that name what lies outside of the pack.
ELSEWHERE = {"parts": "shards by path", "start": "an adapter by path", "tokenizer": "a folder"}
_AS_PART = {"name": "play", "shards": SHARDS, "share": 1.0, "losses": ["video"], "role": "video"}


class PackRecord(Record):
    """`pack.json`. `base` is `base` for one that is in the pack, else the name of a known one, or None."""

    schema_id: Literal["wamkit/pack@1"] = "wamkit/pack@1"
    name: str
    video: bool
    base: str | None
    licences: tuple[str, ...]
    files: dict[str, FileFacts]


@dataclass(frozen=True)
class Pack:
    """An opened pack: paths on this machine, for `wam adapt`.

    Args:
        base: a folder in the pack, or the name of a known base that has to be found here; None where there is none.
    """

    record: PackRecord
    shards: Path
    video: Path | None
    robot: Path
    recipe: Path
    base: Path | str | None


@dataclass(frozen=True)
class Contents:
    """What goes into a pack.

    Args:
        play, video: shard folders.
        settings: of the recipe, without sources and base.
        base: a folder to put into the pack, or the name of a known base to go by; None for none.
    """

    play: Path
    video: Path | None
    robot: Embodiment
    settings: dict[str, Any]
    base: Path | str | None


def contents(
    sources: Sequence[Path],
    *,
    video: Path | None = None,
    robot: Embodiment | None = None,
    settings: dict[str, Any] | None = None,
    base: str | Path | None = None,
    home: Path | None = None,
) -> Contents:
    """What to pack, checked: one folder of play data, and at most one of action-free video.

    Args:
        sources: shard folders; of two, the one without actions is the video.
        robot: to see the play data as; by default as it was ingested.
        settings: of a recipe, without its sources; its `base` counts unless `base` is given.
        base: a known name or a folder. With `home`, the folder of bases, it goes into the pack.

    Raises:
        UsageError: the shards do not make one training, a setting is wrong, or the base is not there.
    """
    play, films = _sorted_out(sources, video)
    seen = robot or read_manifest(play).embodiment
    held = [camera.key for camera in read_manifest(play).embodiment.model_cameras]
    if missing := [camera.key for camera in seen.model_cameras if camera.key not in held]:
        raise UsageError(f"{play}: holds no camera {missing[0]!r} (it has {', '.join(held)}). Ingest again.")
    values = {k: v for k, v in (settings or {}).items() if k != "schema"}
    for key, what in ELSEWHERE.items():
        if values.get(key) is not None:
            raise UsageError(f"settings: {key} names {what}, which is not packed. Leave it out and give it there.")
    named = base or values.get("base")
    values.pop("base", None)
    parse(AdaptRecipe, values | {"parts": [_AS_PART]}, "settings")
    return Contents(play, films, seen, values, _base(named, home))


def _sorted_out(sources: Sequence[Path], video: Path | None) -> tuple[Path, Path | None]:
    """The folder of play data and that of action-free video."""
    films = [video] if video else []
    with_actions = []
    for source in sources:
        is_film = read_manifest(source).embodiment.is_action_free and (len(sources) > 1 or video is not None)
        (films if is_film else with_actions).append(source)
    for path in films:
        if not read_manifest(path).embodiment.is_action_free:
            raise UsageError(f"{path}: has actions, and --video is for action-free video. Give it as a source.")
    for found, what in ((with_actions, "play data"), (films, "action-free video")):
        if len(found) > 1:
            raise UsageError(f"{found[1]}: a second folder of {what}. Merge them with `wam shard merge` first.")
    if not with_actions:
        raise UsageError("only action-free video is given, and several folders of it. Give the robot's shards too.")
    return with_actions[0], films[0] if films else None


def _base(named: str | Path | None, home: Path | None) -> Path | str | None:
    if home is not None:
        if named is None:
            raise UsageError("--with-base: no base is named. Give it with --base NAME or DIR, or in the recipe.")
        return bases.find(named, home)
    if named is None or str(named) in KNOWN:
        return None if named is None else str(named)
    raise UsageError(f"base {named}: a path means nothing on another machine. Add --with-base, or give a known name.")


def pack(what: Contents, out: Path, *, copy: bool = False, progress: Progress = silent) -> PackRecord:
    """Write a pack: a folder, or one file if `out` ends in .tar.

    Args:
        copy: copy files even where the disk allows hard links.

    Raises:
        UsageError: `out` exists.
        DataError: a shard's bytes are not those of its manifest.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already. Give a new --out.")
    partial = out.with_name(out.name + ".partial")
    if out.suffix == ".tar":
        folder = out.with_name(out.stem + ".packing")
        record = _fill(folder, out.stem, what, copy=False, progress=progress)
        _write_tar(folder, record, partial)
        shutil.rmtree(folder)
    else:
        record = _fill(partial, out.name, what, copy=copy, progress=progress)
    os.replace(partial, out)
    sync(out.parent)
    return record


def _fill(folder: Path, name: str, what: Contents, *, copy: bool, progress: Progress) -> PackRecord:
    """A whole pack in `folder`; what lies there already and fits stays."""
    sources = _sources(what)
    wanted = _known_hashes(what)
    (folder / RECORD).unlink(missing_ok=True)
    total, done = sum(path.stat().st_size for path in sources.values()), 0
    files = {}
    for relative, source in sources.items():
        progress("packing", done, total)
        target = folder / relative
        if not is_placed(source, target) or (copy and target.samefile(source)):
            link_or_copy(source, target, copy=copy)
        facts = FileFacts(bytes=target.stat().st_size, sha256=file_sha256(target))
        if wanted.get(relative, facts.sha256) != facts.sha256:
            raise DataError(
                f"{source}: content differs from the sha256 on record. Ingest the data, or pull the base, again."
            )
        files[relative] = facts
        done += facts.bytes
    progress("packing", done, total)
    base = BASE if isinstance(what.base, Path) else what.base
    _write_settings(folder, what, base)
    write_atomic(folder / README, _readme(name, what, base).encode())
    for relative in (ROBOT, RECIPE, README):
        files[relative] = FileFacts(bytes=(folder / relative).stat().st_size, sha256=file_sha256(folder / relative))
    _remove_others(folder, set(files))
    licences = _licences(what)
    record = PackRecord(name=name, video=what.video is not None, base=base, licences=licences, files=files)
    record.write_json(folder / RECORD)
    return record


def _sources(what: Contents) -> dict[str, Path]:
    """Relative name in the pack to the file that goes there."""
    found = {}
    for name, folder in ((SHARDS, what.play), (VIDEO, what.video)):
        if folder is not None:
            names = [shard.name for shard in read_manifest(folder).shards] + [MANIFEST]
            found |= {f"{name}/{shard}": folder / shard for shard in names}
    if isinstance(what.base, Path):
        found |= {f"{BASE}/{name}": what.base / name for name in _base_files(what.base)}
    return found


def _base_files(folder: Path) -> list[str]:
    """What a base consists of: the files of an adapter of kind `full`, or of a checkpoint, and its record."""
    if (folder / ADAPTER).exists():
        from adapt.handover.adapter import read_record

        record = read_record(folder)
        if record.kind != "full":
            raise UsageError(f"{folder}: an adapter of kind {record.kind}, which is no base. Give its own base.")
        return [*record.files, ADAPTER]
    bases.verify(folder, True)
    return bases.needed_files(folder, (*ANY_FILES, bases.RECORD))


def _known_hashes(what: Contents) -> dict[str, str]:
    """The sha256 that a file of the pack must have, as far as records of its origin say."""
    wanted = {}
    for name, folder in ((SHARDS, what.play), (VIDEO, what.video)):
        if folder is not None:
            wanted |= {f"{name}/{shard.name}": shard.sha256 for shard in read_manifest(folder).shards}
    if isinstance(what.base, Path) and (record := bases.read_record(what.base)):
        wanted |= {f"{BASE}/{name}": facts.sha256 for name, facts in record.files.items() if facts.sha256}
    return wanted


def _write_settings(folder: Path, what: Contents, base: str | None) -> None:
    named = {"base": base} if base not in (None, BASE) else {}
    write_yaml(folder / ROBOT, what.robot)
    if read_yaml(folder / ROBOT, Embodiment).digest() != what.robot.digest():
        raise AssertionError("a robot written as YAML reads back as another one")
    write_atomic(folder / RECIPE, dump_yaml({"schema": "wamkit/adapt@1"} | named | what.settings).encode())


def _licences(what: Contents) -> tuple[str, ...]:
    found = [licence for path in (what.play, what.video) if path for licence in read_manifest(path).licences]
    if isinstance(what.base, Path) and (record := bases.read_record(what.base)):
        found.append(f"{record.licence or 'unknown'} ({record.name})")
    return tuple(dict.fromkeys(found))


def _readme(name: str, what: Contents, base: str | None) -> str:
    def told(path: Path) -> str:
        manifest: Manifest = read_manifest(path)
        return f"{manifest.episodes} episodes, {manifest.seconds / 60:.1f} min, robot {manifest.embodiment.name}"

    lines = [
        f"# {name}",
        "",
        "Packed by `wam pack`. On the machine that is to train, with wamkit installed:",
        "",
        "```",
    ]
    lines += [f"wam pack --check {name}", *([f"wam base pull {base}"] if base and base != BASE else [])]
    lines += [
        f"wam adapt {name} --out runs/{name}",
        "```",
        "",
        "The last command again goes on with a run cut short.",
        "",
    ]
    lines += [f"- `{SHARDS}/`: {told(what.play)}", f"- `{ROBOT}`: {what.robot.name}; `{RECIPE}`: training settings"]
    lines += [f"- `{VIDEO}/`: {told(what.video)}"] if what.video else []
    lines += [f"- `{BASE}/`: the base to train on"] if base == BASE else []
    lines += [f"- base, not in here: {base}"] if base and base != BASE else []
    return "\n".join([*lines, f"- licences: {', '.join(_licences(what)) or 'unknown'}", ""])


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove what an earlier attempt with other contents has left."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in kept:
            path.unlink()


def _write_tar(folder: Path, record: PackRecord, out: Path) -> None:
    """`folder` as one tar that unpacks into a folder of the pack's name; equal contents give equal bytes."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o644
        return info

    with out.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
            for name in (RECORD, README, *sorted(set(record.files) - {README})):
                tar.add(folder / name, f"{record.name}/{name}", filter=plain)
        file.flush()
        os.fsync(file.fileno())


def check(path: Path, *, progress: Progress = silent) -> PackRecord:
    """The record of a pack, folder or tar, after every file was compared with it.

    Raises:
        UsageError: it is no pack.
        DataError: a file is missing, or its content differs; names the first.
    """
    return _check_folder(path, progress) if path.is_dir() else _check_tar(path, progress)


def _check_folder(path: Path, progress: Progress) -> PackRecord:
    record = read_record(path)
    total, done = sum(facts.bytes for facts in record.files.values()), 0
    for name, facts in record.files.items():
        progress("checking", done, total)
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        _compare(file, facts, size, lambda file=file: file_sha256(file))
        done += facts.bytes
    progress("checking", done, total)
    return record


def _check_tar(path: Path, progress: Progress) -> PackRecord:
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder. Check the path.")
    try:
        with tarfile.open(path) as tar:
            first = tar.next()
            if first is None or PurePosixPath(first.name).name != RECORD:
                raise UsageError(f"{path}: begins with no {RECORD}, so it is no pack. `wam pack` makes one.")
            record = _parsed(tar.extractfile(first).read(), f"{path}: {RECORD}")
            left = dict(record.files)
            total, done = sum(facts.bytes for facts in left.values()), 0
            while (member := tar.next()) is not None:
                name = member.name.partition("/")[2]
                if member.isfile() and (facts := left.pop(name, None)):
                    progress("checking", done, total)
                    held = tar.extractfile(member)
                    digest = hashlib.file_digest(held, "sha256").hexdigest()
                    _compare(Path(f"{path}: {name}"), facts, member.size, lambda digest=digest: digest)
                    done += facts.bytes
            progress("checking", done, total)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as a tar ({error}). Copy it again.") from None
    if left:
        raise DataError(f"{path}: {next(iter(left))} is missing ({len(left)} files). Copy the pack again.")
    return record


def _compare(file: Path, facts: FileFacts, size: int | None, digest: Callable[[], str]) -> None:
    if size is None:
        raise DataError(f"{file}: is missing. Copy the pack again.")
    if size != facts.bytes:
        raise DataError(f"{file}: {size} bytes, wanted {facts.bytes}. Copy the pack again.")
    if digest() != facts.sha256:
        raise DataError(f"{file}: content differs from its sha256. Copy the pack again.")


def is_pack(path: Path) -> bool:
    """Whether a path is a pack's folder, or a tar."""
    return (path / RECORD).is_file() or (path.suffix == ".tar" and path.is_file())


def read_record(path: Path) -> PackRecord:
    """The record of a pack's folder.

    Raises:
        UsageError: it is no pack.
        DataError: the record is damaged, or names files outside of the pack.
    """
    file = path / RECORD
    if not file.is_file():
        more = " (packing was cut short: run `wam pack` again)" if path.name.endswith(".partial") else ""
        raise UsageError(f"{path}: no {RECORD} here, so no pack{more}. `wam pack` makes one.")
    return _parsed(file.read_bytes(), str(file))


def _parsed(content: bytes, where: str) -> PackRecord:
    try:
        record = PackRecord.model_validate_json(content)
    except ValidationError as error:
        raise DataError(f"{where}: {first_problem(error)}. Copy the pack again.") from None
    for name in record.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise DataError(f"{where}: names {name!r}, which is outside of the pack. Do not use it.")
    return record


def open_pack(path: Path) -> Pack:
    """A pack's folder to train from; every file is there at its size, hashes are `check`'s.

    Raises:
        UsageError: it is no pack, or a tar that has to be unpacked first.
        DataError: a file is missing or of another size.
    """
    if path.is_file():
        raise UsageError(f"{path}: unpack it first (`tar -xf {path.name}`) and give the folder.")
    record = read_record(path)
    for name, facts in record.files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        _compare(file, facts, size, lambda facts=facts: str(facts.sha256))
    base = path / BASE if record.base == BASE else record.base
    return Pack(record, path / SHARDS, path / VIDEO if record.video else None, path / ROBOT, path / RECIPE, base)
