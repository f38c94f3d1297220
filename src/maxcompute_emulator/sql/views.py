"""CREATE VIEW and CREATE SCHEMA."""

from __future__ import annotations

import dataclasses

from maxcompute_emulator import errors
from maxcompute_emulator.sql.dialect import parse_query
from maxcompute_emulator.sql.names import new_record, table_name
from maxcompute_emulator.sql.queries import QueryCompiler
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.sql.results import run_query
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import StoredColumn
from maxcompute_emulator.warehouse.records import MATERIALIZED_KIND, VIEW_KIND


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


def create_view(session: Session, reader: Reader, replacing: bool, kind: str = VIEW_KIND) -> None:
    """Run a statement that begins with CREATE and [MATERIALIZED] VIEW, which have been read.

    A materialized view is always up to date here, since its query runs when it is read.
    """
    quiet = reader.accept("IF", "NOT", "EXISTS")
    name = table_name(session, reader.dotted())
    if reader.accept("LIFECYCLE"):
        reader.integer()
    reader.accept("BUILD", "DEFERRED")
    names, comments = _read_view_columns(reader)
    reader.accept("DISABLE", "REWRITE")
    comment = reader.string() if reader.accept("COMMENT") else ""
    reader.accept("DISABLE", "REWRITE")
    if kind == MATERIALIZED_KIND and reader.accept("PARTITIONED", "ON"):
        reader.names()
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
    record = new_record(session, name, columns)
    session.warehouse.create(
        dataclasses.replace(record, kind=kind, comment=comment, view_text=text)
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
