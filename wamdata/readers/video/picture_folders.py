"""Folders of numbered pictures: `take1/frame_000000.jpg`, `take1/frame_000001.jpg`, ...

A folder is a sequence when it holds FEWEST pictures or more whose names differ in one number alone. Numbers of 16
digits and more are time stamps in microseconds or nanoseconds; smaller ones count frames, at a rate that nobody logged.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from schemas.episode import Coded, Int64, Pictures
from schemas.errors import DataError
from wamdata.readers.base import UNKNOWN_HZ, counted
from wamdata.readers.picture_header import sniff
from wamdata.source import Source

SUFFIXES = (".jpg", ".jpeg", ".png")
FEWEST = 8
_LAST_NUMBER = re.compile(r"(\d+)(?=\D*$)")


@dataclass(frozen=True)
class Sequence:
    """One folder's pictures in their order.

    Args:
        folder: relative; "" for the source itself.
        numbers: what their names count, rising.
    """

    folder: str
    names: tuple[str, ...]
    numbers: tuple[int, ...]

    @property
    def is_timed(self) -> bool:
        return len(str(self.numbers[0])) >= 16

    @property
    def missing(self) -> int:
        """How many numbers of a count are skipped inside."""
        steps = np.diff(np.array(self.numbers, np.float64))
        return 0 if self.is_timed else int((np.round(steps / np.median(steps)) - 1).clip(0).sum())


def find_sequences(files: tuple[str, ...]) -> list[Sequence]:
    """Every folder of numbered pictures."""
    folders: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in files:
        path = PurePosixPath(name)
        number = _LAST_NUMBER.search(path.stem)
        if path.suffix.lower() in SUFFIXES and number and len(number[1]) < 25:
            pattern = path.stem[: number.start()] + "#" + path.stem[number.end() :] + path.suffix
            parent = "" if path.parent.as_posix() == "." else path.parent.as_posix()
            folders.setdefault((parent, pattern), []).append((int(number[1]), name))
    found = []
    for (folder, _), numbered in sorted(folders.items()):
        numbered.sort()
        numbers = tuple(n for n, _ in numbered)
        if len(numbered) >= FEWEST and len(set(numbers)) == len(numbers):
            found.append(Sequence(folder, tuple(name for _, name in numbered), numbers))
    return found


def pictures_of(source: Source, sequence: Sequence) -> Pictures:
    """The camera of a sequence, its clock zero at the first picture.

    Raises:
        DataError: the first picture is not one; all have to be of its size.
    """
    first = sequence.names[0]
    codec, width, height = sniff(source.path(first).read_bytes(), source.where(first))
    return Pictures(_times(sequence), codec, width, height, _loader(source, sequence.names, (codec, width, height)))


def counted_hz(sequence: Sequence) -> float:
    """The rate at which untimed pictures are counted; 0 for those with time stamps."""
    return 0.0 if sequence.is_timed else UNKNOWN_HZ


def _times(sequence: Sequence) -> Int64:
    numbers = np.array(sequence.numbers, np.int64)
    if sequence.is_timed:
        return (numbers - numbers[0]) * (1 if len(str(sequence.numbers[0])) >= 18 else 1000)
    steps = np.diff(numbers)
    at = np.round((numbers - numbers[0]) / np.median(steps)).astype(np.int64)
    return counted(int(at[-1]) + 1, UNKNOWN_HZ)[at]


def _loader(source: Source, names: tuple[str, ...], wanted: tuple[str, int, int]) -> Callable[[int, int], list[Coded]]:
    def load(first: int, stop: int) -> list[Coded]:
        return [_whole(source, name, wanted) for name in names[first:stop]]

    return load


def _whole(source: Source, name: str, wanted: tuple[str, int, int]) -> bytes:
    content = source.path(name).read_bytes()
    found = sniff(content, source.where(name))
    if found != wanted:
        raise DataError(
            f"{source.where(name)}: {found[1]}x{found[2]} {found[0]} among pictures of {wanted[1]}x{wanted[2]} "
            f"{wanted[0]}. Take it out, or make them alike."
        )
    return content
