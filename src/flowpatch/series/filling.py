"""Missing cells filled, and values shifted, row by row: in compiled loops or by numpy, to the bit.

Compiled loops are taken where the compiler is loaded anyway, as it is when records are many.
Loading it for this alone would take longer than it saves.
"""

import sys
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from flowpatch.series.row_blocks import flags_of_rows


def shifted(
    values: NDArray[np.float32], shift: NDArray[np.float32], fill: float
) -> NDArray[np.float32]:
    """(S, N) values plus the (S,) shift of their row; `fill` where they are missing."""
    if loops := _loops():
        found = np.empty(values.shape, dtype=np.float32)
        loops.shift(np.ascontiguousarray(values), shift, np.float32(fill), found)
        return found
    return _filled(values + shift[:, None], np.isnan(values), fill)


def count_observed(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """(S,) how many of the (S, N) values of each row are not missing."""
    if loops := _loops():
        found = np.empty(len(values), dtype=np.int64)
        loops.count(np.ascontiguousarray(values), found)
        return found
    return flags_of_rows(~np.isnan(values))


def _loops() -> ModuleType | None:
    if "numba" not in sys.modules:
        return None
    from flowpatch.series import filling_loops

    return filling_loops


def _filled(
    values: NDArray[np.float32], missing: NDArray[np.bool_], fill: float
) -> NDArray[np.float32]:
    """A copy of the values with `fill` in every missing cell, every other bit as it was.

    By whole numbers' arithmetic on the bits: a tenth of the time of numpy's `where`, which moves
    cell by cell.
    """
    bits: NDArray[np.int32] = values.view(np.int32) * ~missing
    if word := np.float32(fill).view(np.int32):
        bits |= missing * word
    return bits.view(np.float32)
