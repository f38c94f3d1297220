"""Row ranges of a table, read by workers that share one download session a partition.

What becomes of a range's rows happens in the worker that read them, so that only the result
crosses between processes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Generic, TypeVar

import pyarrow as pa
from odps.config import option_context

from flowpatch.errors import TableChangedError
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.metadata import TableInfo
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.patience import IncompleteReadError, Patience
from flowpatch.maxcompute.sessions import (
    DownloadSession,
    SessionExpiredError,
    download_session,
    noticing_expiry,
)
from flowpatch.maxcompute.workers import Workers

R = TypeVar("R")


@dataclass(frozen=True)
class Part:
    """A table without partitions, or one partition: `rows` rows in a download session."""

    table: TableName
    partition: str | None
    session_id: str
    rows: int

    @property
    def place(self) -> str:
        """How messages name it."""
        return place_of(self.table, self.partition)


@dataclass(frozen=True)
class RowRange:
    """Rows start .. start + count of a part; `task` is handed to whoever reduces them."""

    part: Part
    start: int
    count: int
    task: Any = None


Reduction = Callable[[pa.Table, RowRange], R]
"""What becomes of a range's rows: made in the parent, sent to the workers, called there."""


def place_of(table: TableName, partition: str | None) -> str:
    """How messages name a table or one of its partitions."""
    return f"{table.address}{f' ({partition})' if partition else ''}"


def open_part(
    connection: Connection, patience: Patience, table: TableName, partition: str | None
) -> Part:
    """A new download session on a table or partition.

    Raises:
        TableNotFoundError: it is not there.
    """
    session = patience.try_again(
        lambda: download_session(connection, table, partition),
        f"Reading {place_of(table, partition)}",
    )
    return Part(table, partition, session.id, session.count)


def open_parts(connection: Connection, patience: Patience, info: TableInfo) -> tuple[Part, ...]:
    """New download sessions on all partitions of a table, or on the table where it has none."""
    specs = [partition.spec for partition in info.partitions] if info.partition_columns else [None]
    return tuple(open_part(connection, patience, info.name, spec) for spec in specs)


def keep_rows(rows: pa.Table, row_range: RowRange) -> pa.Table:  # noqa: ARG001
    """The reduction that leaves the rows as they are."""
    return rows


def cut(part: Part, rows: int, task: Any = None) -> Iterator[RowRange]:
    """The whole part in ranges of so many rows."""
    for start in range(0, part.rows, rows):
        yield RowRange(part, start, min(rows, part.rows - start), task)


class Reader(Generic[R]):
    """Reads row ranges with `workers` processes, or with none inside this one.

    Used as a context manager. Every range is checked to have as many rows as were asked for.
    """

    def __init__(
        self,
        connection: Connection,
        columns: Sequence[str],
        reduction: Reduction[R],
        workers: int,
    ) -> None:
        self._connection = connection
        self._waiting = Patience(connection.patience_s)
        self._workers = Workers(_Receiver(connection, list(columns), reduction), workers)
        self._renewed: dict[str, Part] = {}

    def __enter__(self) -> "Reader[R]":
        self._workers.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._workers.__exit__(kind, error, traceback)

    def read(self, ranges: Iterable[RowRange]) -> Iterator[tuple[RowRange, R]]:
        """Each range with its result, in any order.

        Raises:
            OutOfPatienceError: nothing came for too long.
            TableChangedError: the table was written meanwhile.
        """
        current = (replace(row_range, part=self._current(row_range.part)) for row_range in ranges)
        for row_range, result in self._workers.results(current, self._mend):
            self._waiting.moved()
            yield row_range, result

    def _mend(self, row_range: RowRange, error: Exception) -> RowRange:
        if not isinstance(error, SessionExpiredError):
            raise error
        self._waiting.check(f"Reading {row_range.part.place}", error)
        self._renew(row_range.part)
        return replace(row_range, part=self._current(row_range.part))

    def _current(self, part: Part) -> Part:
        while part.session_id in self._renewed:
            part = self._renewed[part.session_id]
        return part

    def _renew(self, part: Part) -> None:
        """A new session in place of one that expired; its rows must be the same."""
        if part.session_id in self._renewed:
            return
        patience = Patience(self._connection.patience_s, reached=True)
        renewed = open_part(self._connection, patience, part.table, part.partition)
        if renewed.rows != part.rows:
            raise TableChangedError(
                f"{part.place} had {part.rows:,} rows and now has {renewed.rows:,}: somebody wrote "
                "it while it was read. Run the command again."
            )
        self._renewed[part.session_id] = renewed


@dataclass
class _Receiver(Generic[R]):
    """Reads a range and reduces it, wherever it runs; keeps the sessions that it has opened."""

    connection: Connection
    columns: list[str]
    reduction: Reduction[R]
    sessions: dict[str, DownloadSession] = field(default_factory=dict)

    def __call__(self, row_range: RowRange) -> R:
        # The client converts instants to the machine's zone unless it is told not to.
        with option_context({"local_timezone": "UTC"}):
            rows = Patience(self.connection.patience_s, reached=True).try_again(
                lambda: self._receive(row_range), f"Reading {row_range.part.place}"
            )
        return self.reduction(rows, row_range)

    def _receive(self, row_range: RowRange) -> pa.Table:
        with noticing_expiry(row_range.part.session_id):
            session = self._session(row_range.part)
            rows = session.read(row_range.start, row_range.count, self.columns)
        if rows.num_rows != row_range.count:
            raise IncompleteReadError(
                f"{rows.num_rows:,} rows came of {row_range.count:,} asked for"
            )
        return rows

    def _session(self, part: Part) -> DownloadSession:
        if part.session_id not in self.sessions:
            self.sessions[part.session_id] = download_session(
                self.connection, part.table, part.partition, part.session_id
            )
        return self.sessions[part.session_id]
