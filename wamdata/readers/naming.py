"""Keys of episodes, made from where they lie."""

import hashlib
import re
from collections import Counter


def keys_of(places: dict[str, str]) -> dict[str, str]:
    """A key per place, free of dots and slashes; places that would share one get a piece of their hash.

    Args:
        places: by what tells the episodes apart, the name that is to be read, such as a path without its suffix.
    """
    plain = {place: re.sub(r"[^A-Za-z0-9_-]", "_", name.replace("/", "__")) for place, name in places.items()}
    taken = Counter(plain.values())
    return {
        place: key if taken[key] == 1 else f"{key}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
        for place, key in plain.items()
    }


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """Sort key by which `im_10` comes after `im_9`."""
    return tuple((text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d{0,18})", name))
