"""Upload sessions: blocks that are staged one by one and shown by one commit."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.traffic import ENTRY, Entry
from maxcompute_emulator.tunnel.json_forms import schema_json
from maxcompute_emulator.tunnel.receiving import body
from maxcompute_emulator.tunnel.sessions import Session
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Upload
from maxcompute_emulator.wire.arrow_stream import decode_arrow
from maxcompute_emulator.wire.limits import MAX_CELL_BYTES
from maxcompute_emulator.wire.record_decoder import decode_records

MAX_BLOCKS = 20_000


@dataclass(kw_only=True)
class UploadSession(Session):
    """One upload session."""

    upload: Upload
    partition_columns: tuple[Column, ...]
    status: str = "normal"
    committed_blocks: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The session as the client reads it."""
        blocks = self.committed_blocks or self.upload.blocks()
        return {
            "UploadID": self.id,
            "Status": self.status,
            "UploadedBlockList": [{"BlockID": block} for block in blocks],
            "MaxFieldSize": MAX_CELL_BYTES,
            "Schema": schema_json(self.upload.columns, self.partition_columns),
            "QuotaName": self.quota_name,
        }

    def commit(self) -> None:
        """Show all blocks; a second time is a conflict."""
        with self.lock:
            blocks = self.upload.blocks()
            self.upload.commit(blocks)
            self.committed_blocks = blocks
            self.status = "closed"

    def discard(self) -> None:
        """Drop what is staged."""
        self.upload.discard()


async def receive_block(request: web.Request, session: UploadSession) -> web.Response:
    """Stage the block that a request carries."""
    block = request.query.get("blockid", "")
    if not block.isdecimal() or int(block) >= MAX_BLOCKS:
        raise errors.invalid_argument(f"blockid is '{block}'. Allowed: 0 to {MAX_BLOCKS - 1}.")
    batches = received_batches(request, session.upload.columns, "arrow" in request.query)
    await asyncio.to_thread(session.upload.write_block, int(block), batches)
    return web.Response(headers={"Content-Type": "application/json"})


def received_batches(
    request: web.Request, columns: tuple[Column, ...], is_arrow: bool
) -> Iterator[pa.RecordBatch]:
    """The rows of a request's body. To be read outside of the event loop's thread."""
    source = body(request)
    batches = decode_arrow(source, columns) if is_arrow else decode_records(source, columns)
    return _counted(batches, request[ENTRY])


def _counted(batches: Iterator[pa.RecordBatch], entry: Entry) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        entry.rows += batch.num_rows
        yield batch
