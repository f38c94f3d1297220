"""Columns as the tunnel's JSON spells them."""

from collections.abc import Sequence
from typing import Any

from maxcompute_emulator.types import Column


def schema_json(
    columns: Sequence[Column], partition_columns: Sequence[Column] = ()
) -> dict[str, Any]:
    """A table's columns and partition keys."""
    return {
        "IsVirtualView": False,
        "columns": [_column_json(column) for column in columns],
        "partitionKeys": [_column_json(column) for column in partition_columns],
    }


def _column_json(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": str(column.type),
        "comment": column.comment,
        "nullable": column.nullable,
        "isNullable": column.nullable,
    }
