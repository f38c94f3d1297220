"""The REST service under `/api`: projects, schemas, tables and instances, in XML."""

from aiohttp import web

from maxcompute_emulator.instances import Instances
from maxcompute_emulator.rest.absent_handlers import AbsentHandlers
from maxcompute_emulator.rest.instance_handlers import InstanceHandlers
from maxcompute_emulator.rest.project_handlers import ProjectHandlers
from maxcompute_emulator.rest.schema_handlers import SchemaHandlers
from maxcompute_emulator.rest.table_handlers import TableHandlers
from maxcompute_emulator.warehouse import Warehouse

_PROJECT = "/api/projects/{project}"


def routes(warehouse: Warehouse, instances: Instances) -> list[web.RouteDef]:
    """The routes of the REST service."""
    projects = ProjectHandlers(warehouse)
    schemas = SchemaHandlers(warehouse)
    tables = TableHandlers(warehouse)
    jobs = InstanceHandlers(instances, warehouse.time_zone)
    return [
        web.get("/api/logview/host", projects.logview_host),
        web.get("/api/tenants", projects.tenant),
        web.get("/api/projects", projects.list),
        web.get(_PROJECT, projects.get),
        web.put(_PROJECT, projects.put),
        web.get(f"{_PROJECT}/tunnel", projects.tunnel),
        web.get(f"{_PROJECT}/system", projects.system),
        web.put(f"{_PROJECT}/logs", projects.logs),
        web.post(f"{_PROJECT}/authorization", projects.authorization),
        *AbsentHandlers(warehouse).routes(_PROJECT),
        web.get(f"{_PROJECT}/schemas", schemas.list),
        web.post(f"{_PROJECT}/schemas", schemas.create),
        web.get(f"{_PROJECT}/schemas/{{schema}}", schemas.get),
        web.delete(f"{_PROJECT}/schemas/{{schema}}", schemas.delete),
        *_table_routes(_PROJECT, tables),
        *_table_routes(f"{_PROJECT}/schemas/{{schema}}", tables),
        web.post(f"{_PROJECT}/instances", jobs.submit),
        web.get(f"{_PROJECT}/instances", jobs.list),
        web.get(f"{_PROJECT}/cachedinstances", jobs.queue),
        web.get(f"{_PROJECT}/instances/{{instance}}", jobs.get),
        web.put(f"{_PROJECT}/instances/{{instance}}", jobs.put),
    ]


def _table_routes(place: str, tables: TableHandlers) -> list[web.RouteDef]:
    return [
        web.get(f"{place}/tables", tables.list),
        web.get(f"{place}/tables/{{table}}", tables.get),
    ]
