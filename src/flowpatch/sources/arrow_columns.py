"""Columns of Arrow as arrays of numpy, and the other way, without a copy.

Arrow's own `to_numpy` and `array` import pandas where that is installed: a fifth of a second, and
60 MB.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowpatch.sources.contract import KeyColumn

Column: TypeAlias = pa.Array | pa.ChunkedArray


def whole_numbers(column: Column, missing: int) -> NDArray[np.int64]:
    """(K,) the whole numbers of a column, `missing` where there is none.

    Raises:
        ArrowInvalid: one does not fit an int64.
    """
    return _as_array(_filled(_cast(column, pa.int64()), missing))


def values(column: Column) -> NDArray[np.float32]:
    """(K,) the values of a column of numbers, NaN where there is none or an infinite one."""
    # Beyond float32 it becomes infinite, which is no number.
    found: NDArray[np.float32] = _as_array(_filled(_cast(column, pa.float32(), safe=False), np.nan))
    if pa.types.is_integer(column.type):
        return found
    finite = np.isfinite(found)
    return found if finite.all() else np.where(finite, found, np.float32(np.nan))


def degrees(column: Column) -> NDArray[np.float64]:
    """(K,) the numbers of a column, NaN where there is none."""
    return _as_array(_filled(_cast(column, pa.float64()), np.nan))


def of_numbers(numbers: NDArray[np.integer[Any]]) -> pa.Array:
    """The column of (K,) whole numbers, in their own type."""
    numbers = np.ascontiguousarray(numbers)
    buffers = [None, pa.py_buffer(numbers)]
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), buffers)


def of_texts(texts: Sequence[str]) -> pa.Array:
    """The column of K texts; 2 GB of them at most."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))
    )


def of_keys(keys: KeyColumn) -> pa.Array:
    """One column of the keys of K nodes: whole numbers of 64 bits, or texts."""
    return of_numbers(keys) if keys.dtype == np.int64 else of_texts(keys.tolist())


def _cast(column: Column, to: pa.DataType, *, safe: bool = True) -> Column:
    # The first cast of a process loads all of Arrow's functions, which takes 33 ms.
    return column if column.type == to else column.cast(to, safe=safe)


def _filled(column: Column, missing: float) -> Column:
    return column.fill_null(missing) if column.null_count else column


def _as_array(column: Column) -> NDArray[Any]:
    """The numbers of a column that has one in every row, read-only."""
    if isinstance(column, pa.ChunkedArray):
        # Joining chunks copies even a single one.
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    array: NDArray[Any] = np.from_dlpack(column)
    return array
