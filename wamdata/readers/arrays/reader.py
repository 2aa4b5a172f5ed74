"""Plain numpy logs: a folder of `.npy` and `.npz` files per episode, or one `.npz` each; of raw Bridge, what is open.

    episode_000/state.npy, action.npy, cam0/000000.jpg, front.mp4, instruction.txt
    traj_group0/traj0/images0/im_0.jpg, lang.txt, obs_dict.pkl, policy_out.pkl     (Bridge)

Arrays with a row per step are streams, named by file and member; arrays of pictures, folders of numbered pictures and
videos are cameras. An array named `t`, `time` or `timestamp` gives the times, else rows are counted.

Limits: nothing is unpickled, so of raw Bridge only film and language are read. One file per frame, as CALVIN has it, is
not read. A folder of pictures needs eight of them.
"""

from schemas.episode import Episode, Finding
from schemas.errors import DataError, UsageError
from wamdata.readers.arrays.episode import read_episode
from wamdata.readers.arrays.files import PICKLED
from wamdata.readers.arrays.tree import Found, episodes_in
from wamdata.readers.base import EpisodeRef, Listing
from wamdata.readers.naming import keys_of
from wamdata.readers.tree import find_licence, first_names, is_description, stray_findings
from wamdata.source import Source

NAME = "arrays"
VERSION = 1
MAGIC = (b"\x93NUMPY", b"PK\x03\x04")
CALVIN = "ep_start_end_ids.npy"
TRIED = 4  # files that are opened to know whether they are numpy's


def detect(source: Source) -> bool:
    """Whether `source` is or holds numpy's files, or pickles beside pictures, or pickles alone."""
    found, _ = episodes_in(source.files())
    arrays = [n for f in found.values() for n in f.arrays]
    if any(_is_numpy(source, n) for n in arrays[:: max(1, len(arrays) // TRIED)][:TRIED]):
        return True
    return not arrays and any(f.pickles for f in found.values())


def list_episodes(source: Source) -> Listing:
    """Every episode; no array and no picture is opened.

    Raises:
        UsageError: there are pickles alone, or one file per frame.
        DataError: there is no array.
    """
    files = source.files()
    found, strays = episodes_in(files)
    if any(name.rsplit("/", 1)[-1] == CALVIN for name in files):
        raise UsageError(f"{source}: one file per frame, as CALVIN has it, is not read. Use its release in RLDS.")
    used = {home: f for home, f in found.items() if f.arrays or f.is_film}
    if not used:
        raise _nothing(source, found)
    pickled = [n for home, f in found.items() if home not in used for n in f.pickles]
    licence = find_licence(source)
    keys = keys_of({home: _plain(home) or _plain(source.name) for home in used})
    refs = [EpisodeRef(source, keys[home], 0, _place(source, home, f, licence)) for home, f in used.items()]
    findings = []
    if pickled:
        message = f"{first_names(pickled)} {PICKLED}"
        findings.append(Finding("pickled", "warning", str(source), message))
    others = [("file of no episode", n) for n in strays if not is_description(n)]
    return Listing(NAME, tuple(refs), (*findings, *stray_findings(others, str(source))), {"licence": licence})


def read(ref: EpisodeRef) -> Episode:
    """One episode as logged.

    Raises:
        DataError: none of its files can be read, or its rows declare too much or stand still in time.
    """
    if gone := [n for n in ref.place["arrays"] if not ref.source.has(n)]:
        raise DataError(f"{ref.source.where(gone[0])}: missing. List the source again.")
    return read_episode(ref, reader=f"{NAME}@{VERSION}")


def _place(source: Source, home: str, found: Found, licence: str) -> dict:
    group = home.rpartition("/")[0]
    is_bridge = group.rsplit("/", 1)[-1].startswith("traj_group")  # trajectories of one scene
    return {
        "path": home,
        "arrays": found.arrays,
        "pickles": found.pickles,
        "films": found.films,
        "pictures": found.pictures,
        "texts": found.texts,
        "session": group if is_bridge else _plain(home) or _plain(source.name),
        "licence": licence,
    }


def _nothing(source: Source, found: dict[str, Found]) -> DataError | UsageError:
    pickles = [n for f in found.values() for n in f.pickles]
    if pickles:
        return UsageError(f"{source}: {first_names(pickles)} {PICKLED}, or take the set's release in RLDS.")
    return DataError(f"{source}: holds no numpy file. Give the folder that does.")


def _is_numpy(source: Source, name: str) -> bool:
    with source.path(name).open("rb") as file:
        return file.read(len(MAGIC[0])).startswith(MAGIC)


def _plain(name: str) -> str:
    """An episode's path without the suffix of a file."""
    return name.removesuffix(".npz").removesuffix(".npy")
