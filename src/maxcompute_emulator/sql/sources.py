"""What stands in FROM: the rows of a table's partitions, and lateral views."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql.expressions import ExpressionCompiler
from maxcompute_emulator.sql.scope import OutputColumn, Relation, Scope, Source
from maxcompute_emulator.types import DataType, duckdb_type
from maxcompute_emulator.warehouse import Table
from maxcompute_emulator.warehouse.records import PartValues
from maxcompute_emulator.warehouse.storage import column_in, literal, quoted, segment_name

_POSITION = DataType("INT")


def table_rows(table: Table, values: Sequence[PartValues]) -> Relation:
    """The rows of these partitions, with the keys as columns after all others."""
    columns = tuple(
        OutputColumn(column.name.lower(), column.type)
        for column in (*table.columns, *table.partition_columns)
    )
    selects = []
    for value in values:
        keys = [
            f"CAST({literal(item)} AS {duckdb_type(column.type)}) AS {quoted(column.name.lower())}"
            for column, item in zip(table.partition_columns, value, strict=True)
        ]
        for segment in table.record.parts[value].segments:
            items = [
                f"{column_in(segment, stored)} AS {quoted(stored.column.name.lower())}"
                for stored in table.record.columns
            ]
            selects.append(f"SELECT {', '.join([*items, *keys])} FROM {segment_name(segment.id)}")
    return Relation(" UNION ALL ".join(selects) or empty_rows(columns), columns)


def empty_rows(columns: Sequence[OutputColumn]) -> str:
    """A query for no rows of these columns."""
    items = ", ".join(
        f"CAST(NULL AS {duckdb_type(column.type) if column.type else 'VARCHAR'}) "
        f"AS {quoted(column.name)}"
        for column in columns
    )
    return f"SELECT {items} WHERE FALSE"


def lateral_sql(node: exp.Lateral, compile_: ExpressionCompiler, scope: Scope) -> str:
    """`LATERAL VIEW [OUTER] EXPLODE(...)`, as a join with the rows of each array or map."""
    call = node.this
    if not isinstance(call, exp.Anonymous) or call.name.lower() not in ("explode", "posexplode"):
        raise errors.unsupported(f"LATERAL VIEW {call.name}; EXPLODE and POSEXPLODE are carried")
    value = compile_(call.expressions[0])
    alias = node.args["alias"]
    name = (alias.name or f"_l{len(scope.sources)}").lower()
    kinds: list[DataType | None]
    if value.kind == "MAP" and value.type:
        items = [f"unnest(map_keys({value.sql}))", f"unnest(map_values({value.sql}))"]
        kinds = list(value.type.children)
        counted = f"map_keys({value.sql})"
    else:
        items = [f"unnest({value.sql})"]
        kinds = [value.type.children[0] if value.kind == "ARRAY" and value.type else None]
        counted = value.sql
    if call.name.lower() == "posexplode":
        position = f"CAST(generate_subscripts({counted}, 1) - 1 AS INTEGER)"
        items, kinds = [position, *items], [_POSITION, *kinds]
    names = [item.name.lower() for item in alias.columns]
    names = names or (["col"] if len(items) == 1 else ["key", "value"])
    if len(names) != len(items):
        raise errors.semantic_error(f"LATERAL VIEW {call.name} gives {len(items)} columns")
    columns = tuple(OutputColumn(*pair) for pair in zip(names, kinds, strict=True))
    scope.sources.append(Source(name, columns))
    listed = ", ".join(
        f"{item} AS {quoted(column)}" for item, column in zip(items, names, strict=True)
    )
    inner = f"LATERAL (SELECT {listed}) AS {quoted(name)}"
    return f" LEFT JOIN {inner} ON TRUE" if node.args.get("outer") else f" CROSS JOIN {inner}"
