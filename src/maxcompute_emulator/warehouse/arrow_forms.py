"""Between the Arrow forms of `types` and those in which DuckDB takes and gives the same values.

Only instants differ: DuckDB marks them with a zone, here always UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from maxcompute_emulator import errors
from maxcompute_emulator.types import Column, DataType, arrow_type, nested_arrow_type
from maxcompute_emulator.warehouse import raw_text
from maxcompute_emulator.wire.limits import MAX_CELL_BYTES

_UNLIKE = {
    "DATETIME": pa.timestamp("us", "UTC"),
    "TIMESTAMP": pa.timestamp("ns", "UTC"),
    "VOID": pa.string(),
}
_CELLS = {"STRING", "BINARY", "JSON", "CHAR", "VARCHAR"}


def duckdb_arrow_type(data_type: DataType) -> pa.DataType:
    """The Arrow type that DuckDB reads as `types.duckdb_type`."""
    return nested_arrow_type(data_type, _plain_type)


def _plain_type(data_type: DataType) -> pa.DataType:
    return _UNLIKE.get(data_type.name) or arrow_type(data_type)


def to_duckdb(
    batches: Iterable[pa.RecordBatch], columns: tuple[Column, ...], names: list[str]
) -> Iterator[tuple[pa.RecordBatch, set[str]]]:
    """Batches as DuckDB takes them, and the names of columns whose text had to be escaped.

    Raises:
        ServiceError: A cell is too large, NULL where that is not allowed, or of another type.
    """
    schema = pa.schema(
        [
            (name, duckdb_arrow_type(column.type))
            for name, column in zip(names, columns, strict=True)
        ]
    )
    for batch in batches:
        escaped: set[str] = set()
        arrays = []
        for position, column in enumerate(columns):
            array = _checked(batch.column(position), column)
            if not raw_text.is_text(array):
                array = raw_text.escape(array, column.name)
                escaped.add(names[position])
            arrays.append(_cast(array, schema.field(position).type, column))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema), escaped


def from_duckdb(
    batch: pa.RecordBatch, schema: pa.Schema, escaped: frozenset[str]
) -> pa.RecordBatch:
    """A batch that DuckDB gave, in the forms of `schema`, with escaped text as it was."""
    arrays = []
    for field, array in zip(schema, batch.columns, strict=True):
        if field.name in escaped:
            array = raw_text.unescape(array)
        arrays.append(array if array.type == field.type else _narrow(array, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _narrow(array: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_null(target):
        return pa.nulls(len(array))
    return array.cast(target, safe=False)


def _checked(array: pa.Array, column: Column) -> pa.Array:
    if not column.nullable and array.null_count:
        message = f"column '{column.name}' holds no NULL, and got one"
        raise errors.malformed_data_stream(message)
    if column.type.name in _CELLS and len(array):
        longest = pc.max(pc.binary_length(array)).as_py() or 0
        if longest > MAX_CELL_BYTES:
            raise errors.cell_too_large(column.name, longest, MAX_CELL_BYTES)
    return array


def _cast(array: pa.Array, target: pa.DataType, column: Column) -> pa.Array:
    if array.type == target:
        return array
    try:
        return array.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"column '{column.name}' of type {column.type}: {error}"
        raise errors.malformed_data_stream(message) from None
