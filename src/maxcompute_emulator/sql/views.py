"""CREATE VIEW and CREATE SCHEMA."""

from __future__ import annotations

import dataclasses

from maxcompute_emulator import errors
from maxcompute_emulator.sql.dialect import parse_query
from maxcompute_emulator.sql.names import table_name
from maxcompute_emulator.sql.queries import QueryCompiler
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.sql.results import run_query
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import StoredColumn, TableRecord
from maxcompute_emulator.warehouse.records import VIEW_KIND


def create_schema(session: Session, reader: Reader) -> None:
    """Run a statement that begins with CREATE SCHEMA, which has been read."""
    quiet = reader.accept("IF", "NOT", "EXISTS")
    project, name = schema_name(session, reader)
    comment = reader.string() if reader.accept("COMMENT") else ""
    reader.finish()
    known = {schema.name for schema in session.warehouse.schemas(project)}
    if name not in known or not quiet:
        session.warehouse.create_schema(project, name, comment)


def schema_name(session: Session, reader: Reader) -> tuple[str, str]:
    """A schema's name, with the project's before it where that is written."""
    parts = reader.dotted()
    return (parts[0], parts[1]) if len(parts) == 2 else (session.project, parts[0])


def create_view(session: Session, reader: Reader, replacing: bool) -> None:
    """Run a statement that begins with CREATE [OR REPLACE] VIEW, which has been read."""
    quiet = reader.accept("IF", "NOT", "EXISTS")
    name = table_name(session, reader.dotted())
    if reader.accept("LIFECYCLE"):
        reader.integer()
    names, comments = _read_view_columns(reader)
    comment = reader.string() if reader.accept("COMMENT") else ""
    reader.expect("AS")
    text = reader.rest().strip()
    existing = session.warehouse.find_table(name.project, name.schema, name.name)
    if existing and not (replacing and existing.is_view):
        if quiet:
            return
        raise errors.table_exists(str(name))
    tree = parse_query(text)
    # Whether a query on the view scans everything is told when it is used.
    settings = {**session.settings, "odps.sql.allow.fullscan": "true"}
    looking = dataclasses.replace(session, settings=settings)
    described = run_query(looking, lambda: QueryCompiler(looking).query(tree), keep=False)
    names = names or [stored.column.name for stored in described.columns]
    if len(names) != len(described.columns):
        raise errors.semantic_error("the number of column names differs from that of the query")
    columns = tuple(
        StoredColumn(number, Column(label, stored.column.type, comments.get(label, "")))
        for number, (label, stored) in enumerate(zip(names, described.columns, strict=True))
    )
    if existing:
        session.warehouse.drop(existing)
    session.warehouse.create(
        TableRecord(
            id=0,
            project=name.project,
            schema=name.schema,
            name=name.name,
            columns=columns,
            created=0,
            modified=0,
            ddl_time=0,
            owner=session.warehouse.owner,
            kind=VIEW_KIND,
            comment=comment,
            view_text=text,
        )
    )


def _read_view_columns(reader: Reader) -> tuple[list[str], dict[str, str]]:
    names: list[str] = []
    comments: dict[str, str] = {}
    if reader.accept("("):
        while True:
            names.append(reader.name())
            if reader.accept("COMMENT"):
                comments[names[-1]] = reader.string()
            if not reader.accept(","):
                break
        reader.expect(")")
    return names, comments
