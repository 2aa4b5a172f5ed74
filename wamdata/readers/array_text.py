"""Words that stand in an array of text."""

from typing import Any

import numpy as np

LAST_CHARACTER = 0x10FFFF


def words_of(values: Any) -> list[str]:
    """One plain line per element, "" for one whose bytes are no characters."""
    return [_plain(value) for value in np.ravel(_readable(np.asarray(values)))]


def _readable(values: np.ndarray) -> np.ndarray:
    """The array, empty where it holds numbers beyond all characters: Python cannot even make a string of them."""
    if values.dtype.kind != "U" or not values.dtype.itemsize:
        return values
    native = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("="))
    characters = native.reshape(-1, 1).view(np.uint32)
    native.reshape(-1)[(characters > LAST_CHARACTER).any(axis=1)] = ""
    return native


def _plain(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return " ".join(text.replace("\0", " ").split())
