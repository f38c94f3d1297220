"""What the service says of a table: its columns, its partitions, when it was written."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowpatch.errors import QueryError
from flowpatch.maxcompute.connection import Connection, table_of
from flowpatch.maxcompute.names import TableName, partition_spec
from flowpatch.maxcompute.patience import Patience


@dataclass(frozen=True)
class Partition:
    """One partition: its columns' values, and when it was last written."""

    values: tuple[tuple[str, str], ...]
    modified: str | None

    @property
    def spec(self) -> str:
        """`ds='20250919'`."""
        return partition_spec(dict(self.values))


@dataclass(frozen=True)
class TableInfo:
    """A table's columns with MaxCompute's types, those of its partitions last.

    `partition_columns` is empty, and so is `partitions`, for a table without any.
    """

    name: TableName
    columns: Mapping[str, str]
    partition_columns: tuple[str, ...]
    created: str | None
    modified: str | None
    bytes: int | None
    partitions: tuple[Partition, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What changes when the table is written, dropped or made anew."""
        return {
            "table": self.name.address,
            "created": self.created,
            "modified": self.modified,
            "bytes": self.bytes,
            "partitions": {partition.spec: partition.modified for partition in self.partitions},
        }


def describe_table(connection: Connection, patience: Patience, name: TableName) -> TableInfo:
    """Columns, times and partitions of a table.

    Raises:
        TableNotFoundError: there is no such table.
        QueryError: it is a view, which the tunnel cannot read.
    """
    what = f"Looking at {name.address}"
    client = connection.client()

    def load() -> Any:
        table = table_of(client, name)
        table.reload()
        return table

    table = patience.try_again(load, what)
    if table.is_virtual_view:
        raise QueryError(
            f"{name.address} is a view, and the tunnel reads tables alone. Make a table of it: "
            f"CREATE TABLE ... LIFECYCLE 7 AS SELECT * FROM {name.table}."
        )
    schema = table.table_schema
    keys = tuple(column.name for column in schema.partitions)
    found: tuple[Partition, ...] = ()
    if keys:
        found = patience.try_again(
            lambda: tuple(_partition(item, keys) for item in table.iterate_partitions()), what
        )
    return TableInfo(
        name=name,
        columns={
            column.name: str(column.type).lower()
            for column in (*schema.simple_columns, *schema.partitions)
        },
        partition_columns=keys,
        created=_instant(table.creation_time),
        modified=_instant(table.last_data_modified_time),
        bytes=table.size,
        partitions=found,
    )


def table_exists(connection: Connection, patience: Patience, name: TableName) -> bool:
    """Whether there is such a table."""
    client = connection.client()
    return bool(
        patience.try_again(
            lambda: client.exist_table(name.table, project=name.project, schema=name.schema),
            f"Looking for {name.address}",
        )
    )


def _partition(item: Any, keys: tuple[str, ...]) -> Partition:
    values = tuple((key, str(item.partition_spec[key])) for key in keys)
    return Partition(values, _instant(item.last_data_modified_time))


def _instant(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat()
