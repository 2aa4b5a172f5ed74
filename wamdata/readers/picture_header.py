"""What a coded picture says of itself in its first bytes."""

import struct

from schemas.errors import DataError

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SIZED = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # JPEG segments with a size
_BARE = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a length


def sniff(content: bytes, where: str) -> tuple[str, int, int]:
    """(codec, width, height) of a JPEG or PNG picture, from its first bytes.

    Raises:
        DataError: it is neither, or ends before its size is told.
    """
    if content.startswith(PNG) and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return "png", width, height
    if content.startswith(JPEG):
        size = _jpeg_size(content)
        if size is not None:
            return "mjpeg", *size
    start = content[:4].hex() or "nothing"
    raise DataError(f"{where}: a picture is neither JPEG nor PNG (starts with {start}). Copy it again.")


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in _SIZED:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return width, height
        at += 2 if marker in _BARE or marker == 0xFF else 2 + struct.unpack(">H", content[at + 2 : at + 4])[0]
    return None
