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
