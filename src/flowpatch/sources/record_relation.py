"""Raw records inside DuckDB, whatever brought them there: surveyed, and numbered block by block.

How a time column is read is left to `instants.py`. What is text is converted here, so that one
bad value is a counted record and not the end of the build.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from flowpatch.errors import ColumnError, SettingsError
from flowpatch.sources.arrow_columns import of_keys, of_numbers, values, whole_numbers
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import UNKNOWN_NODE, KeyColumn, NodeIndex, RecordBlock, Survey
from flowpatch.sources.engine import (
    ColumnTypes,
    city_condition,
    column_types,
    connect,
    reading,
    require,
    summary,
)
from flowpatch.sources.instants import instant_sql
from flowpatch.sources.parts import sum_of
from flowpatch.sources.sql import identifier, text
from flowpatch.time_axis import TimeAxis

BLOCK_ROWS = 50_000
"""Rows of one block: few enough to be worked on in a core's cache."""

WHOLE_NUMBERS = {
    f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")
} | {"INTEGER", "UINTEGER"}

WITH_ZONE = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS")
"""Types of instants that name their zone."""


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
    shown: str | None = None
    """The column of which one is shown where no instant can be read; by default the time's own."""
    part: str = "''"
    """The SQL of the name of the part that a record belongs to, where there is more than one."""

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection: where it is sent, it gets one of its own."""
        return {**self.__dict__, "connection": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, connection=connect())

    def use_threads(self, threads: int) -> None:
        """Reads with so many threads, by default as many as there are cores."""
        self.connection.execute(f"SET threads = {threads}")

    def close(self) -> None:
        """Closes the connection."""
        self.connection.close()

    def check_columns(self) -> None:
        """Makes sure that all columns are there.

        Raises:
            ColumnError: one is missing.
        """
        require_columns(self.columns, self.types, f"records '{self.place}'")

    def survey(self) -> Survey:
        """All records; one scan of the time column."""
        return sum_of(self.surveys().values())

    def surveys(self) -> dict[str, Survey]:
        """The records of each part that holds any; one scan of the time column."""
        query = f"""
            SELECT part, count(*), count(*) FILTER (instant IS NULL),
                   epoch_ms(min(instant)), epoch_ms(max(instant)),
                   CAST(min(raw) FILTER (instant IS NULL) AS VARCHAR)
            FROM (SELECT {self._instant} AS instant, {self.part} AS part,
                         {identifier(self.shown or self.columns.time_column)} AS raw
                  FROM {self.relation} WHERE {self._condition})
            GROUP BY part"""
        with reading(self.place):
            rows = self.connection.sql(query).fetchall()
        return {
            part: Survey(records, without_time, _instant(first_ms), _instant(last_ms), example)
            for part, records, without_time, first_ms, last_ms, example in rows
        }

    def surveys_by_statistics(self, sql_paths: str) -> dict[str, Survey] | None:
        """What the row groups of Parquet files tell of each file's instants, without a scan.

        None where they do not tell all, or where a clock or a city stands between: the first
        instant by one clock need not be the first by another.
        """
        kind = self.types[self.columns.time_column]
        native = kind == "DATE" or kind.startswith("TIMESTAMP")
        if not native or kind in WITH_ZONE or self._condition != "true":
            return None
        name = self.columns.time_column
        first, last = (
            f"epoch_ms(CAST(TRY_CAST(stats_{end}_value AS {kind}) AS TIMESTAMP))"
            for end in ("min", "max")
        )
        query = f"""
            WITH groups AS (
                SELECT file_name, row_group_id, any_value(row_group_num_rows) AS records,
                       any_value(stats_null_count) FILTER (timed) AS without_time,
                       any_value({first}) FILTER (timed) AS first,
                       any_value({last}) FILTER (timed) AS last
                FROM (SELECT *, path_in_schema = {text(name)} AS timed
                      FROM parquet_metadata({sql_paths}))
                GROUP BY file_name, row_group_id)
            SELECT file_name, sum(records)::BIGINT, coalesce(sum(without_time), 0)::BIGINT,
                   min(first), max(last),
                   count(*) FILTER (without_time IS NULL
                       OR (without_time < records AND (first IS NULL OR last IS NULL)))
            FROM groups GROUP BY file_name"""
        with reading(self.place):
            rows = self.connection.sql(query).fetchall()
        if any(silent for *_, silent in rows):
            return None
        return {
            file: Survey(records, without_time, _instant(first_ms), _instant(last_ms))
            for file, records, without_time, first_ms, last_ms, _ in rows
        }

    def typed_copy(self, path: Path, keys: Sequence[KeyColumn]) -> "RecordRelation":
        """Reads the records once into a Parquet file, whose instants, keys and values need no
        further look, and gives those instead. `keys` are the node table's.
        """
        typed = [
            f"{_as_key(name, self.types[name], column)} AS key_{i}"
            for i, (name, column) in enumerate(zip(self.columns.node_columns, keys, strict=True))
        ]
        raw = f"CAST({identifier(self.columns.time_column)} AS VARCHAR)"
        part = f"{self.part} AS part"
        with reading(self.place):
            self.connection.execute(f"""
                COPY (SELECT * EXCLUDE raw, CASE WHEN instant IS NULL THEN raw END AS shown
                      FROM ({self._records_query([*typed, f"{raw} AS raw", part])}))
                TO {text(str(path))} (FORMAT parquet, COMPRESSION lz4_raw)""")
            relation = f"read_parquet({text(str(path))})"
            types = column_types(self.connection, relation)
        columns = RecordColumns(
            node_columns=tuple(f"key_{i}" for i in range(len(typed))),
            time_column="instant",
            value_column="value",
        )
        return RecordRelation(
            self.connection, relation, types, columns, self.place, shown="shown", part="part"
        )

    def blocks(
        self,
        nodes: NodeIndex,
        axis: TimeAxis,
        first_step: int,
        stop_step: int,
        *,
        in_order: bool,
        many: bool = False,
    ) -> Iterator[RecordBlock]:
        """Finds the nodes and numbers the steps. See `RecordSource.read_blocks`.

        `many` says that so many records will come, over all stretches, that compiled loops pay.
        """
        if many and not in_order and self._whole_keys(nodes):
            yield from self._numbered_blocks(nodes, axis, first_step, stop_step)
        else:
            yield from self._joined_blocks(nodes, axis, first_step, stop_step, in_order=in_order)

    def _joined_blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, *, in_order: bool
    ) -> Iterator[RecordBlock]:
        """DuckDB joins the keys and counts the steps: keys of any kind."""
        query = self._joined_query(nodes, axis, first_step, stop_step, in_order)
        with reading(self.place):
            self.connection.register("node_index", _node_index_table(nodes))
            for batch in self.connection.sql(query).to_arrow_reader(BLOCK_ROWS):
                step, node, value, *instant_ms = batch.columns
                yield RecordBlock(
                    whole_numbers(step, 0),
                    whole_numbers(node, UNKNOWN_NODE).astype(np.int32),
                    values(value),
                    whole_numbers(instant_ms[0], 0) if in_order else None,
                )

    def _numbered_blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int
    ) -> Iterator[RecordBlock]:
        """DuckDB scans; compiled loops find the nodes and count the steps."""
        # Imported here: few records need not wait for the compiler.
        from flowpatch.sources.numbering import NodeNumbers, unused_key

        numbers = NodeNumbers(nodes)
        query = self._scan_query(axis, first_step, stop_step)
        first_us = int(axis.instant_of(first_step).astype("datetime64[us]").astype(np.int64))
        step_us = axis.step_minutes * 60_000_000
        with reading(self.place):
            # A record without a key gets one that no node has.
            no_keys = [unused_key(column) for column in nodes.keys]
            for batch in self.connection.sql(query).to_arrow_reader(BLOCK_ROWS):
                instant_us, value, *keys = batch.columns
                yield numbers.block(
                    [whole_numbers(key, no_key) for key, no_key in zip(keys, no_keys, strict=True)],
                    whole_numbers(instant_us, 0),
                    values(value),
                    first_us,
                    step_us,
                )

    def _whole_keys(self, nodes: NodeIndex) -> bool:
        """Whether the keys of records and nodes are whole numbers that compiled loops can find."""
        names = self.columns.node_columns
        return len(names) <= 2 and all(
            self.types[name] in WHOLE_NUMBERS and keys.dtype == np.int64
            for name, keys in zip(names, nodes.keys, strict=True)
        )

    def _scan_query(self, axis: TimeAxis, first_step: int, stop_step: int) -> str:
        keys = [
            f"TRY_CAST({identifier(name)} AS BIGINT) AS key_{i}"
            for i, name in enumerate(self.columns.node_columns)
        ]
        return f"""
            SELECT epoch_us(instant), value, {", ".join(f"key_{i}" for i in range(len(keys)))}
            FROM ({self._records_query(keys)})
            WHERE {_within(axis, first_step, stop_step)}"""

    def _records_query(self, keys: Sequence[str]) -> str:
        return f"""
            SELECT {", ".join(keys)}, {self._instant} AS instant,
                   TRY_CAST({identifier(self.columns.value_column)} AS FLOAT) AS value
            FROM {self.relation} WHERE {self._condition}"""

    def _joined_query(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, in_order: bool
    ) -> str:
        begin = axis.instant_of(first_step)
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
            FROM ({self._records_query(keys)}) r
            LEFT JOIN node_index n ON {joined}
            WHERE {_within(axis, first_step, stop_step)}"""

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


def _within(axis: TimeAxis, first_step: int, stop_step: int) -> str:
    begin, end = axis.instant_of(first_step), axis.instant_of(stop_step)
    return f"instant >= TIMESTAMP {text(str(begin))} AND instant < TIMESTAMP {text(str(end))}"


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
    columns = {f"key_{i}": of_keys(keys) for i, keys in enumerate(nodes.keys)}
    return pa.table({**columns, "node": of_numbers(nodes.index)})
