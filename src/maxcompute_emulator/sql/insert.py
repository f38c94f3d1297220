"""INSERT INTO and INSERT OVERWRITE, into a table, one partition, or partitions from the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb

from maxcompute_emulator import errors
from maxcompute_emulator.sql.coercion import cast, text
from maxcompute_emulator.sql.dialect import parse_query
from maxcompute_emulator.sql.names import find_table
from maxcompute_emulator.sql.partitions_clause import (
    PartitionTest,
    check_value,
    full_values,
    read_partition,
)
from maxcompute_emulator.sql.queries import QueryCompiler
from maxcompute_emulator.sql.reader import Reader
from maxcompute_emulator.sql.results import service_error
from maxcompute_emulator.sql.scope import TIMESTAMP_NTZ, Relation, Session, Typed
from maxcompute_emulator.sql.special_functions import NOW_UTC, truncated_text
from maxcompute_emulator.types import Column, DataType
from maxcompute_emulator.warehouse import Segment, StoredColumn, Table
from maxcompute_emulator.warehouse.partition_spec import normal_value
from maxcompute_emulator.warehouse.records import PartValues
from maxcompute_emulator.warehouse.storage import column_name, literal, segment_name

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_ARRIVAL_COLUMN = "_partitiontime"
_KEY_ID = 1_000_000


@dataclass(frozen=True)
class _Target:
    """Where rows go.

    Attributes:
        table: The table.
        static: Keys that the statement gives, with their values.
        dynamic: Keys that each row gives.
        made: Those of them that follow from the row's other values.
        given: Columns that the query gives.
    """

    table: Table
    static: dict[str, str]
    dynamic: list[Column]
    made: set[str]
    given: list[str]


def insert(session: Session, reader: Reader, head: str = "") -> None:
    """Run a statement that begins with INSERT, which has been read.

    Args:
        session: For whom.
        reader: At what follows INSERT.
        head: The WITH that stood before it, if any.
    """
    overwrite = reader.accept("OVERWRITE")
    if not overwrite:
        reader.expect("INTO")
    reader.accept("TABLE")
    table = find_table(session, reader.dotted())
    if table.is_view:
        raise errors.semantic_error(f"{table.full_name} is a view and takes no rows")
    tests = read_partition(reader) if reader.accept("PARTITION") else []
    names = _column_names(reader)
    tree = parse_query(head + reader.rest())
    target = _target(session, table, tests, names)
    arrivals = _write(session, target, lambda: QueryCompiler(session).query(tree))
    try:
        session.warehouse.publish(table, arrivals, overwrite=overwrite)
    except errors.ServiceError:
        session.warehouse.storage.drop(item for items in arrivals.values() for item in items)
        raise


def _column_names(reader: Reader) -> list[str]:
    if not reader.peek("(") or reader.peek("(", "SELECT"):
        return []
    return reader.names()


def _target(
    session: Session, table: Table, tests: list[PartitionTest], names: list[str]
) -> _Target:
    keys = {column.name.lower(): column for column in table.partition_columns}
    unknown = [test.key for test in tests if test.key not in keys]
    if unknown:
        raise errors.semantic_error(f"column {unknown[0]} is no partition key of {table.name}")
    static = {test.key: test.value for test in tests if test.sign}
    for name, value in static.items():
        check_value(session.warehouse.storage, keys[name], value)
    dynamic = [column for name, column in keys.items() if name not in static]
    named = {test.key for test in tests} | set(names)
    made = {name for name, key in keys.items() if key.generated and name not in named}
    if tests and {test.key for test in tests} | made != set(keys):
        raise errors.semantic_error("PARTITION must name every partition key")
    plain = [column.name.lower() for column in table.columns]
    missing = [name for name in names if name not in plain and name not in keys]
    if missing:
        raise errors.semantic_error(f"column {missing[0]} cannot be resolved")
    listed = [name for name in names if name in plain] or plain
    return _Target(table, static, dynamic, made, listed)


def _write(
    session: Session, target: _Target, compile_: Callable[[], Relation]
) -> dict[PartValues, list[Segment]]:
    table = target.table
    with session.warehouse.pinned(compile_) as (cursor, relation):
        session.prepare(cursor)
        select = _shaped(session, target, relation)
        escaped = frozenset(
            stored.id for stored in table.record.columns if session.escaped and _is_text(stored)
        )
        storage = session.warehouse.storage
        try:
            if not target.dynamic:
                segment = storage.write_query(cursor, table.record.columns, select, escaped)
                return {_static_values(target): [segment] if segment.rows else []}
            return _write_dynamic(session, cursor, target, select, escaped)
        except duckdb.Error as error:
            raise service_error(error) from error


def _is_text(stored: StoredColumn) -> bool:
    return stored.column.type.name in ("STRING", "CHAR", "VARCHAR")


def _static_values(target: _Target) -> PartValues:
    if not target.table.partition_columns:
        return ()
    tests = [PartitionTest(name, "=", value) for name, value in target.static.items()]
    return full_values(target.table, tests)


def _shaped(session: Session, target: _Target, relation: Relation) -> str:
    """The query's columns in the table's order and types, then the dynamic keys as text."""
    wanted = len(target.given) + len(target.dynamic) - len(target.made)
    if len(relation.columns) != wanted:
        raise errors.semantic_error(
            f"wrong columns count {len(relation.columns)} in data source, requires {wanted} columns"
        )
    inputs = [
        Typed(f'q."i{number}"', column.type) for number, column in enumerate(relation.columns)
    ]
    by_name = dict(zip(target.given, inputs, strict=False))
    values: dict[str, Typed] = {}
    for column in target.table.columns:
        value = by_name.get(column.name.lower()) or _left_out(target.table, column)
        values[column.name.lower()] = Typed(_converted(session, value, column.type), column.type)
    keys = iter(inputs[len(target.given) :])
    items = [value.sql for value in values.values()]
    items += [
        truncated_text(values[key.generated.column], key.generated.part).sql
        if key.generated and key.name.lower() in target.made
        else text(next(keys))
        for key in target.dynamic
    ]
    heading = ", ".join(f'"i{number}"' for number in range(len(inputs)))
    return f"SELECT {', '.join(items)} FROM ({relation.sql}) AS q({heading})"


def _left_out(table: Table, column: Column) -> Typed:
    """The value of a column that the query does not give."""
    arrival = table.properties.get("ingestion_time_partition", "").lower() == "true"
    if arrival and column.name.lower() == _ARRIVAL_COLUMN:
        return Typed(NOW_UTC, TIMESTAMP_NTZ)
    return Typed("NULL")


def _converted(session: Session, value: Typed, wanted: DataType) -> str:
    if value.type == wanted or wanted.children:
        return value.sql
    return cast(value, wanted, session).sql


def _write_dynamic(
    session: Session,
    cursor: duckdb.DuckDBPyConnection,
    target: _Target,
    select: str,
    escaped: frozenset[int],
) -> dict[PartValues, list[Segment]]:
    """One segment for each combination of keys that the rows have."""
    storage, columns = session.warehouse.storage, target.table.record.columns
    keys = [
        StoredColumn(_KEY_ID + number, Column(column.name, DataType("STRING")))
        for number, column in enumerate(target.dynamic)
    ]
    staged = storage.write_query(cursor, [*columns, *keys], select)
    name = segment_name(staged.id)
    listed = ", ".join(column_name(stored.id) for stored in keys)
    found = cursor.execute(f"SELECT DISTINCT {listed} FROM {name} ORDER BY ALL").fetchall()
    plain = ", ".join(column_name(stored.id) for stored in columns)
    arrivals: dict[PartValues, list[Segment]] = {}
    for values in found:
        test = " AND ".join(
            f"{column_name(stored.id)} IS NOT DISTINCT FROM "
            f"{'NULL' if value is None else literal(value)}"
            for stored, value in zip(keys, values, strict=True)
        )
        part = f"SELECT {plain} FROM {name} WHERE {test}"
        segment = storage.write_query(cursor, columns, part, escaped)
        arrivals.setdefault(_all_values(target, values), []).append(segment)
    cursor.execute(f"DROP TABLE {name}")
    return arrivals


def _all_values(target: _Target, dynamic: Sequence[str | None]) -> PartValues:
    given = {
        column.name.lower(): value or _NULL_PARTITION
        for column, value in zip(target.dynamic, dynamic, strict=True)
    }
    given |= target.static
    return tuple(
        normal_value(column.type, given[column.name.lower()])
        for column in target.table.partition_columns
    )
