"""Download sessions on the results of queries."""

import asyncio

from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.instances import Instances
from maxcompute_emulator.tunnel.downloads import Download, send_rows
from maxcompute_emulator.tunnel.json_forms import session_answer
from maxcompute_emulator.tunnel.sessions import Sessions, owner_of

LIMITED_ROWS = 10_000


class InstanceHandlers:
    """The requests on `/projects/P/instances/I`."""

    def __init__(self, instances: Instances, sessions: Sessions) -> None:
        self._instances = instances
        self._sessions = sessions

    async def post(self, request: web.Request) -> web.Response:
        """Open a session."""
        if "downloads" not in request.query:
            raise errors.invalid_argument("Allowed: POST with downloads.")
        return session_answer((await asyncio.to_thread(self._download, request)).to_json())

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Look at a session, or read rows."""
        if "downloadid" not in request.query:
            raise errors.invalid_argument("Allowed: GET with downloadid.")
        download = self._sessions.get(request, "downloadid", Download, errors.no_such_download)
        if "data" in request.query:
            return await send_rows(request, download)
        return session_answer(download.to_json())

    def _download(self, request: web.Request) -> Download:
        match = request.match_info
        instance = self._instances.get(match["project"], match["instance"])
        snapshot = instance.result_snapshot()
        n_rows = snapshot.record_count
        is_limited = "instance_tunnel_limit_enabled" in request.query
        download = Download(
            owner=owner_of(request),
            quota_name=request.query.get("quotaName"),
            snapshot=snapshot,
            record_count=min(n_rows, LIMITED_ROWS) if is_limited else n_rows,
            timestamps_as_structs=True,
        )
        self._sessions.add(download)
        return download
