"""Rows out: a stream made in worker threads, sent at its pace, broken where a fault says so."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from maxcompute_emulator.faults import FAULT, Fault, reset
from maxcompute_emulator.traffic import ENTRY, TRAFFIC

_SETTLING_S = 0.01
_WRITE_BYTES = 256 * 1024


async def send(
    request: web.Request, pieces: Iterator[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer with the pieces; a small stream goes out in one write.

    A `ServiceError` from the first two pieces is still an answer of its own. Later ones can only
    break the connection off, as the service does.
    """
    sender = _Sender(request, headers)
    try:
        first, second = await _next(pieces), await _next(pieces)
        fault = request.get(FAULT)
        if fault is not None and fault.kind == "reset_inside":
            return await sender.broken(first or b"", second, fault)
        if second is None:
            return await sender.whole(first or b"")
        return await sender.streamed(first or b"", second, pieces)
    finally:
        await asyncio.to_thread(_close, pieces)


class _Sender:
    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        self._headers = {"Content-Type": "application/octet-stream", **headers}
        self._pace = request.app[TRAFFIC].pace()
        self._entry = request[ENTRY]
        self._response = web.StreamResponse(headers=self._headers)

    async def whole(self, body: bytes) -> web.Response:
        await self._pace.passed(len(body))
        return web.Response(body=body, headers=self._headers)

    async def streamed(
        self, first: bytes, second: bytes | None, pieces: Iterator[bytes]
    ) -> web.StreamResponse:
        await self._begin()
        await self._write(first)
        piece = second
        while piece is not None:
            following = asyncio.ensure_future(_next(pieces))
            try:
                await self._write(piece)
            finally:
                await asyncio.wait([following])
            try:
                piece = following.result()
            except Exception:
                self._entry.status = 500
                reset(self._request)
        await self._response.write_eof()
        return self._response

    async def broken(self, first: bytes, second: bytes | None, fault: Fault) -> web.StreamResponse:
        """Part of the body, then a reset, at a place that the fault chooses."""
        body = first + (second or b"")
        await self._begin()
        await self._write(body[: fault.cut(len(body))])
        await asyncio.sleep(_SETTLING_S)
        reset(self._request)
        return self._response

    async def _begin(self) -> None:
        self._response.enable_chunked_encoding()
        await self._response.prepare(self._request)
        self._entry.status = self._response.status

    async def _write(self, piece: bytes) -> None:
        for at in range(0, len(piece), _WRITE_BYTES):
            part = piece[at : at + _WRITE_BYTES]
            await self._pace.passed(len(part))
            await self._response.write(part)
            self._entry.bytes_out += len(part)


async def _next(pieces: Iterator[bytes]) -> bytes | None:
    return await asyncio.to_thread(next, pieces, None)


def _close(pieces: Any) -> None:
    pieces.close()
