"""Which episodes a folder of plain arrays holds: an episode is a folder with arrays in it, or one of several `.npz`.

Picture folders and videos below it are its cameras, text files in it its instruction.
"""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from wamdata.readers.naming import natural
from wamdata.readers.video.picture_folders import SUFFIXES as PICTURES
from wamdata.readers.video.reader import SUFFIXES as FILMS

ARRAYS = (".npy", ".npz")
PICKLES = (".pkl", ".pickle")
TEXTS = ("lang.txt", "language.txt", "instruction.txt", "task.txt", "prompt.txt")
MAX_CAMERAS = 16  # more videos than this below a folder are no cameras of one episode


@dataclass
class Found:
    """Names of one episode's files."""

    arrays: list[str] = field(default_factory=list)
    pickles: list[str] = field(default_factory=list)
    films: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def is_film(self) -> bool:
        return bool(self.films or self.pictures)


def episodes_in(files: tuple[str, ...]) -> tuple[dict[str, Found], list[str]]:
    """The episodes by folder or `.npz` file, sorted by number, and the files of none."""
    names = [n for n in files if not PurePosixPath(n).name.startswith(".")]
    singles = _singles(names)
    homes = {_parent(n) for n in names if n not in singles and _suffix(n) in ARRAYS + PICKLES}
    found: dict[str, Found] = {n: Found(arrays=[n]) for n in singles} | {home: Found() for home in homes}
    strays = []
    for name in files:
        if name in singles:
            continue
        home = _home(name, homes)
        if home is None or not _add(found[home], name, home):
            strays.append(name)
    for home in [h for h, f in found.items() if len(f.films) > MAX_CAMERAS]:
        strays += [*found[home].films, *found.pop(home).arrays]
    return {home: found[home] for home in sorted(found, key=natural)}, strays


def _singles(names: list[str]) -> set[str]:
    """`.npz` files that are an episode each: several in a folder whose names differ in their numbers alone."""
    folders: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if _suffix(name) == ".npz":
            pattern = re.sub(r"\d+", "#", PurePosixPath(name).name)
            folders.setdefault((_parent(name), pattern), []).append(name)
    return {n for (_, pattern), group in folders.items() if len(group) > 1 and "#" in pattern for n in group}


def _home(name: str, homes: set[str]) -> str | None:
    """The nearest folder above a file that is an episode."""
    folder = _parent(name)
    while folder and folder not in homes:
        folder = _parent(folder)
    return folder if folder in homes else None


def _add(found: Found, name: str, home: str) -> bool:
    """Whether a file is of use to its episode, which then has it."""
    suffix, is_here = _suffix(name), _parent(name) == home
    if suffix in ARRAYS and is_here:
        found.arrays.append(name)
    elif suffix in PICKLES:
        found.pickles.append(name)
    elif suffix in FILMS:
        found.films.append(name)
    elif suffix in PICTURES:
        found.pictures.append(name)
    elif PurePosixPath(name).name.lower() in TEXTS and is_here:
        found.texts.append(name)
    else:
        return False
    return True


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _parent(name: str) -> str:
    parent = PurePosixPath(name).parent.as_posix()
    return "" if parent == "." else parent
