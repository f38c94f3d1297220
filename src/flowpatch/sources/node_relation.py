"""A node table inside DuckDB, whatever brought it there: checked columns, keys, coordinates."""

from collections.abc import Mapping

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowpatch.errors import ColumnError
from flowpatch.sources.arrow_columns import degrees, whole_numbers
from flowpatch.sources.columns import LATITUDE_NAMES, LONGITUDE_NAMES, RecordColumns
from flowpatch.sources.contract import KeyColumn, NodeRecords
from flowpatch.sources.engine import city_condition, column_types, reading, require
from flowpatch.sources.sql import identifier


def read_node_relation(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: RecordColumns, place: str
) -> NodeRecords:
    """The node table that stands behind FROM `relation`; `place` is named in errors.

    Raises:
        ColumnError: a column is missing, or a key is empty.
        SourceError: the engine cannot read it.
    """
    with reading(place):
        types = column_types(connection, relation)
    where = f"node table '{place}'"
    for name in columns.node_columns:
        require(name, types, where, "--node-columns")
    latitude, longitude = require_coordinates(columns, types, where)
    chosen = [
        *(identifier(name) for name in columns.node_columns),
        f"TRY_CAST({identifier(latitude)} AS DOUBLE)",
        f"TRY_CAST({identifier(longitude)} AS DOUBLE)",
    ]
    # A node table without the city's column is taken to be of that city.
    condition = city_condition(columns.adcode, columns.adcode_column, types)
    with reading(place):
        table = connection.sql(
            f"SELECT {', '.join(chosen)} FROM {relation} WHERE {condition}"
        ).to_arrow_table()
    *keys, latitudes, longitudes = table.columns
    return NodeRecords(
        columns.node_columns,
        tuple(
            _key_column(column, name)
            for column, name in zip(keys, columns.node_columns, strict=True)
        ),
        _degrees(latitudes, 90),
        _degrees(longitudes, 180),
    )


def require_coordinates(
    columns: RecordColumns, types: Mapping[str, str], where: str
) -> tuple[str, str]:
    """The columns of latitude and longitude; `where` says of which table.

    Raises:
        ColumnError: one is missing.
    """
    return (
        _coordinate(columns.latitude_column, LATITUDE_NAMES, types, where, "--lat-column"),
        _coordinate(columns.longitude_column, LONGITUDE_NAMES, types, where, "--lng-column"),
    )


def _coordinate(
    name: str | None, usual: tuple[str, ...], types: Mapping[str, str], where: str, flag: str
) -> str:
    if name is not None:
        return require(name, types, where, flag)
    found = next((column for column in types if column.lower() in usual), None)
    return found or require(usual[0], types, where, flag)


def _key_column(column: pa.ChunkedArray, name: str) -> KeyColumn:
    """Keys as int64 where all of them are whole numbers, else as text.

    Text such as 007 stays text: as a number it would no longer be the key that was written.
    """
    if column.null_count:
        raise ColumnError(
            f"Column '{name}' of the node table is empty in {column.null_count} rows. "
            "Give every node a key, or remove those rows."
        )
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            return whole_numbers(column, 0)
        except pa.ArrowInvalid:
            column = column.cast(pa.string())
    keys = np.array(column.to_pylist(), dtype=object)
    try:
        numbers = np.array([int(key) for key in keys], dtype=np.int64)
    except (ValueError, OverflowError):
        return keys
    canonical = all(str(number) == key for number, key in zip(numbers, keys, strict=True))
    return numbers if canonical else keys


def _degrees(column: pa.ChunkedArray, limit: int) -> NDArray[np.float64]:
    found = degrees(column)
    return np.where(np.abs(found) <= limit, found, np.nan)
