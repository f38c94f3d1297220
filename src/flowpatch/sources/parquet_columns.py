"""A column chunk of a Parquet file -> what its entries stand for, 4 bytes each.

Most writers keep a dictionary of a chunk's numbers and write codes. What a number stands for (a
step, a key's number, a float32) is found once for each number of the dictionary, and a code leads
to it. Pages of plain numbers, into which writers fall back, are taken too.

Not read here: other encodings and compressions. pyarrow reads those.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowpatch.sources.compiled import frozen
from flowpatch.sources.page_compression import DamagedPageError, Unpack, unpacker
from flowpatch.sources.page_entries import (
    BAD_CODE,
    BAD_LEVELS,
    BAD_RUN,
    FINE,
    Words,
    decode_codes,
    read_levels,
    spread,
)
from flowpatch.sources.parquet_pages import (
    ENTRIES,
    IS_CODED,
    LEVELS,
    SIZE,
    Pages,
    Table,
    find_pages,
)

Meaning = Callable[[NDArray[Any]], Words]
"""What each number of a column stands for."""

TOGETHER_ENTRIES = 200_000
"""Of pages that are decoded in one go: enough to repay what calls cost, and waiting for threads
that call as well; few enough for a core's cache."""

_WRONG = {
    BAD_LEVELS: "the levels of a page go beyond it",
    BAD_RUN: "a run of codes goes beyond its page",
    BAD_CODE: "a code lies beyond the dictionary",
}

_NO_WORDS = np.empty(0, dtype=np.int32)

_SIGNED: Mapping[str, str] = {"INT32": "<i4", "INT64": "<i8", "FLOAT": "<f4", "DOUBLE": "<f8"}
"""How numbers of a physical type lie in a file."""


@dataclass(frozen=True)
class ColumnChunk:
    """The column of one row group: its bytes, and where the pages lie in them."""

    stored: NDArray[np.uint8]
    entries: int
    pages: Pages
    type: np.dtype[Any]
    has_levels: bool
    unpack: Unpack


def open_chunk(
    file: Any, metadata: pq.FileMetaData, group: int, column: int, read_as: pa.DataType
) -> ColumnChunk | None:
    """A column chunk, read but not decompressed; None where pyarrow must read it.

    Args:
        file: the file, open for reading bytes.
        metadata: what the file says of itself.
        group: number of the row group.
        column: number of the column, one of numbers.
        read_as: its type.
    """
    chunk, schema = metadata.row_group(group).column(column), metadata.schema.column(column)
    unpack, signed = unpacker(chunk.compression), _SIGNED.get(chunk.physical_type)
    if unpack is None or signed is None:
        return None
    if schema.max_repetition_level > 0 or schema.max_definition_level > 1:
        return None
    begin = chunk.data_page_offset
    if chunk.has_dictionary_page:
        begin = min(begin, chunk.dictionary_page_offset)
    stored = _read(file, begin, chunk.total_compressed_size)
    entries = metadata.row_group(group).num_rows
    pages = find_pages(stored, entries)
    if pages is None:
        return None
    kind = signed.replace("i", "u") if pa.types.is_unsigned_integer(read_as) else signed
    has_levels = schema.max_definition_level == 1
    return ColumnChunk(stored, entries, pages, np.dtype(kind), has_levels, unpack)


def words_of(chunk: ColumnChunk, meaning: Meaning, missing: np.int32) -> Iterator[Words]:
    """What the entries of a chunk stand for, `missing` where there is none, some pages at a time.

    Raises:
        DamagedPageError: a page holds something else than its header says.
    """
    codes = meaning(_dictionary(chunk))
    table = np.full(2 ** max(0, len(codes) - 1).bit_length() + 1, missing, dtype=np.int32)
    table[: len(codes)] = codes
    for pages in _batches(chunk.pages.data):
        bodies = chunk.unpack(chunk.stored, pages)
        words = np.empty(pages[:, ENTRIES].sum(), dtype=np.int32)
        if pages[0, IS_CODED]:
            _read_codes(chunk, bodies, pages, len(codes), table, words)
        else:
            _read_numbers(chunk, bodies, pages[0], meaning, missing, words)
        yield words


def in_step(columns: Sequence[Iterator[Words]]) -> Iterator[list[Words]]:
    """Words of columns that have equally many, as far as all of them have come."""
    ahead = [next(column, _NO_WORDS) for column in columns]
    while rows := min(map(len, ahead)):
        yield [words[:rows] for words in ahead]
        ahead = [
            words[rows:] if len(words) > rows else next(column, _NO_WORDS)
            for words, column in zip(ahead, columns, strict=True)
        ]


def _batches(pages: Table) -> Iterator[Table]:
    """Pages of codes in batches, any other by itself."""
    first, entries = 0, 0
    is_coded = pages[:, IS_CODED].tolist()
    for i, more in enumerate(pages[:, ENTRIES].tolist()):
        is_other = not (is_coded[i] and is_coded[first])
        if i > first and (entries >= TOGETHER_ENTRIES or is_other):
            yield pages[first:i]
            first, entries = i, 0
        entries += more
    yield pages[first:]


def _dictionary(chunk: ColumnChunk) -> NDArray[Any]:
    pages = chunk.pages.dictionary
    size, numbers = pages[:, SIZE].sum(), pages[:, ENTRIES].sum()
    if size != numbers * chunk.type.itemsize:
        raise DamagedPageError(f"a dictionary of {numbers:,} numbers has {size:,} bytes")
    return chunk.unpack(chunk.stored, pages)[:size].view(chunk.type)


def _read_codes(
    chunk: ColumnChunk,
    bodies: NDArray[np.uint8],
    pages: Table,
    known: int,
    table: Words,
    words: Words,
) -> None:
    found = decode_codes(bodies, pages, chunk.has_levels, known, table, words)
    if found != FINE:
        raise DamagedPageError(_WRONG[found])


def _read_numbers(
    chunk: ColumnChunk,
    bodies: NDArray[np.uint8],
    page: NDArray[np.int64],
    meaning: Meaning,
    missing: np.int32,
    words: Words,
) -> None:
    size, entries = int(page[SIZE]), len(words)
    at, present = read_levels(bodies, 0, size, entries, page[LEVELS], chunk.has_levels, words)
    if at < 0:
        raise DamagedPageError(_WRONG[BAD_LEVELS])
    if (size - at) < present * chunk.type.itemsize:
        raise DamagedPageError(f"a page of {size:,} bytes has no room for {present:,} numbers")
    numbers = np.frombuffer(bodies, dtype=chunk.type, count=present, offset=at)
    if present == entries:
        words[:] = meaning(numbers)
        return
    levels = words.copy()
    words[:present] = meaning(numbers)
    spread(levels, missing, words)


def _read(file: Any, begin: int, size: int) -> NDArray[np.uint8]:
    """So many bytes of a file from `begin` on, as far as it has them."""
    stored = np.empty(size, dtype=np.uint8)
    file.seek(begin)
    return frozen(stored[: file.readinto(stored)])
