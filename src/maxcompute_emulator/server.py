"""The HTTP server: log, faults and signature around the handlers, and errors in the right shape.

The handlers themselves are in `rest` and `tunnel`, and arrive here as routes.
"""

import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from xml.sax.saxutils import escape

from aiohttp import web
from aiohttp.typedefs import Middleware

from maxcompute_emulator import faults, signature
from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.traffic import ENTRY, TRAFFIC, Entry, Traffic

REST_PREFIX = "/api"
CONTROL_PREFIX = "/emulator"

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(
    routes: Iterable[web.AbstractRouteDef],
    credentials: signature.Credentials,
    fault_rules: faults.Faults,
    traffic: Traffic,
) -> web.Application:
    """The application that serves `routes` to the holder of `credentials`."""
    app = web.Application(middlewares=[_gate(credentials)])
    app[faults.FAULTS] = fault_rules
    app[TRAFFIC] = traffic
    app.add_routes(routes)
    app.on_response_prepare.append(_stamp)
    return app


async def _stamp(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("x-odps-request-id", uuid.uuid4().hex.upper())
    response.headers.setdefault("Date", formatdate(time.time(), usegmt=True))


def _gate(credentials: signature.Credentials) -> Middleware:
    """What every request passes: the log, a possible fault, the signature.

    Requests to the control address pass none of them.
    """

    @web.middleware
    async def pass_through(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path.startswith(CONTROL_PREFIX + "/"):
            return await handler(request)
        entry = request.app[TRAFFIC].enter(request.method, request.path, request.query_string)
        entry.bytes_in = request.content_length or 0
        request[ENTRY] = entry
        try:
            response = await _answer(request, handler, entry, credentials)
        except ServiceError as error:
            response = error_response(request, error)
        except web.HTTPException as error:
            response = error_response(request, _as_service_error(error))
        except ConnectionError:
            # The client left or was made to; nobody reads this.
            return web.Response()
        except Exception:
            _log.exception("%s %s", request.method, request.path_qs)
            response = error_response(
                request, ServiceError("InternalServerError", "Service internal error.", 500)
            )
        entry.status = response.status
        if isinstance(response, web.Response) and isinstance(response.body, bytes | bytearray):
            entry.bytes_out = len(response.body)
        return response

    return pass_through


async def _answer(
    request: web.Request, handler: _Handler, entry: Entry, credentials: signature.Credentials
) -> web.StreamResponse:
    chosen = request.app[faults.FAULTS].choose(request)
    request[faults.FAULT] = chosen
    entry.fault = chosen.kind if chosen else None
    if chosen:
        await faults.before_handler(request, chosen)
    prefix = REST_PREFIX if request.path.startswith(REST_PREFIX + "/") else ""
    signature.verify(credentials, request.method, request.raw_path, prefix, request.headers)
    response = await handler(request)
    if chosen:
        faults.after_handler(request, chosen)
    return response


def error_response(request: web.Request, error: ServiceError) -> web.Response:
    """The error as this address words it: XML under `/api`, JSON at the tunnel."""
    request_id = uuid.uuid4().hex.upper()
    headers = {"x-odps-request-id": request_id}
    if request.path.startswith(REST_PREFIX + "/"):
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{escape(error.code)}</Code><Message>{_text(error.message)}</Message>"
            f"<RequestId>{request_id}</RequestId><HostId>{request.host}</HostId></Error>"
        )
        return web.Response(
            text=text, status=error.status, content_type="application/xml", headers=headers
        )
    body = json.dumps({"Code": error.code, "Message": error.message})
    return web.Response(
        text=body, status=error.status, content_type="application/json", headers=headers
    )


def _text(message: str) -> str:
    """XML text; characters that XML cannot carry at all become question marks."""
    printable = "".join(c if c in "\t\n\r" or c >= " " else "?" for c in message)
    return escape(printable.encode("utf-8", "replace").decode())


def _as_service_error(error: web.HTTPException) -> ServiceError:
    if error.status == 404:
        return ServiceError("NoSuchObject", "The requested resource does not exist.", 404)
    if error.status == 405:
        return ServiceError("MethodNotAllowed", "The resource does not allow this method.", 405)
    return ServiceError("InvalidParameter", error.reason, error.status)
