"""Raw records streamed out of MaxCompute: each worker reads a range, numbers it, sends numbers.

The rows go through the same DuckDB relation as the files' do (`record_relation.py`), so both give
the same series. A range's rows exist in one worker only; what crosses to the parent is 16 bytes a
record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import duckdb
import pyarrow as pa

from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.metadata import Partition, TableInfo
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.reading import Part, Reader, RowRange, cut, open_part
from flowpatch.sources.columns import RecordColumns
from flowpatch.sources.contract import NodeIndex, RecordBlock, Survey
from flowpatch.sources.engine import column_types, connect
from flowpatch.sources.maxcompute_partitions import Chosen, Extent
from flowpatch.sources.record_relation import RecordRelation
from flowpatch.time_axis import TimeAxis

RANGE_ROWS = 500_000
"""Rows of one request: some 30 MB, more than a connection costs and less than memory minds."""
FEW_ROWS = 100_000
"""Not worth starting processes for."""


class TunnelWay:
    """Surveys and reads the records of a table through its tunnel."""

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
        self._parts: dict[str | None, Part] = {}
        self._reader: Reader[list[RecordBlock]] | None = None

    def close(self) -> None:
        """Ends the workers."""
        if self._reader is not None:
            self._reader.__exit__(None, None, None)
            self._reader = None

    def survey(self, chosen: Chosen) -> list[Extent]:
        """The extent of each partition, from the column of instants alone."""
        parts = [self._part(partition) for partition in chosen]
        found = {part.partition: Survey(0, 0, None, None) for part in parts}
        with Reader(
            self._connection,
            self._wanted([self._columns.time_column]),
            SurveyRange(self._columns),
            worthwhile(self._workers, sum(part.rows for part in parts)),
        ) as reader:
            ranges = (row_range for part in parts for row_range in cut(part, RANGE_ROWS))
            for row_range, survey in reader.read(ranges):
                found[row_range.part.partition] += survey
        return [
            Extent(partition, found[part.partition])
            for partition, part in zip(chosen, parts, strict=True)
        ]

    def records(
        self, extents: Sequence[Extent], nodes: NodeIndex, stretch: "Stretch"
    ) -> Iterator[RecordBlock]:
        """The records of a stretch, from the partitions that reach into it."""
        parts = [self._part(extent.partition) for extent in extents]
        if self._reader is None:
            # One set of workers for all stretches: each takes a second to start.
            columns = self._columns
            names = [*columns.node_columns, columns.time_column, columns.value_column]
            workers = worthwhile(self._workers, sum(part.rows for part in parts))
            self._reader = Reader(
                self._connection, self._wanted(names), NumberRange(columns, nodes), workers
            ).__enter__()
        ranges = (row_range for part in parts for row_range in cut(part, RANGE_ROWS, stretch))
        for _, blocks in self._reader.read(ranges):
            yield from blocks

    def _wanted(self, names: Sequence[str]) -> list[str]:
        """The columns to read: those named and the city's, in the table's order."""
        city = [self._columns.adcode_column] if self._columns.adcode is not None else []
        return [name for name in self._info.columns if name in (*names, *city)]

    def _part(self, partition: Partition | None) -> Part:
        spec = None if partition is None else partition.spec
        if spec not in self._parts:
            self._parts[spec] = open_part(self._connection, self._patience, self._info.name, spec)
        return self._parts[spec]


def worthwhile(workers: int, rows: int) -> int:
    """How many of the workers so many rows are worth; 0 reads them in this process."""
    return 0 if rows <= FEW_ROWS else min(workers, -(-rows // RANGE_ROWS))


@dataclass
class _InWorker:
    """What a worker keeps between ranges: the engine, made when first used."""

    columns: RecordColumns

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        connection = connect()
        # Each worker is one of several: more threads would only fight.
        connection.execute("SET threads = 1")
        return connection

    def relation(self, rows: pa.Table, place: str) -> RecordRelation:
        """The rows as records."""
        self._connection.register("records", rows)
        types = column_types(self._connection, "records")
        return RecordRelation(self._connection, "records", types, self.columns, place)


@dataclass
class SurveyRange(_InWorker):
    """Rows of a range -> their survey."""

    def __call__(self, rows: pa.Table, row_range: RowRange) -> Survey:
        """Counts the range's records and finds their first and last instant."""
        return self.relation(rows, row_range.part.place).survey()


@dataclass(frozen=True)
class Stretch:
    """The steps first_step .. stop_step of an axis: what a range is to be numbered for."""

    axis: TimeAxis
    first_step: int
    stop_step: int
    in_order: bool


@dataclass
class NumberRange(_InWorker):
    """Rows of a range -> the records of its task, a Stretch, numbered."""

    nodes: NodeIndex

    def __call__(self, rows: pa.Table, row_range: RowRange) -> list[RecordBlock]:
        """Numbers the steps and nodes of the range's records."""
        stretch: Stretch = row_range.task
        relation = self.relation(rows, row_range.part.place)
        return list(
            relation.blocks(
                self.nodes,
                stretch.axis,
                stretch.first_step,
                stretch.stop_step,
                in_order=stretch.in_order,
            )
        )
