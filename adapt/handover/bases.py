"""Released bases: which there are, what may be done with them, and a folder of them that is whole and stays so.

    bases/dreamzero-agibot/...                the repository's own files, those that are needed
    bases/dreamzero-agibot/wamkit_base.json   repository, commit, licence, date, size and sha256 of every file
    bases/dreamzero-agibot.pulling/           not whole yet; `pull` goes on there

Completeness is told from headers by `backbones.dreamzero.checkpoint`; nothing here opens a pickle. Imports no torch.
"""

import difflib
import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, Protocol

from adapt.backbones.dreamzero.config_json import IMAGE_FILE, TEXT_FILE, VAE_FILE
from schemas.errors import DataError, UsageError
from schemas.files import file_sha256, sync
from schemas.recipe import TimeBase
from schemas.record import Record

RECORD, PLAN = "wamkit_base.json", "wamkit_pull.json"
PULLING = ".pulling"  # not `.partial`: the checkpoint code refuses to look into those, and they are verified there
VIDEO_FILES = (VAE_FILE, "Wan2.2_VAE.pth")
CARD = ("README.md", "LICENSE*")
DREAMZERO_FILES = ("model*.safetensors", "model.safetensors.index.json", "config.json", "experiment_cfg/*")
WAN_FILES = ("diffusion_pytorch_model*.safetensors", "diffusion_pytorch_model.safetensors.index.json", "config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")
ENCODER_FILES = (TEXT_FILE, IMAGE_FILE, *VIDEO_FILES)
ANY_FILES = (*DREAMZERO_FILES, *WAN_FILES, *ENCODER_FILES, *TOKENIZER_FILES, "google/umt5-xxl/*", *CARD)
NON_COMMERCIAL = "CC-BY-NC-4.0"

Progress = Callable[[str, int, int], None]  # (what, bytes done, bytes in all)


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True)
class Base:
    """What is known of a released base before any of it is here.

    Args:
        size: of its DiT, as `describe` names it; None for the tokenizer.
        gb: least and most that it takes on disk; None where that is not known.
        licence: of the weights; None where it is not recorded here and the repository's card must say.
        files: patterns of the files that are needed.
        encoders: .pth files without which it is not complete, Wan's own.
        time_base: what it was trained at; None for raw video models, which know no control steps.
    """

    name: str
    repo: str
    kind: Literal["dreamzero", "wan", "tokenizer"]
    size: str | None
    gb: tuple[float | None, float | None]
    licence: str | None
    purpose: str
    adapt: str
    files: tuple[str, ...]
    encoders: tuple[str, ...] = ()
    time_base: TimeBase | None = None

    @property
    def gb_words(self) -> str:
        """`45-49 GB`, `79 GB or more`, or `not recorded`."""
        low, high = self.gb
        if low is None:
            return "not recorded"
        return f"{low:g} GB or more" if high is None else f"{low:g}-{high:g} GB"


# The paper's 24 steps in 1.6 s, and 5 frames/s, which it states for AgiBot and DROID alike.
TRAINED_AT = TimeBase(chunk_s=1.6, video_fps=5.0)
_ON_DREAMZERO = "trains a LoRA on its DiT, and its heads for state and action go on from what they learnt"
_KNOWN = (
    Base(
        name="dreamzero-agibot",
        repo="GEAR-Dreams/DreamZero-AgiBot",
        kind="dreamzero",
        size="14b",
        gb=(45, 49),  # 22.9 B parameters in bfloat16 are 45.8; up to 48.7 is reported
        licence="Apache-2.0",
        purpose="the 14B for a new robot, with several cameras above all",
        adapt=_ON_DREAMZERO,
        files=(*DREAMZERO_FILES, *CARD),
        time_base=TRAINED_AT,
    ),
    Base(
        name="dreamzero-droid",
        repo="GEAR-Dreams/DreamZero-DROID",
        kind="dreamzero",
        size="14b",
        gb=(45, 49),
        licence=NON_COMMERCIAL,
        purpose="the 14B for a Franka as in DROID; not for commerce",
        adapt=_ON_DREAMZERO,
        files=(*DREAMZERO_FILES, *CARD),
        time_base=TRAINED_AT,
    ),
    Base(
        name="wan2.1-i2v-14b-480p",
        repo="Wan-AI/Wan2.1-I2V-14B-480P",
        kind="wan",
        size="14b",
        gb=(79, None),  # DiT in float32 65.6, text encoder 11.4, VAE 0.5, the picture tower of CLIP at least 1.3
        licence=None,
        purpose="the video model under DreamZero's 14B, and the .pth encoders; knows no robot",
        adapt="trains a LoRA on its DiT; heads for state and action are new, drawn from the run's seed",
        files=(*WAN_FILES, TEXT_FILE, IMAGE_FILE, VIDEO_FILES[0], "google/umt5-xxl/*", *CARD),
        encoders=(TEXT_FILE, IMAGE_FILE, VIDEO_FILES[0]),
    ),
    Base(
        name="wan2.2-ti2v-5b",
        repo="Wan-AI/Wan2.2-TI2V-5B",
        kind="wan",
        size="5b",
        gb=(22, 35),  # 5.5 B parameters, VAE of 0.7 B: bfloat16 or float32; text encoder 11.4
        licence=None,
        purpose="the video model under DreamZero's 5B; knows no robot",
        adapt="trains a LoRA on its DiT; heads and the branch for CLIP tokens are new. It comes without the image "
        f"encoder: {IMAGE_FILE} is in wan2.1-i2v-14b-480p",
        files=(*WAN_FILES, TEXT_FILE, VIDEO_FILES[1], "google/umt5-xxl/*", *CARD),
        encoders=(TEXT_FILE, VIDEO_FILES[1]),
    ),
    Base(
        name="umt5-xxl-tokenizer",
        repo="google/umt5-xxl",
        kind="tokenizer",
        size=None,
        gb=(None, None),
        licence=None,
        purpose="the tokenizer that every DreamZero and Wan base needs; no weights",
        adapt="is no base; it turns instructions into tokens for all of them",
        files=(*TOKENIZER_FILES, *CARD),
    ),
)
KNOWN: dict[str, Base] = {base.name: base for base in _KNOWN}


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


@dataclass(frozen=True)
class Listing:
    """The needed files of a source, pinned."""

    repo: str | None
    revision: str | None
    files: Mapping[str, FileFacts]


class Source(Protocol):
    """Where a base is pulled from."""

    def listing(self, base: Base, revision: str | None) -> Listing:
        """The files of a base at a revision, by default at the newest, as a commit."""
        ...

    def fetch(self, listing: Listing, folder: Path, progress: Progress) -> None:
        """Put all files of a listing below `folder`; those that are there already stay."""
        ...

    def needs_space(self, folder: Path) -> bool:
        """Whether files put below `folder` take up space of their own."""
        ...


def known(name: str) -> Base:
    """A known base by its name.

    Raises:
        UsageError: there is none of that name; says which there are.
    """
    if name not in KNOWN:
        close = difflib.get_close_matches(name.lower().rpartition("/")[2], KNOWN, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(KNOWN)}."
        raise UsageError(f"base {name!r}: not known, and no such folder. {hint}")
    return KNOWN[name]


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
    return sorted(_matching(names, patterns))


def _matching(names: Iterable[str], patterns: Collection[str]) -> list[str]:
    """Names that fit a pattern of as many folders: `*` does not cross a slash."""
    return [n for n in names if any(n.count("/") == p.count("/") and fnmatch(n, p) for p in patterns)]


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
        _check_sizes(path, record.files)
    title, notes = _check_complete(path, base)
    if quick:
        return Verified(path, record, 0, title, notes)
    names = list(record.files) if record else needed_files(path)
    hashes = _hash_all(path, names, record.files if record else {}, progress)
    if record is None:
        record, written = _record(path, hashes, base, None)
        notes += () if written else (f"{path} cannot be written to, so the hashes were not recorded",)
    return Verified(path, record, len(hashes), title, notes)


def pull(
    base: Base, home: Path, source: Source, *, revision: str | None = None, progress: Progress = silent
) -> Verified:
    """Bring a base into `home`, check it, and only then give it its name; goes on where it was cut short.

    Raises:
        UsageError: the source cannot be reached, the disk is too small, or another revision is there already.
        DataError: what came is not what the source promised, or not complete.
    """
    final = home / base.name
    if final.exists():
        there = verify(final, True, base=base)
        got = there.record.revision if there.record else None
        if revision is not None and got != revision:
            raise UsageError(f"{final}: is there at revision {got or 'unknown'}, not {revision}. Move it away first.")
        return there
    folder = pulling(final)
    listing = _planned(base, source, folder, revision)
    if source.needs_space(folder):
        _check_space(folder, listing)
    source.fetch(listing, folder, progress)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's own notes on what it downloaded
    _check_sizes(folder, listing.files)
    hashes = _hash_all(folder, list(listing.files), listing.files, progress, discard=True)
    title, notes = _check_complete(folder, base)
    origin = BaseRecord(
        name=base.name,
        repo=listing.repo,
        revision=listing.revision,
        licence=None,
        recorded_on=date.today().isoformat(),
        files={},
    )
    record, _ = _record(folder, hashes, base, origin)
    (folder / PLAN).unlink()
    os.replace(folder, final)
    sync(home)
    if base.licence and record.licence != base.licence:
        notes += (f"its card says {record.licence}, known was {base.licence}: read the card",)
    return Verified(final, record, len(hashes), title, notes)


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


def consequence(licence: str | None) -> str:
    """What a base's licence means for an adapter that is trained on it, in plain words; no legal advice."""
    if licence is None:
        return "not recorded here: read the repository's card before you use it or pass an adapter on"
    if "-NC" in licence.upper():
        return "not for commercial use; an adapter trained on it is derived from it and inherits that"
    if licence.lower() == "apache-2.0":
        return "commercial use is allowed; pass the licence and notices on with an adapter"
    return "an adapter trained on it carries its terms: read them"


def link_or_copy(source: Path, target: Path, *, copy: bool = False) -> None:
    """`source` under the name `target` too: a hard link where the disk allows, else a copy with the same times.

    A link to a file is followed first. `target` has its name only when it is whole.
    """
    source = source.resolve()
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    try:
        if copy:
            raise OSError(errno.EXDEV, "a copy is wanted")
        os.link(source, partial)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES):
            raise
        shutil.copy2(source, partial)
    os.replace(partial, target)


def is_placed(source: Path, target: Path) -> bool:
    """Whether `link_or_copy` has put `source` at `target` before and neither has changed since."""
    if not target.exists():
        return False
    a, b = source.stat(), target.stat()
    return a.st_size == b.st_size and a.st_mtime_ns == b.st_mtime_ns


@dataclass(frozen=True)
class FolderSource:
    """A local folder that holds a base: linked or copied from, never moved; for machines without a network."""

    folder: Path
    copy: bool = False

    def listing(self, base: Base, revision: str | None) -> Listing:
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder}: no such folder. Check --from.")
        names = needed_files(self.folder, base.files)
        if not names:
            raise UsageError(f"{self.folder}: holds no file of {base.name}. Give the folder with its files to --from.")
        record = read_record(self.folder)
        held = record.files if record else {}
        files = {
            name: FileFacts(
                bytes=(self.folder / name).stat().st_size, sha256=held[name].sha256 if name in held else None
            )
            for name in names
        }
        repo, found = (record.repo, record.revision) if record else _hub_snapshot(self.folder)
        if revision is not None and found != revision:
            raise UsageError(f"{self.folder}: is of revision {found or 'unknown'}, not {revision}. Drop --revision.")
        return Listing(repo, found, files)

    def fetch(self, listing: Listing, folder: Path, progress: Progress) -> None:
        done, total = 0, sum(facts.bytes for facts in listing.files.values())
        for name, facts in listing.files.items():
            if not is_placed(self.folder / name, folder / name):
                link_or_copy(self.folder / name, folder / name, copy=self.copy)
            done += facts.bytes
            progress("copying", done, total)

    def needs_space(self, folder: Path) -> bool:
        return self.copy or self.folder.stat().st_dev != _existing(folder).stat().st_dev


def _hub_snapshot(folder: Path) -> tuple[str | None, str | None]:
    """Repository and commit if a folder is one of the hub's cache: models--OWNER--NAME/snapshots/COMMIT."""
    commit, parent, repo = folder.name, folder.parent.name, folder.parent.parent.name
    if parent != "snapshots" or not repo.startswith("models--") or len(commit) != 40:
        return None, None
    return repo.removeprefix("models--").replace("--", "/"), commit


@dataclass(frozen=True)
class HubSource:
    """The Hugging Face hub, or a server that speaks like it at `endpoint`."""

    endpoint: str | None = None
    workers: int = 4

    def listing(self, base: Base, revision: str | None) -> Listing:
        from huggingface_hub import HfApi

        with _told(base.name):
            info = HfApi(endpoint=self.endpoint).model_info(base.repo, revision=revision, files_metadata=True)
        held = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        files = {
            name: FileFacts(bytes=held[name].size or 0, sha256=held[name].lfs.sha256 if held[name].lfs else None)
            for name in _matching(held, base.files)
        }
        if not files:
            raise DataError(f"{base.repo}: holds no file of {base.name} at revision {info.sha}. Give another revision.")
        return Listing(base.repo, info.sha, files)

    def fetch(self, listing: Listing, folder: Path, progress: Progress) -> None:
        from huggingface_hub import snapshot_download

        assert listing.repo is not None
        with _told(listing.repo):
            snapshot_download(
                listing.repo,
                revision=listing.revision,
                local_dir=folder,
                allow_patterns=list(listing.files),
                max_workers=self.workers,
                endpoint=self.endpoint,
            )

    def needs_space(self, folder: Path) -> bool:
        return True


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns what the hub's client raises into one line with what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError:
        raise UsageError(f"{what}: the hub has no such revision. Leave --revision out for the newest.") from None
    except (OSError, *_transport_errors()) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise  # of this disk
        if isinstance(error, errors.RepositoryNotFoundError) or _status(error) in (401, 403):  # gated ones included
            raise UsageError(
                f"{what}: the hub refuses it (gated, private or gone). Accept its terms on its page, log in with "
                "`hf auth login`, and run the same command again."
            ) from None
        if _status(error) is not None:
            raise UsageError(f"{what}: the hub answers with {_status(error)}. Try again later.") from None
        raise UsageError(
            f"{what}: the hub cannot be reached ({type(error).__name__}). Run the same command again to go on; "
            "without a network, copy the folder here and give it: `--from DIR`, or `wam base verify DIR`."
        ) from None


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _transport_errors() -> tuple[type[BaseException], ...]:
    """Of httpx, which newer clients of the hub use and whose errors are no OSErrors."""
    try:
        from httpx import TransportError
    except ImportError:
        return ()
    return (TransportError,)


class _Plan(Record):
    """`wamkit_pull.json`: what is being pulled, so that a pull goes on with the commit that it began with."""

    repo: str | None
    revision: str | None
    origin: str
    files: dict[str, FileFacts]


def _planned(base: Base, source: Source, folder: Path, revision: str | None) -> Listing:
    origin = str(source)
    if (folder / PLAN).exists():
        plan = _Plan.read_json(folder / PLAN)
        if plan.origin == origin and revision in (None, plan.revision) and not isinstance(source, FolderSource):
            return Listing(plan.repo, plan.revision, plan.files)
    listing = source.listing(base, revision)
    folder.mkdir(parents=True, exist_ok=True)
    _Plan(repo=listing.repo, revision=listing.revision, origin=origin, files=dict(listing.files)).write_json(
        folder / PLAN
    )
    for name in set(needed_files(folder)) - set(listing.files):  # of another revision
        (folder / name).unlink()
    return listing


def _check_space(folder: Path, listing: Listing) -> None:
    # What the hub has begun lies under `.cache` until it is whole.
    begun = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.exists() else 0
    wanted = sum(facts.bytes for facts in listing.files.values()) - begun
    free = shutil.disk_usage(_existing(folder)).free
    if wanted > free:
        raise UsageError(
            f"{folder.parent}: {wanted / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free. "
            "Make room, or give another disk with --to."
        )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _check_sizes(path: Path, files: Mapping[str, FileFacts]) -> None:
    for name, facts in files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != facts.bytes:
            got = "is missing" if size is None else f"{size} bytes"
            raise DataError(f"{file}: {got}, wanted {facts.bytes} bytes. Pull or copy the base again.")


def _check_complete(path: Path, base: Base | None) -> tuple[str, tuple[str, ...]]:
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


def _hash_all(
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


def _record(
    path: Path, files: dict[str, FileFacts], base: Base | None, origin: BaseRecord | None
) -> tuple[BaseRecord, bool]:
    """A new record beside a base, and whether it could be written."""
    record = BaseRecord(
        name=base.name if base else path.name,
        repo=origin.repo if origin else None,
        revision=origin.revision if origin else None,
        licence=card_licence(path) or (base.licence if base else None),
        recorded_on=origin.recorded_on if origin else date.today().isoformat(),
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


def card_licence(path: Path) -> str | None:
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
