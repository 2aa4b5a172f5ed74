"""What lies around the data in a source folder: Git-LFS pointers, licences, files that belong to nothing."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import yaml

from schemas.episode import Finding
from wamdata.source import Source

LFS_HEADER = b"version https://git-lfs"
LFS_BYTES = 1024  # a pointer is some 130 bytes
LFS_ADVICE = "Run `git lfs install && git lfs pull` in the source."
JUNK = (".DS_Store", "Thumbs.db", "desktop.ini")
DESCRIPTIONS = ("license", "licence", "copying", "readme", "notice", "citation")
SPDX = {n.lower(): n for n in ("MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "CC0-1.0", "CC-BY-4.0",
                               "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "GPL-3.0")}  # fmt: skip
# First match wins, so the narrower wording stands first.
LICENCE_WORDS = (
    (r"attribution.noncommercial.sharealike 4\.0", "CC-BY-NC-SA-4.0"),
    (r"attribution.noncommercial 4\.0", "CC-BY-NC-4.0"),
    (r"attribution.sharealike 4\.0", "CC-BY-SA-4.0"),
    (r"attribution 4\.0", "CC-BY-4.0"),
    (r"cc0 1\.0", "CC0-1.0"),
    (r"apache license.{0,20}version 2\.0", "Apache-2.0"),
    (r"gnu general public license.{0,20}version 3", "GPL-3.0"),
    (r"bsd 3-clause", "BSD-3-Clause"),
    (r"bsd 2-clause", "BSD-2-Clause"),
    (r"mit license|permission is hereby granted, free of charge", "MIT"),
)


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is the short text that Git leaves in place of a large file it has not fetched."""
    with path.open("rb") as file:
        return file.read(len(LFS_HEADER)) == LFS_HEADER


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lfs_pointers(source: Source, names: Iterable[str]) -> list[str]:
    """Which of these files are Git-LFS pointers; opens only those that are short enough to be one.

    None of a remote source: its store would have to be asked for each. Reading one tells it too.
    """
    if not source.is_local:
        return []
    return [n for n in names if source.size(n) <= LFS_BYTES and is_lfs_pointer(source.path(n))]


def is_description(name: str) -> bool:
    """Whether a file describes the source: licence, readme, git's own settings."""
    return PurePosixPath(name).name.lower().startswith((*DESCRIPTIONS, ".git"))


def stray_findings(strays: Iterable[tuple[str, str]], where: str) -> list[Finding]:
    """One finding per kind of stray file, with a count and up to three names; operating systems' junk is one kind."""
    kinds: dict[str, list[str]] = {}
    for kind, path in strays:
        name = PurePosixPath(path).name
        is_junk = name in JUNK or name.startswith("._")
        kinds.setdefault("operating-system file" if is_junk else kind, []).append(path)
    return [
        Finding("stray_file", "info", where, f"{len(names)} x {kind}, left alone: {first_names(names)}")
        for kind, names in sorted(kinds.items())
    ]


def first_names(names: list[str]) -> str:
    """Up to three names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def find_licence(source: Source) -> str:
    """SPDX name of the licence that a folder states, as written where it is not a known one, else `unknown`.

    Looked for beside a source that is a single file of this machine.
    """
    if source.is_file and source.is_local:
        source = Source.at(Path(source.url).parent)
    descriptions = [source.path(n) for n in source.top() if is_description(n)]
    for path in descriptions:
        if path.name.lower().startswith(("license", "licence", "copying")):
            start = " ".join(path.read_text(errors="replace")[:2000].lower().split())
            for pattern, name in LICENCE_WORDS:
                if re.search(pattern, start):
                    return name
    for path in descriptions:
        if path.name.lower().startswith("readme"):
            header = re.match(r"\ufeff?---\s*\n(.*?)\n---", path.read_text(errors="replace"), re.DOTALL)
            stated = _header_licence(header[1]) if header else None
            if stated:
                return SPDX.get(stated.lower(), stated)
    return "unknown"


def _header_licence(text: str) -> str | None:
    try:
        header = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    stated = header.get("license") if isinstance(header, dict) else None
    if isinstance(stated, list):
        stated = stated[0] if stated else None
    return stated if isinstance(stated, str) else None
