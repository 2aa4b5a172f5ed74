"""Pictures inside HDF5 files, as handles that read a slice when it is asked for.

JPEG and PNG bytes are kept as logged, less the padding behind them; everything else becomes (height, width, 3) uint8.
Padding is told by the picture's own end, not by ALOHA's `compress_len`: its rows follow the recorder's list of cameras,
which the file does not keep. Channels are never swapped. Does not read depth.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.episode import Coded, Int64, Pictures
from schemas.errors import DataError
from schemas.hdf5_layout import CameraPlace
from wamdata.readers.hdf5.file import find, kept, told
from wamdata.readers.picture_header import JPEG, header_of

JPEG_END, PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
# (height, width) of raw pictures stored as so many plain bytes: RoboMIND's cameras.
FLAT_SIZES = {921_600: (480, 640), 2_764_800: (720, 1280)}
SMALLEST = 8  # pixels: narrower than this is a matrix, not a picture
MAX_TOUCH = 1024  # cells of a touch sensor, whose one channel is a stream
MAX_ROW_BYTES = 4096  # more of them a row are no touch sensors
MAX_PICTURE_BYTES = 512_000_000
PICTURE_WORDS = ("image", "rgb", "cam", "color", "gray", "grey", "video")


@dataclass(frozen=True)
class Look:
    """How a dataset holds pictures.

    Args:
        codec: as in `Pictures`.
        flat: raw pixels as plain bytes of a row.
        planes: (T, 3, height, width).
        scale: factor to 0..255.
    """

    codec: str
    height: int
    width: int
    flat: bool = False
    planes: bool = False
    scale: float = 1.0


def look_at(dataset: Any, path: str, camera: CameraPlace, where: str) -> Look | str | None:
    """How a dataset holds pictures, why they cannot be used, or None if it holds none.

    Raises:
        DataError: it cannot be read, or declares pictures of an absurd size.
    """
    kind, shape = dataset.dtype.kind, dataset.shape
    if "depth" in path.lower() and (kind in "OSV" or len(shape) > 2):
        return "depth is not read yet"
    if not shape or not shape[0]:
        return "holds no frames" if len(shape) in (3, 4) else None
    if kind in "OSV" or (kind == "u" and dataset.dtype.itemsize == 1 and len(shape) == 2):
        return _look_at_bytes(dataset, camera, where)
    if kind not in "uf" or len(shape) not in (3, 4):
        return None
    return _look_at_pixels(dataset, path, camera, where)


def pictures(path: Path, dataset: str, look: Look, t_ns: Int64, where: str) -> Pictures:
    """A camera's pictures; nothing is read until they are asked for.

    Args:
        dataset: its path from the file's root.
        where: how messages name the file.
    """
    load = functools.partial(_load, str(path), dataset, look, where)
    return Pictures(t_ns, look.codec, look.width, look.height, load)


def without_padding(coded: bytes, codec: str) -> bytes:
    """A picture up to its end marker; b"" where it has none, for it was cut off."""
    if codec == "png":
        end = coded.find(PNG_END)
        return coded[: end + len(PNG_END)] if end >= 0 else b""
    bare = coded.rstrip(b"\0")
    end = len(bare) if bare.endswith(JPEG_END) else bare.rfind(JPEG_END) + len(JPEG_END)
    return bare[:end] if end >= len(JPEG_END) + len(JPEG) else b""


def _look_at_bytes(dataset: Any, camera: CameraPlace, where: str) -> Look | str | None:
    """Of a dataset whose rows are bytes: (T, N) uint8, (T,) of variable or fixed length."""
    if not _has_bytes(dataset):
        return None
    first = next((b for b in _samples(dataset) if b.strip(b"\0")), b"")
    found = header_of(first)
    wanted = {"jpeg": "mjpeg"}.get(camera.coding, camera.coding)
    if found and wanted in ("auto", found[0]):
        codec, width, height = found
        return _bounded(Look(codec, height, width), where)
    if camera.coding in ("jpeg", "png"):
        return f"its first picture is no {camera.coding}"
    length = len(first) if dataset.dtype.kind == "O" else dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    size = camera.size or FLAT_SIZES.get(length)
    if size and math.prod(size) * 3 == length:
        return _bounded(Look("raw", *size, flat=True), where)
    is_row = dataset.dtype.kind in "SV" or (dataset.dtype.kind == "u" and length <= MAX_ROW_BYTES)
    return None if is_row and camera.coding == "auto" else f"{length} bytes a frame, of no known codec or size"


def _look_at_pixels(dataset: Any, path: str, camera: CameraPlace, where: str) -> Look | str | None:
    shape = dataset.shape
    planes = len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] not in (1, 3, 4)
    if len(shape) == 4 and not planes and shape[3] not in (1, 3, 4):
        return None
    channels = 1 if len(shape) == 3 else shape[1] if planes else shape[3]
    height, width = shape[2:] if planes else shape[1:3]
    is_named = any(word in path.lower() for word in PICTURE_WORDS)
    if min(height, width) < SMALLEST or (channels == 1 and not is_named and height * width <= MAX_TOUCH):
        return None
    if channels == 1 and dataset.dtype != np.uint8:
        return "one channel of numbers, so depth: not read yet"
    if channels == 1 and not is_named:
        return "one channel, and its name does not say picture"
    if dataset.dtype.kind == "u" and dataset.dtype != np.uint8:
        return f"{dataset.dtype} pixels are not read yet"
    look = _bounded(Look("raw", height, width, planes=planes), where)
    return look if dataset.dtype == np.uint8 else _scaled(dataset, look)


def _scaled(dataset: Any, look: Look) -> Look:
    """Float pixels: 0 to 1 where none of three pictures goes beyond, else 0 to 255."""
    largest = max(float(np.nanmax(dataset[i])) for i in _spread(len(dataset)))
    return Look(look.codec, look.height, look.width, planes=look.planes, scale=255.0 if largest <= 1 else 1.0)


def _bounded(look: Look, where: str) -> Look:
    if look.height * look.width * 3 > MAX_PICTURE_BYTES or not look.height * look.width:
        raise DataError(f"{where}: declares pictures of {look.width}x{look.height}. Mend the file or leave it out.")
    return look


def _has_bytes(dataset: Any) -> bool:
    if dataset.dtype.kind != "O":
        return dataset.dtype.fields is None and dataset.dtype.itemsize * math.prod(dataset.shape[1:]) >= 64
    inner = (dataset.dtype.metadata or {}).get("vlen")  # never of references, never of text
    return len(dataset.shape) == 1 and isinstance(inner, np.dtype) and inner.kind in "ui" and inner.itemsize == 1


def _samples(dataset: Any) -> list[bytes]:
    return [_as_bytes(dataset[i]) for i in _spread(len(dataset))]


def _spread(rows: int) -> list[int]:
    return sorted({0, rows // 2, rows - 1})


def _as_bytes(row: Any) -> bytes:
    return row if isinstance(row, bytes) else np.asarray(row).tobytes()


def _load(path: str, dataset: str, look: Look, where: str, first: int, stop: int) -> list[Coded]:
    """Pictures [first, stop)."""
    with told(f"{where}: {dataset}"):
        rows = find(kept(Path(path)), dataset, where)[first:stop]
        if look.codec != "raw":
            return [_coded(row, look.codec, f"{where}: {dataset}: frame {i}") for i, row in enumerate(rows, first)]
        if look.flat:
            size = look.height * look.width * 3  # h5py strips zeros from the end of fixed-length bytes
            plain = [np.frombuffer(_as_bytes(row).ljust(size, b"\0"), np.uint8) for row in rows]
            return [p.reshape(look.height, look.width, 3) for p in plain]
        return list(_as_rgb(rows, look))


def _coded(row: Any, codec: str, where: str) -> bytes:
    bare = without_padding(_as_bytes(row), codec)
    if not bare:
        raise DataError(f"{where} is empty or cut off. Drop the episode, or trim it there.")
    return bare


def _as_rgb(rows: np.ndarray, look: Look) -> np.ndarray:
    """(n, height, width, 3) uint8."""
    rows = rows[..., None] if rows.ndim == 3 else np.moveaxis(rows, 1, -1) if look.planes else rows
    if rows.dtype != np.uint8:
        rows = np.rint(np.clip(np.nan_to_num(rows.astype(np.float32)) * look.scale, 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(rows, 3, axis=-1) if rows.shape[-1] == 1 else rows[..., :3])
