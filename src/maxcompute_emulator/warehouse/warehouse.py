"""Tables, partitions and their rows, and the changes that they allow."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import duckdb

from maxcompute_emulator import errors
from maxcompute_emulator.warehouse.catalog import table_key
from maxcompute_emulator.warehouse.partition_spec import format_spec, full_values
from maxcompute_emulator.warehouse.projects import Projects
from maxcompute_emulator.warehouse.records import (
    DEFAULT_SCHEMA,
    VIEW_KINDS,
    Part,
    PartValues,
    Segment,
    TableRecord,
)
from maxcompute_emulator.warehouse.snapshot import Snapshot
from maxcompute_emulator.warehouse.storage import Storage, begin, completed
from maxcompute_emulator.warehouse.table import Table
from maxcompute_emulator.warehouse.upload import Upload

DAY_SECONDS = 86400
T = TypeVar("T")
_SMALL_BYTES = 1024 * 1024
_MANY_SEGMENTS = 32


class Warehouse(Projects):
    """All state of the emulator, in memory or in a DuckDB file that reopens as it was.

    Threads may use it at once: a change happens under one lock and in one transaction, and what
    it changes are frozen records, so that whoever holds one sees a consistent table.

    Args:
        database: A file, or None for memory.
        projects: Projects to make where they are missing.
        time_zone: The zone in which queries read DATETIME and TIMESTAMP on the clock.
        owner: The account that owns everything.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        database: Path | None = None,
        *,
        projects: Iterable[str] = (),
        time_zone: str = "Asia/Shanghai",
        owner: str = "ALIYUN$emulator",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(Storage(database, time_zone), owner, clock)
        self.time_zone = time_zone
        self._ids = itertools.count(self._catalog.last_table_id + 1)
        self._versions = itertools.count(self._catalog.last_version + 1)
        for name in projects:
            self.add_project(name)

    def close(self) -> None:
        """Close the database; a file is complete afterwards."""
        self.storage.close()

    @contextmanager
    def pinned(self, plan: Callable[[], T]) -> Iterator[tuple[duckdb.DuckDBPyConnection, T]]:
        """A cursor in a transaction that sees the segments of every record that `plan` looked at.

        What other threads publish or drop meanwhile changes nothing inside it.
        """
        cursor = self.storage.cursor()
        with completed(cursor):
            with self._lock:
                begin(cursor)
                planned = plan()
            yield cursor, planned

    # Tables.

    def table(self, project: str, schema: str | None, name: str) -> Table:
        """A table or view as it is now.

        Raises:
            ServiceError: Project, schema or table is missing.
        """
        found = self.find_table(project, schema, name)
        if found is None:
            full = f"{project}.{schema or DEFAULT_SCHEMA}.{name}"
            raise errors.no_such_table(full)
        return found

    def find_table(self, project: str, schema: str | None, name: str) -> Table | None:
        """The same, or None where the table is missing."""
        with self._lock:
            tables = self._catalog.project(project).tables
            self.schema(project, schema or DEFAULT_SCHEMA)
            record = tables.get(((schema or DEFAULT_SCHEMA).lower(), name.lower()))
        return Table(self, record) if record else None

    def tables(self, project: str, schema: str | None) -> list[Table]:
        """All tables and views of a schema, by name."""
        with self._lock:
            records = self._catalog.project(project).tables
            self.schema(project, schema or DEFAULT_SCHEMA)
            wanted = (schema or DEFAULT_SCHEMA).lower()
            found = [record for (place, _), record in records.items() if place == wanted]
        return [Table(self, record) for record in sorted(found, key=lambda item: item.name)]

    def create(self, record: TableRecord) -> Table:
        """Make a table or view; its id and times are set here.

        Raises:
            ServiceError: There is one of this name.
        """
        with self._lock:
            if self.find_table(record.project, record.schema, record.name):
                raise errors.table_exists(f"{record.project}.{record.schema}.{record.name}")
            now = self.clock()
            made = replace(record, id=next(self._ids), created=now, modified=now, ddl_time=now)
            if not made.partition_columns and not made.parts and made.kind not in VIEW_KINDS:
                made = replace(made, parts={(): self.new_part(())})
            self._catalog.store(None, made)
            return Table(self, made)

    def change(self, table: Table, change: Callable[[TableRecord], TableRecord]) -> None:
        """Replace a table's record by a changed one, and drop rows that no record names any more.

        Raises:
            ServiceError: The table has been dropped, or the new name is taken.
        """
        with self._lock:
            old = self._current(table)
            new = change(old)
            if table_key(new) != table_key(old) and self.find_table(
                new.project, new.schema, new.name
            ):
                raise errors.table_exists(f"{new.project}.{new.schema}.{new.name}")
            self._catalog.store(old, new)

    def drop(self, table: Table) -> None:
        """Drop a table or view with all that it holds."""
        with self._lock:
            self._catalog.store(self._current(table), None)

    def expire(self) -> None:
        """Drop tables and partitions that nobody changed for as many days as their lifecycle."""
        with self._lock:
            now = self.clock()
            mortal = [
                record
                for project in self._catalog.projects.values()
                for record in project.tables.values()
                if record.lifecycle > 0
            ]
            for record in mortal:
                self._expire(record, now - record.lifecycle * DAY_SECONDS)

    def _expire(self, record: TableRecord, oldest: float) -> None:
        if not record.partition_columns:
            if record.modified < oldest:
                self._catalog.store(record, None)
            return
        kept = {values: part for values, part in record.parts.items() if part.modified >= oldest}
        if len(kept) < len(record.parts):
            self._catalog.store(record, replace(record, parts=kept))

    # Rows.

    def new_part(self, values: PartValues, segments: Sequence[Segment] = ()) -> Part:
        """A part as of now."""
        now = self.clock()
        return Part(values, now, now, now, next(self._versions), tuple(segments))

    def publish(
        self,
        table: Table,
        arrivals: Mapping[PartValues, Sequence[Segment]],
        *,
        overwrite: bool,
        create_parts: bool = True,
    ) -> None:
        """Show staged segments: appended to each part, or in place of what it held.

        Raises:
            ServiceError: The table has been dropped, or a partition is missing that may not be
                made here.
        """

        def changed(record: TableRecord) -> TableRecord:
            parts = dict(record.parts)
            for values, segments in arrivals.items():
                old = parts.get(values)
                if old is None:
                    if not create_parts:
                        spec = format_spec(record.partition_columns, values)
                        raise errors.no_such_partition(spec)
                    parts[values] = self.new_part(values, segments)
                    continue
                kept = () if overwrite else old.segments
                now, version = self.clock(), next(self._versions)
                merged = self._compacted(record, (*kept, *segments))
                parts[values] = replace(old, segments=merged, modified=now, version=version)
            return replace(record, parts=parts, modified=self.clock())

        self.change(table, changed)

    def snapshot(self, record: TableRecord, part: Part) -> Snapshot:
        """The rows of a part; reading them fails once the part has changed."""

        def open_part(cursor: duckdb.DuckDBPyConnection) -> Part:
            with self._lock:
                begin(cursor)
                current = self._catalog.current(record)
                held = current.parts.get(part.values) if current else None
                if held is None or held.version != part.version:
                    raise errors.table_modified(record.name)
                return held

        return Snapshot(self.storage, record.columns, part, open_part, record.partition_columns)

    def begin_upload(
        self,
        table: Table,
        partition: str | None = None,
        overwrite: bool = False,
        create_partition: bool = False,
    ) -> Upload:
        """Open an upload session.

        Raises:
            ServiceError: The table is a view, or the partition is missing or not fully named.
        """
        if table.is_view:
            raise errors.invalid_argument(f"'{table.name}' is a view and takes no rows.")
        if create_partition and partition and table.partition_columns:
            self.add_partitions(table, [full_values(table.partition_columns, partition)])
            table = self.table(table.project, table.schema, table.name)
        values = table.part(partition).values

        def publish(segments: list[Segment]) -> None:
            self.publish(table, {values: segments}, overwrite=overwrite, create_parts=False)

        return Upload(self.storage, table.record.columns, publish)

    def add_partitions(self, table: Table, wanted: Iterable[PartValues]) -> None:
        """Make the partitions that are missing."""

        def changed(record: TableRecord) -> TableRecord:
            added = {
                values: self.new_part(values) for values in wanted if values not in record.parts
            }
            return replace(record, parts={**record.parts, **added})

        self.change(table, changed)

    def _compacted(self, record: TableRecord, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """The same rows in the same order, in fewer segments once there are many small ones."""
        if len(segments) < _MANY_SEGMENTS:
            return segments
        done: list[Segment] = []
        for alike, run in itertools.groupby(
            segments, lambda item: item.size_bytes < _SMALL_BYTES and item.escaped
        ):
            group = list(run)
            if alike is False or len(group) == 1:
                done.extend(group)
            else:
                done.append(self.storage.merge(group, record.columns))
        return tuple(done)

    def _current(self, table: Table) -> TableRecord:
        record = self._catalog.current(table.record)
        if record is None:
            raise errors.no_such_table(table.full_name)
        return record
