"""What zarr-python reads from: the objects of a store, read-only. Imported only where zarr is installed."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from wamdata.readers.zarr.members import Members


class ReadOnlyStore(Store):
    """Objects by key; has no listing, for arrays are opened by their names."""

    supports_writes = False
    supports_deletes = False
    supports_partial_writes = False
    supports_listing = False

    def __init__(self, members: Members) -> None:
        super().__init__(read_only=True)
        self._members = members

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadOnlyStore) and self._members == other._members

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:  # fmt: skip
        content = self._members.read(key)
        return None if content is None else prototype.buffer.from_bytes(_part(content, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, wanted) for key, wanted in key_ranges]

    async def exists(self, key: str) -> bool:
        return self._members.has(key)

    async def set(self, key: str, value: Any) -> None:
        raise AssertionError("sources are never written to")

    async def delete(self, key: str) -> None:
        raise AssertionError("sources are never written to")

    async def list(self) -> AsyncIterator[str]:
        for key in ():
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in ():
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for key in ():
            yield key


def _part(content: bytes, wanted: ByteRequest | None) -> bytes:
    match wanted:
        case None:
            return content
        case RangeByteRequest(start, end):
            return content[start:end]
        case OffsetByteRequest(offset):
            return content[offset:]
        case SuffixByteRequest(suffix):
            return content[-suffix:]
