"""The tunnel: sessions that move rows in bulk, on tables and on the results of queries.

Answers are JSON, rows are streams of `wire`. Sessions live here; rows live in the warehouse.
"""

from aiohttp import web

from maxcompute_emulator.instances import Instances
from maxcompute_emulator.tunnel.instance_handlers import InstanceHandlers
from maxcompute_emulator.tunnel.preview import PreviewHandlers
from maxcompute_emulator.tunnel.sessions import Sessions
from maxcompute_emulator.tunnel.stream_uploads import StreamUploadHandlers
from maxcompute_emulator.tunnel.table_handlers import TableHandlers
from maxcompute_emulator.tunnel.upserts import UpsertHandlers
from maxcompute_emulator.warehouse import Warehouse

_TABLES = (
    "/projects/{project}/tables/{table}",
    "/projects/{project}/schemas/{schema}/tables/{table}",
)


def routes(warehouse: Warehouse, instances: Instances) -> list[web.RouteDef]:
    """The routes of the tunnel."""
    sessions = Sessions()
    tables = TableHandlers(warehouse, sessions)
    results = InstanceHandlers(instances, sessions)
    streams = StreamUploadHandlers(warehouse, sessions)
    upserts = UpsertHandlers(warehouse, sessions)
    previews = PreviewHandlers(warehouse)
    found = [
        web.post("/projects/{project}/instances/{instance}", results.post),
        web.get("/projects/{project}/instances/{instance}", results.get),
    ]
    for path in _TABLES:
        found += [
            web.post(path, tables.post),
            web.get(path, tables.get),
            web.put(path, tables.put),
            web.get(f"{path}/preview", previews.get),
            web.post(f"{path}/streams", streams.post),
            web.get(f"{path}/streams", streams.get),
            web.put(f"{path}/streams", streams.put),
            web.post(f"{path}/upserts", upserts.post),
            web.get(f"{path}/upserts", upserts.get),
            web.put(f"{path}/upserts", upserts.put),
            web.delete(f"{path}/upserts", upserts.delete),
        ]
    return found
