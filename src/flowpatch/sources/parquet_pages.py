"""Where the pages of a Parquet column chunk lie, as their headers say; not what is in them.

    chunk: header, dictionary page | header, data page | header, data page ...

A header is a structure in Thrift's compact protocol: fields, each with its kind and its number,
some of them structures again. Whatever is unusual is no error here: such a chunk is read by
pyarrow, which knows more of the format, or says what is wrong with it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled
from flowpatch.sources.page_entries import varint

_FIELDS = 9
"""Fields 1 to 8 of the header, and of each structure in it; 0 stands for the header's own."""
_BODY = 0
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


class Page(NamedTuple):
    """A page: `stored` bytes from byte `at` of its chunk, which are `size` when decompressed.

    The first `levels` bytes are levels and never compressed; -1 where the levels, if there are
    any, lie in what is compressed, with their length ahead of them.
    """

    at: int
    stored: int
    size: int
    entries: int
    is_coded: bool
    is_compressed: bool
    levels: int


class Pages(NamedTuple):
    """The pages of a chunk; `dictionary` is None where none has codes."""

    dictionary: Page | None
    data: list[Page]


def find_pages(chunk: NDArray[np.uint8], entries: int) -> Pages | None:
    """The pages of a chunk that has so many entries; None where pyarrow must read it."""
    headers, is_whole = _read_headers(chunk, entries)
    if not is_whole or not len(headers):
        return None
    has_dictionary = headers[0, _KIND] == _DICTIONARY_PAGE
    data = _data_pages(headers[1:] if has_dictionary else headers, entries)
    dictionary = _dictionary_page(headers[0]) if has_dictionary else None
    if data is None or (has_dictionary and dictionary is None):
        return None
    if dictionary is None and any(page.is_coded for page in data):
        return None
    return Pages(dictionary, data)


def _dictionary_page(header: NDArray[np.int64]) -> Page | None:
    values, encoding = header[_DICTIONARY + _ENTRIES], header[_DICTIONARY + 2]
    size = header[_SIZE]
    if encoding not in (_PLAIN, _PLAIN_DICTIONARY) or not 0 <= values <= _MOST_DICTIONARY:
        return None
    if not 0 <= size <= 8 * values:
        return None
    return Page(int(header[_BODY]), int(header[_STORED]), int(size), int(values), False, True, -1)


def _data_pages(headers: NDArray[np.int64], entries: int) -> list[Page] | None:
    kind, size, stored = headers[:, _KIND], headers[:, _SIZE], headers[:, _STORED]
    first, second = headers[:, _DATA_1:], headers[:, _DATA_2:]
    is_second = kind == _DATA_PAGE_2
    counted = np.where(is_second, second[:, _ENTRIES], first[:, _ENTRIES])
    encoding = np.where(is_second, second[:, 4], first[:, 2])
    levels = np.where(is_second, second[:, 5], _NOT_THERE)
    known = (
        (is_second | ((kind == _DATA_PAGE) & (first[:, 3] == _RLE)))
        & np.isin(encoding, (_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY))
        # Levels of repetition belong to lists.
        & (~is_second | ((second[:, 6] == 0) & (levels >= 0)))
        & (counted >= 0)
        & (counted <= entries)
        & (size >= np.maximum(levels, 0))
        & (stored >= np.maximum(levels, 0))
        # What says that it is larger than any such page can be gets no memory.
        & (size <= _MOST_BYTES * (counted + 4))
    )
    if not known.all() or counted.sum() != entries:
        return None
    columns = (
        headers[:, _BODY],
        stored,
        size,
        counted,
        encoding != _PLAIN,
        ~is_second | (second[:, 7] != 0),
        levels,
    )
    pages = (Page(*row) for row in zip(*(column.tolist() for column in columns), strict=True))
    return [page for page in pages if page.entries]


@compiled
def _read_headers(chunk: NDArray[np.uint8], entries: int) -> tuple[NDArray[np.int64], bool]:
    """(P, .) the fields of each page's header, and whether all could be read.

    Field f of the header itself is column f, field f of its structure s is column s * _FIELDS + f;
    column 0 tells where the page begins.
    """
    headers = np.empty((64, _FIELDS * _FIELDS), dtype=np.int64)
    pages, found, at = 0, 0, 0
    while found < entries:
        if pages == len(headers):
            more = np.empty((2 * pages, headers.shape[1]), dtype=np.int64)
            more[:pages] = headers
            headers = more
        header = headers[pages]
        at = _read_header(chunk, at, header)
        if at < 0 or not 0 <= header[_STORED] <= len(chunk) - at:
            return headers[:pages], False
        header[_BODY] = at
        at += int(header[_STORED])
        pages += 1
        # A page of another kind has neither, and is looked at later.
        found += max(0, header[_DATA_1 + _ENTRIES], header[_DATA_2 + _ENTRIES])
    return headers[:pages], True


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
