"""DROP and TRUNCATE."""

from __future__ import annotations

from maxcompute_emulator import errors
from maxcompute_emulator.sql.names import find_table, table_name
from maxcompute_emulator.sql.partitions_clause import existing_values, read_partitions
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.sql.views import schema_name


def drop(session: Session, reader: Reader) -> None:
    """Run a statement that begins with DROP, which has been read."""
    if reader.accept("SCHEMA") or reader.accept("DATABASE"):
        _drop_schema(session, reader)
        return
    as_view = reader.accept("VIEW") or reader.accept("MATERIALIZED", "VIEW")
    if not as_view:
        reader.expect("TABLE")
    quiet = reader.accept("IF", "EXISTS")
    name = table_name(session, reader.dotted())
    reader.accept("PURGE")
    reader.finish()
    if not session.warehouse.has_project(name.project):
        raise errors.no_such_project(name.project)
    table = session.warehouse.find_table(name.project, name.schema, name.name)
    if table is None:
        if quiet:
            return
        raise errors.no_such_table(str(name))
    if table.is_view != as_view:
        kind = "view" if table.is_view else "table"
        raise errors.semantic_error(f"{name} is a {kind}; drop it with DROP {kind.upper()}")
    session.warehouse.drop(table)


def _drop_schema(session: Session, reader: Reader) -> None:
    quiet = reader.accept("IF", "EXISTS")
    project, name = schema_name(session, reader)
    reader.accept("RESTRICT")
    reader.finish()
    known = {schema.name for schema in session.warehouse.schemas(project)}
    if name in known or not quiet:
        session.warehouse.drop_schema(project, name)


def truncate(session: Session, reader: Reader) -> None:
    """Run a statement that begins with TRUNCATE, which has been read."""
    reader.expect("TABLE")
    table = find_table(session, reader.dotted())
    clauses = read_partitions(reader)
    reader.finish()
    if table.is_view:
        raise errors.semantic_error(f"{table.full_name} is a view")
    if clauses:
        emptied = [values for tests in clauses for values in existing_values(table, tests)]
    else:
        emptied = list(table.record.parts)
    session.warehouse.publish(table, {values: [] for values in emptied}, overwrite=True)
