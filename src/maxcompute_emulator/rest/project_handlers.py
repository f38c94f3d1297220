"""Projects, and what the client asks before it does anything."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ElementTree

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.rest.paging import listing
from maxcompute_emulator.rest.xml import answer, element, http_date, object_headers
from maxcompute_emulator.warehouse import Warehouse

_REGION = "emulator"
_PROPERTIES = {
    "READ_TABLE_MAX_ROW": "10000",
    "odps.sql.allow.fullscan": "false",
    "odps.sql.type.system.odps2": "false",
    "odps.table.lifecycle": "optional",
    "odps.instance.priority.enable": "false",
}


class ProjectHandlers:
    """The requests on projects and on the service as a whole."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def logview_host(self, request: web.Request) -> web.Response:
        """Where a person could look at jobs."""
        return web.Response(text=f"http://{request.host}")

    async def tenant(self, _request: web.Request) -> web.Response:
        """The one tenant."""
        created = int(min(self._warehouse.projects().values(), default=0))
        tenant = {
            "Name": "emulator",
            "OwnerId": "1",
            "TenantId": "1",
            "TenantState": "NORMAL",
            "CreateTime": created,
            "UpdateTime": created,
            "TenantMeta": {},
            "Parameters": {},
        }
        return web.json_response({"Tenant": tenant})

    async def list(self, request: web.Request) -> web.Response:
        """Projects, by the start of their name and by owner."""
        prefix, owner = request.query.get("name", ""), request.query.get("owner")
        names = [
            name
            for name in sorted(self._warehouse.projects())
            if name.startswith(prefix.lower()) and owner in (None, self._warehouse.owner)
        ]
        return answer(listing(request, "Projects", names, self._project))

    async def get(self, request: web.Request) -> web.Response:
        """One project."""
        name = self._name(request)
        if "policy" in request.query:
            return web.Response(text="")
        created = self._warehouse.projects()[name]
        headers = object_headers(self._warehouse.owner, created, created)
        if "extended" in request.query:
            return answer(element("Project", _properties("ExtendedProperties")), headers=headers)
        return answer(self._project(name), headers=headers)

    async def put(self, request: web.Request) -> web.Response:
        """Settings of a project, which the emulator does not keep."""
        raise errors.no_permission(f"properties of project '{self._name(request)}' are fixed")

    async def tunnel(self, request: web.Request) -> web.Response:
        """Where the tunnel is: the same server."""
        self._name(request)
        return web.Response(text=request.host)

    async def system(self, request: web.Request) -> web.Response:
        """What a project runs on."""
        return web.json_response({"project": self._name(request), "cluster": "emulator"})

    async def logs(self, request: web.Request) -> web.Response:
        """The client's telemetry, which goes nowhere."""
        self._name(request)
        return web.Response()

    async def authorization(self, request: web.Request) -> web.Response:
        """Security queries: who the caller is, and tokens for looking at jobs."""
        name = self._name(request)
        if "sign_bearer_token" in request.query:
            await request.read()
            return answer(element("Authorization", element("Result", text="emulator-token")))
        body = await request.read()
        query = await asyncio.to_thread(_security_query, body)
        if query.lower() != "whoami":
            raise errors.unsupported(f"security query '{query[:40]}'")
        owner = self._warehouse.owner
        user = {"ID": "1", "DisplayName": owner, "ProjectName": name}
        return answer(element("Authorization", element("Result", text=json.dumps(user))))

    def _name(self, request: web.Request) -> str:
        name = request.match_info["project"]
        if not self._warehouse.has_project(name):
            raise errors.no_such_project(name)
        return name.lower()

    def _project(self, name: str) -> str:
        created = http_date(self._warehouse.projects()[name])
        return element(
            "Project",
            element("Name", text=name),
            element("Type", text="managed"),
            element("Comment", text=""),
            element("Owner", text=self._warehouse.owner),
            element("SuperAdministrator", text=self._warehouse.owner),
            element("CreationTime", text=created),
            element("LastModifiedTime", text=created),
            element("ProjectGroupName", text=""),
            element("State", text="AVAILABLE"),
            element("Region", text=_REGION),
            element("TenantId", text="1"),
            element("DefaultQuotaNickname", text="default"),
            element("Clusters"),
            _properties("Properties"),
        )


def _properties(name: str) -> str:
    items = (
        element("Property", element("Name", text=key), element("Value", text=value))
        for key, value in _PROPERTIES.items()
    )
    return element(name, *items)


def _security_query(body: bytes) -> str:
    try:
        root = ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError:
        raise errors.invalid_argument("The body is no XML.") from None
    return (root.findtext("Query") or "").strip().rstrip(";")
