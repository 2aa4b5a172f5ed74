"""One episode of a replay buffer: its streams, cameras and instruction."""

from schemas.episode import Episode, Finding, Footage
from schemas.errors import DataError
from wamdata.readers.base import UNKNOWN_HZ, EpisodeRef, content_sha256, counted, no_instruction
from wamdata.readers.hdf5.pictures import Look
from wamdata.readers.tree import first_names
from wamdata.readers.zarr.buffer import Buffer, open_buffer, stored
from wamdata.readers.zarr.members import where_of
from wamdata.readers.zarr.pictures import pictures
from wamdata.readers.zarr.streams import looks_of, streams_of
from wamdata.readers.zarr.texts import WORDS, texts_of

MAX_ROWS = 50_000_000


def read_episode(ref: EpisodeRef, *, reader: str) -> Episode:
    """The episode that `ref` names.

    Raises:
        DataError: as `zarr.read`.
    """
    store, first, stop = ref.place["store"], ref.place["first"], ref.place["stop"]
    where = f"{where_of(ref.source, store)}: {ref.key}"
    if stop - first > MAX_ROWS:
        raise DataError(f"{where}: declares {stop - first} rows, of {MAX_ROWS} at most. Mend `meta/episode_ends`.")
    buffer = open_buffer(ref.source, store)
    arrays = {n: a for n, a in buffer.arrays.items() if n.lower() not in WORDS or a.dtype.kind in "biuf"}
    short = sorted(n for n, a in arrays.items() if not a.shape or len(a) < stop)
    arrays = {n: a for n, a in arrays.items() if n not in short}
    looks, unread = looks_of(arrays, where)
    rest = {n: a for n, a in arrays.items() if n not in looks and n not in unread}
    t_ns = counted(stop - first, UNKNOWN_HZ)
    streams, no_rows = streams_of(rest, first, stop, t_ns, where)
    whole, gaps = _whole(buffer, looks, first, stop, ref.key)
    videos: dict[str, Footage] = {n: pictures(ref.source, store, n, look, t_ns, first) for n, look in whole.items()}
    unread |= buffer.unread | no_rows
    if not streams and not videos:
        raise DataError(f"{where}: none of its arrays can be read ({_reasons(unread)}). Copy the store again.")
    texts = texts_of(buffer, ref.place["episode"], first, stop, t_ns, where)
    findings = [*gaps, *_findings(ref, list(streams), bool(texts), short, unread)]
    parts = () if streams else tuple(v.load(0, 1)[0].tobytes() for v in videos.values())
    return Episode(
        source=str(ref.source),
        key=ref.key,
        streams=streams,
        videos=videos,
        texts=texts,
        session=ref.place["session"],
        reader=reader,
        source_sha256=content_sha256(streams, texts, *parts),
        rows=(0, stop - first),
        licence=ref.place["licence"],
        findings=tuple(findings),
        counted_hz=UNKNOWN_HZ,
    )


def _whole(
    buffer: Buffer, looks: dict[str, Look], first: int, stop: int, key: str
) -> tuple[dict[str, Look], list[Finding]]:
    """The cameras of which every chunk is there: one that is not reads as black pictures, without any error."""
    whole, findings = {}, []
    for name, look in looks.items():
        there, wanted = stored(buffer, name, first, stop)
        if there == wanted:
            whole[name] = look
            continue
        message = f"{name}: {wanted - there} of {wanted} chunks of its pictures are not there. Copy the store again"
        findings.append(Finding("missing_pictures", "warning", key, message))
    return whole, findings


def _findings(
    ref: EpisodeRef, streams: list[str], has_text: bool, short: list[str], unread: dict[str, str]
) -> list[Finding]:
    found = []
    if unread:
        found.append(Finding("unread_arrays", "warning", ref.key, f"left out: {_reasons(unread)}"))
    if short:
        message = f"fewer than {ref.place['stop']} rows, left out: {first_names(short)}"
        found.append(Finding("count_mismatch", "warning", ref.key, message))
    if streams and not any("action" in name.lower() for name in streams):
        message = (
            "no array of actions: UMI and its kin command the pose of the next row. Say so in the robot's file: "
            "`from` the pose's array and `ahead: 1`"
        )
        found.append(Finding("no_actions", "info", ref.key, message))
    if not has_text:
        found.append(no_instruction(ref.key))
    return found


def _reasons(unread: dict[str, str]) -> str:
    return first_names([f"{name} ({reason})" for name, reason in sorted(unread.items())]) or "it has none"
