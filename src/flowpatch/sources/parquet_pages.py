"""Where the pages of a Parquet column chunk lie, as their headers say; not what is in them.

    chunk: header, dictionary page | header, data page | header, data page ...

A header is a structure in Thrift's compact protocol: fields, each with its kind and its number,
some of them structures again. Whatever is unusual is no error here: such a chunk is read by
pyarrow, which knows more of the format, or says what is wrong with it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled, frozen
from flowpatch.sources.varint import varint

_FIELDS = 9
"""Fields 1 to 8 of the header, and of each structure in it; 0 stands for the header's own."""
_KIND, _SIZE, _STORED = 1, 2, 3
_DATA_1, _DICTIONARY, _DATA_2 = 5 * _FIELDS, 7 * _FIELDS, 8 * _FIELDS
"""Structures in a header: of a data page, a dictionary page, a data page of the second version."""
_ENTRIES = 1
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_2 = 0, 2, 3
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY, _RLE = 0, 2, 8, 3
_NOT_THERE = -1

_MOST_BYTES = 16
"""Of an entry in a page: 8 of a number, 2 of its level, or 5 of a run that is one code long."""
_MOST_DICTIONARY = 4_000_000

AT, STORED, SIZE, ENTRIES, LEVELS, IS_CODED, IS_COMPRESSED = range(7)
"""A page: STORED bytes from byte AT of its chunk, which are SIZE when decompressed.

The first LEVELS bytes are levels and never compressed; -1 where the levels, if there are any, lie
in what is compressed, with their length ahead of them.
"""
Table = NDArray[np.int64]
"""(P, 7) pages, with columns as they are numbered above."""


class Pages(NamedTuple):
    """The pages of a chunk; `dictionary` has one page, or none where no page has codes."""

    dictionary: Table
    data: Table


def find_pages(chunk: NDArray[np.uint8], entries: int) -> Pages | None:
    """The pages of a chunk that has so many entries; None where pyarrow must read it."""
    pages, has_dictionary, is_known = _find(frozen(chunk), entries)
    if not is_known:
        return None
    return Pages(pages[:has_dictionary], pages[has_dictionary:])


@compiled
def _find(chunk: NDArray[np.uint8], entries: int) -> tuple[Table, int, bool]:
    """The dictionary page if there is one, and the data pages, if every one is of a known kind."""
    pages = np.empty((64, 7), dtype=np.int64)
    header = np.empty(_FIELDS * _FIELDS, dtype=np.int64)
    has_dictionary, taken, found, at = 0, 0, 0, 0
    while found < entries:
        at = _read_header(chunk, at, header)
        if at < 0 or not 0 <= header[_STORED] <= len(chunk) - at:
            return pages, 0, False
        if taken == len(pages):
            more = np.empty((2 * taken, 7), dtype=np.int64)
            more[:taken] = pages
            pages = more
        page = pages[taken]
        page[AT], page[STORED], page[SIZE] = at, header[_STORED], header[_SIZE]
        at += int(header[_STORED])
        if taken == 0 and header[_KIND] == _DICTIONARY_PAGE:
            if not _take_dictionary(header, page):
                return pages, 0, False
            has_dictionary = 1
        else:
            if not _take_data(header, page) or page[ENTRIES] > entries - found:
                return pages, 0, False
            if page[IS_CODED] and not has_dictionary:
                return pages, 0, False
            if page[ENTRIES] == 0:
                continue
            found += page[ENTRIES]
        taken += 1
    return pages[:taken], has_dictionary, taken > has_dictionary


@compiled
def _take_dictionary(header: NDArray[np.int64], page: NDArray[np.int64]) -> bool:
    """What a header says of a dictionary page; whether it is of a known kind."""
    values, encoding = header[_DICTIONARY + _ENTRIES], header[_DICTIONARY + 2]
    page[ENTRIES], page[LEVELS], page[IS_CODED], page[IS_COMPRESSED] = values, _NOT_THERE, 0, 1
    return bool(
        encoding in (_PLAIN, _PLAIN_DICTIONARY)
        and 0 <= values <= _MOST_DICTIONARY
        and 0 <= page[SIZE] <= 8 * values
    )


@compiled
def _take_data(header: NDArray[np.int64], page: NDArray[np.int64]) -> bool:
    """What a header says of a data page; whether it is of a known kind."""
    if header[_KIND] == _DATA_PAGE:
        entries, encoding = header[_DATA_1 + _ENTRIES], header[_DATA_1 + 2]
        levels, is_compressed = _NOT_THERE, 1
        is_known = header[_DATA_1 + 3] == _RLE
    else:
        entries, encoding = header[_DATA_2 + _ENTRIES], header[_DATA_2 + 4]
        levels = header[_DATA_2 + 5]
        is_compressed = 1 if header[_DATA_2 + 7] != 0 else 0
        # Levels of repetition belong to lists.
        is_known = header[_KIND] == _DATA_PAGE_2 and header[_DATA_2 + 6] == 0 and levels >= 0
    is_coded = encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY)
    page[ENTRIES], page[LEVELS] = entries, levels
    page[IS_CODED], page[IS_COMPRESSED] = 1 if is_coded else 0, is_compressed
    return bool(
        is_known
        and (is_coded or encoding == _PLAIN)
        and entries >= 0
        and min(page[SIZE], page[STORED]) >= max(0, levels)
        # What says that it is larger than any such page can be gets no memory.
        and page[SIZE] <= _MOST_BYTES * (entries + 4)
    )


@compiled
def _read_header(chunk: NDArray[np.uint8], at: int, header: NDArray[np.int64]) -> int:
    """Reads one header into `header`; gives the byte behind it, or -1."""
    header[:] = _NOT_THERE
    last = np.zeros(4, dtype=np.int64)
    depth = 0
    while True:
        if not 0 <= at < len(chunk):
            return -1
        head = int(np.int64(chunk[at]))
        at += 1
        if head == 0:
            if depth == 0:
                return at
            depth -= 1
            continue
        kind, ahead = head & 15, head >> 4
        if ahead:
            field = last[depth] + ahead
        else:
            field, at = _whole_number(chunk, at)
            if at < 0:
                return -1
        last[depth] = field
        value = 0
        if kind == 1 or kind == 2:  # true, false
            value = 1 if kind == 1 else 0
        elif kind == 3:  # a byte
            at += 1
        elif 4 <= kind <= 6:  # whole numbers
            value, at = _whole_number(chunk, at)
        elif kind == 7:  # a double
            at += 8
        elif kind == 8:  # bytes, their number ahead of them
            size, at = varint(chunk, at, len(chunk))
            if at < 0 or size > len(chunk) - at:
                return -1
            at += size
        elif kind == 12 and depth + 1 < len(last):  # a structure
            depth += 1
            last[depth] = 0
            continue
        else:
            return -1
        if at < 0:
            return -1
        if depth < 2 and 0 < field < _FIELDS and 0 <= last[0] < _FIELDS:
            header[(last[0] if depth else 0) * _FIELDS + field] = value


@compiled
def _whole_number(chunk: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """A whole number, whose sign is its lowest bit, and the byte behind it, or -1."""
    bits, at = varint(chunk, at, len(chunk))
    return (bits >> 1) ^ -(bits & 1), at
