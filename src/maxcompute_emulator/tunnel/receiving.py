"""Rows in: a request's body as a file for a worker thread, read from the network at its pace."""

import asyncio
from collections.abc import Iterator
from typing import BinaryIO

from aiohttp import web

from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.traffic import ENTRY, TRAFFIC, Pace
from maxcompute_emulator.wire.compression import decompressed
from maxcompute_emulator.wire.piece_file import piece_file

_PIECE_BYTES = 1 << 20


def body(request: web.Request) -> BinaryIO:
    """The request's body without its compression. To be read outside of the event loop's thread."""
    pieces = _pieces(request, asyncio.get_running_loop(), request.app[TRAFFIC].pace())
    return decompressed(piece_file(pieces), request.headers.get("Content-Encoding"))


def _pieces(request: web.Request, loop: asyncio.AbstractEventLoop, pace: Pace) -> Iterator[bytes]:
    entry = request[ENTRY]
    entry.bytes_in = 0
    while piece := asyncio.run_coroutine_threadsafe(_next_piece(request, pace), loop).result():
        entry.bytes_in += len(piece)
        yield piece


async def _next_piece(request: web.Request, pace: Pace) -> bytes:
    """About a megabyte, or what is left."""
    parts: list[bytes] = []
    missing = _PIECE_BYTES
    try:
        while missing > 0 and (part := await request.content.readany()):
            parts.append(part)
            missing -= len(part)
            await pace.passed(len(part))
    except (web.RequestPayloadError, ConnectionError) as error:
        raise ServiceError("MalformedDataStream", "The request's body broke off.") from error
    return b"".join(parts)
