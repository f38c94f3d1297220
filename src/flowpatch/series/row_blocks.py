"""A block of the series, a few rows at a time: many passes over it stay in a core's cache."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CELLS = 2**17
"""Of one part: half a megabyte."""


def row_blocks(values: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Parts of (S, N) values, each with its first row."""
    rows = max(1, CELLS // max(1, values.shape[1]))
    for begin in range(0, len(values), rows):
        yield begin, values[begin : begin + rows]


def flags_of_rows(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(S,) how many of each row's (S, N) flags are set: of bits, an eighth of the numbers that
    numpy would add up.
    """
    counts: NDArray[np.int64] = np.bitwise_count(np.packbits(flags, axis=1)).sum(
        axis=1, dtype=np.int64
    )
    return counts


def flags_of_columns(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) how many of each column's (S, N) flags are set, added up in the smallest type that
    holds so many: numpy would turn each flag into eight bytes.
    """
    fitting = np.min_scalar_type(len(flags))
    counts: NDArray[np.int64] = flags.view(np.uint8).sum(axis=0, dtype=fitting).astype(np.int64)
    return counts
