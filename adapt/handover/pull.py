"""A released base brought here, from the hub or from a folder: whole, pinned to a commit, or not under its name.

    bases/dreamzero-agibot.pulling/wamkit_pull.json   what is being pulled, so that the next call goes on with it

Says where files come from and in which order they are checked; what a whole base is says `bases`. Imports no torch.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapt.handover.bases import (
    FileFacts,
    Progress,
    Verified,
    check_complete,
    check_sizes,
    hash_all,
    needed_files,
    pulling,
    read_record,
    silent,
    verify,
    write_record,
)
from adapt.handover.place import is_placed, link_or_copy
from adapt.handover.released import Base, matching
from schemas.errors import DataError, UsageError
from schemas.files import sync
from schemas.record import Record

PLAN = "wamkit_pull.json"


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
    check_sizes(folder, listing.files)
    hashes = hash_all(folder, list(listing.files), listing.files, progress, discard=True)
    title, notes = check_complete(folder, base)
    record, _ = write_record(folder, hashes, base, repo=listing.repo, revision=listing.revision)
    (folder / PLAN).unlink()
    os.replace(folder, final)
    sync(home)
    if base.licence and record.licence != base.licence:
        notes += (f"its card says {record.licence}, known was {base.licence}: read the card",)
    return Verified(final, record, len(hashes), title, notes)


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
            for name in matching(held, base.files)
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
