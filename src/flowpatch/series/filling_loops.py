"""What `filling.py` does, in compiled loops: one pass over memory each."""

import numpy as np
from numpy.typing import NDArray

from flowpatch.sources.compiled import compiled


@compiled
def shift(
    values: NDArray[np.float32],
    shift: NDArray[np.float32],
    fill: np.float32,
    found: NDArray[np.float32],
) -> None:
    """(S, N) values plus the shift of their row into `found`, `fill` where they are missing."""
    for row in range(len(values)):
        one, out, by = values[row], found[row], shift[row]
        for i in range(len(one)):
            out[i] = fill if np.isnan(one[i]) else one[i] + by


@compiled
def count(values: NDArray[np.float32], found: NDArray[np.int64]) -> None:
    """How many of each row's values are not missing, into `found`."""
    for row in range(len(values)):
        one, observed = values[row], 0
        for i in range(len(one)):
            observed += not np.isnan(one[i])
        found[row] = observed
