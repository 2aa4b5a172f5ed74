"""One episode of plain arrays: rows, cameras and instruction."""

from schemas.episode import Episode, Finding, Footage, Int64, Text, Video
from schemas.errors import DataError
from wamdata.readers.arrays.cameras import read_cameras
from wamdata.readers.arrays.rows import Table, table_of
from wamdata.readers.base import UNKNOWN_HZ, EpisodeRef, content_sha256, no_instruction
from wamdata.readers.tree import first_names, sha256_of_file

MAX_TEXT_BYTES = 100_000
TRAILER = "confidence:"  # of Bridge's lang.txt
PICKLES = (
    "states and actions may lie in {}, as pickles: nothing is unpickled, for that runs its code. "
    "Bridge's release in RLDS is read whole; save your own with `np.save`"
)


def read_episode(ref: EpisodeRef, *, reader: str) -> Episode:
    """The episode that `ref` names.

    Raises:
        DataError: as `arrays.read`.
    """
    table = table_of(ref.source, ref.place["arrays"], ref.key)
    videos, findings = read_cameras(ref, table)
    findings = [*table.findings, *findings]
    if not table.streams and not videos:
        why = next((f.message for f in findings), "it holds none")
        raise DataError(
            why if why.endswith(".") else f"{ref.source}: {ref.key}: no rows and no camera ({why}). Drop it."
        )
    t_ns = table.t_ns if len(table.t_ns) else max((v.t_ns for v in videos.values()), key=len)
    texts, noticed = _texts(ref, table, t_ns)
    findings += noticed
    if ref.place["pickles"]:
        message = PICKLES.format(first_names([n.rsplit("/", 1)[-1] for n in ref.place["pickles"]]))
        findings.append(Finding("pickled", "warning", ref.key, message))
    if not texts:
        findings.append(no_instruction(ref.key))
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams=table.streams,
        videos=videos,
        texts=texts,
        session=ref.place["session"],
        reader=reader,
        source_sha256=content_sha256(table.streams, texts, *(() if table.streams else _pixels(ref, videos))),
        rows=(0, len(t_ns)),
        licence=ref.place["licence"],
        findings=tuple(findings),
        counted_hz=_counted_hz(table, videos),
    )


def _counted_hz(table: Table, videos: dict[str, Footage]) -> float:
    """The rate at which rows, or else pictures without times, were counted."""
    if len(table.t_ns):
        return table.counted_hz
    return UNKNOWN_HZ if any(not isinstance(v, Video) for v in videos.values()) else 0.0


def _texts(ref: EpisodeRef, table: Table, t_ns: Int64) -> tuple[tuple[Text, ...], list[Finding]]:
    """Each line of the text files, and what stands in arrays of text."""
    stop_ns = int(t_ns[-1]) + (int(t_ns[-1] - t_ns[-2]) if len(t_ns) > 1 else 1)
    said: dict[str, str] = dict.fromkeys(table.texts, "array")
    findings = []
    for name in ref.place["texts"]:
        with ref.source.path(name).open("rb") as file:
            content = file.read(MAX_TEXT_BYTES)
        try:
            lines = content.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            message = f"{ref.source.where(name)} is no text in UTF-8. Mend it"
            findings.append(Finding("bad_caption", "warning", ref.key, message))
            continue
        plain = (" ".join(line.split()) for line in lines)
        said = {line: name.rsplit("/", 1)[-1] for line in plain if not line.lower().startswith(TRAILER)} | said
    texts = (Text(line, int(t_ns[0]), stop_ns, origin=origin) for line, origin in said.items() if line)
    return tuple(texts), findings


def _pixels(ref: EpisodeRef, videos: dict[str, Footage]) -> list[bytes]:
    """What tells an episode without rows apart: its pictures."""
    found = []
    for video in videos.values():
        if isinstance(video, Video):
            found.append(sha256_of_file(video.path).encode())
        else:
            found += [bytes(video.load(at, at + 1)[0]) for at in range(len(video.t_ns))]
    return found
