"""Columns and sessions as the tunnel's JSON spells them."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

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


def session_answer(session: Mapping[str, Any]) -> web.Response:
    """Answer with a session, and close the connection.

    A client that forks its workers now would share a connection that stays open between them, and
    they would take each other's rows.
    """
    response = web.json_response(session)
    response.force_close()
    return response


def _column_json(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": str(column.type),
        "comment": column.comment,
        "nullable": column.nullable,
        "isNullable": column.nullable,
    }
