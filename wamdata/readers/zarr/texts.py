"""What a replay buffer says of its episodes in words: an array per row or per episode, or an attribute."""

from itertools import groupby

from schemas.episode import Int64, Text
from wamdata.readers.array_text import words_of
from wamdata.readers.zarr.buffer import Buffer, told

WORDS = ("language", "language_instruction", "instruction", "task")  # the first one there counts


def texts_of(buffer: Buffer, episode: int, first: int, stop: int, t_ns: Int64, where: str) -> tuple[Text, ...]:
    """The instruction; one per row holds for as long as it stays the same.

    Args:
        episode: its number among `episode_ends`.
        t_ns: (stop - first,) times of its rows.
    """
    step = int(t_ns[-1] - t_ns[-2]) if len(t_ns) > 1 else 1
    ends_ns = [*t_ns[1:].tolist(), int(t_ns[-1]) + step]
    for word in WORDS:
        lines, origin = _lines(buffer, word, episode, first, stop, where)
        found, at = [], 0
        for line, same in groupby(lines if len(lines) == len(t_ns) else lines[:1] * len(t_ns)):
            until = at + len(list(same))
            if line:
                found.append(Text(line, int(t_ns[at]), int(ends_ns[until - 1]), origin=origin))
            at = until
        if found:
            return tuple(found)
    return ()


def _lines(buffer: Buffer, word: str, episode: int, first: int, stop: int, where: str) -> tuple[list[str], str]:
    """One line per row, or one of the episode; none where nothing is said."""
    for group, arrays, span in (
        ("data", buffer.arrays, slice(first, stop)),
        ("meta", buffer.meta, slice(episode, episode + 1)),
    ):
        array = next((a for name, a in arrays.items() if name.lower() == word), None)
        if array is not None and len(array.shape) == 1 and array.dtype.kind in "OSUT":
            with told(f"{where}: {group}/{word}"):
                return words_of(array[span]), f"{group}/{word}"
    said = buffer.attributes.get(word)
    said = said[episode] if isinstance(said, list) and episode < len(said) else said
    return (words_of([said]), f"@{word}") if isinstance(said, str) else ([], "")
