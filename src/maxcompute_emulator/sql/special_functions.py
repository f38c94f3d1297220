"""Functions whose meaning depends on the types, the number or the text of their arguments."""

from __future__ import annotations

from maxcompute_emulator import errors
from maxcompute_emulator.sql.coercion import clock, common_type, comparable, instant, text
from maxcompute_emulator.sql.functions import (
    Call,
    Handler,
    by_count,
    simple,
    wrong_arguments,
)
from maxcompute_emulator.sql.intervals import day_time, year_month
from maxcompute_emulator.sql.scope import (
    BIGINT,
    BOOLEAN,
    DATE,
    DATETIME,
    INTEGER_TYPES,
    STRING,
    TEXT_TYPES,
    TIMESTAMP,
    TIMESTAMP_NTZ,
    Typed,
)
from maxcompute_emulator.sql.time_formats import date_part, java_format, time_format
from maxcompute_emulator.types import DataType
from maxcompute_emulator.warehouse.storage import literal, quoted

_TRUNCATED = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%d %H:00:00"}
NOW_UTC = "CAST(now() AT TIME ZONE 'UTC' AS TIMESTAMP_NS)"
_EXACT_UNITS = {"hour", "minute", "second", "millisecond", "microsecond"}


def _concat(call: Call) -> Typed:
    return Typed("(" + " || ".join(text(value) for value in call.arguments) + ")", STRING)


def _concat_ws(call: Call) -> Typed:
    separator, *values = call.arguments
    parts = [
        f"array_to_string({value.sql}, {text(separator)})" if value.kind == "ARRAY" else text(value)
        for value in values
    ]
    return Typed(f"concat_ws({text(separator)}, {', '.join(parts)})", STRING)


def _coalesce(call: Call) -> Typed:
    kind = common_type(call.arguments)
    kinds = {value.kind for value in call.arguments}
    as_text = bool(kinds & TEXT_TYPES) and len(kinds) > 1
    items = [text(value) if as_text else value.sql for value in call.arguments]
    return Typed(f"coalesce({', '.join(items)})", STRING if as_text else kind)


def _extreme(name: str) -> Handler:
    """GREATEST and LEAST, which are NULL as soon as one argument is."""

    def handle(call: Call) -> Typed:
        items = [value.sql for value in call.arguments]
        missing = " OR ".join(f"{item} IS NULL" for item in items)
        value = f"CASE WHEN {missing} THEN NULL ELSE {name}({', '.join(items)}) END"
        return Typed(f"({value})", common_type(call.arguments))

    return handle


def _decode(call: Call) -> Typed:
    subject, *rest = call.arguments
    pairs = list(zip(rest[::2], rest[1::2], strict=False))
    whens = []
    for wanted, value in pairs:
        left, right = comparable(subject, wanted)
        whens.append(f"WHEN {left.sql} IS NOT DISTINCT FROM {right.sql} THEN {value.sql}")
    default = rest[-1].sql if len(rest) % 2 else "NULL"
    values = [value for _, value in pairs] + ([rest[-1]] if len(rest) % 2 else [])
    return Typed(f"CASE {' '.join(whens)} ELSE {default} END", common_type(values))


def _size(call: Call) -> Typed:
    value = call.arguments[0]
    if value.kind == "ARRAY":
        return Typed(f"len({value.sql})", BIGINT)
    if value.kind == "MAP":
        return Typed(f"CAST(cardinality({value.sql}) AS BIGINT)", BIGINT)
    return Typed(f"len({value.sql})", BIGINT)


def _array(call: Call) -> Typed:
    kind = common_type(call.arguments)
    items = ", ".join(value.sql for value in call.arguments)
    return Typed(f"list_value({items})", DataType("ARRAY", children=(kind,)) if kind else None)


def _map(call: Call) -> Typed:
    if len(call.arguments) % 2:
        raise wrong_arguments(call)
    keys, values = call.arguments[::2], call.arguments[1::2]
    kinds = common_type(keys), common_type(values)
    known = DataType("MAP", children=(kinds[0], kinds[1])) if kinds[0] and kinds[1] else None
    sides = (", ".join(item.sql for item in side) for side in (keys, values))
    return Typed("map([{}], [{}])".format(*sides), known)


def _named_struct(call: Call) -> Typed:
    names = [call.constant(position) for position in range(0, len(call.arguments), 2)]
    return _packed(names, call.arguments[1::2])


def _struct(call: Call) -> Typed:
    return _packed([f"col{n + 1}" for n in range(len(call.arguments))], call.arguments)


def _packed(names: list[str], values: list[Typed]) -> Typed:
    pairs = zip(names, values, strict=True)
    items = ", ".join(f"{quoted(name)} := {value.sql}" for name, value in pairs)
    kinds = [value.type for value in values]
    known = tuple(kind for kind in kinds if kind)
    complete = len(known) == len(kinds)
    kind = DataType("STRUCT", children=known, fields=tuple(names)) if complete else None
    return Typed(f"struct_pack({items})", kind)


def _dateadd(call: Call) -> Typed:
    value, amount = call.arguments[:2]
    unit = date_part(call.constant(2))
    step = f"CAST({amount.sql} AS BIGINT) * INTERVAL 1 {unit}"
    if value.kind == "DATE" and unit not in _EXACT_UNITS:
        return Typed(f"CAST({value.sql} + {step} AS DATE)", DATE)
    if value.kind in ("TIMESTAMP_NTZ", "TIMESTAMP"):
        raise errors.unsupported(f"DATEADD on {value.kind}; cast it to DATETIME first")
    return Typed(f"({instant(value)} + {step})", DATETIME)


def _datediff(call: Call) -> Typed:
    unit = date_part(call.constant(2)) if len(call.arguments) > 2 else "day"
    later, earlier = (clock(value) for value in call.arguments[:2])
    return Typed(f"date_diff('{unit}', {earlier}, {later})", BIGINT)


def _datetrunc(call: Call) -> Typed:
    value = call.arguments[0]
    unit = date_part(call.constant(1))
    truncated = f"date_trunc('{unit}', {clock(value)})"
    if value.kind == "DATE":
        return Typed(f"CAST({truncated} AS DATE)", DATE)
    return Typed(f"CAST({truncated} AS TIMESTAMP WITH TIME ZONE)", DATETIME, truncated)


def truncated_text(value: Typed, part: str) -> Typed:
    """`TRUNC_TIME`: a time cut to a part, as the text that partition keys hold."""
    return Typed(f"strftime({clock(value)}, {literal(check_truncation(part))})", STRING)


def check_truncation(part: str) -> str:
    """The form of times that TRUNC_TIME cuts to a part.

    Raises:
        ServiceError: They are not cut to that part.
    """
    shape = _TRUNCATED.get(part.lower())
    if shape is None:
        allowed = ", ".join(_TRUNCATED)
        raise errors.semantic_error(f"trunc_time cannot cut to '{part}'. Allowed: {allowed}")
    return shape


def _trunc_time(call: Call) -> Typed:
    return truncated_text(call.arguments[0], call.constant(1))


def _trunc(call: Call) -> Typed:
    if len(call.arguments) == 2 and call.nodes[1].is_string:
        return _datetrunc(call)
    items = ", ".join(value.sql for value in call.arguments)
    return Typed(f"trunc({items})")


def _datepart(call: Call) -> Typed:
    unit = date_part(call.constant(1))
    return Typed(f"date_part('{unit}', {clock(call.arguments[0])})", BIGINT)


def _add_days(sign: str) -> Handler:
    def handle(call: Call) -> Typed:
        day = f"CAST({clock(call.arguments[0])} AS DATE)"
        return Typed(f"({day} {sign} CAST({call.arguments[1].sql} AS INTEGER))", DATE)

    return handle


def _add_months(call: Call) -> Typed:
    months = f"CAST({call.arguments[1].sql} AS BIGINT) * INTERVAL 1 month"
    return Typed(f"CAST({clock(call.arguments[0])} + {months} AS DATE)", DATE)


def _to_date(call: Call) -> Typed:
    value = call.arguments[0]
    if len(call.arguments) == 1:
        return Typed(f"CAST({clock(value)} AS DATE)", DATE)
    read = f"strptime({text(value)}, {literal(time_format(call.constant(1)))})"
    return Typed(f"CAST({read} AS TIMESTAMP WITH TIME ZONE)", DATETIME, read)


def _to_char(call: Call) -> Typed:
    value = call.arguments[0]
    if len(call.arguments) == 1:
        return Typed(text(value), STRING)
    shape = literal(time_format(call.constant(1)))
    return Typed(f"strftime({clock(value)}, {shape})", STRING)


def _date_format(call: Call) -> Typed:
    shape = literal(java_format(call.constant(1)))
    return Typed(f"strftime({clock(call.arguments[0])}, {shape})", STRING)


def _isdate(call: Call) -> Typed:
    shape = literal(time_format(call.constant(1)))
    return Typed(f"(try_strptime({text(call.arguments[0])}, {shape}) IS NOT NULL)", BOOLEAN)


def _unix_timestamp(call: Call) -> Typed:
    if not call.arguments:
        return Typed("CAST(floor(epoch(now())) AS BIGINT)", BIGINT)
    value = call.arguments[0]
    if len(call.arguments) > 1:
        value = _to_date(call)
    elif value.kind in TEXT_TYPES and call.session.types2:
        raise wrong_arguments(call)
    return Typed(f"CAST(floor(epoch({instant(value)})) AS BIGINT)", BIGINT)


def _from_unixtime(call: Call) -> Typed:
    moment = f"to_timestamp({call.arguments[0].sql})"
    if len(call.arguments) == 1:
        return Typed(moment, DATETIME)
    shape = literal(java_format(call.constant(1)))
    return Typed(f"strftime(CAST({moment} AS TIMESTAMP), {shape})", STRING)


def _to_millis(call: Call) -> Typed:
    return Typed(f"epoch_ms({instant(call.arguments[0])})", BIGINT)


def _round(call: Call) -> Typed:
    value = call.arguments[0]
    kind = value.type if value.kind in INTEGER_TYPES or value.kind == "DECIMAL" else None
    digits = call.arguments[1].sql if len(call.arguments) > 1 else "0"
    number = value.sql if kind else f"CAST({value.sql} AS DOUBLE)"
    return Typed(f"round({number}, {digits})", None if kind else DataType("DOUBLE"))


SPECIAL: dict[str, Handler] = {
    "concat": _concat,
    "concat_ws": _concat_ws,
    "coalesce": _coalesce,
    "nvl": by_count({2: _coalesce}),
    "ifnull": by_count({2: _coalesce}),
    "greatest": _extreme("greatest"),
    "least": _extreme("least"),
    "decode": _decode,
    "size": by_count({1: _size}),
    "array": _array,
    "map": _map,
    "named_struct": _named_struct,
    "struct": _struct,
    "round": by_count({1: _round, 2: _round}),
    "dateadd": by_count({3: _dateadd}),
    "datediff": by_count({2: _datediff, 3: _datediff}),
    "datetrunc": by_count({2: _datetrunc}),
    "trunc_time": by_count({2: _trunc_time}),
    "trunc": by_count({1: _trunc, 2: _trunc}),
    "datepart": by_count({2: _datepart}),
    "date_add": by_count({2: _add_days("+")}),
    "date_sub": by_count({2: _add_days("-")}),
    "add_months": by_count({2: _add_months}),
    "to_date": by_count({1: _to_date, 2: _to_date}),
    "to_char": by_count({1: _to_char, 2: _to_char}),
    "date_format": by_count({2: _date_format}),
    "isdate": by_count({2: _isdate}),
    "unix_timestamp": by_count({0: _unix_timestamp, 1: _unix_timestamp, 2: _unix_timestamp}),
    "from_unixtime": by_count({1: _from_unixtime, 2: _from_unixtime}),
    "to_millis": by_count({1: _to_millis}),
    "getdate": by_count({0: simple("", "date_trunc('second', now())", DATETIME)}),
    "now": by_count({0: simple("", "date_trunc('second', now())", DATETIME)}),
    "current_timestamp": by_count({0: simple("", "CAST(now() AS TIMESTAMPTZ_NS)", TIMESTAMP)}),
    "current_timestamp_ntz": by_count({0: simple("", f"({NOW_UTC})", TIMESTAMP_NTZ)}),
    "interval_day_time": by_count({1: lambda call: day_time(call.constant(0))}),
    "interval_year_month": by_count({1: lambda call: year_month(call.constant(0))}),
    "current_date": by_count({0: simple("", "current_date", DATE)}),
    "explode": by_count({1: simple("x", "unnest({0})")}),
}
