"""The entries of data pages, compiled: levels, and codes for values of a dictionary.

    page of codes:    levels | bits of a code | run, run ...
    page of numbers:  levels | number, number ...
    run:              how often one code comes, or how many codes follow, packed bit by bit

A level says whether an entry is there. Where all are, it is one run. Every length is checked
before it is followed, as nothing else keeps these loops inside their arrays.
"""

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled
from flowpatch.sources.parquet_pages import ENTRIES, LEVELS, SIZE, Table
from flowpatch.sources.varint import signed, varint

FINE, BAD_LEVELS, BAD_RUN, BAD_CODE = 0, -1, -2, -3
PADDING = 16
"""Bytes behind the last page, so that where any byte is, two whole words of eight can be read."""

Words = NDArray[np.int32]
"""What entries stand for, in 4 bytes each."""


@compiled
def decode_codes(
    bodies: NDArray[np.uint8],
    pages: Table,
    has_levels: bool,
    known: int,
    table: Words,
    words: Words,
) -> int:
    """What the codes of some pages stand for, one after another into `words`.

    Args:
        bodies: decompressed pages, one behind the other, and PADDING up to a whole eight.
        pages: which they are, as in `parquet_pages.py`.
        has_levels: whether entries may be missing.
        known: how many codes there are.
        table: what each code stands for, and room for others up to a power of two; last, what an
            entry stands for that is missing.
        words: (entries of all pages,) the result.

    Returns:
        FINE, or what is wrong.
    """
    at, done = 0, 0
    for page in range(len(pages)):
        stop, entries = at + pages[page, SIZE], pages[page, ENTRIES]
        out = words[done : done + entries]
        at, present = read_levels(bodies, at, stop, entries, pages[page, LEVELS], has_levels, out)
        if at < 0:
            return BAD_LEVELS
        levels = out[:0] if present == entries else out.copy()
        if present:
            bits, at = varint(bodies, at, stop)
            if at < 0:
                return BAD_RUN
            wrong = _decode(bodies, at, stop, bits, known, table[:-1], out[:present])
            if wrong:
                return wrong
        if present < entries:
            spread(levels, table[-1], out)
        at = stop
        done += entries
    return FINE


@compiled
def read_levels(
    bodies: NDArray[np.uint8],
    at: int,
    stop: int,
    entries: int,
    size: int,
    has_levels: bool,
    levels: Words,
) -> tuple[int, int]:
    """Where the levels of a page end, or -1, and how many entries are there.

    The levels themselves, 0 or 1, are in `levels` where any entry is missing.
    """
    if size < 0 and has_levels:
        if stop - at < 4:
            return -1, 0
        size = (
            signed(bodies[at])
            | (signed(bodies[at + 1]) << 8)
            | (signed(bodies[at + 2]) << 16)
            | (signed(bodies[at + 3]) << 24)
        )
        at += 4
    size = max(0, size)
    if size > stop - at:
        return -1, 0
    if not has_levels:
        return at + size, entries
    head, behind = varint(bodies, at, at + size)
    if 0 < behind < at + size and head == 2 * entries and bodies[behind] == 1:
        # One run: the usual case, and nothing is to be written down.
        return at + size, entries
    if _decode(bodies, at, at + size, 1, 2, np.arange(2, dtype=np.int32), levels):
        return -1, 0
    return at + size, int(levels.sum())


@compiled
def spread(levels: Words, missing: np.int32, words: Words) -> None:
    """Moves words, one for each level that is 1, to where those levels are."""
    left = levels.sum()
    for i in range(len(levels) - 1, -1, -1):
        if levels[i]:
            left -= 1
            words[i] = words[left]
        else:
            words[i] = missing


@compiled
def _decode(
    bodies: NDArray[np.uint8],
    at: int,
    stop: int,
    bits: int,
    known: int,
    table: Words,
    words: Words,
) -> int:
    """Fills `words` with what the codes of the runs from `at` on stand for."""
    eights, width = bodies.view(np.uint64), np.uint64(bits)
    if bits > 32:
        return BAD_RUN
    if known == 0:
        return BAD_CODE
    last, mask = np.uint64(known - 1), (np.uint64(1) << width) - np.uint64(1)
    code_bytes = (bits + 7) >> 3
    done = 0
    while done < len(words):
        head, at = varint(bodies, at, stop)
        if at < 0 or head >= 2**32:
            return BAD_RUN
        length = head >> 1
        if head & 1:
            count = min(8 * length, len(words) - done)
            if count * bits > 8 * (stop - at):
                return BAD_RUN
            largest = _unpack(eights, at, width, mask, last, table, words, done, count)
            at += length * bits
        else:
            count = min(length, len(words) - done)
            if code_bytes > stop - at:
                return BAD_RUN
            largest = _bits_from(eights, np.uint64(8 * at)) & mask
            words[done : done + count] = table[min(largest, last)]
            at += code_bytes
        if largest > last:
            return BAD_CODE
        done += count
    return FINE


@compiled
def _unpack(
    eights: NDArray[np.uint64],
    at: int,
    width: np.uint64,
    mask: np.uint64,
    last: np.uint64,
    table: Words,
    words: Words,
    begin: int,
    count: int,
) -> np.uint64:
    """What packed codes stand for, into `words` from `begin` on; gives the largest code."""
    # Unsigned: an index that may be negative is tested for that.
    bit, out, one, two = np.uint64(8 * at), np.uint64(begin), np.uint64(1), np.uint64(2)
    largest, done = np.uint64(0), 0
    if 3 * width <= 64 and mask < len(table):
        # Three codes in 64 bits, and whatever they are, the table has room for them.
        for _ in range(count // 3):
            bits = _bits_from(eights, bit)
            first, second = bits & mask, (bits >> width) & mask
            third = (bits >> (two * width)) & mask
            largest = max(largest, max(first, max(second, third)))
            words[out] = table[first]
            words[out + one] = table[second]
            words[out + two] = table[third]
            out += np.uint64(3)
            bit += np.uint64(3) * width
        done = count - count % 3
    for _ in range(done, count):
        code = _bits_from(eights, bit) & mask
        largest = max(largest, code)
        words[out] = table[min(code, last)]
        out += one
        bit += width
    return largest


@compiled
def _bits_from(eights: NDArray[np.uint64], bit: np.uint64) -> np.uint64:
    """The 64 bits from `bit` on."""
    at, offset = bit >> np.uint64(6), bit & np.uint64(63)
    # Shifted twice: by all of 64 bits would be by none.
    rest = (eights[at + np.uint64(1)] << np.uint64(1)) << (np.uint64(63) - offset)
    return np.uint64((eights[at] >> offset) | rest)
