"""Whole numbers of seven bits a byte, as Parquet has them in headers and in runs; compiled."""

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled


@compiled
def varint(bodies: NDArray[np.uint8], at: int, stop: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, below 2^63, and the byte behind it, or -1."""
    bits, shift = 0, 0
    while 0 <= at < stop and shift < 63:
        byte = bodies[at]
        bits |= (signed(byte) & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return bits, at
    return 0, -1


@compiled
def signed(byte: np.uint8) -> int:
    """A byte as a whole number that has a sign."""
    # The compiler's `int` of a byte has no sign, and with one that has it makes a float.
    return int(np.int64(byte))
