"""What a coded picture says of itself in its first bytes."""

from schemas.errors import DataError

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SIZED = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG segments that start a frame: height, then width
_BARE = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a length


def header_of(content: bytes) -> tuple[str, int, int] | None:
    """(codec, width, height) of a JPEG or PNG picture; None of anything else, or where its size is cut off."""
    if content.startswith(PNG) and len(content) >= 24:
        return "png", _number(content, 16, 4), _number(content, 20, 4)
    at = 2 if content.startswith(JPEG) else len(content)
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in _SIZED:
            return "mjpeg", _number(content, at + 7, 2), _number(content, at + 5, 2)
        if marker == 0xFF:  # a byte that fills
            at += 1
        else:
            at += 2 if marker in _BARE else 2 + _number(content, at + 2, 2)
    return None


def sniff(content: bytes, where: str) -> tuple[str, int, int]:
    """As `header_of`.

    Raises:
        DataError: it is neither JPEG nor PNG.
    """
    found = header_of(content)
    if found is None:
        start = content[:4].hex() or "nothing"
        raise DataError(f"{where}: a picture is neither JPEG nor PNG (starts with {start}). Copy it again.")
    return found


def _number(content: bytes, at: int, width: int) -> int:
    return int.from_bytes(content[at : at + width], "big")
