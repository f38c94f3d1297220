"""Runs a compiled query and keeps its rows as segments of known columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import duckdb

from maxcompute_emulator import errors
from maxcompute_emulator.sql.scope import BIGINT, INTEGER_TYPES, STRING, Relation, Session
from maxcompute_emulator.types import Column, DataType, duckdb_type
from maxcompute_emulator.warehouse import Segment, Snapshot, StoredColumn, Warehouse
from maxcompute_emulator.warehouse.snapshot import fixed_part

_FROM_DUCKDB = {
    "boolean": "BOOLEAN",
    "tinyint": "TINYINT",
    "smallint": "SMALLINT",
    "integer": "INT",
    "bigint": "BIGINT",
    "hugeint": "BIGINT",
    "utinyint": "BIGINT",
    "usmallint": "BIGINT",
    "uinteger": "BIGINT",
    "ubigint": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "varchar": "STRING",
    "blob": "BINARY",
    "date": "DATE",
    "timestamp": "TIMESTAMP_NTZ",
    "timestamp_ns": "TIMESTAMP_NTZ",
    "timestamp with time zone": "DATETIME",
    "timestamptz_ns": "TIMESTAMP",
    '"null"': "STRING",
    "null": "STRING",
    "json": "JSON",
}


@dataclass(frozen=True)
class Rows:
    """What a query gave: columns and the segments that hold them."""

    columns: tuple[StoredColumn, ...]
    segments: list[Segment]

    def snapshot(self, warehouse: Warehouse) -> Snapshot:
        """The rows as the instance tunnel reads them."""
        part = warehouse.new_part((), self.segments)
        return Snapshot(warehouse.storage, self.columns, part, fixed_part(part))


def run_query(session: Session, compile_: Callable[[], Relation], keep: bool = True) -> Rows:
    """Compile and run a query.

    Args:
        session: For whom.
        compile_: Gives the query; tables that it sees stay readable until it has run.
        keep: Whether to run it, rather than only tell its columns.

    Raises:
        ServiceError: It breaks a rule, or fails on the data.
    """
    with session.warehouse.pinned(compile_) as (cursor, relation):
        session.prepare(cursor)
        try:
            columns = _columns(session, cursor, relation)
            if not keep:
                return Rows(columns, [])
            escaped = frozenset(
                stored.id
                for stored in columns
                if session.escaped and stored.column.type.name in ("STRING", "VARCHAR", "CHAR")
            )
            storage = session.warehouse.storage
            segment = storage.write_query(cursor, columns, relation.sql, escaped)
        except duckdb.Error as error:
            raise service_error(error) from error
    return Rows(columns, [segment])


def service_error(error: duckdb.Error) -> errors.ServiceError:
    """DuckDB's complaint as the service would say it."""
    message = str(error).split("\n\nLINE ")[0].splitlines()[0]
    if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException):
        return errors.invalid_value(message)
    if isinstance(error, duckdb.InvalidInputException | duckdb.ConstraintException):
        return errors.invalid_value(message)
    if isinstance(error, duckdb.InterruptException):
        return errors.ServiceError("ODPS-0130252", "Instance has been cancelled.")
    if isinstance(error, duckdb.BinderException | duckdb.ParserException | duckdb.CatalogException):
        return errors.semantic_error(message)
    return errors.internal_error(message)


def _columns(
    session: Session, cursor: duckdb.DuckDBPyConnection, relation: Relation
) -> tuple[StoredColumn, ...]:
    bound = cursor.sql(relation.sql)
    pairs = zip(relation.columns, bound.types, strict=True)
    return tuple(
        StoredColumn(number, Column(column.name, _final_type(session, column.type, kind)))
        for number, (column, kind) in enumerate(pairs)
    )


def _final_type(session: Session, known: DataType | None, bound: object) -> DataType:
    """What the compiler knows, where DuckDB agrees; else what DuckDB says."""
    seen = from_duckdb(bound)
    if known is None or known.name == "VOID":
        whole = seen.name in INTEGER_TYPES and not session.types2
        return BIGINT if whole else seen
    if known == seen or duckdb_type(known) == duckdb_type(seen):
        return known
    if known.name in INTEGER_TYPES and seen.name in INTEGER_TYPES:
        return known
    return seen


def from_duckdb(kind: object) -> DataType:
    """The MaxCompute type of a DuckDB type.

    Raises:
        ServiceError: There is none.
    """
    name = str(kind.id)  # type: ignore[attr-defined]
    if str(kind).lower() in ("json", "timestamptz_ns"):
        name = str(kind).lower()
    if name in _FROM_DUCKDB:
        return DataType(_FROM_DUCKDB[name])
    if name in ("decimal", "list", "map", "struct"):
        children = kind.children  # type: ignore[attr-defined]
        if name == "decimal":
            return DataType("DECIMAL", tuple(int(value) for _, value in children))
        inner = tuple(from_duckdb(child) for _, child in children)
        if name == "struct":
            return DataType("STRUCT", children=inner, fields=tuple(name for name, _ in children))
        return DataType("ARRAY" if name == "list" else "MAP", children=inner)
    if name == "enum":
        return STRING
    raise errors.unsupported(f"values of DuckDB's type {kind} as a result")
