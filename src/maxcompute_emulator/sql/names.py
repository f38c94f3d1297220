"""Which project, schema and table a dotted name means."""

from __future__ import annotations

from dataclasses import dataclass

from maxcompute_emulator import errors
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.warehouse import StoredColumn, Table, TableRecord


@dataclass(frozen=True)
class TableName:
    """A full name."""

    project: str
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}.{self.schema}.{self.name}"


def table_name(session: Session, parts: list[str]) -> TableName:
    """The full name of `t`, `schema.t`, `project.t` or `project.schema.t`.

    Raises:
        ServiceError: There is no such project, or too many dots.
    """
    names = [part.lower() for part in parts]
    if len(names) == 1:
        return TableName(session.project, session.schema, names[0])
    if len(names) == 3:
        return TableName(*names)
    if len(names) != 2:
        raise errors.parse_error(f"invalid table name '{'.'.join(parts)}'")
    first, name = names
    schemas = {schema.name for schema in session.warehouse.schemas(session.project)}
    if first in schemas and (session.three_levels or not session.warehouse.has_project(first)):
        return TableName(session.project, first, name)
    if not session.warehouse.has_project(first):
        raise errors.no_such_table(f"{first}.{name}")
    return TableName(first, "default", name)


def new_record(session: Session, name: TableName, columns: tuple[StoredColumn, ...]) -> TableRecord:
    """A table of this name and these columns, to be made."""
    return TableRecord(
        id=0,
        project=name.project,
        schema=name.schema,
        name=name.name,
        columns=columns,
        created=0,
        modified=0,
        ddl_time=0,
        owner=session.warehouse.owner,
        next_column_id=len(columns),
    )


def find_table(session: Session, parts: list[str]) -> Table:
    """The table or view of this name.

    Raises:
        ServiceError: There is none.
    """
    full = table_name(session, parts)
    return session.warehouse.table(full.project, full.schema, full.name)
