"""What a project can hold elsewhere and never holds here: functions, volumes, models and more."""

from __future__ import annotations

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.rest.xml import answer, element
from maxcompute_emulator.warehouse import Warehouse

# The client sends the slash of `registration/functions` as `%2F`.
_LISTED = {
    "registration/functions": "Functions",
    "registration%2Ffunctions": "Functions",
    "resources": "Resources",
}
_REFUSED = ("offlinemodels", "users", "volumes", "xflows")


class AbsentHandlers:
    """Lists that are always empty, and refusals that say so."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def routes(self, project: str) -> list[web.RouteDef]:
        """The routes below a project's address."""
        lists = [f"{project}/{place}" for place in _LISTED]
        refused = [f"{project}/{place}" for place in _REFUSED]
        return [
            *(web.get(place, self._list) for place in lists),
            *(web.post(place, self._refuse) for place in [*lists, *refused]),
            *(web.get(place, self._refuse) for place in refused),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        schema = request.query.get("curr_schema") or "default"
        try:
            self._warehouse.schema(request.match_info["project"], schema)
        except errors.ServiceError as error:
            raise errors.no_such_object("Schema", schema) from error
        name = _LISTED[request.path.split("/", 4)[4]]
        return answer(element(name, element("Marker", text="")))

    async def _refuse(self, request: web.Request) -> web.Response:
        raise errors.unsupported(request.path.rsplit("/", 1)[-1])
