"""Bases on disk: where one lies, what is on record about it, and whether it is whole.

    bases/dreamzero-agibot/...                the repository's own files, those that are needed
    bases/dreamzero-agibot/wamkit_base.json   repository, commit, licence, date, size and sha256 of every file
    bases/dreamzero-agibot.pulling/           not whole yet; `pull` goes on there

Completeness is told from headers by `backbones.dreamzero.checkpoint`; nothing here opens a pickle. Imports no torch.
Does not bring a base here: that is `pull`.
"""

import errno
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from adapt.backbones.dreamzero.config_json import IMAGE_FILE, TEXT_FILE
from adapt.handover.released import ANY_FILES, KNOWN, VIDEO_FILES, Base, known, matching
from schemas.errors import DataError, UsageError
from schemas.files import file_sha256
from schemas.record import Record

RECORD = "wamkit_base.json"
PULLING = ".pulling"  # not `.partial`: the checkpoint code refuses to look into those, and they are verified there

Progress = Callable[[str, int, int], None]  # (what, bytes done, bytes in all)


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


class FileFacts(Record):
    """A file's size, and its sha256 as far as it is known."""

    bytes: int
    sha256: str | None = None


class BaseRecord(Record):
    """`wamkit_base.json`: what lies beside it, and where it came from.

    `repo` and `revision` are None where that is not known: a folder that was copied here and recorded afterwards.
    """

    schema_id: Literal["wamkit/base@1"] = "wamkit/base@1"
    name: str
    repo: str | None
    revision: str | None
    licence: str | None
    recorded_on: str
    base_sha256: str | None = None  # of the DiT's weights, as adapters record it
    files: dict[str, FileFacts]


@dataclass(frozen=True)
class Verified:
    """A base that is whole.

    Args:
        record: what is on record; None where nothing was recorded (`quick`, or the folder cannot be written to).
        hashed: files whose sha256 was computed.
        title: one line on what it is.
        notes: what the user should know, each with what to do.
    """

    path: Path
    record: BaseRecord | None
    hashed: int
    title: str
    notes: tuple[str, ...] = ()


def find(name_or_path: str | Path, home: Path) -> Path:
    """The folder of a base, given by name (then it lies in `home`) or by its path.

    Raises:
        UsageError: it is not there; says how to get it.
    """
    name = str(name_or_path)
    if name not in KNOWN and Path(name).exists():
        return Path(name)
    path = home / known(name).name
    if not path.is_dir():
        begun = " (a pull of it was cut short; the command goes on there)" if pulling(path).exists() else ""
        raise UsageError(f"{path}: base {name} is not there{begun}. `wam base pull {name} --to {home}` brings it.")
    return path


def pulling(path: Path) -> Path:
    """Where a base lies until it is whole."""
    return path.with_name(path.name + PULLING)


def read_record(path: Path) -> BaseRecord | None:
    """What is on record about a base; None where nothing is."""
    return BaseRecord.read_json(path / RECORD) if (path / RECORD).exists() else None


def needed_files(folder: Path, patterns: Collection[str] = ANY_FILES) -> list[str]:
    """Files below `folder` that a base consists of, by relative names; of anything else that lies there, none."""
    names = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [(Path(root) / name).relative_to(folder).as_posix() for name in files]
    return sorted(matching(names, patterns))


def verify(path: Path, quick: bool = False, *, base: Base | None = None, progress: Progress = silent) -> Verified:
    """A base after a check: every file of its record at its size and hash, every tensor there and of its shape.

    What is not on record yet is hashed and recorded, unless `quick`, which looks at sizes and headers alone.

    Args:
        base: what it should be; by default what its record or its folder's name says.

    Raises:
        UsageError: there is nothing at `path`.
        DataError: it differs from its record, or is not complete; names the first file or tensors.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder. Check the path, or `wam base pull` it.")
    record = read_record(path)
    base = base or KNOWN.get(record.name if record else path.name)
    if record is not None:
        check_sizes(path, record.files)
    title, notes = check_complete(path, base)
    if quick:
        return Verified(path, record, 0, title, notes)
    names = list(record.files) if record else needed_files(path)
    hashes = hash_all(path, names, record.files if record else {}, progress)
    if record is None:
        record, written = write_record(path, hashes, base)
        notes += () if written else (f"{path} cannot be written to, so the hashes were not recorded",)
    return Verified(path, record, len(hashes), title, notes)


def base_sha256(path: Path) -> str | None:
    """Fingerprint of a base's weights, as recorded or else computed from 128 KiB of a tensor; None for a tokenizer."""
    record = read_record(path)
    if record is not None and record.base_sha256:
        return record.base_sha256
    if _is_tokenizer(path):
        return None
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.load import checkpoint_fingerprint

    return checkpoint_fingerprint(open_checkpoint(path))


def check_sizes(path: Path, files: Mapping[str, FileFacts]) -> None:
    for name, facts in files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != facts.bytes:
            got = "is missing" if size is None else f"{size} bytes"
            raise DataError(f"{file}: {got}, wanted {facts.bytes} bytes. Pull or copy the base again.")


def check_complete(path: Path, base: Base | None) -> tuple[str, tuple[str, ...]]:
    """What a base is, in a line, and notes on it; raises a DataError unless it is complete and is `base`."""
    if base.kind == "tokenizer" if base else _is_tokenizer(path):
        if not _is_tokenizer(path):
            raise DataError(f"{path}: holds neither tokenizer.json nor spiece.model. Pull or copy it again.")
        return "tokenizer of umt5-xxl, complete", ()
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.describe import describe

    checkpoint = open_checkpoint(path)
    told = describe(checkpoint)
    if checkpoint.is_lora:
        raise DataError(f"{path}: holds a LoRA ({told.kind}), which is no base. Give what it was trained on.")
    if not told.is_complete:
        first = next((names[0] for names in (told.missing, told.misshapen, told.unexpected) if names), "")
        raise DataError(f"{path}: {told.title}{f': {first}' if first else ''}. Pull or copy the base again.")
    if base is not None and (told.kind, told.size) != (base.kind, base.size):
        raise DataError(f"{path}: is a {told.title}, not {base.name} ({base.kind} {base.size}). Give the right folder.")
    if told.kind != "wan":
        return told.title, ()
    is_5b = checkpoint.config.flavour == "ti2v"
    wanted = (
        base.encoders if base else (TEXT_FILE, VIDEO_FILES[1]) if is_5b else (TEXT_FILE, IMAGE_FILE, VIDEO_FILES[0])
    )
    if gone := [name for name in wanted if name not in told.beside]:
        raise DataError(f"{path}: {gone[0]} is missing, so an encoder is. Pull or copy the base again.")
    if is_5b and IMAGE_FILE not in told.beside:
        return told.title, (f"comes without the image encoder: {IMAGE_FILE} is in wan2.1-i2v-14b-480p",)
    return told.title, ()


def _is_tokenizer(path: Path) -> bool:
    names = {p.name for p in path.iterdir()}
    return bool({"tokenizer.json", "spiece.model"} & names) and not any(n.endswith(".safetensors") for n in names)


def hash_all(
    path: Path, names: list[str], wanted: Mapping[str, FileFacts], progress: Progress, *, discard: bool = False
) -> dict[str, FileFacts]:
    """Size and sha256 of files; raises at the first that differs, and with `discard` removes it to be fetched again."""
    sizes = {name: (path / name).stat().st_size for name in names}
    total, done = sum(sizes.values()), 0
    found = {}
    for name in names:
        progress("hashing", done, total)
        digest = file_sha256(path / name)
        known_digest = wanted[name].sha256 if name in wanted else None
        if known_digest not in (None, digest):
            if discard:
                (path / name).unlink()
            raise DataError(
                f"{path / name}: sha256 is {digest[:12]}, wanted {known_digest[:12]}. Pull or copy the base again."
            )
        found[name] = FileFacts(bytes=sizes[name], sha256=digest)
        done += sizes[name]
    progress("hashing", done, total)
    return found


def write_record(
    path: Path, files: dict[str, FileFacts], base: Base | None, *, repo: str | None = None, revision: str | None = None
) -> tuple[BaseRecord, bool]:
    """A new record beside a base, and whether it could be written."""
    record = BaseRecord(
        name=base.name if base else path.name,
        repo=repo,
        revision=revision,
        licence=_card_licence(path) or (base.licence if base else None),
        recorded_on=date.today().isoformat(),
        base_sha256=base_sha256(path),
        files=files,
    )
    try:
        record.write_json(path / RECORD)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return record, False
    return record, True


def _card_licence(path: Path) -> str | None:
    """The licence in the head of a repository's README.md, spelled as known ones are; None where it says none."""
    import yaml

    card = path / "README.md"
    parts = card.read_text(errors="replace").split("---", 2) if card.is_file() else []
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    found = (
        head.get("license_name" if head.get("license") == "other" else "license") if isinstance(head, dict) else None
    )
    spelled = {base.licence.lower(): base.licence for base in KNOWN.values() if base.licence}
    return spelled.get(str(found).lower(), str(found)) if found else None
