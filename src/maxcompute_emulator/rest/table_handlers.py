"""Tables, partitions and previews."""

from __future__ import annotations

import asyncio

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.rest.csv_rows import csv_rows
from maxcompute_emulator.rest.paging import listing
from maxcompute_emulator.rest.table_xml import (
    listed_partition_xml,
    listed_table_xml,
    partition_xml,
    table_xml,
)
from maxcompute_emulator.rest.xml import answer, object_headers
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Table, Warehouse
from maxcompute_emulator.warehouse.partition_spec import matches, parse_spec

_MAX_PREVIEW_ROWS = 10_000


class TableHandlers:
    """The requests on `/projects/P/tables`, with the schema in the path or as a parameter."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def list(self, request: web.Request) -> web.Response:
        """Tables, by the start of their name, owner and kind."""
        return answer(await asyncio.to_thread(self._list, request))

    def _list(self, request: web.Request) -> str:
        query = request.query
        prefix, owner, kind = query.get("name", ""), query.get("owner"), query.get("type")
        found = [
            table
            for table in self._warehouse.tables(request.match_info["project"], _schema(request))
            if table.name.startswith(prefix.lower())
            and owner in (None, table.owner)
            and kind in (None, table.kind)
        ]
        extended = "extended" in query
        return listing(request, "Tables", found, lambda table: listed_table_xml(table, extended))

    async def get(self, request: web.Request) -> web.Response:
        """One table: itself, its partitions, one of them, or its first rows."""
        return await asyncio.to_thread(self._get, request)

    def _get(self, request: web.Request) -> web.Response:
        place, query = request.match_info, request.query
        self._warehouse.expire()
        table = self._warehouse.table(place["project"], _schema(request), place["table"])
        if "data" in query:
            return self._preview(request, table)
        if "partitions" in query:
            return answer(_partitions(request, table))
        if "partition" in query:
            part = table.part(query["partition"])
            return answer(partition_xml(table, part, "extended" in query))
        headers = object_headers(table.owner, table.created, table.modified)
        return answer(table_xml(table, "extended" in query), headers=headers)

    def _preview(self, request: web.Request, table: Table) -> web.Response:
        text = request.query.get("linenum", "100")
        if not text.isdecimal():
            raise errors.invalid_argument(f"'linenum' must be a number, not '{text}'.")
        limit = min(int(text), _MAX_PREVIEW_ROWS)
        names = [name for name in request.query.get("cols", "").split(",") if name]
        columns = _chosen(table, names)
        wanted = [column.name for column in columns]
        rows = table.first_rows(request.query.get("partition"), limit, wanted)
        body = csv_rows(columns, rows, self._warehouse.time_zone)
        return web.Response(body=body, content_type="text/csv", charset="utf-8")


def _schema(request: web.Request) -> str | None:
    query = request.query
    path: str | None = request.match_info.get("schema")
    return path or query.get("curr_schema") or query.get("schema_name")


def _chosen(table: Table, names: list[str]) -> list[Column]:
    everything = [*table.columns, *table.partition_columns]
    known = {column.name.lower() for column in everything}
    for name in names:
        if name.lower() not in known:
            raise errors.invalid_column_name(name)
    lowered = {name.lower() for name in names}
    return [column for column in everything if column.name.lower() in lowered] or everything


def _partitions(request: web.Request, table: Table) -> str:
    if not table.partition_columns:
        raise errors.invalid_argument(f"Table '{table.name}' is not a partitioned table.")
    spec = parse_spec(request.query.get("partition", ""))
    found = [
        part
        for values, part in sorted(table.partitions.items(), reverse="reverse" in request.query)
        if matches(table.partition_columns, spec, values)
    ]
    return listing(request, "Partitions", found, lambda part: listed_partition_xml(table, part))
