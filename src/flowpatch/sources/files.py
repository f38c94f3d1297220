"""Raw records in Parquet or CSV files, read through DuckDB: the embedded default.

Covers text and native timestamps and any number of key columns; which files there are is left to
`listing.py`. CSV is read as text and converted here, so that one bad value is a counted record
and not the end of the build.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowpatch.errors import ColumnError, SourceError
from flowpatch.sources.contract import (
    UNKNOWN_NODE,
    KeyColumn,
    NodeIndex,
    NodeRecords,
    RecordBlock,
    Survey,
)
from flowpatch.sources.listing import Listing, find_files
from flowpatch.sources.sql import identifier, text
from flowpatch.time_axis import TimeAxis

BLOCK_ROWS = 1_000_000
"""Rows of one block: 20 MB, enough to keep the cost of a block out of sight."""

LATITUDE_NAMES = ("lat", "latitude")
LONGITUDE_NAMES = ("lng", "lon", "long", "longitude")

ColumnTypes = dict[str, str]
"""Column name -> DuckDB type."""


@dataclass(frozen=True)
class FilesSource:
    """Records and node table in files.

    `time_format` is None for what DuckDB reads by itself (`2025-09-19 08:00:00` and its kin), a
    strptime format for other text, or `unix_s` / `unix_ms` for numbers. A record or node belongs
    to the city if its `adcode_column` equals `adcode`, where one is given.
    """

    records: str
    nodes: str
    node_columns: tuple[str, ...]
    time_column: str
    value_column: str
    time_format: str | None = None
    time_zone: str = "UTC"
    latitude_column: str | None = None
    longitude_column: str | None = None
    adcode: str | None = None
    adcode_column: str = "adcode"

    def describe(self) -> dict[str, Any]:
        """The files behind the records and the nodes, with their sizes and times of change."""
        return {
            "kind": "files",
            "records": self._record_files.identity(),
            "nodes": self._node_files.identity(),
        }

    def read_nodes(self) -> NodeRecords:
        """The node table. See `RecordSource.read_nodes`."""
        types = self._types(self._node_files)
        for name in self.node_columns:
            _require(name, types, f"node table '{self.nodes}'", "--node-columns")
        latitude = self._coordinate(self.latitude_column, LATITUDE_NAMES, types, "--lat-column")
        longitude = self._coordinate(self.longitude_column, LONGITUDE_NAMES, types, "--lng-column")
        columns = [
            *(identifier(name) for name in self.node_columns),
            f"TRY_CAST({identifier(latitude)} AS DOUBLE)",
            f"TRY_CAST({identifier(longitude)} AS DOUBLE)",
        ]
        # A node table without the city's column is taken to be of that city.
        condition = self._city_condition(types) if self.adcode_column in types else "true"
        with self._reading(self.nodes):
            table = self._connection.sql(
                f"SELECT {', '.join(columns)} FROM {self._node_files.relation()} WHERE {condition}"
            ).to_arrow_table()
        *keys, latitudes, longitudes = table.columns
        return NodeRecords(
            self.node_columns,
            tuple(
                _key_column(column, name)
                for column, name in zip(keys, self.node_columns, strict=True)
            ),
            _degrees(latitudes, 90),
            _degrees(longitudes, 180),
        )

    def survey(self) -> Survey:
        """One scan of the time column. See `RecordSource.survey`."""
        query = f"""
            SELECT count(*), count(*) FILTER (instant IS NULL),
                   epoch_ms(min(instant)), epoch_ms(max(instant)),
                   CAST(any_value(raw) FILTER (instant IS NULL) AS VARCHAR)
            FROM (SELECT {self._instant} AS instant, {identifier(self.time_column)} AS raw
                  FROM {self._record_files.relation()} WHERE {self._record_condition})"""
        with self._reading(self.records):
            rows = self._connection.sql(query).fetchall()
        records, without_time, first_ms, last_ms, example = rows[0]
        return Survey(records, without_time, _instant(first_ms), _instant(last_ms), example)

    def read_blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, *, in_order: bool
    ) -> Iterator[RecordBlock]:
        """Scans, joins the node keys and numbers the steps. See `RecordSource.read_blocks`."""
        query = self._block_query(nodes, axis, first_step, stop_step, in_order)
        with self._reading(self.records):
            self._connection.register("node_index", _node_index_table(nodes))
            for batch in self._connection.sql(query).to_arrow_reader(BLOCK_ROWS):
                columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
                step, node, value = columns[:3]
                value = np.where(np.isfinite(value), value, np.float32(np.nan))
                yield RecordBlock(step, node, value, columns[3] if in_order else None)

    def _block_query(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, in_order: bool
    ) -> str:
        begin, end = axis.instant_of(first_step), axis.instant_of(stop_step)
        begin_ms = int(begin.astype("datetime64[ms]").astype(np.int64))
        keys = [
            f"{_as_key(name, column)} AS key_{i}"
            for i, (name, column) in enumerate(zip(self.node_columns, nodes.keys, strict=True))
        ]
        joined = " AND ".join(f"r.key_{i} = n.key_{i}" for i in range(len(keys)))
        order = ", epoch_ms(instant)" if in_order else ""
        return f"""
            SELECT (epoch_ms(instant) - {begin_ms}) // {axis.step_minutes * 60_000},
                   coalesce(n.node, {UNKNOWN_NODE})::INTEGER, value {order}
            FROM (SELECT {", ".join(keys)}, {self._instant} AS instant,
                         TRY_CAST({identifier(self.value_column)} AS FLOAT) AS value
                  FROM {self._record_files.relation()} WHERE {self._record_condition}) r
            LEFT JOIN node_index n ON {joined}
            WHERE instant >= TIMESTAMP {text(str(begin))}
              AND instant < TIMESTAMP {text(str(end))}"""

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        # Nothing downstream depends on the order of the records, and keeping it costs memory.
        connection.execute("SET preserve_insertion_order = false")
        return connection

    @cached_property
    def _record_files(self) -> Listing:
        return find_files(self.records, "--records")

    @cached_property
    def _node_files(self) -> Listing:
        return find_files(self.nodes, "--nodes")

    @cached_property
    def _record_types(self) -> ColumnTypes:
        types = self._types(self._record_files)
        where = f"records '{self.records}'"
        for name in self.node_columns:
            _require(name, types, where, "--node-columns")
        _require(self.time_column, types, where, "--time-column")
        _require(self.value_column, types, where, "--value-column")
        if self.adcode is not None:
            _require(self.adcode_column, types, where, "--adcode-column")
        return types

    @property
    def _record_condition(self) -> str:
        return self._city_condition(self._record_types)

    def _city_condition(self, types: ColumnTypes) -> str:
        if self.adcode is None or self.adcode_column not in types:
            return "true"
        return f"CAST({identifier(self.adcode_column)} AS VARCHAR) = {text(self.adcode)}"

    @cached_property
    def _instant(self) -> str:
        """The SQL of a record's wall-clock instant, NULL where it cannot be read."""
        column, kind = identifier(self.time_column), self._record_types[self.time_column]
        if self.time_format in ("unix_s", "unix_ms"):
            return self._from_unix(f"TRY_CAST({column} AS BIGINT)")
        if kind == "VARCHAR" and self.time_format:
            return f"TRY_STRPTIME({column}, {text(self.time_format)})"
        if kind == "VARCHAR":
            return f"TRY_CAST({column} AS TIMESTAMP)"
        if kind == "TIMESTAMP WITH TIME ZONE":
            return f"({column} AT TIME ZONE {text(self.time_zone)})"
        if kind.startswith("TIMESTAMP") or kind == "DATE":
            return f"CAST({column} AS TIMESTAMP)"
        raise ColumnError(
            f"Column '{self.time_column}' of '{self.records}' is {kind}, not a time. Give "
            "--time-format unix_s or unix_ms for seconds or milliseconds since 1970, or name "
            f"another --time-column. Columns there: {', '.join(self._record_types)}."
        )

    def _from_unix(self, number: str) -> str:
        milliseconds = f"({number} * 1000)" if self.time_format == "unix_s" else number
        return f"(make_timestamptz({milliseconds} * 1000) AT TIME ZONE {text(self.time_zone)})"

    def _types(self, files: Listing) -> ColumnTypes:
        with self._reading(str(files.paths[0])):
            rows = self._connection.sql(f"DESCRIBE SELECT * FROM {files.relation()}").fetchall()
        return {name: kind for name, kind, *_ in rows}

    def _coordinate(
        self, name: str | None, usual: tuple[str, ...], types: ColumnTypes, flag: str
    ) -> str:
        where = f"node table '{self.nodes}'"
        if name is not None:
            return _require(name, types, where, flag)
        found = next((column for column in types if column.lower() in usual), None)
        return found or _require(usual[0], types, where, flag)

    @contextmanager
    def _reading(self, place: str) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise SourceError(f"Cannot read '{place}': {first_line}") from error


def _require(name: str, types: ColumnTypes, where: str, flag: str) -> str:
    if name not in types:
        raise ColumnError(
            f"No column '{name}' in the {where}. Columns there: {', '.join(types)}. "
            f"Name the right one with {flag}."
        )
    return name


def _as_key(name: str, keys: KeyColumn) -> str:
    """The SQL of a record's key, in the type of the node table's keys."""
    if keys.dtype == np.int64:
        return f"TRY_CAST({identifier(name)} AS BIGINT)"
    return f"CAST({identifier(name)} AS VARCHAR)"


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
            return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)
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
    degrees: NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return np.where(np.abs(degrees) <= limit, degrees, np.nan)


def _instant(milliseconds: int | None) -> np.datetime64 | None:
    return None if milliseconds is None else np.datetime64(milliseconds, "ms")


def _node_index_table(nodes: NodeIndex) -> pa.Table:
    columns = {
        f"key_{i}": pa.array(keys, pa.int64() if keys.dtype == np.int64 else pa.string())
        for i, keys in enumerate(nodes.keys)
    }
    return pa.table({**columns, "node": pa.array(nodes.index, pa.int32())})
