"""The first rows of a table as a plain Arrow IPC stream, of all partitions where none is named."""

import asyncio
import io
from collections.abc import Iterator

import pyarrow as pa
from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.tunnel.sending import send
from maxcompute_emulator.tunnel.table_handlers import requested_table
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Warehouse
from maxcompute_emulator.wire.arrow_stream import in_wire_form, wire_schema
from maxcompute_emulator.wire.pieces import pieces

MAX_ROWS = 10_000
_COMPRESSIONS = {"zstd": "zstd", "lz4_frame": "lz4"}


class PreviewHandlers:
    """The requests on `.../tables/T/preview`."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Read the first rows."""
        stream = await asyncio.to_thread(self._open, request)
        return await send(request, stream, {})

    def _open(self, request: web.Request) -> Iterator[bytes]:
        table = requested_table(self._warehouse, request)
        known = (*table.columns, *table.partition_columns)
        asked = request.query.get("columns")
        wanted = [name.strip().lower() for name in asked.split(",")] if asked else None
        columns = [c for c in known if wanted is None or c.name.lower() in wanted]
        names = [column.name for column in columns]
        batches = table.first_rows(request.query.get("partition"), _limit(request), names)
        accepted = request.headers.get("Accept-Encoding", "").lower()
        return _ipc_stream(batches, columns, _COMPRESSIONS.get(accepted))


def _ipc_stream(
    batches: Iterator[pa.RecordBatch], columns: list[Column], compression: str | None
) -> Iterator[bytes]:
    schema = wire_schema(columns, timestamps_as_structs=True)
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for batch in pieces(batches):
            writer.write_batch(in_wire_form(batch, schema))
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", "-1")
    try:
        limit = int(text)
    except ValueError as error:
        raise errors.invalid_argument(f"limit is '{text}'. Allowed: a number of rows.") from error
    return min(limit, MAX_ROWS) if limit >= 0 else MAX_ROWS
