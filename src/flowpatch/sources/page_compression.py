"""Pages of a Parquet file decompressed: to the size that their header says, or not at all."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import zstandard
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled, frozen
from flowpatch.sources.libzstd import Context, decompress, find_libzstd
from flowpatch.sources.page_entries import PADDING
from flowpatch.sources.parquet_pages import AT, IS_COMPRESSED, LEVELS, SIZE, STORED, Table

Bytes: TypeAlias = bytes | memoryview | pa.Buffer
Decompress: TypeAlias = Callable[[memoryview, int], Bytes]
"""Bytes as they are stored, and how many they are decompressed."""
Unpack: TypeAlias = Callable[[NDArray[np.uint8], Table], NDArray[np.uint8]]
"""A chunk, and some of its pages -> these decompressed, one behind the other, and PADDING up to a
whole eight."""

_ALL_FINE = -1


class DamagedPageError(ValueError):
    """A page holds something else than its header says."""


def unpacker(compression: str) -> Unpack | None:
    """What unpacks pages, for one thread at a time; None where nothing here does.

    It raises DamagedPageError where a page holds something else than its header says.
    """
    if compression == "ZSTD" and (library := find_libzstd()) is not None:
        return _all_at_once(Context(library))
    make = _DECOMPRESSORS.get(compression)
    return None if make is None else _one_by_one(_checked(make()))


def _all_at_once(context: Context) -> Unpack:
    def unpack(chunk: NDArray[np.uint8], pages: Table) -> NDArray[np.uint8]:
        bodies = _room_for(pages)
        bad = _unpack(context.function, context.pointer, chunk, pages, bodies)
        if bad != _ALL_FINE:
            raise DamagedPageError(
                f"a page cannot be decompressed to the {pages[bad, SIZE]:,} bytes that its header "
                "tells of"
            )
        return frozen(bodies)

    return unpack


@compiled
def _unpack(
    function: np.uint64,
    context: np.uint64,
    chunk: NDArray[np.uint8],
    pages: Table,
    bodies: NDArray[np.uint8],
) -> int:
    """Zstandard's pages into `bodies`; gives the first that is not what its header says."""
    done = 0
    for i in range(len(pages)):
        page = pages[i]
        levels = max(0, page[LEVELS])
        stored = chunk[page[AT] : page[AT] + page[STORED]]
        body = bodies[done : done + page[SIZE]]
        done += page[SIZE]
        body[:levels] = stored[:levels]
        body, stored = body[levels:], stored[levels:]
        if page[IS_COMPRESSED]:
            if len(body) and len(body) != decompress(function, context, body, stored):
                return i
        elif len(body) == len(stored):
            body[:] = stored
        else:
            return i
    return _ALL_FINE


def _one_by_one(decompress: Decompress) -> Unpack:
    def unpack(chunk: NDArray[np.uint8], pages: Table) -> NDArray[np.uint8]:
        bodies, done = _room_for(pages), 0
        for page in pages.tolist():
            for part in _body(decompress, chunk.data, page):
                bodies[done : done + len(part)] = np.frombuffer(part, dtype=np.uint8)
                done += len(part)
        return frozen(bodies)

    return unpack


def _body(decompress: Decompress, chunk: memoryview, page: list[int]) -> Iterator[Bytes]:
    """The bytes of a page, its levels first."""
    levels = max(0, page[LEVELS])
    stored, size = chunk[page[AT] : page[AT] + page[STORED]], page[SIZE] - levels
    if levels:
        yield stored[:levels]
    if page[IS_COMPRESSED]:
        yield decompress(stored[levels:], size)
    elif len(stored) - levels == size:
        yield stored[levels:]
    else:
        raise DamagedPageError(f"a page of {size:,} bytes takes {len(stored) - levels:,}")


def _room_for(pages: Table) -> NDArray[np.uint8]:
    size = int(pages[:, SIZE].sum())
    bodies = np.empty(size + PADDING + -size % 8, dtype=np.uint8)
    bodies[size:] = 0
    return bodies


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


_DECOMPRESSORS: Mapping[str, Callable[[], Decompress]] = {
    "UNCOMPRESSED": lambda: lambda stored, _: stored,
    "GZIP": _gzip,
    "SNAPPY": _snappy,
    "ZSTD": _zstd,
}
