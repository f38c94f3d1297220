"""The control address `/emulator`: faults, request log, bandwidth and projects, as JSON, unsigned.

Meant for tests and demonstrations. The service itself has nothing like it.
"""

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from maxcompute_emulator.faults import FAULTS, Rule
from maxcompute_emulator.traffic import TRAFFIC


def routes(add_project: Callable[[str], None]) -> list[web.RouteDef]:
    """The routes of the control address."""

    async def put_project(request: web.Request) -> web.Response:
        name = await _field(request, "name")
        if not isinstance(name, str) or not name:
            raise _refusal(f"name is {name!r}. Allowed: a project's name.")
        add_project(name)
        return _done()

    return [
        web.get("/emulator/health", _health),
        web.put("/emulator/faults", _put_faults),
        web.delete("/emulator/faults", _delete_faults),
        web.get("/emulator/requests", _get_requests),
        web.delete("/emulator/requests", _delete_requests),
        web.put("/emulator/bandwidth", _put_bandwidth),
        web.put("/emulator/projects", put_project),
    ]


async def _health(_request: web.Request) -> web.Response:
    return _done()


async def _put_faults(request: web.Request) -> web.Response:
    given = await _json(request)
    given = given if isinstance(given, list) else [given]
    try:
        rules = tuple(Rule.from_json(fields) for fields in given)
    except (ValueError, TypeError) as error:
        raise _refusal(str(error)) from error
    request.app[FAULTS].set(rules)
    return _done()


async def _delete_faults(request: web.Request) -> web.Response:
    request.app[FAULTS].set(())
    return _done()


async def _get_requests(request: web.Request) -> web.Response:
    return web.json_response(request.app[TRAFFIC].entries())


async def _delete_requests(request: web.Request) -> web.Response:
    request.app[TRAFFIC].clear()
    return _done()


async def _put_bandwidth(request: web.Request) -> web.Response:
    rate = await _field(request, "bytes_per_second")
    if rate is not None and (not isinstance(rate, int | float) or rate <= 0):
        raise _refusal(f"bytes_per_second is {rate!r}. Allowed: a positive number, or null.")
    request.app[TRAFFIC].bytes_per_second = rate
    return _done()


async def _field(request: web.Request, name: str) -> Any:
    given = await _json(request)
    if not isinstance(given, dict) or set(given) != {name}:
        raise _refusal(f'Send {{"{name}": ...}} and nothing else.')
    return given[name]


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise _refusal(f"The body is not JSON: {error}") from error


def _done() -> web.Response:
    return web.json_response({"ok": True})


def _refusal(message: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps({"error": message}), content_type="application/json")
