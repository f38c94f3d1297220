"""SQL on MaxCompute, and temporary tables that are dropped, or expire after a day."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from odps import ODPS

from flowpatch.errors import MaxComputeError, QueryError
from flowpatch.maxcompute.connection import Connection
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.patience import Patience, pause

TEMPORARY_PREFIX = "tmp_flowpatch_"
TEMPORARY_DAYS = 1
"""Lifetime of a temporary table that nobody dropped."""
RESULT_ROWS = 10_000
"""A plain result shows so many rows, and says nothing of others."""
FIRST_POLL_S, LONGEST_POLL_S = 0.05, 5.0

Row = tuple[Any, ...]


class Queries:
    """Runs statements one after the other, in one project."""

    def __init__(self, connection: Connection, patience: Patience | None = None) -> None:
        self._client: ODPS = connection.client()
        self._patience = patience or Patience(connection.patience_s)

    def run(self, sql: str, what: str, hints: Mapping[str, str] | None = None) -> Any:
        """Runs a statement to its end; `what` says what it is for, in errors.

        Returns:
            The client's instance of the query.

        Raises:
            QueryError, NoPermissionError, TableNotFoundError: the service refused it.
            OutOfPatienceError: the service did not answer for too long.
        """
        # One id for all tries: a statement whose answer was lost is not run twice.
        identifier = str(uuid.uuid4())
        instance = self._patience.try_again(
            lambda: self._client.run_sql(
                sql, hints=dict(hints or {}), unique_identifier_id=identifier
            ),
            what,
        )
        pause_s = FIRST_POLL_S
        while not self._patience.try_again(lambda: instance.is_terminated(retry=False), what):
            pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_POLL_S)
        self._patience.try_again(lambda: instance.wait_for_success(interval=FIRST_POLL_S), what)
        return instance

    def rows(self, sql: str, what: str, hints: Mapping[str, str] | None = None) -> list[Row]:
        """The rows of a query whose result is small.

        Raises:
            QueryError: it has RESULT_ROWS or more, of which the service shows no more.
        """
        instance = self.run(sql, what, hints)

        def read() -> list[Row]:
            with instance.open_reader(tunnel=False) as reader:
                return [tuple(record.values) for record in reader]

        rows = self._patience.try_again(read, what)
        if len(rows) >= RESULT_ROWS:
            raise QueryError(
                f"{what}: the result has {RESULT_ROWS:,} rows or more, and MaxCompute shows no "
                "more. Ask for fewer partitions with --start-date and --end-date, or use "
                "--pushdown tunnel."
            )
        return rows

    @contextmanager
    def temporary_table(self, beside: TableName) -> Iterator[TableName]:
        """A name for a temporary table, dropped in the end; the block creates it.

        Whatever creates it gives it a lifetime of TEMPORARY_DAYS, for the case that this process
        dies.
        """
        name = beside.sibling(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            yield name
        finally:
            # What is left expires: a failure here must not hide the one that led here.
            with suppress(MaxComputeError):
                self.run(f"DROP TABLE IF EXISTS {name.sql}", f"Dropping {name.address}")
