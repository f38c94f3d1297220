"""A table as it is at one moment, for those who only look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from maxcompute_emulator import errors
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse.partition_spec import format_spec, full_values
from maxcompute_emulator.warehouse.records import VIEW_KINDS, Part, PartValues, TableRecord
from maxcompute_emulator.warehouse.snapshot import Snapshot

if TYPE_CHECKING:
    from maxcompute_emulator.warehouse.warehouse import Warehouse


class Table:
    """A view of a table's state; it does not follow later changes.

    Times are seconds since 1970, in UTC.
    """

    def __init__(self, warehouse: Warehouse, record: TableRecord) -> None:
        self.record = record
        self.id = record.id
        self.project = record.project
        self.schema = record.schema
        self.name = record.name
        self.columns: tuple[Column, ...] = tuple(stored.column for stored in record.columns)
        self.partition_columns = record.partition_columns
        self.kind = record.kind
        self.comment = record.comment
        self.lifecycle = record.lifecycle
        self.created = record.created
        self.modified = record.modified
        self.ddl_time = record.ddl_time
        self.owner = record.owner
        self.properties = record.properties
        self.primary_key = record.primary_key
        self.view_text = record.view_text
        self.clustering = record.clustering
        self._warehouse = warehouse

    @property
    def is_view(self) -> bool:
        """Whether it is a view of either kind, which holds no rows."""
        return self.kind in VIEW_KINDS

    @property
    def is_transactional(self) -> bool:
        """Whether it was made with `transactional=true`."""
        return self.properties.get("transactional", "").lower() == "true"

    @property
    def partitions(self) -> Mapping[PartValues, Part]:
        """Partitions by their values; empty without partition keys."""
        return self.record.parts if self.partition_columns else {}

    @property
    def record_count(self) -> int:
        """Rows in all partitions."""
        return sum(part.rows for part in self.record.parts.values())

    @property
    def size_bytes(self) -> int:
        """An estimate of what all rows take."""
        return sum(part.size_bytes for part in self.record.parts.values())

    @property
    def full_name(self) -> str:
        """`project.schema.name`, as error messages say it."""
        return f"{self.project}.{self.schema}.{self.name}"

    def part(self, partition: str | None) -> Part:
        """The one part that a specification names.

        Raises:
            ServiceError: The specification is missing, does not fit, or names no partition.
        """
        if not self.partition_columns:
            if partition:
                raise errors.invalid_partition_spec(partition)
            return self.record.parts[()]
        if not partition:
            raise errors.missing_partition_spec(self.name)
        values = full_values(self.partition_columns, partition)
        if values not in self.record.parts:
            raise errors.no_such_partition(format_spec(self.partition_columns, values))
        return self.record.parts[values]

    def snapshot(self, partition: str | None = None) -> Snapshot:
        """The rows of a partition (or of the table) as they are now.

        Raises:
            ServiceError: As `part`; also when the table is a view.
        """
        if self.is_view:
            raise errors.invalid_argument(f"'{self.name}' is a view; the tunnel reads tables only.")
        part = self.part(partition)
        return self._warehouse.snapshot(self.record, part)

    def first_rows(
        self, partition: str | None, limit: int, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """The first rows of a partition, or of the table, with the columns of these names.

        Raises:
            ServiceError: As `snapshot`; also when a column is unknown.
        """
        left = limit
        for spec in [partition] if partition or not self.partition_columns else self._specs():
            snapshot = self.snapshot(spec)
            for batch in snapshot.read(0, min(left, snapshot.record_count), columns):
                left -= batch.num_rows
                yield batch
            if left <= 0:
                return

    def _specs(self) -> list[str]:
        return [format_spec(self.partition_columns, values) for values in self.partitions]
