"""Download sessions: a snapshot of rows, given out by range in either form."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.faults import FAULT
from maxcompute_emulator.traffic import ENTRY, Entry
from maxcompute_emulator.tunnel.json_forms import schema_json
from maxcompute_emulator.tunnel.sending import send
from maxcompute_emulator.tunnel.sessions import Session
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Snapshot
from maxcompute_emulator.wire.arrow_stream import encode_arrow
from maxcompute_emulator.wire.compression import chosen_encoding, compressed
from maxcompute_emulator.wire.record_encoder import encode_records

_ROW_RANGE = re.compile(r"\((-?\d+),(-?\d+)\)")


@dataclass(kw_only=True)
class Download(Session):
    """One download session.

    Attributes:
        snapshot: The rows.
        record_count: How many of them the session gives.
        timestamps_as_structs: Whether Arrow streams carry TIMESTAMP as seconds and nanoseconds.
    """

    snapshot: Snapshot
    record_count: int
    timestamps_as_structs: bool = False

    def to_json(self) -> dict[str, Any]:
        """The session as the client reads it."""
        return {
            "DownloadID": self.id,
            "Status": "normal",
            "RecordCount": self.record_count,
            "Schema": schema_json(self.snapshot.columns, self.snapshot.partition_columns),
            "QuotaName": self.quota_name,
            "SupportReadByRawSize": True,
        }


async def send_rows(request: web.Request, download: Download) -> web.StreamResponse:
    """Answer a data request of a session."""
    start, count = _row_range(request.query.get("rowrange", ""), download.record_count)
    names, columns = _columns(request.query.get("columns"), download.snapshot)
    fault = request.get(FAULT)
    batches: Iterator[pa.RecordBatch] = iter(())
    if count > 0 and not (fault and fault.kind == "empty_body"):
        batches = await asyncio.to_thread(download.snapshot.read, start, count, names)
    batches = _padded(batches, columns)
    batches = _counted(_limited(batches, _raw_size(request)), request[ENTRY])
    if "arrow" in request.query:
        in_table_order = [c for c in _all_columns(download.snapshot) if c in columns]
        pieces = encode_arrow(batches, in_table_order, download.timestamps_as_structs)
    else:
        pieces = encode_records(batches, columns)
    encoding = chosen_encoding(request.headers.get("Accept-Encoding"))
    headers = {"Content-Encoding": encoding} if encoding else {}
    return await send(request, compressed(pieces, encoding), headers)


def _row_range(text: str, total: int) -> tuple[int, int]:
    """Start and count, clamped to the rows there are."""
    match = _ROW_RANGE.fullmatch(text)
    if not match:
        raise errors.invalid_argument(f"rowrange is '{text}'. Allowed: (start,count).")
    start, count = int(match[1]), int(match[2])
    if start < 0 or start > total or count <= 0:
        raise errors.invalid_row_range(start, count, total)
    return start, min(count, total - start)


def _columns(text: str | None, snapshot: Snapshot) -> tuple[list[str] | None, list[Column]]:
    """Names to read, and the columns in the order they were asked for."""
    if not text:
        return None, list(snapshot.columns)
    known = {column.name.lower(): column for column in _all_columns(snapshot)}
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise errors.invalid_column_name(name)
    return names, [known[name] for name in names]


def _all_columns(snapshot: Snapshot) -> Sequence[Column]:
    return (*snapshot.columns, *snapshot.partition_columns)


def _raw_size(request: web.Request) -> int | None:
    text = request.query.get("raw_size")
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise errors.invalid_argument(f"raw_size is '{text}'. Allowed: a positive number of bytes.")
    return int(text)


def _padded(batches: Iterator[pa.RecordBatch], columns: list[Column]) -> Iterator[pa.RecordBatch]:
    """Values of CHAR columns filled with spaces to their full length, as the service gives them."""
    widths = {column.name: column.type.parameters[0] for column in columns if _is_char(column)}
    for batch in batches:
        if not widths:
            yield batch
            continue
        arrays = [
            pc.utf8_rpad(array, widths[name]) if name in widths else array
            for name, array in zip(batch.schema.names, batch.columns, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _is_char(column: Column) -> bool:
    return column.type.name == "CHAR"


def _limited(batches: Iterator[pa.RecordBatch], raw_size: int | None) -> Iterator[pa.RecordBatch]:
    """At most about `raw_size` bytes of rows, but at least one row."""
    left = raw_size
    for batch in batches:
        if left is None:
            yield batch
            continue
        row_bytes = max(1, batch.nbytes // max(1, batch.num_rows))
        n_rows = min(batch.num_rows, max(1, left // row_bytes))
        yield batch.slice(0, n_rows)
        left -= n_rows * row_bytes
        if n_rows < batch.num_rows or left < row_bytes:
            return


def _counted(batches: Iterator[pa.RecordBatch], entry: Entry) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        entry.rows += batch.num_rows
        yield batch
