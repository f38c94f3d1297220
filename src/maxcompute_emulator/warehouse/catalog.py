"""What exists: held in memory for looking, and in the database so that it outlives the process.

Both change together, under the warehouse's lock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import duckdb

from maxcompute_emulator import errors
from maxcompute_emulator.warehouse.records import (
    DEFAULT_SCHEMA,
    Part,
    PartValues,
    Segment,
    TableRecord,
    part_from_json,
    part_to_json,
    table_from_json,
    table_to_json,
)
from maxcompute_emulator.warehouse.storage import Storage


@dataclass(frozen=True)
class SchemaRecord:
    """A schema of a project."""

    name: str
    owner: str
    comment: str
    created: float


@dataclass
class Project:
    """A project and what it holds; tables by schema and name, both in lower case."""

    created: float
    schemas: dict[str, SchemaRecord]
    tables: dict[tuple[str, str], TableRecord]


class Catalog:
    """Projects, schemas and tables.

    Attributes:
        projects: By name, in lower case.
        last_table_id: The greatest id that was found in the database.
        last_version: The greatest version of a part that was found there.
    """

    def __init__(self, storage: Storage, owner: str) -> None:
        self.projects: dict[str, Project] = {}
        self.last_table_id = 0
        self.last_version = 0
        self._storage = storage
        self._owner = owner
        self._load()

    def project(self, name: str) -> Project:
        """One project.

        Raises:
            ServiceError: There is none of this name.
        """
        found = self.projects.get(name.lower())
        if found is None:
            raise errors.no_such_project(name)
        return found

    def add_project(self, name: str, created: float) -> None:
        """Make a project."""
        with self._storage.transaction() as cursor:
            cursor.execute("INSERT INTO meta.projects VALUES (?, ?)", [name.lower(), created])
        self._open_project(name.lower(), created)

    def add_schema(self, project: str, schema: SchemaRecord) -> None:
        """Make a schema."""
        body = json.dumps([schema.owner, schema.comment, schema.created])
        with self._storage.transaction() as cursor:
            cursor.execute(
                "INSERT INTO meta.schemas VALUES (?, ?, ?)", [project.lower(), schema.name, body]
            )
        self.project(project).schemas[schema.name] = schema

    def drop_schema(self, project: str, name: str) -> None:
        """Drop a schema that holds nothing."""
        with self._storage.transaction() as cursor:
            cursor.execute(
                "DELETE FROM meta.schemas WHERE project = ? AND name = ?",
                [project.lower(), name.lower()],
            )
        del self.project(project).schemas[name.lower()]

    def current(self, record: TableRecord) -> TableRecord | None:
        """The same table as it is now, under whatever name."""
        tables = self.project(record.project).tables
        found = tables.get(table_key(record))
        if found and found.id == record.id:
            return found
        return next((other for other in tables.values() if other.id == record.id), None)

    def store(self, old: TableRecord | None, new: TableRecord | None) -> None:
        """Put a table in the place of another; None makes or drops one.

        Segments that nothing names any more are dropped.
        """
        with self._storage.transaction() as cursor:
            _store_table(cursor, old, new)
            _store_parts(cursor, old, new)
        if old:
            del self.project(old.project).tables[table_key(old)]
        if new:
            self.project(new.project).tables[table_key(new)] = new
        kept = {segment.id for segment in _segments(new)}
        self._storage.drop(item for item in _segments(old) if item.id not in kept)

    def _open_project(self, name: str, created: float) -> None:
        default = SchemaRecord(DEFAULT_SCHEMA, self._owner, "", created)
        self.projects[name] = Project(created, {DEFAULT_SCHEMA: default}, {})

    def _load(self) -> None:
        cursor = self._storage.cursor()
        for name, created in cursor.execute("FROM meta.projects").fetchall():
            self._open_project(name, created)
        for project, name, body in cursor.execute("FROM meta.schemas").fetchall():
            self.projects[project].schemas[name] = SchemaRecord(name, *json.loads(body))
        parts: dict[int, dict[PartValues, Part]] = {}
        for table_id, _, body in cursor.execute("FROM meta.parts").fetchall():
            part = part_from_json(body)
            parts.setdefault(table_id, {})[part.values] = part
        records = [
            table_from_json(body, parts.get(table_id, {}))
            for table_id, body in cursor.execute("FROM meta.tables").fetchall()
        ]
        cursor.close()
        for record in records:
            self.projects[record.project].tables[table_key(record)] = record
        everything = [part for record in records for part in record.parts.values()]
        self._storage.drop_orphans({item.id for part in everything for item in part.segments})
        self.last_table_id = max((record.id for record in records), default=0)
        self.last_version = max((part.version for part in everything), default=0)


def table_key(record: TableRecord) -> tuple[str, str]:
    """How a table is found in its project."""
    return record.schema.lower(), record.name.lower()


def _segments(record: TableRecord | None) -> list[Segment]:
    parts = record.parts.values() if record else []
    return [segment for part in parts for segment in part.segments]


def _store_table(
    cursor: duckdb.DuckDBPyConnection, old: TableRecord | None, new: TableRecord | None
) -> None:
    if new is None and old:
        cursor.execute("DELETE FROM meta.tables WHERE id = ?", [old.id])
    elif new and old:
        cursor.execute("UPDATE meta.tables SET body = ? WHERE id = ?", [table_to_json(new), new.id])
    elif new:
        cursor.execute("INSERT INTO meta.tables VALUES (?, ?)", [new.id, table_to_json(new)])


def _store_parts(
    cursor: duckdb.DuckDBPyConnection, old: TableRecord | None, new: TableRecord | None
) -> None:
    before = old.parts if old else {}
    after = new.parts if new else {}
    table_id = (new or old).id  # type: ignore[union-attr]
    gone = [values for values, part in before.items() if after.get(values) is not part]
    fresh = [part for values, part in after.items() if before.get(values) is not part]
    for values in gone:
        cursor.execute(
            "DELETE FROM meta.parts WHERE table_id = ? AND key = ?", [table_id, json.dumps(values)]
        )
    for part in fresh:
        cursor.execute(
            "INSERT INTO meta.parts VALUES (?, ?, ?)",
            [table_id, json.dumps(part.values), part_to_json(part)],
        )
