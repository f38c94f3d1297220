"""Aggregates and window functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maxcompute_emulator import errors
from maxcompute_emulator.sql.coercion import number, text
from maxcompute_emulator.sql.functions import Call, wrong_arguments
from maxcompute_emulator.sql.scope import BIGINT, BOOLEAN, DOUBLE, INTEGER_TYPES, STRING
from maxcompute_emulator.types import DataType


@dataclass(frozen=True)
class Aggregate:
    """A call that may stand before OVER.

    `call` is what does; `wrap` goes around it, the window included.
    """

    call: str
    type: DataType | None = None
    wrap: str = "{0}"


Maker = Callable[[Call, str], Aggregate]


def _plain(name: str, result: DataType | None = None, letter: str = "x") -> Maker:
    """A function of the same arguments in DuckDB."""

    def make(call: Call, distinct: str) -> Aggregate:
        values = [number(value).sql if letter == "n" else value.sql for value in call.arguments]
        return Aggregate(f"{name}({distinct}{', '.join(values)})", result)

    return make


def _same_type(name: str) -> Maker:
    def make(call: Call, distinct: str) -> Aggregate:
        values = ", ".join(value.sql for value in call.arguments)
        return Aggregate(f"{name}({distinct}{values})", call.arguments[0].type)

    return make


def _count(call: Call, distinct: str) -> Aggregate:
    values = [value.sql for value in call.arguments]
    if len(values) <= 1:
        return Aggregate(f"count({distinct}{values[0] if values else '*'})", BIGINT)
    missing = " OR ".join(f"{value} IS NULL" for value in values)
    together = f"CASE WHEN {missing} THEN NULL ELSE row({', '.join(values)}) END"
    return Aggregate(f"count({distinct}{together})", BIGINT)


def _sum(call: Call, distinct: str) -> Aggregate:
    value = number(call.arguments[0])
    summed = f"sum({distinct}{value.sql})"
    if value.kind in INTEGER_TYPES:
        return Aggregate(summed, BIGINT, "CAST({0} AS BIGINT)")
    return Aggregate(summed, DOUBLE if value.kind in ("DOUBLE", "FLOAT") else None)


def _wm_concat(call: Call, distinct: str) -> Aggregate:
    if len(call.arguments) != 2:
        raise wrong_arguments(call)
    separator, value = call.arguments
    return Aggregate(f"string_agg({distinct}{text(value)}, {separator.sql})", STRING)


def _collect(distinct_always: bool) -> Maker:
    def make(call: Call, distinct: str) -> Aggregate:
        value = call.arguments[0]
        word = "DISTINCT " if distinct_always else distinct
        kind = DataType("ARRAY", children=(value.type,)) if value.type else None
        collected = f"list({word}{value.sql}) FILTER (WHERE {value.sql} IS NOT NULL)"
        return Aggregate(collected, kind, "coalesce({0}, [])")

    return make


def _count_if(call: Call, distinct: str) -> Aggregate:
    return Aggregate(f"count({distinct}CASE WHEN {call.arguments[0].sql} THEN 1 END)", BIGINT)


def _percentile(call: Call, distinct: str) -> Aggregate:
    value, share = call.arguments[:2]
    return Aggregate(f"quantile_cont({distinct}{number(value).sql}, {share.sql})")


def _exact_distinct(call: Call, _distinct: str) -> Aggregate:
    return Aggregate(f"count(DISTINCT {call.arguments[0].sql})", BIGINT)


AGGREGATES: dict[str, Maker] = {
    "count": _count,
    "sum": _sum,
    "avg": _plain("avg", letter="n"),
    "max": _same_type("max"),
    "min": _same_type("min"),
    "any_value": _same_type("any_value"),
    "median": _plain("median", DOUBLE, "n"),
    "stddev": _plain("stddev_pop", DOUBLE, "n"),
    "stddev_pop": _plain("stddev_pop", DOUBLE, "n"),
    "stddev_samp": _plain("stddev_samp", DOUBLE, "n"),
    "variance": _plain("var_pop", DOUBLE, "n"),
    "var_pop": _plain("var_pop", DOUBLE, "n"),
    "var_samp": _plain("var_samp", DOUBLE, "n"),
    "covar_pop": _plain("covar_pop", DOUBLE, "n"),
    "covar_samp": _plain("covar_samp", DOUBLE, "n"),
    "corr": _plain("corr", DOUBLE, "n"),
    "max_by": _same_type("max_by"),
    "min_by": _same_type("min_by"),
    "arg_max": _same_type("max_by"),
    "arg_min": _same_type("min_by"),
    "bool_and": _plain("bool_and", BOOLEAN),
    "bool_or": _plain("bool_or", BOOLEAN),
    "wm_concat": _wm_concat,
    "collect_list": _collect(distinct_always=False),
    "collect_set": _collect(distinct_always=True),
    "count_if": _count_if,
    "percentile": _percentile,
    "percentile_approx": _percentile,
    "approx_distinct": _exact_distinct,
    "grouping": _plain("grouping", BIGINT),
}
WINDOW_ONLY: dict[str, Maker] = {
    "row_number": _plain("row_number", BIGINT),
    "rank": _plain("rank", BIGINT),
    "dense_rank": _plain("dense_rank", BIGINT),
    "percent_rank": _plain("percent_rank", DOUBLE),
    "cume_dist": _plain("cume_dist", DOUBLE),
    "ntile": _plain("ntile", BIGINT),
    "lag": _same_type("lag"),
    "lead": _same_type("lead"),
    "first_value": _same_type("first_value"),
    "last_value": _same_type("last_value"),
    "nth_value": _same_type("nth_value"),
}


def aggregate(call: Call, distinct: bool, windowed: bool) -> Aggregate | None:
    """The aggregate or window function of this name, or None where it is neither.

    Raises:
        ServiceError: A window function stands without OVER.
    """
    word = "DISTINCT " if distinct else ""
    if call.name in AGGREGATES:
        return AGGREGATES[call.name](call, word)
    if call.name in WINDOW_ONLY:
        if not windowed:
            raise errors.semantic_error(f"window function {call.name} needs an OVER clause")
        return WINDOW_ONLY[call.name](call, word)
    return None
