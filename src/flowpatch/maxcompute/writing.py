"""Blocks of a table, written by workers, and one commit that makes all of them visible."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from flowpatch.errors import MaxComputeError
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.sessions import UploadSession, noticing_expiry, upload_session
from flowpatch.maxcompute.workers import Workers

CELL_BYTES = 8 * 2**20
"""A cell of a table holds at most this much; the client does not check it."""
BLOCKS = 20_000
"""Blocks of one session at most."""

R = TypeVar("R")


@dataclass(frozen=True)
class Block:
    """One block to be written: `task` is what its rows are made from."""

    id: int
    task: Any


class Upload:
    """An upload session: blocks in any order, each as often as it takes, then one commit.

    Nothing is visible before the commit. A session that was begun earlier is taken up again by
    its id, with the blocks that it has already.

    Raises:
        SessionExpiredError: the service has forgotten the session; no block of it will ever be
            seen, unless its commit was under way.
    """

    def __init__(
        self,
        connection: Connection,
        table: TableName,
        session_id: str | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self._connection, self._table = connection, table
        self._patience = Patience(connection.patience_s)
        self._session = self._try_again(
            lambda: upload_session(connection, table, session_id, overwrite=overwrite),
            session_id or "",
        )

    @property
    def id(self) -> str:
        """By which the session is taken up again, for a day."""
        return str(self._session.id)

    @property
    def is_committed(self) -> bool:
        """Whether its blocks are the table's already."""
        return bool(self._session.status == UploadSession.Status.Closed)

    def written(self) -> set[int]:
        """Blocks that the service had when the session was opened."""
        return {int(block) for block in self._session.blocks or ()}

    def write(
        self, blocks: Sequence[Block], make: Callable[[Any], pa.Table], workers: int
    ) -> Iterator[Block]:
        """Writes the rows that `make` gives for each block's task; yields it when it is there."""
        writer = _BlockWriter(self._connection, self._table, self.id, make)
        with Workers(writer, min(workers, len(blocks))) as running:
            for block, _ in running.results(blocks):
                self._patience.moved()
                yield block

    def commit(self, blocks: Sequence[int]) -> None:
        """Makes exactly these blocks the table's content, or adds them to it, at once.

        Raises:
            MaxComputeError: the service does not have them all.
        """
        asked = False

        def once() -> None:
            nonlocal asked
            if asked:
                # A commit whose answer was lost has been done: the session says so.
                self._session.reload()
                if self.is_committed:
                    return
            asked = True
            self._session.commit(list(blocks))

        self._try_again(once, self.id)

    def _try_again(self, action: Callable[[], R], session_id: str) -> R:
        def once() -> R:
            with noticing_expiry(session_id):
                return action()

        return self._patience.try_again(once, f"Writing {self._table.address}")


@dataclass
class _BlockWriter:
    connection: Connection
    table: TableName
    session_id: str
    make: Callable[[Any], pa.Table]
    session: UploadSession | None = None

    def __call__(self, block: Block) -> None:
        rows = self.make(block.task)
        check_cells(rows, self.table)
        Patience(self.connection.patience_s, reached=True).try_again(
            lambda: self._send(block.id, rows), f"Writing {self.table.address}"
        )

    def _send(self, block_id: int, rows: pa.Table) -> None:
        with noticing_expiry(self.session_id):
            if self.session is None:
                self.session = upload_session(self.connection, self.table, self.session_id)
            self.session.write(block_id, rows)


def check_cells(rows: pa.Table, table: TableName) -> None:
    """Makes sure that every cell fits.

    Raises:
        MaxComputeError: one is larger than CELL_BYTES.
    """
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest > CELL_BYTES:
            raise MaxComputeError(
                f"A cell of column '{name}' for {table.address} has {longest:,} bytes; MaxCompute "
                f"holds {CELL_BYTES:,} at most."
            )
