"""Schemas of a project."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ElementTree

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.rest.paging import listing
from maxcompute_emulator.rest.xml import answer, element, http_date, object_headers
from maxcompute_emulator.warehouse import SchemaRecord, Warehouse


class SchemaHandlers:
    """The requests on `/projects/P/schemas`."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def list(self, request: web.Request) -> web.Response:
        """Schemas, by the start of their name and by owner."""
        prefix, owner = request.query.get("name", ""), request.query.get("owner")
        found = [
            schema
            for schema in self._warehouse.schemas(request.match_info["project"])
            if schema.name.startswith(prefix.lower()) and owner in (None, schema.owner)
        ]
        return answer(listing(request, "Schemas", found, _schema))

    async def get(self, request: web.Request) -> web.Response:
        """One schema."""
        place = request.match_info
        try:
            schema = self._warehouse.schema(place["project"], place["schema"])
        except errors.ServiceError as error:
            # Of a missing schema the client expects the general code here.
            raise errors.no_such_object("Schema", place["schema"]) from error
        headers = object_headers(schema.owner, schema.created, schema.created)
        return answer(_schema(schema), headers=headers)

    async def create(self, request: web.Request) -> web.Response:
        """Make a schema."""
        body = await request.read()
        await asyncio.to_thread(self._create, request.match_info["project"], body)
        return web.Response(status=201)

    def _create(self, project: str, body: bytes) -> None:
        try:
            root = ElementTree.fromstring(body)  # noqa: S314
        except ElementTree.ParseError:
            raise errors.invalid_argument("The body is no XML.") from None
        name = (root.findtext("Name") or "").strip()
        if not name.isidentifier():
            raise errors.invalid_argument(f"'{name}' is no name for a schema.")
        self._warehouse.create_schema(project, name, root.findtext("Description") or "")

    async def delete(self, request: web.Request) -> web.Response:
        """Drop a schema."""
        place = request.match_info
        await asyncio.to_thread(self._warehouse.drop_schema, place["project"], place["schema"])
        return web.Response(status=204)


def _schema(schema: SchemaRecord) -> str:
    return element(
        "Schema",
        element("Name", text=schema.name),
        element("Owner", text=schema.owner),
        element("Description", text=schema.comment),
        element("Type", text="managed"),
        element("CreateTime", text=http_date(schema.created)),
        element("ModifyTime", text=http_date(schema.created)),
    )
