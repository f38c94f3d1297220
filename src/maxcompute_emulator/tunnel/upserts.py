"""Upsert sessions on tables with a primary key: rows by key replace, add or delete at the commit.

Changes wait in memory until then; the commit rewrites the partition in one transaction.
"""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from aiohttp import web

from maxcompute_emulator import errors
from maxcompute_emulator.errors import ServiceError
from maxcompute_emulator.tunnel.json_forms import schema_json
from maxcompute_emulator.tunnel.sessions import Session, Sessions, owner_of
from maxcompute_emulator.tunnel.table_handlers import requested_table
from maxcompute_emulator.tunnel.uploads import received_batches
from maxcompute_emulator.types import Column, DataType
from maxcompute_emulator.warehouse import Snapshot, Table, Warehouse

_BIGINTS = DataType("ARRAY", children=(DataType("BIGINT"),))
_OPERATION = "__operation"
_EXTRA_COLUMNS = (
    Column("__version", DataType("BIGINT")),
    Column("__app_version", DataType("BIGINT")),
    Column(_OPERATION, DataType("TINYINT")),
    Column("__key_cols", _BIGINTS),
    Column("__value_cols", _BIGINTS),
)
_UPSERT, _DELETE = ord("U"), ord("D")

Key = tuple[Any, ...]


@dataclass(kw_only=True)
class UpsertSession(Session):
    """One upsert session.

    Attributes:
        changes: For each key the last row that came for it, as its batch and place; None where the
            key is deleted.
    """

    table: Table
    partition: str | None
    status: str = "normal"
    changes: dict[Key, tuple[pa.RecordBatch, int] | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What a body's records hold."""
        return (*self.table.columns, *_EXTRA_COLUMNS)

    def to_json(self, server: str) -> dict[str, Any]:
        """The session as the client reads it; this server has one slot with one bucket."""
        return {
            "id": self.id,
            "status": self.status,
            "slots": [{"slot_id": "0", "worker_addr": server, "buckets": [0]}],
            "schema": schema_json(self.table.columns, self.table.partition_columns),
            "quota_name": self.quota_name,
            "hash_key": list(self.table.primary_key),
            "hasher": "default",
            "enable_partial_update": False,
        }

    def keys(self, batch: pa.RecordBatch) -> list[Key]:
        """The primary key's values of each row."""
        columns = [batch.column(name).to_pylist() for name in self.table.primary_key]
        return list(zip(*columns, strict=True))

    def apply(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Note the changes of one body: all of them, or none where it is broken."""
        arrived = list(batches)
        with self.lock:
            if self.status != "normal":
                raise errors.status_conflict(f"Upsert '{self.id}' is {self.status}.")
            for batch in arrived:
                self._apply(batch)

    def _apply(self, batch: pa.RecordBatch) -> None:
        operations = batch.column(_OPERATION).to_pylist()
        if unknown := set(operations) - {_UPSERT, _DELETE}:
            raise errors.malformed_data_stream(f"Operations {unknown} are unknown.")
        rows = batch.select([column.name for column in self.table.columns])
        for place, (key, operation) in enumerate(zip(self.keys(batch), operations, strict=True)):
            self.changes[key] = (rows, place) if operation == _UPSERT else None


class UpsertHandlers:
    """The requests on `.../tables/T/upserts`."""

    def __init__(self, warehouse: Warehouse, sessions: Sessions) -> None:
        self._warehouse = warehouse
        self._sessions = sessions
        self._commit_lock = threading.Lock()

    async def post(self, request: web.Request) -> web.Response:
        """Open a session, or commit one."""
        if "upsertid" in request.query:
            session = self._session(request)
            await asyncio.to_thread(self._commit, session)
        else:
            session = await asyncio.to_thread(self._open, request)
        return web.json_response(session.to_json(request.host))

    async def get(self, request: web.Request) -> web.Response:
        """Look at a session."""
        return web.json_response(self._session(request).to_json(request.host))

    async def put(self, request: web.Request) -> web.Response:
        """Take changes."""
        session = self._session(request)
        batches = received_batches(request, session.columns, is_arrow=False)
        await asyncio.to_thread(session.apply, batches)
        return web.Response(headers={"odps-tunnel-routed-server": request.host})

    async def delete(self, request: web.Request) -> web.Response:
        """Drop a session and its changes."""
        session = self._session(request)
        session.status = "aborted"
        self._sessions.forget(session)
        return web.Response()

    def _open(self, request: web.Request) -> UpsertSession:
        table = requested_table(self._warehouse, request)
        if not table.primary_key:
            raise errors.invalid_argument(f"Table '{table.name}' has no primary key.")
        partition = request.query.get("partition")
        table.snapshot(partition)
        session = UpsertSession(
            owner=owner_of(request),
            quota_name=request.query.get("quotaName"),
            table=table,
            partition=partition,
        )
        self._sessions.add(session)
        return session

    def _commit(self, session: UpsertSession) -> None:
        with self._commit_lock, session.lock:
            if session.status == "committed":
                return
            table = self._warehouse.table(
                session.table.project, session.table.schema, session.table.name
            )
            upload = self._warehouse.begin_upload(table, session.partition, overwrite=True)
            try:
                upload.write_block(0, _merged(session, table.snapshot(session.partition)))
                upload.commit([0])
            except BaseException:
                upload.discard()
                raise
            session.status = "committed"
            session.changes.clear()

    def _session(self, request: web.Request) -> UpsertSession:
        return self._sessions.get(request, "upsertid", UpsertSession, _missing)


def _merged(session: UpsertSession, snapshot: Snapshot) -> Iterator[pa.RecordBatch]:
    """The rows that no change touches, and behind them the new ones."""
    for batch in snapshot.read(0, snapshot.record_count) if snapshot.record_count else ():
        untouched = [key not in session.changes for key in session.keys(batch)]
        yield batch.filter(pa.array(untouched, pa.bool_()))
    slices = [rows.slice(place, 1) for rows, place in filter(None, session.changes.values())]
    if slices:
        yield from pa.Table.from_batches(slices).combine_chunks().to_batches()


def _missing(session_id: str) -> ServiceError:
    message = f"The specified upsert session '{session_id}' does not exist."
    return ServiceError("UpsertSessionNotFound", message, errors.NOT_FOUND)
