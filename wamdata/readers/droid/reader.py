"""Raw DROID: one folder per recording, with `trajectory.h5`, `metadata_*.json` and `recordings/MP4/<serial>.mp4`.

Rows are at the times of the robot's state; frame i of a camera shows row i and has the camera's own time. Cameras are
`wrist`, `varied_1` and `varied_2`, whatever their serials. Instructions are those of an `aggregated-annotations-*.json`
anywhere in the source, and the task that the operator was given.

Limits: the right view, depth, SVO files and calibrations are left alone.
"""

from pathlib import PurePosixPath

from schemas.episode import Episode, Finding
from schemas.errors import DataError, UsageError
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.droid.episode import read_episode
from wamdata.readers.droid.said import Said, annotations, said_of
from wamdata.readers.hdf5.file import opened, told
from wamdata.readers.naming import keys_of
from wamdata.readers.tree import find_licence, first_names, is_description, stray_findings
from wamdata.source import Source

NAME = "droid"
VERSION = 1
ROWS = "trajectory.h5"


def detect(source: Source) -> bool:
    """Whether `source` holds a folder with `trajectory.h5`."""
    return any(PurePosixPath(name).name == ROWS for name in source.files())


def list_episodes(source: Source) -> Listing:
    """Every recording that has its rows; no file but JSON is opened.

    Raises:
        UsageError: the source is a single file.
        DataError: there is no recording.
    """
    if source.is_file:
        raise UsageError(f"{source}: the cameras of this recording lie beside it. Give the folder that holds it.")
    files = source.files()
    folders = _recordings(files)
    if not folders:
        raise DataError(f"{source}: holds no {ROWS}. Give the folder that does.")
    written, findings = _annotations(source, files)
    licence, keys = find_licence(source), keys_of({f: f or source.name for f in folders})
    refs = []
    for folder, names in sorted(folders.items()):
        said, noticed = _said(source, folder, names, keys[folder])
        findings += noticed
        refs.append(EpisodeRef(source, keys[folder], said.rows, _place(source, folder, names, said, written, licence)))
    without = sorted({_parent(n) for n in files if PurePosixPath(n).match("metadata_*.json")} - set(folders))
    if without:
        message = f"{len(without)} recordings lack {ROWS}, left out: {first_names(without)}. Copy them again"
        findings.append(Finding("missing_rows", "warning", str(source), message))
    known = {n for names in folders.values() for n in names}
    strays = [("file of no recording", n) for n in files if n not in known and not _is_about(n)]
    hints = {"licence": licence, "robot_type": "droid"}
    return Listing(NAME, tuple(refs), (*findings, *stray_findings(strays, str(source))), hints)


def read(ref: EpisodeRef) -> Episode:
    """One recording as logged.

    Raises:
        DataError: `trajectory.h5` is missing or damaged, or its times do not increase.
    """
    name = f"{ref.place['path']}/{ROWS}".removeprefix("/")
    where = ref.source.where(name)
    if not ref.source.has(name):
        raise DataError(f"{where}: missing. List the source again.")
    with opened(ref.source.path(name), where) as file, told(where):
        return read_episode(ref, file, reader=f"{NAME}@{VERSION}")


def _place(
    source: Source, folder: str, names: list[str], said: Said, written: dict[str, list[str]], licence: str
) -> dict:  # fmt: skip
    films = [n for n in names if "/MP4/" in f"/{n}" and n.endswith(".mp4") and not n.endswith("-stereo.mp4")]
    return {
        "path": folder,
        "films": films,
        "svo": sum(n.endswith((".svo", ".svo2")) for n in names),
        "serials": said.serials,
        "task": said.task,
        "annotations": written.get(said.uuid, []),
        "outcome": said.outcome,
        "session": said.session or PurePosixPath(folder).parent.name or source.name,
        "licence": licence,
    }


def _said(source: Source, folder: str, names: list[str], key: str) -> tuple[Said, list[Finding]]:
    """What the recording says of itself; a broken or missing `metadata_*.json` is a finding."""
    metadata = next((n for n in names if _parent(n) == folder and PurePosixPath(n).match("metadata_*.json")), None)
    try:
        return said_of(source, folder, metadata), []
    except DataError as error:
        return said_of(source, folder, None), [Finding("bad_metadata", "warning", key, str(error))]


def _annotations(source: Source, files: tuple[str, ...]) -> tuple[dict[str, list[str]], list[Finding]]:
    found: dict[str, list[str]] = {}
    findings = []
    for name in (n for n in files if _is_about(n) and not is_description(n)):
        try:
            found |= annotations(source, name)
        except DataError as error:
            findings.append(Finding("bad_annotations", "warning", source.where(name), str(error)))
    return found, findings


def _is_about(name: str) -> bool:
    """Whether a file says something of all recordings."""
    return is_description(name) or PurePosixPath(name).match("aggregated-annotations*.json")


def _recordings(files: tuple[str, ...]) -> dict[str, list[str]]:
    """Folders that hold rows, each with the names of all files in or below it."""
    found: dict[str, list[str]] = {_parent(n): [] for n in files if PurePosixPath(n).name == ROWS}
    for name in files:
        above = [_parent(name)]
        while above[-1]:
            above.append(_parent(above[-1]))
        folder = next((a for a in above if a in found), None)
        if folder is not None and not _is_about(name):
            found[folder].append(name)
    return found


def _parent(name: str) -> str:
    parent = PurePosixPath(name).parent.as_posix()
    return "" if parent == "." else parent
