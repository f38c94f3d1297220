"""Casts and implicit conversions as MaxCompute does them, where DuckDB does otherwise."""

from __future__ import annotations

from maxcompute_emulator.sql.scope import (
    DOUBLE,
    FRACTION_TYPES,
    INTEGER_TYPES,
    STRING,
    TEXT_TYPES,
    Session,
    Typed,
)
from maxcompute_emulator.types import DataType, duckdb_type

_NUMBER_TYPES = {*INTEGER_TYPES, *FRACTION_TYPES}
_SECONDS = "'%Y-%m-%d %H:%M:%S'"


def clock(value: Typed) -> str:
    """A date or time as read on the clock: DuckDB's TIMESTAMP, which knows no zone."""
    if value.clock_sql:
        return value.clock_sql
    if value.kind == "TIMESTAMP":
        return f"CAST(CAST({value.sql} AS TIMESTAMP_NS) AS TIMESTAMP)"
    return f"CAST({value.sql} AS TIMESTAMP)"


def instant(value: Typed) -> str:
    """A date or time as DuckDB's form of DATETIME."""
    return f"CAST({value.sql} AS TIMESTAMP WITH TIME ZONE)"


def text(value: Typed) -> str:
    """Any plain value as a string, spelled as MaxCompute spells it."""
    if value.kind in TEXT_TYPES:
        return value.sql
    if value.kind == "DATETIME":
        return f"strftime({clock(value)}, {_SECONDS})"
    if value.kind == "TIMESTAMP":
        return f"CAST(CAST({value.sql} AS TIMESTAMP_NS) AS VARCHAR)"
    if value.kind == "BINARY":
        return f"decode({value.sql})"
    plain = f"CAST({value.sql} AS VARCHAR)"
    if value.type:
        return plain
    # DuckDB alone knows this type; only the zone of an instant must not show.
    marked = f"typeof({value.sql}) = 'TIMESTAMP WITH TIME ZONE'"
    return f"CASE WHEN {marked} THEN substr({plain}, 1, 19) ELSE {plain} END"


def number(value: Typed) -> Typed:
    """An operand of arithmetic: text counts as DOUBLE."""
    if value.kind in TEXT_TYPES:
        return Typed(f"CAST({value.sql} AS DOUBLE)", DOUBLE)
    return value


def comparable(left: Typed, right: Typed) -> tuple[Typed, Typed]:
    """Both sides in a type in which they can be compared."""
    kinds = {left.kind, right.kind}
    if kinds & TEXT_TYPES and kinds & _NUMBER_TYPES:
        return number(left), number(right)
    if "TIMESTAMP" in kinds and len(kinds) == 2 and "" not in kinds:
        wide = DataType("TIMESTAMP")
        return tuple(_widened(side, wide) for side in (left, right))  # type: ignore[return-value]
    if "TIMESTAMP_NTZ" in kinds and kinds & TEXT_TYPES:
        wide = DataType("TIMESTAMP_NTZ")
        return tuple(_widened(side, wide) for side in (left, right))  # type: ignore[return-value]
    return left, right


def _widened(side: Typed, wide: DataType) -> Typed:
    if side.kind == wide.name:
        return side
    inner = instant(side) if side.kind == "DATE" else side.sql
    return Typed(f"CAST({inner} AS {duckdb_type(wide)})", wide)


def cast(value: Typed, target: DataType, session: Session) -> Typed:
    """`CAST(value AS target)`; what cannot be converted fails, or is NULL without strict mode."""
    strict = session.flag("odps.sql.udf.strict.mode", default=True)
    verb = "CAST" if strict else "TRY_CAST"
    wanted = duckdb_type(target)
    if target.name in TEXT_TYPES:
        full = text(value)
        if target.name != "STRING":
            full = f"substr({full}, 1, {target.parameters[0]})"
        return Typed(full, target)
    if target.name in INTEGER_TYPES:
        return Typed(f"{verb}({_whole(value, verb)} AS {wanted})", target)
    if target.name == "DATE" and value.kind in TEXT_TYPES | {"TIMESTAMP", ""}:
        inner = clock(value) if strict else f"TRY_CAST({value.sql} AS TIMESTAMP)"
        return Typed(f"CAST({inner} AS DATE)", target)
    if target.name == "DATETIME" and value.kind in TEXT_TYPES:
        # Reading the clock of this needs no way through the zone and back.
        direct = f"{verb}({value.sql} AS TIMESTAMP)"
        return Typed(f"{verb}({value.sql} AS {wanted})", target, direct)
    if target.name == "TIMESTAMP_NTZ" and value.kind == "DATETIME":
        return Typed(f"CAST({clock(value)} AS {wanted})", target)
    if target.name in ("DATETIME", "TIMESTAMP") and value.kind in _NUMBER_TYPES:
        return Typed(f"CAST(to_timestamp(CAST({value.sql} AS DOUBLE)) AS {wanted})", target)
    if target.name == "BINARY":
        return Typed(f"encode({text(value)})" if value.kind != "BINARY" else value.sql, target)
    if target.name == "BOOLEAN" and value.kind in TEXT_TYPES:
        return Typed(f"{verb}({value.sql} AS BOOLEAN)", target)
    return Typed(f"{verb}({value.sql} AS {wanted})", target)


def _whole(value: Typed, verb: str) -> str:
    """A number without its fraction: DuckDB's cast would round it."""
    if value.kind in INTEGER_TYPES or value.kind == "BOOLEAN":
        return value.sql
    if value.kind in FRACTION_TYPES:
        return f"trunc({value.sql})"
    if value.kind in TEXT_TYPES:
        return f"split_part({value.sql}, '.', 1)"
    fraction = f"typeof({value.sql}) IN ('DOUBLE', 'FLOAT') OR typeof({value.sql}) LIKE 'DECIMAL%'"
    truncated = f"trunc(TRY_CAST({value.sql} AS DOUBLE))"
    return (
        f"CASE WHEN {fraction} THEN {verb}({truncated} AS BIGINT) "
        f"ELSE {verb}({value.sql} AS BIGINT) END"
    )


def arithmetic_type(left: Typed, right: Typed) -> DataType | None:
    """The type of a sum, difference or product."""
    kinds = (left.kind, right.kind)
    if all(kind in INTEGER_TYPES for kind in kinds):
        wider = max(kinds, key=INTEGER_TYPES.index)
        return DataType(wider)
    if "DOUBLE" in kinds and set(kinds) <= _NUMBER_TYPES:
        return DOUBLE
    return None


def common_type(values: list[Typed]) -> DataType | None:
    """The type of a CASE or COALESCE over these values, where it is plain."""
    known = [value.type for value in values if value.type]
    if len(known) != len(values) or not known:
        return None
    if all(kind == known[0] for kind in known):
        return known[0]
    if all(kind.name in TEXT_TYPES for kind in known):
        return STRING
    if all(kind.name in INTEGER_TYPES for kind in known):
        return DataType(max((kind.name for kind in known), key=INTEGER_TYPES.index))
    if all(kind.name in {*INTEGER_TYPES, "DOUBLE", "FLOAT"} for kind in known):
        return DOUBLE
    return None
