"""Pages of a Parquet file decompressed: to the size that their header says, or not at all."""

import zlib
from collections.abc import Callable, Mapping
from typing import TypeAlias

import pyarrow as pa
import zstandard

Bytes: TypeAlias = bytes | memoryview | pa.Buffer
Decompress: TypeAlias = Callable[[memoryview, int], Bytes]
"""Bytes as they are stored, and how many they are decompressed."""


class DamagedPageError(ValueError):
    """A page holds something else than its header says."""


def decompressor(compression: str) -> Decompress | None:
    """What decompresses pages, for one thread at a time; None where nothing here does."""
    make = _MAKERS.get(compression)
    return None if make is None else make()


def _checked(decompress: Decompress) -> Decompress:
    def checked(stored: memoryview, size: int) -> Bytes:
        if not size:
            return b""
        try:
            found = decompress(stored, size)
        except (pa.ArrowException, zlib.error, zstandard.ZstdError, OSError) as error:
            raise DamagedPageError(f"a page cannot be decompressed: {error}") from error
        if len(found) != size:
            raise DamagedPageError(f"a page of {size:,} bytes is decompressed to other than that")
        return found

    return checked


def _zstd() -> Decompress:
    # Kept from page to page: a context for each, as Arrow makes one, costs as much as most pages.
    context = zstandard.ZstdDecompressor()

    def decompress(stored: memoryview, size: int) -> Bytes:
        if zstandard.frame_content_size(stored) == size:
            return context.decompress(stored, allow_extra_data=False)
        # Streams do not tell the size ahead, and there may be several frames.
        with context.stream_reader(stored, read_across_frames=True) as reader:
            return reader.read(size + 1)

    return decompress


def _snappy() -> Decompress:
    codec = pa.Codec("snappy")

    def decompress(stored: memoryview, size: int) -> Bytes:
        # Arrow does not say how much it found; the first bytes do: the size, seven bits a byte.
        ahead, shift = 0, 0
        for byte in stored[:5]:
            ahead |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return codec.decompress(stored, size) if ahead == size else b""

    return decompress


def _gzip() -> Decompress:
    def decompress(stored: memoryview, size: int) -> Bytes:
        found, left = b"", bytes(stored)
        while left and len(found) <= size:
            member = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
            found += member.decompress(left, size + 1 - len(found))
            left = member.unused_data
        return found

    return decompress


_MAKERS: Mapping[str, Callable[[], Decompress]] = {
    "UNCOMPRESSED": lambda: _checked(lambda stored, _: stored),
    "GZIP": lambda: _checked(_gzip()),
    "SNAPPY": lambda: _checked(_snappy()),
    "ZSTD": lambda: _checked(_zstd()),
}
