"""Compiled decoding against a plain reader of the same bytes, and headers of any bytes."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowpatch.sources.page_entries import FINE, PADDING, decode_codes
from flowpatch.sources.parquet_pages import AT, ENTRIES, LEVELS, SIZE, STORED, find_pages

MISSING = -7


class Refused(Exception):
    """The bytes are no such page."""


def varint(page: bytes, at: int) -> tuple[int, int]:
    bits = shift = 0
    while at < len(page) and shift < 63:
        bits |= (page[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if page[at - 1] < 128:
            return bits, at
    raise Refused


def plain_runs(page: bytes, width: int, count: int) -> list[int]:
    """So many codes, read bit by bit."""
    codes: list[int] = []
    at = 0
    while len(codes) < count:
        head, at = varint(page, at)
        if head >= 2**32 or width > 32:
            raise Refused
        if head & 1:
            taken = min(8 * (head >> 1), count - len(codes))
            if taken * width > 8 * (len(page) - at):
                raise Refused
            bits = int.from_bytes(page[at : at + (head >> 1) * width], "little")
            codes += [(bits >> (i * width)) & (2**width - 1) for i in range(taken)]
            at += (head >> 1) * width
        else:
            size = (width + 7) // 8
            if size > len(page) - at:
                raise Refused
            code = int.from_bytes(page[at : at + size], "little") & (2**width - 1)
            codes += [code] * min(head >> 1, count - len(codes))
            at += size
    return codes


def plain_page(page: bytes, entries: int, table: list[int]) -> list[int]:
    """What the entries of a page with levels stand for."""
    size = int.from_bytes(page[:4], "little")
    if len(page) < 4 or size > len(page) - 4:
        raise Refused
    levels = plain_runs(page[4 : 4 + size], 1, entries)
    codes: list[int] = []
    if any(levels):
        width, at = varint(page, 4 + size)
        codes = plain_runs(page[at:], width, sum(levels))
    if any(code >= len(table) for code in codes):
        raise Refused
    left = iter(codes)
    return [table[next(left)] if level else MISSING for level in levels]


def room_for(table: list[int]) -> np.ndarray:
    """The table with as many more as make a power of two, and what is missing behind them."""
    others = [-1] * (2 ** max(0, len(table) - 1).bit_length() - len(table))
    return np.array([*table, *others, MISSING], np.int32)


run = st.builds(
    lambda length, is_packed, content: bytes([2 * length + is_packed]) + content,
    st.integers(0, 20),
    st.booleans(),
    st.binary(max_size=30),
)
runs = st.lists(run, max_size=6).map(b"".join)
page = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda levels, width, codes: len(levels).to_bytes(4, "little") + levels + width + codes,
        st.one_of(runs, st.just(bytes([200, 1, 1])), st.binary(max_size=4)),
        st.integers(0, 9).map(lambda width: bytes([width])),
        runs,
    ),
)


@settings(deadline=None, max_examples=500)
@given(
    pages=st.lists(st.tuples(page, st.integers(1, 100)), min_size=1, max_size=3),
    known=st.integers(0, 300),
)
def test_any_bytes_are_what_a_plain_reader_finds_or_refused(
    pages: list[tuple[bytes, int]], known: int
) -> None:
    table = [3 * code for code in range(known)]
    try:
        expected = [word for body, entries in pages for word in plain_page(body, entries, table)]
    except Refused:
        expected = None
    told = np.array([(0, 0, len(body), entries, -1, 1, 1) for body, entries in pages])
    bodies = b"".join(body for body, _ in pages)
    bodies += bytes(PADDING + -len(bodies) % 8)
    words = np.empty(told[:, ENTRIES].sum(), np.int32)
    found = decode_codes(np.frombuffer(bodies, np.uint8), told, True, known, room_for(table), words)
    assert (found == FINE) == (expected is not None)
    if expected is not None:
        assert words.tolist() == expected


def assert_inside(chunk: bytes, entries: int) -> bool:
    """Whether pages were found, which then lie in the chunk and have all entries."""
    pages = find_pages(np.frombuffer(chunk, np.uint8), entries)
    if pages is None:
        return False
    for one in (*pages.dictionary.tolist(), *pages.data.tolist()):
        assert 0 <= one[AT] <= one[AT] + one[STORED] <= len(chunk)
        assert 0 <= max(0, one[LEVELS]) <= min(one[SIZE], one[STORED])
        assert one[SIZE] <= 16 * (one[ENTRIES] + 4)
    assert len(pages.dictionary) <= 1
    assert pages.data[:, ENTRIES].sum() == entries
    return True


# A field's number that never ends, ahead of a byte: the next byte must not be the chunk's first.
@example(chunk=bytes([3, *[255] * 10]), entries=1)
@settings(deadline=None)
@given(chunk=st.binary(max_size=80), entries=st.integers(1, 100))
def test_any_bytes_make_pages_inside_the_chunk_or_none(chunk: bytes, entries: int) -> None:
    assert_inside(chunk, entries)


@settings(deadline=None, max_examples=300)
@given(
    version=st.sampled_from(["1.0", "2.0"]),
    changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=3),
    cut=st.integers(0, 60),
)
def test_changed_headers_make_pages_inside_the_chunk_or_none(
    version: str, changes: list[tuple[int, int]], cut: int
) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"a": [5, 6, 5, None, 6] * 20})
    pq.write_table(table, sink, data_page_version=version, compression="none")
    file = sink.getvalue().to_pybytes()
    column = pq.read_metadata(pa.BufferReader(file)).row_group(0).column(0)
    begin = column.dictionary_page_offset
    chunk = bytearray(file[begin : begin + column.total_compressed_size])
    assert assert_inside(bytes(chunk), 100)
    assert not assert_inside(bytes(chunk[: len(chunk) - cut - 1]), 100)
    for at, byte in changes:
        chunk[at % len(chunk)] = byte
    assert_inside(bytes(chunk), 100)
