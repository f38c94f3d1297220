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

from flowpatch.sources.page_compression import (
    Bytes,
    DamagedPageError,
    Decompress,
    decompressor,
)
from flowpatch.sources.page_entries import (
    BAD_CODE,
    BAD_LEVELS,
    BAD_RUN,
    FINE,
    PADDING,
    Words,
    decode_codes,
    read_levels,
    spread,
)
from flowpatch.sources.parquet_pages import Page, Pages, find_pages

Meaning = Callable[[NDArray[Any]], Words]
"""What each number of a column stands for."""

TOGETHER_ENTRIES = 100_000
"""Of pages that are decoded in one go: enough to repay it, few enough for a core's cache."""

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

    stored: memoryview
    entries: int
    pages: Pages
    type: np.dtype[Any]
    has_levels: bool
    decompress: Decompress


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
    decompress, signed = decompressor(chunk.compression), _SIGNED.get(chunk.physical_type)
    if decompress is None or signed is None:
        return None
    if schema.max_repetition_level > 0 or schema.max_definition_level > 1:
        return None
    begin = chunk.data_page_offset
    if chunk.has_dictionary_page:
        begin = min(begin, chunk.dictionary_page_offset)
    file.seek(begin)
    stored = file.read(chunk.total_compressed_size)
    entries = metadata.row_group(group).num_rows
    pages = find_pages(np.frombuffer(stored, np.uint8), entries)
    if pages is None:
        return None
    kind = signed.replace("i", "u") if pa.types.is_unsigned_integer(read_as) else signed
    has_levels = schema.max_definition_level == 1
    return ColumnChunk(memoryview(stored), entries, pages, np.dtype(kind), has_levels, decompress)


def words_of(chunk: ColumnChunk, meaning: Meaning, missing: np.int32) -> Iterator[Words]:
    """What the entries of a chunk stand for, `missing` where there is none, some pages at a time.

    Raises:
        DamagedPageError: a page holds something else than its header says.
    """
    table = np.append(meaning(_dictionary(chunk)), missing)
    for pages in _together(chunk.pages.data):
        words = np.empty(sum(page.entries for page in pages), dtype=np.int32)
        if pages[0].is_coded:
            _read_codes(chunk, pages, table, words)
        else:
            _read_numbers(chunk, pages[0], meaning, missing, words)
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


def _together(pages: Sequence[Page]) -> Iterator[Sequence[Page]]:
    """Pages of codes in batches, any other by itself."""
    first, entries = 0, 0
    for i, page in enumerate(pages):
        is_other = not (page.is_coded and pages[first].is_coded)
        if i > first and (entries >= TOGETHER_ENTRIES or is_other):
            yield pages[first:i]
            first, entries = i, 0
        entries += page.entries
    yield pages[first:]


def _dictionary(chunk: ColumnChunk) -> NDArray[Any]:
    page = chunk.pages.dictionary
    if page is None:
        return np.empty(0, dtype=chunk.type)
    if page.size != page.entries * chunk.type.itemsize:
        raise DamagedPageError(f"a dictionary of {page.entries:,} numbers has {page.size:,} bytes")
    return np.frombuffer(b"".join(_body(chunk, page)), dtype=chunk.type)


def _body(chunk: ColumnChunk, page: Page) -> tuple[Bytes, ...]:
    """The bytes of a page, its levels first."""
    stored = chunk.stored[page.at : page.at + page.stored]
    if page.levels > 0:
        return stored[: page.levels], _decompressed(chunk, page, stored[page.levels :])
    return (_decompressed(chunk, page, stored),)


def _decompressed(chunk: ColumnChunk, page: Page, stored: memoryview) -> Bytes:
    size = page.size - max(0, page.levels)
    if page.is_compressed:
        return chunk.decompress(stored, size)
    if len(stored) != size:
        raise DamagedPageError(f"a page of {size:,} bytes takes {len(stored):,}")
    return stored


def _joined(chunk: ColumnChunk, pages: Sequence[Page]) -> NDArray[np.uint8]:
    """Decompressed pages one behind the other, and PADDING up to a whole eight."""
    bodies = [part for page in pages for part in _body(chunk, page)]
    padding = PADDING + -sum(page.size for page in pages) % 8
    return np.frombuffer(b"".join((*bodies, bytes(padding))), dtype=np.uint8)


def _read_codes(chunk: ColumnChunk, pages: Sequence[Page], table: Words, words: Words) -> None:
    bodies = _joined(chunk, pages)
    told = np.array([(page.size, page.entries, page.levels) for page in pages])
    told[:, 0] = told[:, 0].cumsum()
    found = decode_codes(bodies, told, chunk.has_levels, table, words)
    if found != FINE:
        raise DamagedPageError(_WRONG[found])


def _read_numbers(
    chunk: ColumnChunk, page: Page, meaning: Meaning, missing: np.int32, words: Words
) -> None:
    bodies = _joined(chunk, (page,))
    at, present = read_levels(
        bodies, 0, page.size, page.entries, page.levels, chunk.has_levels, words
    )
    if at < 0:
        raise DamagedPageError(_WRONG[BAD_LEVELS])
    if (page.size - at) < present * chunk.type.itemsize:
        raise DamagedPageError(f"a page of {page.size:,} bytes has no room for {present:,} numbers")
    numbers = np.frombuffer(bodies, dtype=chunk.type, count=present, offset=at)
    if present == page.entries:
        words[:] = meaning(numbers)
        return
    levels = words.copy()
    words[:present] = meaning(numbers)
    spread(levels, missing, words)
