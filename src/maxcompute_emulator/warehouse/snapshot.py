"""Rows in a stable order, read by range: what a download session holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from maxcompute_emulator import errors
from maxcompute_emulator.types import Column, arrow_schema, duckdb_type
from maxcompute_emulator.warehouse import arrow_forms
from maxcompute_emulator.warehouse.records import Part, Segment, StoredColumn
from maxcompute_emulator.warehouse.storage import (
    Storage,
    begin,
    column_in,
    literal,
    quoted,
    segment_name,
)

# Begins a transaction on the cursor and gives the part as that transaction sees it.
OpenPart = Callable[[duckdb.DuckDBPyConnection], Part]


@dataclass(frozen=True)
class _Output:
    """A column to give: stored, or a partition key with its one value."""

    column: Column
    stored: StoredColumn | None = None
    value: str = ""

    def expression(self, segment: Segment) -> str:
        kind = duckdb_type(self.column.type)
        value = (
            column_in(segment, self.stored)
            if self.stored
            else f"CAST({literal(self.value)} AS {kind})"
        )
        return f"{value} AS {quoted(self.column.name)}"


class Snapshot:
    """The rows of a partition, a table without partitions, or a result, as of one moment.

    Attributes:
        columns: All columns that rows have, in table order; partition keys come last and are
            given only when asked for by name.
        record_count: How many rows.
    """

    def __init__(
        self,
        storage: Storage,
        columns: Sequence[StoredColumn],
        part: Part,
        open_part: OpenPart,
        partition_columns: Sequence[Column] = (),
    ) -> None:
        self.columns = tuple(stored.column for stored in columns)
        self.partition_columns = tuple(partition_columns)
        self.record_count = part.rows
        self._storage = storage
        self._outputs = [_Output(stored.column, stored) for stored in columns]
        keys = zip(partition_columns, part.values, strict=True)
        self._keys = [_Output(column, value=value) for column, value in keys]
        self._open_part = open_part

    def read(
        self, start: int, count: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows `start` to `start + count`, as far as there are any.

        Args:
            start: The first row.
            count: How many rows.
            columns: Names to give, in any case; the batches hold them in table order.

        Raises:
            ServiceError: A column is unknown, or the data changed since the snapshot.
        """
        outputs = self._chosen(columns)
        cursor = self._storage.cursor()
        try:
            part = self._open_part(cursor)
        except BaseException:
            cursor.close()
            raise
        return self._stream(cursor, part, outputs, start, start + count)

    def _chosen(self, names: Sequence[str] | None) -> list[_Output]:
        if names is None:
            return self._outputs
        everything = [*self._outputs, *self._keys]
        known = {output.column.name.lower() for output in everything}
        for name in names:
            if name.lower() not in known:
                raise errors.invalid_column_name(name)
        wanted = {name.lower() for name in names}
        return [output for output in everything if output.column.name.lower() in wanted]

    def _stream(
        self,
        cursor: duckdb.DuckDBPyConnection,
        part: Part,
        outputs: list[_Output],
        start: int,
        stop: int,
    ) -> Iterator[pa.RecordBatch]:
        schema = arrow_schema(tuple(output.column for output in outputs))
        try:
            offset = 0
            for segment in part.segments:
                low, high = max(start - offset, 0), min(stop - offset, segment.rows)
                offset += segment.rows
                if low >= high:
                    continue
                items = ", ".join(output.expression(segment) for output in outputs)
                select = (
                    f"SELECT {items} FROM {segment_name(segment.id)} "
                    f"WHERE rowid >= {low} AND rowid < {high}"
                )
                escaped = _escaped_names(segment, outputs)
                for batch in self._storage.read(cursor, segment, select):
                    yield arrow_forms.from_duckdb(batch, schema, escaped)
        finally:
            cursor.close()


def _escaped_names(segment: Segment, outputs: list[_Output]) -> frozenset[str]:
    return frozenset(
        output.column.name
        for output in outputs
        if output.stored and output.stored.id in segment.escaped
    )


def fixed_part(part: Part) -> OpenPart:
    """For rows that nothing changes: a result."""

    def open_part(cursor: duckdb.DuckDBPyConnection) -> Part:
        begin(cursor)
        return part

    return open_part
