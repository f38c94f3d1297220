"""The way to MaxCompute, looked at step by step: what works, what does not, and what to do.

    keys -> endpoint -> project -> queries -> tables -> table -> test read

A step that needs one that failed is left out.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import requests

from flowpatch.errors import FlowpatchError
from flowpatch.maxcompute.connection import Connection, naming_errors
from flowpatch.maxcompute.credentials import KEY_ID, KEY_SECRET, SECURITY_TOKEN
from flowpatch.maxcompute.metadata import TableInfo, describe_table
from flowpatch.maxcompute.names import TableName
from flowpatch.maxcompute.patience import Patience
from flowpatch.maxcompute.queries import Queries
from flowpatch.maxcompute.reading import Reader, RowRange, open_parts

PATIENCE_S = 20.0
"""A diagnosis is waited for."""
TEST_SECONDS = 5.0
TEST_ROWS = 200_000
TEST_BYTES = 32 * 2**20
TABLES_SHOWN = 20
TABLES_COUNTED = 10_000

Outcome = Literal["ok", "failed"]


@dataclass(frozen=True)
class Finding:
    """One step: what it found, and where it failed the likely cause and the next step."""

    step: str
    outcome: Outcome
    found: str
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def check_keys() -> Finding:
    """Which keys the environment holds; never their values."""
    present = {name: bool(os.environ.get(name)) for name in (KEY_ID, KEY_SECRET, SECURITY_TOKEN)}
    shown = ", ".join(
        f"{name} {'is set' if is_set else 'is not set'}" for name, is_set in present.items()
    )
    if present[KEY_ID] and present[KEY_SECRET]:
        return Finding("keys", "ok", shown, present)
    advice = f"Export the access key: export {KEY_ID}=... {KEY_SECRET}=..."
    return Finding("keys", "failed", f"{shown}. {advice}", present)


def diagnose(connection: Connection, table: TableName | None) -> Iterator[Finding]:
    """The findings, in order, each as soon as it is there."""
    keys = check_keys()
    yield keys
    reached = look_at("endpoint", lambda: _reach(connection.endpoint))
    yield reached
    if "failed" in (keys.outcome, reached.outcome):
        return
    project = look_at("project", lambda: _enter(connection))
    yield project
    if project.outcome == "failed":
        return
    yield look_at("queries", lambda: _query(connection))
    yield look_at("tables", lambda: _list_tables(connection))
    if table is None:
        return
    described: list[TableInfo] = []
    yield look_at("table", lambda: _describe(connection, table, described))
    if described:
        yield look_at("test read", lambda: _read(connection, described[0]))


def look_at(step: str, look: Callable[[], tuple[str, dict[str, Any]]]) -> Finding:
    """A step's finding: what `look` returns, or the error that it raises."""
    try:
        with naming_errors(step):
            found, facts = look()
    except FlowpatchError as error:
        return Finding(step, "failed", str(error))
    return Finding(step, "ok", found, facts)


def _reach(endpoint: str) -> tuple[str, dict[str, Any]]:
    """Any answer will do: without a signature it is an error of the service's own."""
    begun = time.monotonic()
    requests.get(endpoint, timeout=10)
    milliseconds = (time.monotonic() - begun) * 1000
    return f"{endpoint} answers in {milliseconds:.0f} ms", {"milliseconds": round(milliseconds, 1)}


def _enter(connection: Connection) -> tuple[str, dict[str, Any]]:
    client = connection.client()
    project = client.get_project(connection.project)
    Patience(PATIENCE_S).try_again(project.reload, f"Opening project {connection.project}")
    return (
        f"the keys are accepted, project '{connection.project}' is there",
        {"project": connection.project, "owner": project.owner},
    )


def _query(connection: Connection) -> tuple[str, dict[str, Any]]:
    begun = time.monotonic()
    Queries(connection, Patience(PATIENCE_S)).rows("SELECT 1 AS one", "Running a query")
    seconds = time.monotonic() - begun
    return f"a query runs, in {seconds:.1f} s", {"seconds": round(seconds, 2)}


def _list_tables(connection: Connection) -> tuple[str, dict[str, Any]]:
    client = connection.client()

    def names() -> list[str]:
        listed = client.list_tables(project=connection.project)
        return [table.name for table, _ in zip(listed, range(TABLES_COUNTED), strict=False)]

    found = Patience(PATIENCE_S).try_again(names, f"Listing tables of {connection.project}")
    more = ", ..." if len(found) > TABLES_SHOWN else ""
    shown = f": {', '.join(found[:TABLES_SHOWN])}{more}" if found else ""
    return f"{len(found):,} tables{shown}", {"tables": found}


def _describe(
    connection: Connection, table: TableName, described: list[TableInfo]
) -> tuple[str, dict[str, Any]]:
    patience = Patience(PATIENCE_S)
    info = describe_table(connection, patience, table)
    described.append(info)
    rows = sum(part.rows for part in open_parts(connection, Patience(PATIENCE_S), info))
    columns = ", ".join(f"{name} {kind}" for name, kind in info.columns.items())
    partitions = f", {len(info.partitions):,} partitions" if info.partition_columns else ""
    return (
        f"{table.address}: {rows:,} rows{partitions}, written {info.modified}; {columns}",
        {
            "rows": rows,
            "partitions": [partition.spec for partition in info.partitions],
            "columns": dict(info.columns),
            "modified": info.modified,
        },
    )


def _read(connection: Connection, info: TableInfo) -> tuple[str, dict[str, Any]]:
    """Reads rows for a few seconds, with one stream."""
    parts = open_parts(connection, Patience(PATIENCE_S), info)
    if not sum(part.rows for part in parts):
        return "there are no rows to read", {"rows": 0}
    part = max(parts, key=lambda part: part.rows)
    partition_columns = set(info.partition_columns)
    columns = [name for name in info.columns if name not in partition_columns]
    rows, size, begun = 0, 0, time.monotonic()
    step = 1
    with Reader(connection, columns, count_bytes, workers=0) as reader:
        while rows < min(part.rows, TEST_ROWS) and size < TEST_BYTES:
            if time.monotonic() - begun > TEST_SECONDS:
                break
            count = min(step, part.rows - rows)
            for _, found in reader.read([RowRange(part, rows, count)]):
                rows, size = rows + count, size + found
            step *= 8
    seconds = max(time.monotonic() - begun, 1e-6)
    speed = size / seconds / 1e6
    return (
        f"{rows:,} rows, {size / 1e6:,.1f} MB in {seconds:.1f} s: {speed:,.1f} MB/s with one "
        "stream",
        {"rows": rows, "bytes": size, "seconds": round(seconds, 2), "mb_per_second": speed},
    )


def count_bytes(rows: pa.Table, row_range: RowRange) -> int:  # noqa: ARG001
    """How many bytes the rows take in memory."""
    return int(rows.nbytes)
