"""The DuckDB database: segments of rows, and the rows that describe tables.

`data` holds segments, `meta` what `records` describes. A segment that no record names is a block
that was never committed, or a result: reopening a file drops it.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow as pa

from maxcompute_emulator import errors
from maxcompute_emulator.types import duckdb_type, parse_type
from maxcompute_emulator.warehouse import arrow_forms
from maxcompute_emulator.warehouse.records import Segment, StoredColumn

_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_ROWS = 65536
# DuckDB reads 2,048 rows where one is asked for. Rows that are wide are therefore kept in smaller
# segments, and not compressed, so that one row costs milliseconds.
_WIDE_ROW_BYTES = 4096
_WIDE_SEGMENT_BYTES = 8 * 1024 * 1024
_WIDE_BATCH_BYTES = 2 * 1024 * 1024
_SEGMENT_BYTES = 128 * 1024 * 1024
_PLAIN_TYPES = ("VARCHAR", "BLOB")
# Beside what DuckDB holds, each stream holds a few batches.
_FILE_MEMORY = "1GB"
_MEMORY = "4GB"
_OVERHEAD_BYTES = 512
_SETUP = """
CREATE SCHEMA IF NOT EXISTS data;
CREATE SCHEMA IF NOT EXISTS meta;
CREATE TABLE IF NOT EXISTS meta.projects (name VARCHAR PRIMARY KEY, created DOUBLE);
CREATE TABLE IF NOT EXISTS meta.schemas (project VARCHAR, name VARCHAR, body VARCHAR);
CREATE TABLE IF NOT EXISTS meta.tables (id BIGINT PRIMARY KEY, body VARCHAR);
CREATE TABLE IF NOT EXISTS meta.parts (table_id BIGINT, key VARCHAR, body VARCHAR);
"""


def quoted(name: str) -> str:
    """An identifier for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string for DuckDB."""
    return "'" + text.replace("'", "''") + "'"


def segment_name(segment_id: int) -> str:
    """The DuckDB table of a segment."""
    return f"data.s{segment_id}"


def column_name(column_id: int) -> str:
    """The name of a column inside segments."""
    return f"c{column_id}"


class Storage:
    """One DuckDB database. Cursors are independent, so threads can work side by side."""

    def __init__(self, database: Path | None, time_zone: str) -> None:
        self._connection = duckdb.connect(str(database) if database else ":memory:")
        self._lock = threading.Lock()
        self._spill = tempfile.TemporaryDirectory(prefix="maxcompute-emulator-")
        self._connection.execute(f"SET GLOBAL temp_directory = {literal(self._spill.name)}")
        memory = _FILE_MEMORY if database else _MEMORY
        self._connection.execute(f"SET GLOBAL memory_limit = '{memory}'")
        self._connection.execute(f"SET GLOBAL TimeZone = {literal(time_zone)}")
        self._connection.execute(_SETUP)
        row = self._connection.execute(
            "SELECT max(CAST(substr(table_name, 2) AS BIGINT)) FROM duckdb_tables() "
            "WHERE schema_name = 'data'"
        ).fetchone()
        self._segment_ids = itertools.count((row[0] or 0) + 1 if row else 1)

    def close(self) -> None:
        """Close the database; a file is complete afterwards."""
        self._connection.close()
        self._spill.cleanup()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own."""
        with self._lock:
            return self._connection.cursor()

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor inside one transaction, which sees the database as of now."""
        cursor = self.cursor()
        with completed(cursor):
            begin(cursor)
            yield cursor

    def new_segment_id(self) -> int:
        """An id that no segment has had."""
        return next(self._segment_ids)

    def create_segment(
        self,
        cursor: duckdb.DuckDBPyConnection,
        columns: Sequence[StoredColumn],
        wide: bool = False,
    ) -> int:
        """Make an empty segment; rows go in by `INSERT INTO`."""
        segment_id = self.new_segment_id()
        definitions = ", ".join(_definition(stored, wide) for stored in columns)
        cursor.execute(f"CREATE TABLE {segment_name(segment_id)} ({definitions})")
        return segment_id

    def drop(self, segments: Iterable[Segment]) -> None:
        """Drop segments. Transactions that read them now still see them."""
        cursor = self.cursor()
        try:
            for segment in segments:
                cursor.execute(f"DROP TABLE IF EXISTS {segment_name(segment.id)}")
        finally:
            cursor.close()

    def drop_orphans(self, known: set[int]) -> None:
        """Drop segments that no record names."""
        rows = self._connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'data'"
        ).fetchall()
        for (name,) in rows:
            if int(name[1:]) not in known:
                self._connection.execute(f"DROP TABLE data.{quoted(name)}")

    def write_arrow(
        self, columns: Sequence[StoredColumn], batches: Iterable[pa.RecordBatch]
    ) -> list[Segment]:
        """Store batches as segments of bounded size; none remains if the batches fail."""
        names = [column_name(stored.id) for stored in columns]
        plain = tuple(stored.column for stored in columns)
        converted = arrow_forms.to_duckdb(_in_small_batches(batches), plain, names)
        written: list[Segment] = []
        try:
            while (first := next(converted, None)) is not None:
                rest = itertools.chain([first], converted)
                written.append(self._write_segment(columns, rest, _is_wide(first[0])))
        except BaseException:
            self.drop(written)
            raise
        return [segment for segment in written if segment.rows]

    def _write_segment(
        self,
        columns: Sequence[StoredColumn],
        batches: Iterator[tuple[pa.RecordBatch, set[str]]],
        wide: bool,
    ) -> Segment:
        rows = size = 0
        full = _WIDE_SEGMENT_BYTES if wide else _SEGMENT_BYTES
        escaped: set[str] = set()
        with self.transaction() as cursor:
            segment_id = self.create_segment(cursor, columns, wide)
            for batch, stray in batches:
                cursor.register("incoming", batch)
                _run_insert(cursor, f"INSERT INTO {segment_name(segment_id)} FROM incoming")
                cursor.unregister("incoming")
                rows += batch.num_rows
                size += batch.nbytes
                escaped |= stray
                if size >= full:
                    break
        types = {stored.id: str(stored.column.type) for stored in columns}
        stray_ids = frozenset(int(name[1:]) for name in escaped)
        return Segment(segment_id, rows, size + _OVERHEAD_BYTES, types, stray_ids)

    def write_query(
        self,
        cursor: duckdb.DuckDBPyConnection,
        columns: Sequence[StoredColumn],
        select: str,
        escaped: frozenset[int] = frozenset(),
    ) -> Segment:
        """Store what a query gives, within the cursor's transaction."""
        segment_id = self.create_segment(cursor, columns)
        counted = cursor.execute(f"INSERT INTO {segment_name(segment_id)} {select}").fetchone()
        rows = int(counted[0]) if counted else 0
        types = {stored.id: str(stored.column.type) for stored in columns}
        size = _estimated_bytes(cursor, segment_id, columns, rows)
        return Segment(segment_id, rows, size, types, escaped)

    def merge(self, segments: Sequence[Segment], columns: Sequence[StoredColumn]) -> Segment:
        """One segment with the rows of several, in their order."""
        rows = sum(segment.rows for segment in segments)
        size = sum(segment.size_bytes for segment in segments)
        with self.transaction() as cursor:
            merged = self.create_segment(cursor, columns, size > rows * _WIDE_ROW_BYTES)
            for segment in segments:
                cursor.execute(
                    f"INSERT INTO {segment_name(merged)} {select_rows(segment, columns)}"
                )
        return Segment(
            merged,
            rows,
            size,
            {stored.id: str(stored.column.type) for stored in columns},
            frozenset().union(*(segment.escaped for segment in segments)),
        )

    @staticmethod
    def read(
        cursor: duckdb.DuckDBPyConnection, segment: Segment, select: str
    ) -> Iterator[pa.RecordBatch]:
        """The batches of a query on one segment, sized by what its rows take."""
        row_bytes = max(1, segment.size_bytes // max(1, segment.rows))
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
        yield from cursor.sql(select).to_arrow_reader(rows)


@contextmanager
def completed(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what is begun inside, or take it back if that fails, and close the cursor."""
    try:
        yield
        cursor.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        raise
    finally:
        cursor.close()


def begin(cursor: duckdb.DuckDBPyConnection) -> None:
    """Begin a transaction that sees the database as of now, not as of its first query."""
    cursor.execute("BEGIN")
    cursor.execute("SELECT 1 FROM meta.projects LIMIT 0")


def column_in(segment: Segment, stored: StoredColumn) -> str:
    """An expression for a column's value in a segment, whatever the segment holds."""
    wanted = duckdb_type(stored.column.type)
    held = segment.column_types.get(stored.id)
    if held is None:
        return f"CAST(NULL AS {wanted})"
    name = column_name(stored.id)
    return name if duckdb_type(parse_type(held)) == wanted else f"CAST({name} AS {wanted})"


def select_rows(segment: Segment, columns: Sequence[StoredColumn], names: bool = False) -> str:
    """A query for all rows of a segment, with the columns' own names where asked for."""
    items = ", ".join(
        column_in(segment, stored) + (f" AS {quoted(stored.column.name)}" if names else "")
        for stored in columns
    )
    return f"SELECT {items} FROM {segment_name(segment.id)}"


def _definition(stored: StoredColumn, wide: bool) -> str:
    kind = duckdb_type(stored.column.type)
    compression = " USING COMPRESSION uncompressed" if wide and kind in _PLAIN_TYPES else ""
    null = "" if stored.column.nullable else " NOT NULL"
    return f"{column_name(stored.id)} {kind}{null}{compression}"


def _is_wide(batch: pa.RecordBatch) -> bool:
    return bool(batch.nbytes > batch.num_rows * _WIDE_ROW_BYTES)


def _in_small_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, in batches that do not fill a segment of wide rows by themselves."""
    for batch in batches:
        pieces = 1 + batch.nbytes // _WIDE_BATCH_BYTES if _is_wide(batch) else 1
        rows = max(1, -(-batch.num_rows // pieces))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _run_insert(cursor: duckdb.DuckDBPyConnection, statement: str) -> None:
    try:
        cursor.execute(statement)
    except (duckdb.DataError, duckdb.IntegrityError) as error:
        raise errors.malformed_data_stream(str(error).splitlines()[0]) from None


def _estimated_bytes(
    cursor: duckdb.DuckDBPyConnection,
    segment_id: int,
    columns: Sequence[StoredColumn],
    rows: int,
) -> int:
    """From a sample, because an exact number would cost a scan."""
    if not rows or not columns:
        return _OVERHEAD_BYTES
    name = segment_name(segment_id)
    sample: pa.Table = cursor.sql(f"SELECT * FROM {name} WHERE rowid < 1000").to_arrow_table()
    mean_bytes = sample.nbytes / max(1, sample.num_rows)
    return _OVERHEAD_BYTES + int(mean_bytes * rows)
