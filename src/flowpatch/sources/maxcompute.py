"""Raw records in MaxCompute: aggregated there by SQL, or streamed through the tunnel.

    sql     the aggregation into a temporary table a stretch, read back in parallel
    tunnel  the rows of the partitions that reach into the stretch, in parallel

Both give the same series. SQL moves cells where the tunnel moves records, and needs the right to
run queries and create tables; where the two could read a record differently, SQL is left out
(`aggregation.py`).
"""

from collections.abc import Collection, Iterator
from copy import copy
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from flowpatch.errors import ColumnError, NoPermissionError, QueryError, RecordError
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.metadata import Partition, TableInfo, describe_table
from flowpatch.maxcompute.names import TableName, is_address
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.reading import Reader, cut, keep_rows, open_part
from flowpatch.maxcompute.settings import Pushdown
from flowpatch.progress import say
from flowpatch.sources.aggregation import Aggregate
from flowpatch.sources.columns import LATITUDE_NAMES, LONGITUDE_NAMES, RecordColumns
from flowpatch.sources.contract import (
    CellBlock,
    NodeIndex,
    NodeRecords,
    RecordBlock,
    SourcePart,
    Survey,
)
from flowpatch.sources.engine import connect, reading, require
from flowpatch.sources.listing import find_files
from flowpatch.sources.maxcompute_partitions import Chosen, Extent, choose, newest, parts_of
from flowpatch.sources.maxcompute_sql import SqlWay
from flowpatch.sources.maxcompute_tunnel import RANGE_ROWS, Stretch, TunnelWay, worthwhile
from flowpatch.sources.node_relation import read_node_relation, require_coordinates
from flowpatch.sources.parts import chosen_names, sum_of, with_surveys
from flowpatch.sources.record_relation import require_columns
from flowpatch.time_axis import TimeAxis

_ENDED = ("_sql", "_tunnel")
"""What `close` ends, if it was ever used."""


class MaxComputeSource:
    """Records in a table of MaxCompute, the node table there or in a file."""

    def __init__(
        self,
        records: str,
        nodes: str,
        columns: RecordColumns,
        connection: Connection,
        *,
        aggregate: Aggregate,
        null_value: float | None = None,
        start_date: date | None = None,
        end_date: date | None = None,
        pushdown: Pushdown = "auto",
        workers: int = 1,
    ) -> None:
        self._records, self._nodes = TableName.of_address(records), nodes
        self._columns, self._connection = columns, connection
        self._aggregate, self._null_value = aggregate, null_value
        self._period = (start_date, end_date)
        self._asked_way: Pushdown = pushdown
        self._way, self._workers = pushdown, workers
        self._patience = Patience(connection.patience_s)

    def describe(self) -> dict[str, Any]:
        """The table and the partitions that were read, with their times of change."""
        read = {
            partition.spec: partition.modified
            for partition in self._chosen
            if partition is not None
        }
        return {
            "kind": "maxcompute",
            "endpoint": self._connection.endpoint,
            "records": {**self._info.identity, "partitions": read},
            "nodes": self._nodes_identity,
        }

    def close(self) -> None:
        """Ends the workers and drops the temporary tables."""
        for name in _ENDED:
            if name in self.__dict__:
                self.__dict__[name].close()

    def read_nodes(self) -> NodeRecords:
        """The node table. See `RecordSource.read_nodes`."""
        return self._node_records

    @cached_property
    def _node_records(self) -> NodeRecords:
        engine, relation = connect(), "nodes"
        if is_address(self._nodes):
            rows = self._node_rows(TableName.of_address(self._nodes))
            with reading(self._nodes):
                engine.register(relation, rows)
        else:
            relation = find_files(self._nodes, "--nodes").relation()
        return read_node_relation(engine, relation, self._columns, self._nodes)

    def _node_rows(self, table: TableName) -> pa.Table:
        info, columns = self._node_info, self._columns
        require(columns.node_columns[0], info.columns, f"table {table.address}", "--node-columns")
        named = (columns.latitude_column, columns.longitude_column, columns.adcode_column)
        require_coordinates(columns, info.columns, f"table {table.address}")
        wanted = {*columns.node_columns, *LATITUDE_NAMES, *LONGITUDE_NAMES, *filter(None, named)}
        partition = newest(info)
        spec = partition.spec if partition else None
        part = open_part(self._connection, self._patience, table, spec)
        workers = worthwhile(self._workers, part.rows)
        chosen = [name for name in info.columns if name in wanted]
        with Reader(self._connection, chosen, keep_rows, workers) as reader:
            found = [rows for _, rows in reader.read(cut(part, RANGE_ROWS))]
        if not found:
            raise RecordError(f"The node table {part.place} has no rows. Check --nodes.")
        return pa.concat_tables(found)

    def survey(self) -> Survey:
        """The records of all chosen partitions. See `RecordSource.survey`."""
        return sum_of(self._surveys.values())

    def parts(self) -> tuple[SourcePart, ...]:
        """The chosen partitions, or the table without any. See `RecordSource.parts`."""
        info, looked_at = self._look
        return parts_of(info, self._chosen, looked_at)

    def surveyed_parts(self) -> tuple[SourcePart, ...]:
        """The same with what `survey` found in each. See `RecordSource.surveyed_parts`."""
        return with_surveys(self.parts(), self._surveys)

    def only(self, names: Collection[str]) -> "MaxComputeSource":
        """Some of the partitions. See `RecordSource.only`.

        What this source knows of the tables, and the node table once read, is not asked for again.
        """
        specs = chosen_names(names, self.parts(), self._records.address)
        chosen = tuple(partition for partition in self._chosen if _name(partition) in specs)
        restricted = copy(self)
        restricted._start_anew(chosen)
        return restricted

    def _start_anew(self, chosen: Chosen) -> None:
        """Of a copy: sessions, workers and temporary tables stay with the original, which ends
        them; records are counted again, and the way of reading is chosen for them.
        """
        for name in (*_ENDED, "_extents"):
            self.__dict__.pop(name, None)
        self._chosen = chosen
        self._patience = Patience(self._connection.patience_s)
        self._way = self._asked_way

    @property
    def _surveys(self) -> dict[str, Survey]:
        return {_name(extent.partition): extent.survey for extent in self._extents}

    @cached_property
    def _extents(self) -> list[Extent]:
        """What each chosen partition holds that holds any record."""
        found = self._survey_by_sql()
        return self._tunnel.survey(self._chosen) if found is None else found

    def _survey_by_sql(self) -> list[Extent] | None:
        """None where SQL is not wanted, not allowed, or might misread a record."""
        if self._way == "tunnel":
            return None
        reason = self._sql.cannot()
        if reason is None:
            whole_keys = [keys.dtype == np.int64 for keys in self._node_records.keys]
            try:
                extents, unsure = self._sql.survey(self._chosen, whole_keys)
                if not unsure:
                    return extents
                reason = (
                    f"{unsure:,} records have an instant that is not written like 2025-09-19 "
                    "08:00:00, or a key like 08"
                )
            except (NoPermissionError, QueryError) as error:
                if self._way == "sql":
                    raise
                reason = str(error)
        if self._way == "sql":
            raise ColumnError(
                f"--pushdown sql cannot aggregate {self._records.address}: {reason}. Use "
                "--pushdown tunnel, which reads the rows themselves."
            )
        self._read_rows_instead(reason)
        return None

    def read_blocks(
        self, nodes: NodeIndex, axis: TimeAxis, first_step: int, stop_step: int, *, in_order: bool
    ) -> Iterator[RecordBlock | CellBlock]:
        """One stretch, by SQL or through the tunnel. See `RecordSource.read_blocks`."""
        begin, end = axis.instant_of(first_step), axis.instant_of(stop_step)
        extents = [extent for extent in self._extents if extent.reaches(begin, end)]
        if not extents:
            return
        decided_here = self._decide(axis.length * len(nodes.index))
        if self._way == "sql":
            try:
                yield from self._sql.cells(
                    tuple(extent.partition for extent in extents),
                    nodes,
                    axis,
                    first_step,
                    stop_step,
                    self._aggregate,
                    self._null_value,
                )
                return
            except NoPermissionError as error:
                # Tables are created before any cell is read, so nothing was given out yet.
                if not decided_here:
                    raise
                self._read_rows_instead(str(error))
        stretch = Stretch(axis, first_step, stop_step, in_order)
        yield from self._tunnel.records(extents, nodes, stretch)

    def _decide(self, cells: int) -> bool:
        """The cheaper way, once: SQL brings cells of one city, the tunnel records of all.

        Returns whether it was decided now.
        """
        if self._way != "auto":
            return False
        records = sum(extent.survey.records for extent in self._extents)
        pays = self._columns.adcode is not None or 2 * min(cells, records) <= records
        self._way = "sql" if pays else "tunnel"
        how = "aggregated there" if pays else "read row by row"
        say(f"{self._records.address} is {how} (--pushdown {self._way})")
        return True

    def _read_rows_instead(self, reason: str) -> None:
        say(f"{self._records.address} is read row by row (--pushdown tunnel): {reason}")
        self._way = "tunnel"

    @cached_property
    def _node_info(self) -> TableInfo:
        table = TableName.of_address(self._nodes)
        return describe_table(self._connection, self._patience, table)

    @property
    def _nodes_identity(self) -> Any:
        if is_address(self._nodes):
            return self._node_info.identity
        return find_files(self._nodes, "--nodes").identity()

    @property
    def _info(self) -> TableInfo:
        return self._look[0]

    @cached_property
    def _look(self) -> tuple[TableInfo, datetime]:
        """The table before any record is read, and the moment before it was looked at."""
        looked_at = datetime.now(UTC)
        info = describe_table(self._connection, self._patience, self._records)
        require_columns(self._columns, info.columns, f"table {self._records.address}")
        return info, looked_at

    @cached_property
    def _chosen(self) -> Chosen:
        adcode = self._columns.adcode
        city = (self._columns.adcode_column, adcode) if adcode is not None else None
        return choose(self._info, *self._period, city)

    @cached_property
    def _sql(self) -> SqlWay:
        return SqlWay(self._connection, self._patience, self._info, self._columns, self._workers)

    @cached_property
    def _tunnel(self) -> TunnelWay:
        return TunnelWay(self._connection, self._patience, self._info, self._columns, self._workers)


def _name(partition: Partition | None) -> str:
    """A part's name."""
    return "" if partition is None else partition.spec
