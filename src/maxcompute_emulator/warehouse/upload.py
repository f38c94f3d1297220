"""An upload session: blocks are staged where nothing sees them, and one commit shows them all."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from maxcompute_emulator import errors
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse.records import Segment, StoredColumn
from maxcompute_emulator.warehouse.storage import Storage

Publish = Callable[[list[Segment]], None]


class Upload:
    """One session on one partition, or on a table without partitions.

    Attributes:
        id: Names the session.
        columns: What a block's batches hold, in this order.
    """

    def __init__(self, storage: Storage, columns: Sequence[StoredColumn], publish: Publish) -> None:
        self.id = uuid.uuid4().hex
        self.columns: tuple[Column, ...] = tuple(stored.column for stored in columns)
        self._storage = storage
        self._stored = tuple(columns)
        self._publish = publish
        self._lock = threading.Lock()
        self._blocks: dict[int, list[Segment]] = {}
        self._closed = False

    def write_block(self, block_id: int, batches: Iterable[pa.RecordBatch]) -> None:
        """Stage a block; the same id again replaces it, and a failure leaves it as it was.

        Raises:
            ServiceError: A value is not what its column holds, or the session has ended.
        """
        self._require_open()
        segments = self._storage.write_arrow(self._stored, batches)
        with self._lock:
            late = self._closed
            replaced = segments if late else self._blocks.get(block_id, [])
            if not late:
                self._blocks[block_id] = segments
        self._storage.drop(replaced)
        self._require_open()

    def blocks(self) -> list[int]:
        """Ids of the staged blocks, in order."""
        with self._lock:
            return sorted(self._blocks)

    def commit(self, block_ids: Sequence[int]) -> None:
        """Show the named blocks, in the order of their ids, in one transaction.

        Raises:
            ServiceError: A block was never written, or the session has ended.
        """
        with self._lock:
            if self._closed:
                raise _ended(self.id)
            missing = sorted(set(block_ids) - set(self._blocks))
            if missing:
                raise errors.status_conflict(f"Blocks {missing} were not uploaded.")
            chosen = sorted(set(block_ids))
            self._publish([part for block in chosen for part in self._blocks[block]])
            self._closed = True
            unused = [
                segment
                for block, segments in self._blocks.items()
                if block not in set(chosen)
                for segment in segments
            ]
            self._blocks.clear()
        self._storage.drop(unused)

    def discard(self) -> None:
        """End the session without showing anything."""
        with self._lock:
            self._closed = True
            unused = [segment for segments in self._blocks.values() for segment in segments]
            self._blocks.clear()
        self._storage.drop(unused)

    def _require_open(self) -> None:
        if self._closed:
            raise _ended(self.id)


def _ended(upload_id: str) -> errors.ServiceError:
    return errors.status_conflict(f"Upload '{upload_id}' was committed or ended before.")
