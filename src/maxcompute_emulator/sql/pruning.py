"""Which partitions a query needs, told from those of its conditions that name partition keys."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from maxcompute_emulator.sql.scope import OutputColumn, Scope, Session, Source
from maxcompute_emulator.types import duckdb_type
from maxcompute_emulator.warehouse import Table
from maxcompute_emulator.warehouse.records import PartValues
from maxcompute_emulator.warehouse.storage import literal, quoted

Conditions = list[exp.Expr]
Compile = Callable[[exp.Expr, Scope], str]


def conjuncts(node: exp.Expr | None) -> Conditions:
    """The conditions that all must hold."""
    if node is None:
        return []
    if isinstance(node, exp.Where):
        return conjuncts(node.this)
    if isinstance(node, exp.Paren):
        return conjuncts(node.this)
    if isinstance(node, exp.And):
        return [*conjuncts(node.left), *conjuncts(node.right)]
    return [node]


def about(condition: exp.Expr, alias: str, names: set[str], alone: bool) -> bool:
    """Whether a condition speaks of nothing but these columns of the source `alias`."""
    columns = list(condition.find_all(exp.Column))
    return (
        bool(columns)
        and not condition.find(exp.Query)
        and all(
            column.name.lower() in names
            and (column.table.lower() == alias or (not column.table and alone))
            for column in columns
        )
    )


def mentions(condition: exp.Expr, alias: str, names: set[str]) -> bool:
    """Whether a condition speaks of one of these columns at all."""
    return any(
        column.name.lower() in names and column.table.lower() in (alias, "")
        for column in condition.find_all(exp.Column)
    )


def prune(
    session: Session, table: Table, alias: str, conditions: Conditions, compile_: Compile
) -> list[PartValues]:
    """Values of the partitions for which every condition can hold.

    A condition that holds for NULL keys is left out: behind an outer join it would hold for rows
    that no partition has.
    """
    values = list(table.partitions)
    if not conditions or not values:
        return values
    keys = table.partition_columns
    names = [column.name.lower() for column in keys]
    columns = tuple(
        OutputColumn(name, column.type) for name, column in zip(names, keys, strict=True)
    )
    scope = Scope(session, [Source(alias, columns)])
    tests = " AND ".join(
        f"({test} OR coalesce((SELECT {test} FROM nothing AS {quoted(alias)}), FALSE))"
        for test in (compile_(condition, scope) for condition in conditions)
    )
    casts = ", ".join(
        f"CAST({quoted(name)} AS {duckdb_type(column.type)}) AS {quoted(name)}"
        for name, column in zip(names, keys, strict=True)
    )
    rows = ", ".join(
        f"({index}, {', '.join(literal(value) for value in item)})"
        for index, item in enumerate(values)
    )
    nulls = ", ".join(
        f"CAST(NULL AS {duckdb_type(column.type)}) AS {quoted(column.name.lower())}"
        for column in keys
    )
    heading = ", ".join(["position", *(quoted(name) for name in names)])
    query = (
        f"WITH nothing AS (SELECT {nulls}), listed({heading}) AS (VALUES {rows}), "
        f"typed AS (SELECT position, {casts} FROM listed) "
        f"SELECT position FROM typed AS {quoted(alias)} WHERE {tests} ORDER BY position"
    )
    cursor = session.warehouse.storage.cursor()
    try:
        return [values[position] for (position,) in cursor.execute(query).fetchall()]
    finally:
        cursor.close()
