"""Which episodes a source of HDF5 files holds, and what its files say of themselves: attributes and shapes, no rows.

Of a remote source with one episode per file only the first is fetched: the others are taken to have its layout.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from schemas.episode import Finding
from schemas.errors import DataError
from schemas.hdf5_layout import Hdf5Layout, Value
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.hdf5.file import datasets, find, first_of, groups, is_hdf5, look_up, opened, told
from wamdata.readers.hdf5.layout import is_glob, matches, natural
from wamdata.readers.hdf5.rows import declared_length, rate_hz
from wamdata.readers.tree import find_licence, first_names, is_description, stray_findings
from wamdata.source import Source

SUFFIXES = (".h5", ".hdf5")
NOT_OURS = ("trajectory.h5", "proprio_stats.h5")  # of raw DROID and of AgiBot World, whose other half is video files
TRIED = 4  # files that are opened to know what a folder holds
UPSIDE_DOWN = (
    "pictures are rendered upside down: `flip: vertical` on the camera in the robot's file sets them upright "
    "(`rotate: 180`, as in sets made with OpenVLA, mirrors them too)"
)
LEFT_OUT = " Its episodes are left out"

Layouts = tuple[Hdf5Layout, ...]


@dataclass(frozen=True)
class Listed:
    """One file's episodes and what it says of itself."""

    layout: Hdf5Layout
    refs: tuple[EpisodeRef, ...]
    hz: float
    robot: str
    filters: tuple[str, ...]
    is_upside_down: bool


def fits_some(source: Source, layouts: Layouts) -> bool:
    """Whether one of the first files fits a layout, or none of them can be read at all."""
    names = _candidates(source)
    readable = False
    for name in names[:: max(1, len(names) // TRIED)][:TRIED]:
        try:
            with opened(source.path(name), source.where(name)) as file:
                if _layout_of(file, layouts, name) is not None:
                    return True
            readable = True
        except DataError:
            continue
    return bool(names) and not readable


def list_files(source: Source, layouts: Layouts) -> Listing:
    """Every episode of every file that fits a layout; files that cannot be read are findings.

    Raises:
        DataError: there is no such file, or none of them can be read.
    """
    names = _candidates(source, layouts[0].files if len(layouts) == 1 else "**")
    licence, keys = find_licence(source), _keys(names)
    listed: list[Listed] = []
    strangers: list[str] = []
    errors: list[Finding] = []
    for name in names:
        try:
            found = _listed(source, name, keys[name], layouts, licence, listed)
        except DataError as error:
            errors.append(Finding("unreadable", "error", source.where(name), f"{error}{LEFT_OUT}"))
            continue
        strangers += [] if found else [name]
        listed += [found] if found else []
    if not listed:
        raise DataError(_nothing(source, layouts, strangers, errors))
    refs = _apart([ref for file in listed for ref in file.refs])
    findings = [*errors, *_listing_findings(source, listed, strangers), *_strays(source, names)]
    return Listing("hdf5", refs, tuple(findings), _hints(listed, licence))


def _candidates(source: Source, pattern: str = "**") -> list[str]:
    """Names of the files that may be HDF5, sorted by number; a single file of this machine may have any suffix."""
    if source.is_file and source.is_local and source.name not in NOT_OURS:
        return [source.name] if source.name.lower().endswith(SUFFIXES) or is_hdf5(source.path(source.name)) else []
    names = (n for n in source.files() if n.lower().endswith(SUFFIXES) and matches(n, (pattern,)))
    paths = ((n, PurePosixPath(n).name) for n in names)
    return sorted((n for n, last in paths if last not in NOT_OURS and not last.startswith("._")), key=natural)


def _layout_of(file: Any, layouts: Layouts, where: str) -> Hdf5Layout | None:
    """The first layout whose groups and datasets are in the file."""

    def holds(pattern: str) -> bool:
        return any(True for _ in groups(file, pattern, where))

    return next((x for x in layouts if holds(x.episodes) and all(holds(n) for n in x.needs)), None)


def _listed(source: Source, name: str, key: str, layouts: Layouts, licence: str, before: list[Listed]) -> Listed | None:
    """One file's episodes; None if it fits no layout."""
    if not source.is_local and before and before[0].layout.episodes == "/":
        first = before[0]  # not fetched to be counted: its layout is taken to be that of the first file
        ref = _ref(source, name, key, "", 0, (), first.layout, licence)
        return Listed(first.layout, (ref,), first.hz, first.robot, (), first.is_upside_down)
    where = source.where(name)
    with opened(source.path(name), where) as file:
        layout = _layout_of(file, layouts, where)
        if layout is None:
            return None
        filters = _filters(file, layout, where)
        refs = []
        for path in groups(file, layout.episodes, where):
            if hasattr(find(file, path, where), "keys"):
                rows, mine = _count(file, path, layout, name, where), filters.get(path.split("/")[-1], ())
                refs.append(_ref(source, name, key, path, rows, mine, layout, licence))
        group = find(file, refs[0].place["group"], where) if refs else file
        return Listed(
            layout,
            tuple(refs),
            rate_hz(group, layout, name, where),
            _robot(group, layout, name, where),
            tuple(sorted({f for names in filters.values() for f in names})),
            _is_upside_down(group, layout, name, where),
        )


def _ref(
    source: Source, name: str, key: str, group: str, rows: int, filters: tuple[str, ...], layout: Hdf5Layout,
    licence: str,
) -> EpisodeRef:  # fmt: skip
    pattern = [p for p in layout.episodes.split("/") if p]
    told_apart = next((at for at, part in enumerate(pattern) if is_glob(part)), len(pattern) - 1)
    last = re.sub(r"[^A-Za-z0-9_-]", "_", "__".join(group.split("/")[told_apart:]))
    place = {
        "path": name,
        "group": group,
        "layout": layout.as_dict(),
        "licence": licence,
        "file_key": key,
        "filters": list(filters),
    }
    return EpisodeRef(source, f"{key}__{last}" if group else key, rows, place)


def _apart(refs: list[EpisodeRef]) -> tuple[EpisodeRef, ...]:
    """The episodes; those that would share a key get a piece of their place's hash."""
    taken = Counter(ref.key for ref in refs)
    return tuple(
        ref if taken[ref.key] == 1 else replace(ref, key=f"{ref.key}-{_short_hash(ref.place['group'])}") for ref in refs
    )


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _count(file: Any, group: str, layout: Hdf5Layout, name: str, where: str) -> int:
    """Rows of an episode from its main dataset's shape and what the file says; 0 if only reading it would tell."""
    try:
        with told(where):
            here = find(file, group, where)
            main = find(here, layout.main, where) if layout.main else None
            if main is None or not getattr(main, "shape", None):
                return 0
            said = declared_length(here, layout, name, where)
            return max(0, min(len(main), len(main) if said is None else said))
    except DataError:  # said again, of this episode alone, when it is read
        return 0


def _filters(file: Any, layout: Hdf5Layout, where: str) -> dict[str, tuple[str, ...]]:
    """Per episode name, the lists that it stands in."""
    if not layout.filters or not hasattr(find(file, layout.filters, where), "keys"):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for path, _ in datasets(find(file, layout.filters, where), where).items():
        names = first_of(file, (Value(source=f"/{layout.filters}/{path}"),), "", where)
        for name in names if isinstance(names, list) else []:
            found[str(name)] = (*found.get(str(name), ()), path)
    return found


def _robot(group: Any, layout: Hdf5Layout, name: str, where: str) -> str:
    said = first_of(group, layout.robot, name, where)
    said = said if isinstance(said, list) else [said]
    return "_".join(s for s in said if isinstance(s, str))


def _is_upside_down(group: Any, layout: Hdf5Layout, name: str, where: str) -> bool:
    convention = look_up(group, layout.image_convention, name, where) if layout.image_convention else None
    return layout.upside_down == "always" or convention == "opengl"


def _keys(names: list[str]) -> dict[str, str]:
    """A key per file, free of dots and slashes; files that would share one get a piece of their path's hash."""
    plain = {
        n: re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(n).with_suffix("").as_posix().replace("/", "__")) for n in names
    }
    taken = Counter(plain.values())
    return {n: k if taken[k] == 1 else f"{k}-{_short_hash(n)}" for n, k in plain.items()}


def _hints(listed: list[Listed], licence: str) -> dict[str, str]:
    rates = {file.hz for file in listed}
    hints = {
        "format": ", ".join(dict.fromkeys(file.layout.name for file in listed)),
        "licence": licence,
        "robot_type": next((file.robot for file in listed if file.robot), "unknown"),
        "filters": ", ".join(sorted({f for file in listed for f in file.filters})),
        "fps": f"{rates.pop():g}" if len(rates) == 1 and 0 not in rates else "",
    }
    return {k: v for k, v in hints.items() if v}


def _listing_findings(source: Source, listed: list[Listed], strangers: list[str]) -> Iterator[Finding]:
    timeless = [f for f in listed if not f.hz and not f.layout.rate.times]
    if timeless:
        message = (
            f"{len(timeless)} of {len(listed)} files say neither times nor a rate: rows are counted. "
            f"Set `native_hz` in the robot's file to the rate they were recorded at"
        )
        yield Finding("no_clock", "warning", str(source), message)
    if any(f.is_upside_down for f in listed):
        yield Finding("upside_down", "info", str(source), UPSIDE_DOWN)
    swapped = sorted({c.source for f in listed for c in f.layout.cameras if c.channels != "rgb"})
    if swapped:
        message = f"red and blue may be swapped in {', '.join(swapped)}: look, and set `channels: bgr` on those cameras"
        yield Finding("channel_order", "info", str(source), message)
    if strangers:
        message = f"{len(strangers)} HDF5 files of no known layout, left out: {first_names(strangers)}"
        yield Finding("unknown_layout", "warning", str(source), message)


def _strays(source: Source, names: list[str]) -> list[Finding]:
    known = set(names)
    others = [("file of no episode", f) for f in source.files() if f not in known and not is_description(f)]
    return stray_findings(others, str(source))


def _nothing(source: Source, layouts: Layouts, strangers: list[str], errors: list[Finding]) -> str:
    """Why a source has no episode."""
    if errors:
        more = f" ({len(errors)} files cannot be read)" if len(errors) > 1 else ""
        return f"{errors[0].message.removesuffix(LEFT_OUT)}{more}"
    needs = "; ".join(f"{x.name}: {', '.join((x.episodes, *x.needs))}" for x in layouts)
    if strangers:
        return f"{source.where(strangers[0])}: fits no layout ({needs}). Give one with `--reader my_layout.yaml`."
    return f"{source}: holds no HDF5 file. Give the folder that does."
