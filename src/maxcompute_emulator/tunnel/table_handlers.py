"""Download and upload sessions on tables."""

import asyncio

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.tunnel.downloads import Download, send_rows
from maxcompute_emulator.tunnel.json_forms import session_answer
from maxcompute_emulator.tunnel.sessions import Sessions, owner_of
from maxcompute_emulator.tunnel.uploads import UploadSession, receive_block
from maxcompute_emulator.warehouse import Table, Warehouse


def requested_table(warehouse: Warehouse, request: web.Request) -> Table:
    """The table that a request's path names."""
    match = request.match_info
    return warehouse.table(match["project"], match.get("schema"), match["table"])


def is_set(request: web.Request, name: str) -> bool:
    """Whether a flag of the query is there and not `false`."""
    return name in request.query and request.query[name].lower() != "false"


class TableHandlers:
    """The requests on `.../tables/T` itself; what they want is in the query."""

    def __init__(self, warehouse: Warehouse, sessions: Sessions) -> None:
        self._warehouse = warehouse
        self._sessions = sessions

    async def post(self, request: web.Request) -> web.Response:
        """Open a session, or commit one."""
        if "downloads" in request.query:
            return session_answer((await asyncio.to_thread(self._download, request)).to_json())
        if "uploads" in request.query:
            return session_answer((await asyncio.to_thread(self._upload, request)).to_json())
        if "uploadid" in request.query:
            session = self._upload_session(request)
            await asyncio.to_thread(session.commit)
            return web.json_response(session.to_json())
        raise errors.invalid_argument("Allowed: POST with downloads, uploads or uploadid.")

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Look at a session, or read rows."""
        if "downloadid" in request.query:
            download = self._sessions.get(request, "downloadid", Download, errors.no_such_download)
            if "data" in request.query:
                return await send_rows(request, download)
            return session_answer(download.to_json())
        if "uploadid" in request.query:
            return session_answer(self._upload_session(request).to_json())
        raise errors.invalid_argument("Allowed: GET with downloadid or uploadid.")

    async def put(self, request: web.Request) -> web.Response:
        """Write a block."""
        if "uploadid" not in request.query:
            raise errors.invalid_argument("Allowed: PUT with uploadid and blockid.")
        return await receive_block(request, self._upload_session(request))

    def _upload_session(self, request: web.Request) -> UploadSession:
        return self._sessions.get(request, "uploadid", UploadSession, errors.no_such_upload)

    def _download(self, request: web.Request) -> Download:
        table = requested_table(self._warehouse, request)
        snapshot = table.snapshot(request.query.get("partition"))
        download = Download(
            owner=owner_of(request),
            quota_name=request.query.get("quotaName"),
            snapshot=snapshot,
            record_count=snapshot.record_count,
        )
        self._sessions.add(download)
        return download

    def _upload(self, request: web.Request) -> UploadSession:
        table = requested_table(self._warehouse, request)
        upload = self._warehouse.begin_upload(
            table,
            request.query.get("partition"),
            overwrite=is_set(request, "overwrite"),
            create_partition=is_set(request, "create_partition"),
        )
        session = UploadSession(
            owner=owner_of(request),
            quota_name=request.query.get("quotaName"),
            upload=upload,
            partition_columns=table.partition_columns,
        )
        self._sessions.add(session)
        return session
