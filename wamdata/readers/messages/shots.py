"""Where the frames of a camera lie in a recording's files, and how they are read again when they are asked for."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.episode import Coded, Int64
from schemas.errors import DataError
from wamdata.readers.messages.bag import Channel, Opener, kept
from wamdata.readers.messages.decoders import BadMessageError, decoder_of
from wamdata.readers.messages.leaves import get
from wamdata.readers.messages.pixels import to_rgb


@dataclass(frozen=True)
class Files:
    """The files of a recording, small enough to send to a worker.

    Args:
        paths, wheres: each file and how messages name it.
    """

    paths: tuple[str, ...]
    wheres: tuple[str, ...]
    opener: Opener


@dataclass(frozen=True)
class Shots:
    """Frames of one camera.

    Args:
        places: (M, 5) file, channel and place of each message.
        first: (N + 1,) frame i is the messages first[i]:first[i + 1] one after the other.
        lead: (N,) which of `leads` stands before the frame.
    """

    files: Files
    channels: tuple[Channel, ...]
    places: Int64
    first: Int64
    lead: Int64
    leads: tuple[bytes, ...]
    is_raw: bool

    def load(self, start: int, stop: int) -> list[Coded]:
        """Frames [start, stop).

        Raises:
            DataError: a file changed or went since it was listed.
        """
        return [self._frame(index) for index in range(start, stop)]

    def _frame(self, index: int) -> Coded:
        parts = range(int(self.first[index]), int(self.first[index + 1]))
        if self.is_raw:
            message = self._message(parts[0])
            return to_rgb(message, payload(message))
        return self.leads[int(self.lead[index])] + b"".join(bytes(payload(self._message(p))) for p in parts)

    def _message(self, number: int) -> Any:
        file, channel, *place = (int(n) for n in self.places[number])
        where = self.files.wheres[file]
        try:
            data = kept(self.files.paths[file], where, self.files.opener).fetch(tuple(place))
            return decoder_of(self.channels[channel])(data)
        except (OSError, BadMessageError, DataError) as error:
            raise DataError(f"{where}: a picture cannot be read again ({error}). List the source again.") from None


def payload(message: Any) -> Any:
    """A picture message's own bytes; JSON holds them as base64."""
    data = get(message, "data")
    if isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            return b""
    if isinstance(data, list):
        return bytes(data) if all(isinstance(n, int) and 0 <= n < 256 for n in data) else b""
    if isinstance(data, np.ndarray):
        return memoryview(np.ascontiguousarray(data)).cast("B")
    return data if isinstance(data, bytes) else b""
