"""Stream uploads: each body is shown as soon as it has arrived, without a commit."""

import asyncio
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.tunnel.json_forms import schema_json
from maxcompute_emulator.tunnel.sessions import Session, Sessions, owner_of
from maxcompute_emulator.tunnel.table_handlers import is_set, requested_table
from maxcompute_emulator.tunnel.uploads import received_batches
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Upload, Warehouse

_ONLY_BLOCK = 0


@dataclass(kw_only=True)
class StreamUpload(Session):
    """One stream upload session."""

    columns: tuple[Column, ...]
    partition_columns: tuple[Column, ...]
    partition: str | None
    schema_version: str | None

    def to_json(self, server: str) -> dict[str, Any]:
        """The session as the client reads it; this server has one slot."""
        return {
            "session_name": self.id,
            "status": "normal",
            "slots": [["0", server]],
            "schema": schema_json(self.columns, self.partition_columns),
            "QuotaName": self.quota_name,
            "schema_version": self.schema_version,
        }


class StreamUploadHandlers:
    """The requests on `.../tables/T/streams`."""

    def __init__(self, warehouse: Warehouse, sessions: Sessions) -> None:
        self._warehouse = warehouse
        self._sessions = sessions

    async def post(self, request: web.Request) -> web.Response:
        """Open a session, or end one."""
        if "uploadid" in request.query:
            session = self._session(request)
            self._sessions.forget(session)
        else:
            session = await asyncio.to_thread(self._open, request)
        return web.json_response(session.to_json(request.host))

    async def get(self, request: web.Request) -> web.Response:
        """Look at a session."""
        return web.json_response(self._session(request).to_json(request.host))

    async def put(self, request: web.Request) -> web.Response:
        """Take rows and show them."""
        session = self._session(request)
        batches = received_batches(request, session.columns, is_arrow=False)
        upload = await asyncio.to_thread(self._begin, request, session)
        try:
            await asyncio.to_thread(upload.write_block, _ONLY_BLOCK, batches)
            await asyncio.to_thread(upload.commit, [_ONLY_BLOCK])
        except BaseException:
            await asyncio.to_thread(upload.discard)
            raise
        headers = {"odps-tunnel-routed-server": request.host, "odps-tunnel-slot-num": "1"}
        return web.Response(headers=headers)

    def _open(self, request: web.Request) -> StreamUpload:
        if is_set(request, "dynamic_partition"):
            raise errors.invalid_argument("The emulator does not take dynamic_partition.")
        table = requested_table(self._warehouse, request)
        partition = request.query.get("partition")
        probe = self._warehouse.begin_upload(
            table, partition, create_partition=is_set(request, "create_partition")
        )
        probe.discard()
        session = StreamUpload(
            owner=owner_of(request),
            quota_name=request.query.get("quotaName"),
            columns=table.columns,
            partition_columns=table.partition_columns,
            partition=partition,
            schema_version=request.query.get("schema_version"),
        )
        self._sessions.add(session)
        return session

    def _begin(self, request: web.Request, session: StreamUpload) -> Upload:
        table = requested_table(self._warehouse, request)
        return self._warehouse.begin_upload(table, session.partition)

    def _session(self, request: web.Request) -> StreamUpload:
        return self._sessions.get(request, "uploadid", StreamUpload, _missing)


def _missing(session_id: str) -> ServiceError:
    message = f"The specified stream session '{session_id}' does not exist."
    return ServiceError("StreamSessionNotFound", message, errors.NOT_FOUND)
