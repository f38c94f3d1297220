"""Raw records inside DuckDB, whatever brought them there: surveyed, and numbered block by block.

How a time column is read is left to `instants.py`. What is text is converted here, so that one
bad value is a counted record and not the end of the build.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import duckdb
import numpy as np
import pyarrow as pa

from flowpatch.errors import ColumnError, SettingsError
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import UNKNOWN_NODE, KeyColumn, NodeIndex, RecordBlock, Survey
from flowpatch.sources.engine import ColumnTypes, city_condition, reading, require, summary
from flowpatch.sources.instants import instant_sql
from flowpatch.sources.sql import identifier, text
from flowpatch.time_axis import TimeAxis

BLOCK_ROWS = 1_000_000
"""Rows of one block: 20 MB, enough to keep the cost of a block out of sight."""

WHOLE_NUMBERS = {
    f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")
} | {"INTEGER", "UINTEGER"}


def require_columns(columns: RecordColumns, types: Mapping[str, str], where: str) -> None:
    """Makes sure that records have all columns that are named; `where` says which records.

    Raises:
        ColumnError: one is missing.
    """
    for name in columns.node_columns:
        require(name, types, where, "--node-columns")
    require(columns.time_column, types, where, "--time-column")
    require(columns.value_column, types, where, "--value-column")
    if columns.adcode is not None:
        require(columns.adcode_column, types, where, "--adcode-column")


@dataclass(frozen=True)
class RecordRelation:
    """The records that stand behind FROM `relation`; `place` is named in errors."""

    connection: duckdb.DuckDBPyConnection
    relation: str
    types: ColumnTypes
    columns: RecordColumns
    place: str

    def check_columns(self) -> None:
        """Makes sure that all columns are there.

        Raises:
            ColumnError: one is missing.
        """
        require_columns(self.columns, self.types, f"records '{self.place}'")

    def survey(self) -> Survey:
        """One scan of the time column."""
        query = f"""
            SELECT count(*), count(*) FILTER (instant IS NULL),
                   epoch_ms(min(instant)), epoch_ms(max(instant)),
                   CAST(any_value(raw) FILTER (instant IS NULL) AS VARCHAR)
            FROM (SELECT {self._instant} AS instant, {identifier(self.columns.time_column)} AS raw
                  FROM {self.relation} WHERE {self._condition})"""
        with reading(self.place):
            rows = self.connection.sql(query).fetchall()
        records, without_time, first_ms, last_ms, example = rows[0]
        return Survey(records, without_time, _instant(first_ms), _instant(last_ms), example)

    def blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, *, in_order: bool
    ) -> Iterator[RecordBlock]:
        """Joins the node keys and numbers the steps. See `RecordSource.read_blocks`."""
        query = self._block_query(nodes, axis, first_step, stop_step, in_order)
        with reading(self.place):
            self.connection.register("node_index", _node_index_table(nodes))
            for batch in self.connection.sql(query).to_arrow_reader(BLOCK_ROWS):
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
            f"{_as_key(name, self.types[name], column)} AS key_{i}"
            for i, (name, column) in enumerate(
                zip(self.columns.node_columns, nodes.keys, strict=True)
            )
        ]
        joined = " AND ".join(f"r.key_{i} = n.key_{i}" for i in range(len(keys)))
        order = ", epoch_ms(instant)" if in_order else ""
        return f"""
            SELECT (epoch_ms(instant) - {begin_ms}) // {axis.step_minutes * 60_000},
                   coalesce(n.node, {UNKNOWN_NODE})::INTEGER, value {order}
            FROM (SELECT {", ".join(keys)}, {self._instant} AS instant,
                         TRY_CAST({identifier(self.columns.value_column)} AS FLOAT) AS value
                  FROM {self.relation} WHERE {self._condition}) r
            LEFT JOIN node_index n ON {joined}
            WHERE instant >= TIMESTAMP {text(str(begin))}
              AND instant < TIMESTAMP {text(str(end))}"""

    @property
    def _condition(self) -> str:
        return city_condition(self.columns.adcode, self.columns.adcode_column, self.types)

    @cached_property
    def _instant(self) -> str:
        """The SQL of a record's wall-clock instant, NULL where it cannot be read."""
        columns = self.columns
        kind = self.types[columns.time_column]
        found = instant_sql(
            columns.time_column, kind, columns.time_format, columns.time_zone, self._pattern_type
        )
        if found is None:
            raise ColumnError(
                f"Column '{columns.time_column}' of '{self.place}' is {kind}, not a time. Give "
                "--time-format unix_s or unix_ms for seconds or milliseconds since 1970, a "
                "pattern such as %Y%m%d%H%M for numbers like 202509190800, or name another "
                f"--time-column. Columns there: {', '.join(self.types)}."
            )
        return found

    def _pattern_type(self, pattern: str) -> str:
        """The type of instant that a strptime pattern gives."""
        try:
            query = f"SELECT typeof(TRY_STRPTIME('', {text(pattern)}))"
            ((kind,),) = self.connection.sql(query).fetchall()
        except duckdb.Error as error:
            raise SettingsError(
                f"Bad --time-format '{pattern}': {summary(error)}. Allowed: a strptime pattern "
                "such as %Y%m%d%H%M%S, or unix_s or unix_ms for numbers."
            ) from error
        return str(kind)


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


def _instant(milliseconds: int | None) -> np.datetime64 | None:
    return None if milliseconds is None else np.datetime64(milliseconds, "ms")


def _node_index_table(nodes: NodeIndex) -> pa.Table:
    columns = {
        f"key_{i}": pa.array(keys, pa.int64() if keys.dtype == np.int64 else pa.string())
        for i, keys in enumerate(nodes.keys)
    }
    return pa.table({**columns, "node": pa.array(nodes.index, pa.int32())})
