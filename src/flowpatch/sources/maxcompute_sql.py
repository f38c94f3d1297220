"""Raw records aggregated where they lie: MaxCompute's SQL into temporary tables, read back.

What the SQL says is in `aggregation.py`; here it is run, and its results become extents and cells.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from flowpatch.errors import MaxComputeError, QueryError
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.metadata import TableInfo
from flowpatch.maxcompute.names import TableName, column
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.queries import TEMPORARY_DAYS, Queries
from flowpatch.maxcompute.reading import Reader, RowRange, cut, open_part
from flowpatch.maxcompute.sessions import SessionExpiredError
from flowpatch.maxcompute.writing import Block, Upload
from flowpatch.sources.aggregation import Aggregate, RecordTable
from flowpatch.sources.arrow_columns import of_keys, of_numbers
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import CellBlock, NodeIndex, Survey
from flowpatch.sources.maxcompute_partitions import Chosen, Extent, condition
from flowpatch.sources.maxcompute_tunnel import RANGE_ROWS, worthwhile
from flowpatch.time_axis import TimeAxis

CELL_COLUMNS = ("step", "node", "value", "used", "not_a_number", "null_value")


class SqlWay:
    """Surveys and aggregates the records of a table by SQL, in the connection's project."""

    def __init__(
        self,
        connection: Connection,
        patience: Patience,
        info: TableInfo,
        columns: RecordColumns,
        workers: int,
    ) -> None:
        self._connection, self._patience = connection, patience
        self._info, self._columns, self._workers = info, columns, workers
        self._stack = ExitStack()
        self._node_table: TableName | None = None

    def close(self) -> None:
        """Drops the temporary tables."""
        self._stack.close()

    def cannot(self) -> str | None:
        """Why only the tunnel gives the right series; None where SQL does too."""
        return self._table(()).cannot_push_down()

    def survey(self, chosen: Chosen, whole_keys: Sequence[bool]) -> tuple[list[Extent], int]:
        """The extent of each partition, and the number of records that only DuckDB can judge.

        Raises:
            NoPermissionError: the account may not run queries here.
            QueryError: the service shows a partition's name in another way than it lists it.
        """
        keys, table = self._info.partition_columns, self._table(chosen)
        what = f"Counting the records of {self._info.name.address}"
        rows = self._queries.rows(table.survey_sql(keys, whole_keys), what, table.hints)
        partitions = {partition.values if partition else (): partition for partition in chosen}
        extents, unsure = [], 0
        for row in rows:
            values = tuple(zip(keys, map(str, row[: len(keys)]), strict=True))
            if values not in partitions:
                raise QueryError(f"{what}: partition {values} is not one of those listed")
            extents.append(Extent(partitions[values], _survey(row[len(keys) :])))
            unsure += int(row[len(keys) + 2] or 0)
        return extents, unsure

    def cells(
        self,
        chosen: Chosen,
        nodes: NodeIndex,
        axis: TimeAxis,
        first_step: int,
        stop_step: int,
        aggregate: Aggregate,
        null_value: float | None,
    ) -> Iterator[CellBlock]:
        """The cells of a stretch: aggregated into a temporary table, which is read and dropped."""
        table = self._table(chosen)
        whole_keys = [keys.dtype == np.int64 for keys in nodes.keys]
        query = table.cells_sql(
            self._uploaded(nodes, table.key_types(whole_keys)),
            whole_keys,
            axis,
            first_step,
            stop_step,
            aggregate,
            null_value,
        )
        with self._queries.temporary_table(self._home) as cells:
            self._queries.run(
                f"CREATE TABLE IF NOT EXISTS {cells.sql} LIFECYCLE {TEMPORARY_DAYS} AS {query}",
                f"Aggregating {self._info.name.address}",
                table.hints,
            )
            part = open_part(self._connection, self._patience, cells, None)
            workers = worthwhile(self._workers, part.rows)
            with Reader(self._connection, CELL_COLUMNS, cells_of, workers) as reader:
                for _, block in reader.read(cut(part, RANGE_ROWS)):
                    yield block

    def _uploaded(self, nodes: NodeIndex, key_types: Sequence[str]) -> TableName:
        """The nodes as a temporary table that queries join with; written once."""
        if self._node_table is None:
            name = self._stack.enter_context(self._queries.temporary_table(self._home))
            rows = _node_rows(nodes, key_types)
            kinds = [*key_types, "BIGINT"]
            columns = ", ".join(
                f"{column(name)} {kind}"
                for name, kind in zip(rows.column_names, kinds, strict=True)
            )
            self._queries.run(
                f"CREATE TABLE IF NOT EXISTS {name.sql} ({columns}) LIFECYCLE {TEMPORARY_DAYS}",
                f"Creating {name.address}",
            )
            self._upload(name, rows)
            self._node_table = name
        return self._node_table

    def _upload(self, name: TableName, rows: pa.Table) -> None:
        waiting = Patience(self._connection.patience_s)
        while True:
            try:
                # Overwriting may be done again: after a lost answer nobody knows if it was done.
                upload = Upload(self._connection, name, overwrite=True)
                list(upload.write([Block(0, rows)], _as_it_is, workers=0))
                upload.commit([0])
                break
            except SessionExpiredError as error:
                waiting.check(f"Writing {name.address}", error)
        found = open_part(self._connection, self._patience, name, None).rows
        if found != len(rows):
            raise MaxComputeError(f"{name.address} holds {found:,} of {len(rows):,} nodes written.")

    def _table(self, chosen: Chosen) -> RecordTable:
        types = dict(self._info.columns)
        return RecordTable(self._info.name, types, self._columns, condition(chosen))

    @cached_property
    def _queries(self) -> Queries:
        return Queries(self._connection, self._patience)

    @property
    def _home(self) -> TableName:
        """Where temporary tables are made: in the project that runs the queries."""
        name = self._info.name
        schema = name.schema if name.project == self._connection.project else None
        return TableName(self._connection.project, name.table, schema)


def cells_of(rows: pa.Table, row_range: RowRange) -> CellBlock:  # noqa: ARG001
    """Rows of the aggregation's temporary table as a block."""
    step, node, value, used, not_a_number, null_value = (
        rows.column(name).to_numpy() for name in CELL_COLUMNS
    )
    return CellBlock(step, node, value.astype(np.float64), used, not_a_number, null_value)


def _as_it_is(task: pa.Table) -> pa.Table:
    return task


def _survey(row: Sequence[Any]) -> Survey:
    records, without_time, _, first, last, example = row
    return Survey(int(records), int(without_time or 0), _instant(first), _instant(last), example)


def _instant(value: str | None) -> np.datetime64 | None:
    return np.datetime64(value.replace(" ", "T"), "ms") if value else None


def _node_rows(nodes: NodeIndex, key_types: Sequence[str]) -> pa.Table:
    keys = {
        f"key_{i}": of_keys(keys).cast(pa.int64() if kind == "BIGINT" else pa.string())
        for i, (keys, kind) in enumerate(zip(nodes.keys, key_types, strict=True))
    }
    return pa.table({**keys, "node": of_numbers(nodes.index.astype(np.int64))})
