"""SHOW, DESC and EXPLAIN: answers in text."""

from __future__ import annotations

import fnmatch
import json
import time

from maxcompute_emulator import errors
from maxcompute_emulator.sql.dialect import parse_query
from maxcompute_emulator.sql.names import find_table
from maxcompute_emulator.sql.partitions_clause import matching, read_partition
from maxcompute_emulator.sql.queries import QueryCompiler
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.sql.results import run_query
from maxcompute_emulator.sql.scope import Session
from maxcompute_emulator.sql.views import schema_name
from maxcompute_emulator.types import Column
from maxcompute_emulator.warehouse import Table
from maxcompute_emulator.warehouse.partition_spec import format_path

_LINE = "+" + "-" * 84 + "+"


def show(session: Session, reader: Reader) -> str:
    """Run a statement that begins with SHOW, which has been read."""
    if reader.accept("PARTITIONS"):
        return _partitions(session, reader)
    if reader.accept("TABLES") or reader.accept("VIEWS"):
        return _tables(session, reader)
    if reader.accept("SCHEMAS") or reader.accept("DATABASES"):
        project = reader.name() if reader.accept("IN") else session.project
        return "\n".join(schema.name for schema in session.warehouse.schemas(project))
    if reader.accept("CREATE", "TABLE") or reader.accept("CREATE", "VIEW"):
        return ddl(find_table(session, reader.dotted()))
    raise errors.unsupported(f"SHOW {reader.rest()[:40]}")


def _partitions(session: Session, reader: Reader) -> str:
    table = find_table(session, reader.dotted())
    if not table.partition_columns:
        raise errors.semantic_error(f"table {table.full_name} is not a partitioned table")
    values = list(table.partitions)
    if reader.accept("PARTITION"):
        values = matching(table, read_partition(reader))
    reader.finish()
    return "\n".join(format_path(table.partition_columns, item) for item in sorted(values))


def _tables(session: Session, reader: Reader) -> str:
    schema = session.schema
    if reader.accept("IN") or reader.accept("FROM"):
        schema = reader.dotted()[-1]
    pattern = reader.string() if reader.accept("LIKE") else "*"
    reader.finish()
    return "\n".join(
        f"{table.owner}:{table.name}"
        for table in session.warehouse.tables(session.project, schema)
        if fnmatch.fnmatch(table.name, pattern.lower().replace("%", "*"))
    )


def describe(session: Session, reader: Reader) -> str:
    """Run a statement that begins with DESC or DESCRIBE, which has been read."""
    if reader.accept("SCHEMA"):
        return _schema(session, reader)
    extended = reader.accept("EXTENDED")
    reader.accept("TABLE")
    table = find_table(session, reader.dotted())
    if reader.accept("PARTITION"):
        found = matching(table, read_partition(reader))
        if not found:
            raise errors.semantic_error(f"partition not found in {table.full_name}")
        part = table.partitions[found[0]]
        return f"| PartitionSize: {part.size_bytes}\n| CreateTime: {_time(part.created)}"
    reader.finish()
    return "\n".join([*_heading(table), *_columns(table), *(_extended(table) if extended else [])])


def _schema(session: Session, reader: Reader) -> str:
    project, name = schema_name(session, reader)
    schema = session.warehouse.schema(project, name)
    described = {"name": schema.name, "owner": schema.owner, "type": "managed"}
    return json.dumps({**described, "createTime": _time(schema.created)})


def explain(session: Session, reader: Reader) -> str:
    """Run a statement that begins with EXPLAIN, which has been read: checks it, runs nothing."""
    tree = parse_query(reader.rest())
    rows = run_query(session, lambda: QueryCompiler(session).query(tree), keep=False)
    names = ", ".join(f"{stored.column.name} ({stored.column.type})" for stored in rows.columns)
    return (
        f"job0 is root job\n\nIn Job job0:\nroot Tasks: M1\n\nIn Task M1:\n    FS: output: {names}"
    )


def ddl(table: Table) -> str:
    """The statement that makes the table."""
    if table.is_view:
        return f"CREATE VIEW IF NOT EXISTS {table.full_name} AS {table.view_text};"
    text = f"CREATE TABLE IF NOT EXISTS {table.full_name}({_definitions(table.columns)})"
    if table.comment:
        text += f" COMMENT {_string(table.comment)}"
    if any(key.generated for key in table.partition_columns):
        text += f" AUTO PARTITIONED BY({', '.join(map(_rule, table.partition_columns))})"
    elif table.partition_columns:
        text += f" PARTITIONED BY({_definitions(table.partition_columns)})"
    text += " STORED AS ALIORC"
    if table.properties:
        pairs = (f"{_string(key)}={_string(value)}" for key, value in table.properties.items())
        text += f" TBLPROPERTIES ({','.join(pairs)})"
    if table.lifecycle > 0:
        text += f" LIFECYCLE {table.lifecycle}"
    return text + ";"


def _definitions(columns: tuple[Column, ...]) -> str:
    items = []
    for column in columns:
        item = f"`{column.name}` {column.type}"
        if not column.nullable:
            item += " NOT NULL"
        if column.comment:
            item += f" COMMENT {_string(column.comment)}"
        items.append(item)
    return ", ".join(items)


def _rule(key: Column) -> str:
    rule = key.generated
    return f"trunc_time(`{rule.column}`, {_string(rule.part)}) AS `{key.name}`" if rule else ""


def _string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _heading(table: Table) -> list[str]:
    kind = "VirtualView  : YES" if table.is_view else "InternalTable: YES"
    return [
        _LINE,
        f"| Owner: {table.owner} | Project: {table.project}",
        f"| TableComment: {table.comment}",
        _LINE,
        f"| CreateTime:               {_time(table.created)}",
        f"| LastDDLTime:              {_time(table.ddl_time)}",
        f"| LastModifiedTime:         {_time(table.modified)}",
        *([f"| Lifecycle:                {table.lifecycle}"] if table.lifecycle > 0 else []),
        _LINE,
        f"| {kind} | Size: {table.size_bytes}",
        _LINE,
    ]


def _columns(table: Table) -> list[str]:
    lines = ["| Native Columns:", _LINE, "| Field | Type | Label | Comment", _LINE]
    lines += [f"| {item.name} | {item.type} |       | {item.comment}" for item in table.columns]
    lines.append(_LINE)
    if table.partition_columns:
        lines += ["| Partition Columns:", _LINE]
        lines += [
            f"| {item.name} | {item.type} | {item.comment}" for item in table.partition_columns
        ]
        lines.append(_LINE)
    return lines


def _extended(table: Table) -> list[str]:
    return [
        "| Extended Info:",
        _LINE,
        f"| TableID: {table.id}",
        f"| RecordNum: {table.record_count}",
        f"| Transactional: {str(table.is_transactional).lower()}",
        "| StoredAs: AliOrc",
        _LINE,
    ]


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
