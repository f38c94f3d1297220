"""CREATE, and above all CREATE TABLE."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from maxcompute_emulator import errors
from maxcompute_emulator.sql.clustering import read_clustering
from maxcompute_emulator.sql.dialect import parse_query
from maxcompute_emulator.sql.names import TableName, find_table, new_record, table_name
from maxcompute_emulator.sql.queries import QueryCompiler
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.sql.results import Rows, run_query
from maxcompute_emulator.sql.scope import CLOCK_TYPES, STRING, Session
from maxcompute_emulator.sql.special_functions import check_truncation
from maxcompute_emulator.sql.views import create_schema, create_view
from maxcompute_emulator.types import Column, TimeTruncation
from maxcompute_emulator.warehouse import Clustering, StoredColumn, TableRecord
from maxcompute_emulator.warehouse.records import MATERIALIZED_KIND, STORAGE_TIER

SHARDS = "emulator.shards"
HUB_LIFECYCLE = "emulator.hublifecycle"
_KEY_TYPES = {
    "TINYINT",
    "SMALLINT",
    "INT",
    "BIGINT",
    "STRING",
    "CHAR",
    "VARCHAR",
    "DATE",
    "DATETIME",
    "TIMESTAMP",
    "TIMESTAMP_NTZ",
}


@dataclass
class _Definition:
    """What a CREATE TABLE says, as it is read."""

    columns: list[Column] = field(default_factory=list)
    keys: list[Column] = field(default_factory=list)
    primary_key: list[str] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    comment: str = ""
    lifecycle: int = -1
    clustering: Clustering | None = None
    like: list[str] | None = None
    query: str | None = None


def create(session: Session, reader: Reader) -> None:
    """Run a statement that begins with CREATE, which has been read."""
    replacing = reader.accept("OR", "REPLACE")
    if reader.accept("VIEW"):
        create_view(session, reader, replacing)
    elif reader.accept("MATERIALIZED", "VIEW"):
        create_view(session, reader, replacing, MATERIALIZED_KIND)
    elif reader.accept("TABLE"):
        _create_table(session, reader)
    elif reader.accept("SCHEMA") or reader.accept("DATABASE"):
        create_schema(session, reader)
    else:
        raise errors.unsupported(f"CREATE {reader.current.value.upper()}")


def _create_table(session: Session, reader: Reader) -> None:
    quiet = reader.accept("IF", "NOT", "EXISTS")
    name = table_name(session, reader.dotted())
    definition = _read_definition(reader)
    existing = session.warehouse.find_table(name.project, name.schema, name.name)
    if existing:
        if quiet:
            return
        raise errors.table_exists(str(name))
    if definition.like:
        _create_like(session, name, definition)
    elif definition.query is not None:
        _create_as(session, name, definition)
    else:
        session.warehouse.create(_record(session, name, definition))


def _create_like(session: Session, name: TableName, definition: _Definition) -> None:
    model = find_table(session, definition.like or [])
    definition.columns = list(model.columns)
    definition.keys = list(model.partition_columns)
    definition.properties = {**model.properties, **definition.properties}
    definition.primary_key = list(model.primary_key)
    definition.comment = definition.comment or model.comment
    session.warehouse.create(_record(session, name, definition))


def _create_as(session: Session, name: TableName, definition: _Definition) -> None:
    if definition.keys or definition.columns:
        raise errors.semantic_error("CREATE TABLE AS takes its columns from the query")
    tree = parse_query(definition.query or "")
    rows = run_query(session, lambda: QueryCompiler(session).query(tree))
    definition.columns = _distinct_names(rows)
    record = _record(session, name, definition)
    part = session.warehouse.new_part((), rows.segments)
    try:
        session.warehouse.create(dataclasses.replace(record, parts={(): part}))
    except errors.ServiceError:
        session.warehouse.storage.drop(rows.segments)
        raise


def _distinct_names(rows: Rows) -> list[Column]:
    names = [stored.column.name for stored in rows.columns]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise errors.semantic_error(f"column {sorted(repeated)[0]} is named twice")
    return [stored.column for stored in rows.columns]


def _record(session: Session, name: TableName, definition: _Definition) -> TableRecord:
    if not definition.columns:
        raise errors.parse_error(f"table {name} needs columns")
    names = [column.name for column in (*definition.columns, *definition.keys)]
    repeated = {item for item in names if names.count(item) > 1}
    if repeated:
        raise errors.semantic_error(f"column {sorted(repeated)[0]} is named twice")
    for key in definition.keys:
        if key.generated:
            _check_rule(definition.columns, key.generated)
        if key.type.name not in _KEY_TYPES:
            raise errors.semantic_error(f"partition key {key.name} cannot be of type {key.type}")
    properties = dict(definition.properties)
    if session.flag("odps.tiered.storage.enable"):
        properties.setdefault(STORAGE_TIER, "standard")
    primary = {name.lower() for name in definition.primary_key}
    columns = tuple(
        StoredColumn(
            number,
            Column(
                column.name,
                column.type,
                column.comment,
                column.nullable and column.name not in primary,
            ),
        )
        for number, column in enumerate(definition.columns)
    )
    return dataclasses.replace(
        new_record(session, name, columns),
        partition_columns=tuple(definition.keys),
        comment=definition.comment,
        lifecycle=definition.lifecycle,
        clustering=definition.clustering,
        properties=properties,
        primary_key=tuple(definition.primary_key),
    )


def _check_rule(columns: list[Column], rule: TimeTruncation) -> None:
    check_truncation(rule.part)
    kinds = {column.name: column.type.name for column in columns}
    if kinds.get(rule.column) not in CLOCK_TYPES:
        raise errors.semantic_error(f"trunc_time needs a column of times, not {rule.column}")


def _read_definition(reader: Reader) -> _Definition:
    definition = _Definition()
    if reader.accept("LIKE"):
        definition.like = reader.dotted()
    elif reader.peek("("):
        _read_columns(reader, definition)
    while not reader.at_end:
        _read_option(reader, definition)
    return definition


def _read_columns(reader: Reader, definition: _Definition) -> None:
    reader.expect("(")
    while True:
        if reader.accept("PRIMARY", "KEY"):
            definition.primary_key = reader.names()
        else:
            definition.columns.append(read_column(reader))
        if not reader.accept(","):
            break
    reader.expect(")")


def read_column(reader: Reader) -> Column:
    """`name type [NOT NULL] [DEFAULT constant] [COMMENT 'text']`."""
    name, kind = reader.name(), reader.type()
    comment, nullable = "", True
    while True:
        if reader.accept("NOT", "NULL"):
            nullable = False
        elif reader.accept("NULL"):
            nullable = True
        elif reader.accept("COMMENT"):
            comment = reader.string()
        elif reader.peek("DEFAULT"):
            raise errors.unsupported("DEFAULT values of columns")
        else:
            return Column(name, kind, comment, nullable)


def _read_generated_key(reader: Reader) -> Column:
    """`(TRUNC_TIME(column, 'part') AS name [COMMENT 'text'])`."""
    reader.expect("(", "TRUNC_TIME", "(")
    source = reader.name()
    reader.expect(",")
    rule = TimeTruncation(source, reader.string().lower())
    reader.expect(")", "AS")
    name = reader.name()
    comment = reader.string() if reader.accept("COMMENT") else ""
    reader.expect(")")
    return Column(name, STRING, comment, generated=rule)


def read_column_list(reader: Reader) -> list[Column]:
    """Columns in parentheses."""
    return reader.listed(lambda: read_column(reader))


def read_properties(reader: Reader) -> dict[str, str]:
    """`('key'='value', ...)`."""
    reader.expect("(")
    found = {}
    while True:
        key = reader.string()
        reader.expect("=")
        found[key] = reader.constant()
        if not reader.accept(","):
            break
    reader.expect(")")
    return found


def _read_option(reader: Reader, definition: _Definition) -> None:
    if reader.accept("COMMENT"):
        definition.comment = reader.string()
    elif reader.accept("PARTITIONED", "BY"):
        definition.keys = read_column_list(reader)
    elif reader.accept("AUTO", "PARTITIONED", "BY"):
        definition.keys = [_read_generated_key(reader)]
    elif reader.accept("LIFECYCLE"):
        definition.lifecycle = _positive_days(reader)
    elif reader.accept("TBLPROPERTIES"):
        definition.properties.update(read_properties(reader))
    elif reader.accept("STORED", "AS"):
        reader.take()
    elif reader.accept("INTO"):
        definition.properties[SHARDS] = str(reader.integer())
        reader.expect("SHARDS")
    elif reader.accept("HUBLIFECYCLE"):
        definition.properties[HUB_LIFECYCLE] = str(reader.integer())
    elif clustering := read_clustering(reader):
        definition.clustering = clustering
    elif reader.accept("AS") or reader.peek("SELECT") or reader.peek("WITH"):
        definition.query = reader.rest()
    else:
        raise reader.error("this option of CREATE TABLE is not known")


def _positive_days(reader: Reader) -> int:
    days = reader.integer()
    if days < 1:
        raise errors.semantic_error(f"lifecycle must be a positive number of days, not {days}")
    return days
