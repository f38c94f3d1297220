"""Raw records in Parquet or CSV files, read through DuckDB: the embedded default.

Covers any number of key columns; which files there are is left to `listing.py`, how a time column
is read to `instants.py`. CSV is read as text and converted here, so that one bad value is a
counted record and not the end of the build.
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

from flowpatch.errors import ColumnError, SettingsError, SourceError
from flowpatch.sources.contract import (
    UNKNOWN_NODE,
    KeyColumn,
    NodeIndex,
    NodeRecords,
    RecordBlock,
    Survey,
)
from flowpatch.sources.instants import instant_sql
from flowpatch.sources.listing import Listing, find_files
from flowpatch.sources.sql import identifier, text
from flowpatch.time_axis import TimeAxis

BLOCK_ROWS = 1_000_000
"""Rows of one block: 20 MB, enough to keep the cost of a block out of sight."""

LATITUDE_NAMES = ("lat", "latitude")
LONGITUDE_NAMES = ("lng", "lon", "long", "longitude")

ColumnTypes = dict[str, str]
"""Column name -> DuckDB type."""

WHOLE_NUMBERS = {
    f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")
} | {"INTEGER", "UINTEGER"}


@dataclass(frozen=True)
class FilesSource:
    """Records and node table in files.

    `time_format` is None for what DuckDB reads by itself (`2025-09-19 08:00:00` and its kin), a
    strptime format for other text, or `unix_s` / `unix_ms` for numbers; a column of native
    instants needs none. An instant that names its zone or offset is converted to `time_zone`,
    any other is taken as wall-clock time there. A record or node belongs to the city if its
    `adcode_column` equals `adcode`, where one is given.
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
            f"{_as_key(name, self._record_types[name], column)} AS key_{i}"
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
        # The one progress display is ours; DuckDB's own would write into a pipe.
        connection.execute("SET enable_progress_bar = false")
        # Nothing downstream depends on the order of the records, and keeping it costs memory.
        connection.execute("SET preserve_insertion_order = false")
        # DuckDB 2.0 lets its CSV reader do a TRY_CAST as if it were a CAST: one bad value would
        # end the build.
        connection.execute("SET disabled_optimizers = 'type_pushdown'")
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
        self._check_every_file()
        return types

    def _check_every_file(self) -> None:
        """Read by name, a column that a file lacks would be empty there without a word."""
        files = self._record_files
        if files.format != "parquet" or len(files.paths) == 1:
            return
        used = [*self.node_columns, self.time_column, self.value_column, self.adcode_column]
        query = f"""
            SELECT name, count(DISTINCT file_name) FROM parquet_schema({files.sql_paths})
            WHERE name IN ({", ".join(map(text, used))}) GROUP BY name ORDER BY name"""
        with self._reading(self.records):
            found = self._connection.sql(query).fetchall()
        for name, count in found:
            if count < len(files.paths) and (name != self.adcode_column or self.adcode is not None):
                raise ColumnError(
                    f"Column '{name}' is in {count} of the {len(files.paths)} files of "
                    f"'{self.records}' only. Write it into all of them, or read fewer files."
                )

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
        kind = self._record_types[self.time_column]
        found = instant_sql(
            self.time_column, kind, self.time_format, self.time_zone, self._pattern_type
        )
        if found is None:
            raise ColumnError(
                f"Column '{self.time_column}' of '{self.records}' is {kind}, not a time. Give "
                "--time-format unix_s or unix_ms for seconds or milliseconds since 1970, a "
                "pattern such as %Y%m%d%H%M for numbers like 202509190800, or name another "
                f"--time-column. Columns there: {', '.join(self._record_types)}."
            )
        return found

    def _pattern_type(self, pattern: str) -> str:
        """The type of instant that a strptime pattern gives."""
        try:
            query = f"SELECT typeof(TRY_STRPTIME('', {text(pattern)}))"
            ((kind,),) = self._connection.sql(query).fetchall()
        except duckdb.Error as error:
            raise SettingsError(
                f"Bad --time-format '{pattern}': {_summary(error)}. Allowed: a strptime pattern "
                "such as %Y%m%d%H%M%S, or unix_s or unix_ms for numbers."
            ) from error
        return str(kind)

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
            raise SourceError(f"Cannot read '{place}': {_summary(error)}") from error


def _require(name: str, types: ColumnTypes, where: str, flag: str) -> str:
    if name not in types:
        raise ColumnError(
            f"No column '{name}' in the {where}. Columns there: {', '.join(types)}. "
            f"Name the right one with {flag}."
        )
    return name


def _summary(error: Exception) -> str:
    """What went wrong, without the advice on DuckDB's own options that follows an empty line."""
    lines = str(error).strip().split("\n\n")[0].splitlines()
    return "; ".join(line.strip() for line in lines[:3]) or type(error).__name__


def _as_key(name: str, kind: str, keys: KeyColumn) -> str:
    """The SQL of a record's key, in the type of the node table's keys."""
    column = identifier(name)
    if keys.dtype != np.int64:
        return f"CAST({column} AS VARCHAR)"
    number = f"TRY_CAST({column} AS BIGINT)"
    if kind in WHOLE_NUMBERS:
        return number
    # A cast rounds: 7.6 is not node 8.
    return f"CASE WHEN TRY_CAST({column} AS DOUBLE) = {number} THEN {number} END"


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
