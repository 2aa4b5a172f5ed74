"""A run folder mirrored to a store (S3, GCS, another disk) while it goes, and brought back to go on elsewhere.

    URL/train/step-000300/...      the run's files under their own names
    URL/wamkit_mirror.json         which of them are whole, each with its sha256

`wamkit_mirror.json` lists only what is whole at any instant: a file leaves it before it is replaced or removed, and
comes into it after it was written. `restore` takes what is listed and nothing else, so an upload that was cut short
never looks complete. Beside that, a folder's record (`stage.json`, `checkpoint.json`, ...) is uploaded after its
content and removed before it, for other tools that look at the store. Imports no torch; fsspec inside functions.
"""

import hashlib
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from schemas.errors import DataError, UsageError
from schemas.files import file_sha256, write_atomic

INDEX = "wamkit_mirror.json"
LOCAL = ".wamkit_mirror.json"
RECORDS = ("manifest.json", "checkpoint.json", "adapter.json", "stage.json")  # uploaded last, in this order
SKIPPED = (".partial", ".broken", ".lock", ".uploading")
WHOLE_PUTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf"}  # objects appear when whole
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "oci": "ocifs"}
CHUNK = 1 << 22
INDEX_EVERY_S = 30.0  # a long first pass is worth something before it ends


@dataclass
class Entry:
    """A file that was mirrored, as it was then."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass
class State:
    """`.wamkit_mirror.json` in the run: what this run wrote to which URL.

    Args:
        id: of the pair of run and mirror; the index at the URL holds it too.
        files: whole at the URL.
        pending: may be there, whole or not; removed when they are gone here.
        restoring: the run is being brought back and is not whole yet.
    """

    url: str
    id: str
    files: dict[str, Entry] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    restoring: bool = False

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """The state in a run folder; None where there is none. Raises DataError if it is damaged."""
        path = run / LOCAL
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_bytes())
            return cls(**(values | {"files": {name: Entry(**v) for name, v in values["files"].items()}}))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: is damaged ({error}). Remove it and mirror to a new URL.") from None

    def write(self, run: Path) -> None:
        write_atomic(run / LOCAL, json.dumps(asdict(self)).encode())


class Trouble(Exception):
    """The mirror could not be brought up to date; one line on why."""


class Mirror:
    """A run folder that is mirrored by a thread in the background.

    `poke` after a checkpoint or stage; `close` at the end. Whatever goes wrong at the other end is told through
    `on_trouble` (from the thread, once until it works again, and at `close`) and never raised into the training.
    """

    def __init__(
        self,
        run: Path,
        url: str,
        *,
        on_trouble: Callable[[str], None] = lambda line: None,
        retries: int = 4,
        backoff_s: float = 1.0,
        again_s: float = 60.0,
        skip: tuple[str, ...] = (),
    ) -> None:
        """Claim the URL for this run, and mirror what is there already.

        Args:
            retries: of one call, after waits of `backoff_s`, twice that, and so on.
            again_s: after trouble, when to try anew without a poke.
            skip: folders of the run that are not mirrored, as `latents`, which can be made again.

        Raises:
            UsageError: the URL's protocol needs a package, or the URL holds another run, or lies in this one.
        """
        self._run, self._shown = run, without_secrets(url)
        self._store = Store(url, retries=retries, backoff_s=backoff_s)
        if self._store.lies_in(run):
            raise UsageError(f"{self._shown}: lies in the run folder itself. Give another URL.")
        state = State.read(run)
        if state is not None and state.restoring:
            raise UsageError(f"{run}: was brought back in part only. Restore it again first.")
        is_ours = state is not None and state.url == self._shown
        self._state = state if is_ours else State(self._shown, uuid.uuid4().hex)
        self._is_claimed = False
        self._on_trouble, self._again_s, self._skip = on_trouble, again_s, skip
        self._trouble: str | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        try:
            self._claim()
        except Trouble as error:
            self._tell(str(error))
        self._wake.set()
        self._thread = threading.Thread(target=self._work, name="wamkit-mirror", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Say that something new is whole; returns at once."""
        self._wake.set()

    def close(self) -> bool:
        """Bring the mirror up to date, end the thread, and return whether the mirror is whole."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        if self._trouble is not None:
            self._on_trouble(f"the mirror is NOT up to date at the end: {self._trouble}")
        return self._trouble is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _work(self) -> None:
        is_last = False
        while not is_last:
            self._wake.wait(self._again_s if self._trouble else None)
            self._wake.clear()
            is_last = self._closing.is_set()
            try:
                self._claim()
                unsettled = self._pass()
                if is_last and unsettled and (unsettled := self._pass()):
                    raise Trouble(f"{self._run}: {unsettled[0]} was still being written")
                self._trouble = None
            except Trouble as error:
                self._tell(str(error))
            # A thread that dies would leave the mirror behind without a word, whatever the reason.
            except Exception as error:
                self._tell(f"{self._shown}: {type(error).__name__}: {error}")

    def _tell(self, line: str) -> None:
        if self._trouble is None:
            self._on_trouble(f"{line}. The run goes on; the mirror is tried again.")
        self._trouble = line

    def _claim(self) -> None:
        """Make sure that the URL is empty, or this run's."""
        if self._is_claimed:
            return
        index = self._store.read(INDEX)
        if index is not None and _parsed(index, self._shown)["id"] != self._state.id:
            raise UsageError(
                f"{self._shown}: mirrors another run. Give another URL, or bring that run back with restore to go on."
            )
        self._state.write(self._run)
        self._is_claimed = True

    def _pass(self) -> list[str]:
        """Bring the store up to date once; what changed while it was read is left for later and returned."""
        here = scan(self._run, self._skip)
        state = self._state
        if state.files and not state.files.keys() & here.keys():
            raise Trouble(f"{self._run}: none of its mirrored files is here any more, so nothing is removed there")
        changed = [name for name, entry in here.items() if self._has_changed(name, entry)]
        gone = [name for name in dict.fromkeys((*state.files, *state.pending)) if name not in here]
        if not changed and not gone:
            return []
        withdrawn = self._withdraw(changed, gone)
        unsettled, published = [], time.monotonic()
        for name in sorted({*changed, *withdrawn}, key=_rank):
            if _rank(name)[0] and any(PurePosixPath(n).is_relative_to(PurePosixPath(name).parent) for n in unsettled):
                unsettled.append(name)  # never a record before its content
                continue
            entry = self._store.upload(self._run / name, name)
            if entry is None:
                unsettled.append(name)
                continue
            state.files[name] = entry
            if time.monotonic() - published > INDEX_EVERY_S:
                self._publish()
                published = time.monotonic()
        state.pending = [name for name in state.pending if name in here and name not in state.files]
        self._publish()
        return unsettled

    def _has_changed(self, name: str, now: Entry) -> bool:
        """Whether a file has other content than at the URL; a touched one is read to find out."""
        before = self._state.files.get(name)
        if before is None or before.size != now.size:
            return True
        if before.mtime_ns == now.mtime_ns:
            return False
        try:
            is_same = file_sha256(self._run / name) == before.sha256
        except FileNotFoundError:
            return False
        if is_same:
            self._state.files[name] = Entry(now.size, now.mtime_ns, before.sha256)
        return not is_same

    def _withdraw(self, changed: list[str], gone: list[str]) -> list[str]:
        """Take off the index what is about to change, then remove records above it, then what is gone here.

        Returns the records that were removed and are here still.
        """
        state = self._state
        touched = {name for name in changed if name in state.files} | set(gone)
        above = {str(parent) for name in touched for parent in PurePosixPath(name).parents}
        records = {name for name in state.files if _rank(name)[0] and str(PurePosixPath(name).parent) in above}
        state.pending = sorted({*state.pending, *changed, *gone, *records})
        for name in touched | records:
            state.files.pop(name, None)
        self._publish()
        for name in sorted({*records, *gone}, key=_rank, reverse=True):
            self._store.remove(name)
        return sorted(records - set(gone))

    def _publish(self) -> None:
        """The state on this disk, and then the index at the URL."""
        self._state.write(self._run)
        files = {name: {"size": e.size, "sha256": e.sha256} for name, e in sorted(self._state.files.items())}
        content = json.dumps({"schema": "wamkit/mirror@1", "id": self._state.id, "files": files}, indent=1)
        self._store.write(INDEX, content.encode())


def bring_back(url: str, run: Path, *, retries: int = 4, backoff_s: float = 1.0) -> int | None:
    """`restore` where there is something to restore: a mirror at the URL, and no run here or one that came in part.

    Returns:
        The number of files; None where there was nothing to do.
    """
    state = State.read(run) if run.exists() else None
    if state is not None and not state.restoring:
        return None
    if state is None and run.exists() and any(run.iterdir()):
        return None
    try:
        is_there = Store(url, retries=retries, backoff_s=backoff_s).read(INDEX) is not None
    except Trouble:  # the mirror will say so, and training does not need it
        return None
    return restore(url, run, retries=retries, backoff_s=backoff_s) if is_there else None


def restore(
    url: str,
    run: Path,
    *,
    retries: int = 4,
    backoff_s: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Bring a mirrored run back into an empty or new folder, and return the number of files; goes on if cut short.

    A `Mirror` of the restored run to the same URL goes on with it.

    Args:
        progress: called with bytes done and in all.

    Raises:
        UsageError: there is no mirror at the URL, it cannot be reached, or `run` holds something else.
        DataError: a file is not what the mirror says.
    """
    shown, store = without_secrets(url), Store(url, retries=retries, backoff_s=backoff_s)
    try:
        index = store.read(INDEX)
        if index is None:
            raise UsageError(f"{shown}: no {INDEX} here, so no mirrored run. Check the URL.")
        values = _parsed(index, shown)
        state = State.read(run) if run.exists() else None
        if state is None and run.exists() and any(run.iterdir()):
            raise UsageError(f"{run}: is not empty. Give a new folder to bring the run back to.")
        if state is not None and (state.id != values["id"] or not state.restoring):
            raise UsageError(f"{run}: holds a run already. Give a new folder to bring the run back to.")
        state = State(shown, values["id"], restoring=True)
        run.mkdir(parents=True, exist_ok=True)
        state.write(run)
        for name in scan(run).keys() - values["files"].keys():  # brought back before, and gone from the mirror since
            (run / name).unlink()
        total, done = sum(facts["size"] for facts in values["files"].values()), 0
        for name, facts in sorted(values["files"].items(), key=lambda item: _rank(item[0])):
            target = run / name
            if not target.exists() or file_sha256(target) != facts["sha256"]:
                store.download(name, target, facts["sha256"])
            state.files[name] = _entry(target, facts["sha256"])
            done += facts["size"]
            progress(done, total)
    except Trouble as error:
        raise UsageError(f"{error}. Run the same command again to go on.") from None
    state.restoring = False
    state.write(run)
    return len(state.files)


class Store:
    """A folder at a URL through fsspec. What fails is tried again, then a `Trouble` of one line."""

    def __init__(self, url: str, *, retries: int, backoff_s: float) -> None:
        import fsspec

        self._shown, self._retries, self._backoff_s = without_secrets(url), retries, backoff_s
        protocol = url.partition("://")[0] if "://" in url else "file"
        try:
            # Listings are not cached: what another process or a retry has written must be seen.
            self._fs, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            package = PACKAGES.get(protocol)
            mend = f"Install it with `pip install {package}`" if package else str(error)
            raise UsageError(
                f"{self._shown}: {protocol}:// needs the package {package or 'of its store'}. {mend}."
            ) from None
        except ValueError as error:
            raise UsageError(f"{self._shown}: {error}. Give s3://, gs:// or a folder.") from None
        self._puts_whole = protocol in WHOLE_PUTS

    def lies_in(self, run: Path) -> bool:
        """Whether this is a local folder at or below `run`."""
        if "file" not in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)):
            return False
        return Path(self._root).resolve().is_relative_to(run.resolve())

    def upload(self, file: Path, name: str) -> Entry | None:
        """Put a file there; None if it changed or went away meanwhile, and then nothing new has its name there."""

        def put() -> Entry | None:
            before = _stat(file)
            if before is None:
                return None
            digest = hashlib.sha256()
            with file.open("rb") as source:
                is_whole = self._put(name, source, digest, lambda: _stat(file) == before)
            return Entry(*before, digest.hexdigest()) if is_whole else None

        try:
            return self._retried(put, name)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Put bytes there."""
        import io

        self._retried(lambda: self._put(name, io.BytesIO(content), hashlib.sha256(), lambda: True), name)

    def _put(self, name: str, source: Any, digest: Any, is_unchanged: Callable[[], bool]) -> bool:
        final = self._path(name)
        if not self._puts_whole:  # those have no folders, and some would create a bucket
            self._fs.makedirs(final.rpartition("/")[0], exist_ok=True)
        target = final if self._puts_whole else _uploading(final)
        file = self._fs.open(target, "wb")
        try:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
            is_whole = is_unchanged()
        except BaseException:
            self._give_up(file)
            raise
        if not is_whole:
            self._give_up(file)
            return False
        file.close()
        if target != final:
            self._fs.mv(target, final)
        return True

    def _give_up(self, file: Any) -> None:
        """End an upload so that no object comes of it, where the store can; else its temporary name stays."""
        if self._puts_whole:
            file.closed = True  # or its finaliser would end the upload after all
            file.discard()
        else:
            file.close()

    def read(self, name: str) -> bytes | None:
        """Bytes from there; None where there is no such file."""

        def get() -> bytes | None:
            try:
                return self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None

        return self._retried(get, name)

    def download(self, name: str, target: Path, sha256: str) -> None:
        """Bring a file from there; `target` has its name only when it is whole and has that hash."""
        partial = target.with_name(target.name + ".partial")
        target.parent.mkdir(parents=True, exist_ok=True)

        def get() -> str:
            digest = hashlib.sha256()
            with self._fs.open(self._path(name), "rb") as source, partial.open("wb") as file:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            return digest.hexdigest()

        try:
            got = self._retried(get, name)
        except FileNotFoundError:
            raise DataError(f"{self._shown}/{name}: is missing. The mirror was changed by something else.") from None
        if got != sha256:
            partial.unlink()
            raise DataError(
                f"{self._shown}/{name}: sha256 is {got[:12]}, wanted {sha256[:12]}. Take another mirror, or remove "
                f"that entry from {INDEX} there."
            )
        os.replace(partial, target)

    def remove(self, name: str) -> None:
        """Remove a file there, and what a cut upload of it has left."""
        final = self._path(name)
        for path in (final,) if self._puts_whole else (final, _uploading(final)):

            def gone(path: str = path) -> None:
                try:
                    self._fs.rm_file(path)
                except FileNotFoundError:
                    return

            self._retried(gone, name)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _retried(self, call: Callable[[], Any], name: str) -> Any:
        for attempt in range(self._retries + 1):
            try:
                return call()
            except FileNotFoundError:
                raise
            # Stores raise errors of their own libraries, which share no base class: any of them is worth a retry.
            except Exception as error:
                if attempt == self._retries:
                    line = str(error).strip().splitlines()
                    reason = f"{type(error).__name__}{f': {line[0]}' if line else ''}"
                    raise Trouble(f"{self._shown}: {name} failed {attempt + 1} times ({reason})") from error
                time.sleep(self._backoff_s * 2**attempt)


def scan(run: Path, skip: tuple[str, ...] = ()) -> dict[str, Entry]:
    """Files of a run under their final names, by relative name, but for folders to skip; not hashed."""
    found, left_out = {}, tuple(f"{folder}/" for folder in skip)
    for root, folders, files in os.walk(run):
        folders[:] = sorted(name for name in folders if not name.endswith(SKIPPED))
        for name in files:
            path = Path(root) / name
            relative = path.relative_to(run).as_posix()
            if name.endswith(SKIPPED) or relative in (LOCAL, INDEX) or relative.startswith(left_out):
                continue
            if (facts := _stat(path)) is not None:
                found[relative] = Entry(*facts, "")
    return found


def without_secrets(url: str) -> str:
    """A URL as it may be shown and recorded: without user, password and query."""
    return re.sub(r"^([a-z0-9+]+://)[^/@]*@", r"\1", url).partition("?")[0].rstrip("/")


def _uploading(path: str) -> str:
    """Where a file lies until it is whole; the same name each time, so that a cut upload is written over."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.uploading"


def _rank(name: str) -> tuple[int, int, str]:
    """Content first; then records, those of inner folders first."""
    path = PurePosixPath(name)
    rank = 1 + RECORDS.index(path.name) if path.name in RECORDS else 0
    return rank, -len(path.parts) if rank else 0, name


def _stat(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except FileNotFoundError:
        return None
    return facts.st_size, facts.st_mtime_ns


def _entry(file: Path, sha256: str) -> Entry:
    facts = file.stat()
    return Entry(facts.st_size, facts.st_mtime_ns, sha256)


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(content)
        for name, facts in values["files"].items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise DataError(f"{where}/{INDEX}: names {name!r}, which is outside of a run. Do not use it.")
            int(facts["size"]), str(facts["sha256"])
        str(values["id"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}/{INDEX}: is damaged ({error}). Give another URL.") from None
    return values
