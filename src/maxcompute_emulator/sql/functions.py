"""What each function means in DuckDB. A name that is not here is refused, never guessed.

A template names its arguments `{0}`, `{1}`; each letter of the signature says how one is taken:

| letter | taken as |
| --- | --- |
| `x` | it is |
| `s` | text |
| `n` | a number; text counts as DOUBLE |
| `c` | a time as read on the clock |
| `i` | an instant |
| `l` | a constant text, without quotes |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql.coercion import clock, instant, number, text
from maxcompute_emulator.sql.scope import (
    BIGINT,
    BOOLEAN,
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    STRING,
    Session,
    Typed,
)
from maxcompute_emulator.types import DataType


@dataclass(frozen=True)
class Call:
    """One call: the name, its arguments compiled and as they were written."""

    name: str
    arguments: list[Typed]
    nodes: list[exp.Expr]
    session: Session

    def constant(self, position: int) -> str:
        """A text that must be written in the query itself."""
        node = self.nodes[position]
        if not isinstance(node, exp.Literal) or not node.is_string:
            raise errors.unsupported(f"{self.name} with an argument that is not a constant")
        return str(node.this)


Handler = Callable[[Call], Typed]
ResultType = DataType | None | Callable[[list[Typed]], DataType | None]


def simple(signature: str, template: str, result: ResultType = None) -> Handler:
    """A function that is an expression of its arguments."""

    def handle(call: Call) -> Typed:
        taken = [_take(call, position, letter) for position, letter in enumerate(signature)]
        found = result(call.arguments) if callable(result) else result
        if found == INT and not call.session.types2:
            found = BIGINT
        return Typed("(" + template.format(*taken) + ")", found)

    return handle


def by_count(handlers: Mapping[int, Handler]) -> Handler:
    """A function that means something else for each number of arguments."""

    def handle(call: Call) -> Typed:
        handler = handlers.get(len(call.arguments))
        if handler is None:
            raise wrong_arguments(call)
        return handler(call)

    return handle


def wrong_arguments(call: Call) -> errors.ServiceError:
    """The error for a call whose arguments fit no variant of the function."""
    types = ",".join(
        str(argument.type).upper() if argument.type else "?" for argument in call.arguments
    )
    message = f"function {call.name} cannot match any overloaded functions with ({types})"
    return errors.semantic_error(message)


def first_type(arguments: list[Typed]) -> DataType | None:
    """The type of the first argument."""
    return arguments[0].type if arguments else None


def _take(call: Call, position: int, letter: str) -> str:
    if letter == "l":
        return call.constant(position)
    argument = call.arguments[position]
    takers: dict[str, Callable[[Typed], str]] = {
        "x": lambda value: value.sql,
        "s": text,
        "n": lambda value: number(value).sql,
        "c": clock,
        "i": instant,
    }
    return takers[letter](argument)


_ONE_TEXT = {
    "upper": ("upper({0})", STRING),
    "toupper": ("upper({0})", STRING),
    "lower": ("lower({0})", STRING),
    "tolower": ("lower({0})", STRING),
    "length": ("length({0})", BIGINT),
    "char_length": ("length({0})", BIGINT),
    "lengthb": ("octet_length(encode({0}))", BIGINT),
    "octet_length": ("octet_length(encode({0}))", BIGINT),
    "reverse": ("reverse({0})", STRING),
    "ascii": ("ascii({0})", BIGINT),
    "md5": ("md5({0})", STRING),
    "sha": ("sha1({0})", STRING),
    "sha1": ("sha1({0})", STRING),
    "url_encode": ("url_encode({0})", STRING),
    "url_decode": ("url_decode({0})", STRING),
    "trim": ("trim({0})", STRING),
    "ltrim": ("ltrim({0})", STRING),
    "rtrim": ("rtrim({0})", STRING),
}
_ONE_NUMBER = {
    "ceil": ("CAST(ceil({0}) AS BIGINT)", BIGINT),
    "ceiling": ("CAST(ceil({0}) AS BIGINT)", BIGINT),
    "floor": ("CAST(floor({0}) AS BIGINT)", BIGINT),
    "sqrt": ("CASE WHEN {0} >= 0 THEN sqrt({0}) END", DOUBLE),
    "cbrt": ("cbrt({0})", DOUBLE),
    "exp": ("exp({0})", DOUBLE),
    "ln": ("CASE WHEN {0} > 0 THEN ln({0}) END", DOUBLE),
    "log2": ("CASE WHEN {0} > 0 THEN log2({0}) END", DOUBLE),
    "log10": ("CASE WHEN {0} > 0 THEN log10({0}) END", DOUBLE),
    "sin": ("sin({0})", DOUBLE),
    "cos": ("cos({0})", DOUBLE),
    "tan": ("tan({0})", DOUBLE),
    "cot": ("cot({0})", DOUBLE),
    "asin": ("CASE WHEN abs({0}) <= 1 THEN asin({0}) END", DOUBLE),
    "acos": ("CASE WHEN abs({0}) <= 1 THEN acos({0}) END", DOUBLE),
    "atan": ("atan({0})", DOUBLE),
    "sinh": ("sinh({0})", DOUBLE),
    "cosh": ("cosh({0})", DOUBLE),
    "tanh": ("tanh({0})", DOUBLE),
    "degrees": ("degrees({0})", DOUBLE),
    "radians": ("radians({0})", DOUBLE),
    "sign": ("CAST(sign({0}) AS DOUBLE)", DOUBLE),
    "isnan": ("isnan(CAST({0} AS DOUBLE))", BOOLEAN),
}
_ONE_CLOCK = {
    "year": ("year({0})", INT),
    "quarter": ("quarter({0})", INT),
    "month": ("month({0})", INT),
    "day": ("day({0})", INT),
    "dayofmonth": ("day({0})", INT),
    "dayofyear": ("dayofyear({0})", INT),
    "hour": ("hour({0})", INT),
    "minute": ("minute({0})", INT),
    "second": ("second({0})", INT),
    "weekday": ("isodow({0}) - 1", BIGINT),
    "dayofweek": ("dayofweek({0}) + 1", INT),
    "weekofyear": ("weekofyear({0})", BIGINT),
    "lastday": ("CAST(CAST(last_day({0}) AS TIMESTAMP) AS TIMESTAMP WITH TIME ZONE)", DATETIME),
    "last_day": ("last_day({0})", DATE),
    "date": ("CAST({0} AS DATE)", DATE),
}

SCALARS: dict[str, Handler] = {
    **{name: simple("s", *entry) for name, entry in _ONE_TEXT.items()},
    **{name: simple("n", *entry) for name, entry in _ONE_NUMBER.items()},
    **{name: simple("c", *entry) for name, entry in _ONE_CLOCK.items()},
    # Text.
    "substr": by_count(
        {
            2: simple("sn", "substr({0}, CASE {1} WHEN 0 THEN 1 ELSE {1} END)", STRING),
            3: simple("snn", "substr({0}, CASE {1} WHEN 0 THEN 1 ELSE {1} END, {2})", STRING),
        }
    ),
    "instr": by_count({2: simple("ss", "instr({0}, {1})", BIGINT)}),
    "locate": by_count({2: simple("ss", "instr({1}, {0})", BIGINT)}),
    "replace": by_count({3: simple("sss", "replace({0}, {1}, {2})", STRING)}),
    "translate": by_count({3: simple("sss", "translate({0}, {1}, {2})", STRING)}),
    "repeat": by_count({2: simple("sn", "repeat({0}, {1})", STRING)}),
    "space": by_count({1: simple("n", "repeat(' ', {0})", STRING)}),
    "chr": by_count({1: simple("n", "chr(CAST({0} AS INTEGER))", STRING)}),
    "lpad": by_count({3: simple("sns", "lpad({0}, CAST({1} AS INTEGER), {2})", STRING)}),
    "rpad": by_count({3: simple("sns", "rpad({0}, CAST({1} AS INTEGER), {2})", STRING)}),
    "split": by_count(
        {2: simple("ss", "string_split_regex({0}, {1})", DataType("ARRAY", children=(STRING,)))}
    ),
    "split_part": by_count({3: simple("ssn", "split_part({0}, {1}, {2})", STRING)}),
    "find_in_set": by_count(
        {2: simple("ss", "coalesce(list_position(string_split({1}, ','), {0}), 0)", BIGINT)}
    ),
    "sha2": by_count({2: simple("sx", "CASE {1} WHEN 256 THEN sha256({0}) END", STRING)}),
    "base64": by_count(
        {1: simple("x", "to_base64({0})", STRING)},
    ),
    "unbase64": by_count({1: simple("s", "from_base64({0})", DataType("BINARY"))}),
    "hex": by_count({1: simple("x", "hex({0})", STRING)}),
    "bin": by_count({1: simple("n", "bin({0})", STRING)}),
    "to_json": by_count({1: simple("x", "CAST(to_json({0}) AS VARCHAR)", STRING)}),
    "get_json_object": by_count(
        {
            2: simple(
                "ss", "CASE WHEN json_valid({0}) THEN json_extract_string({0}, {1}) END", STRING
            )
        }
    ),
    "regexp_replace": by_count({3: simple("sss", "regexp_replace({0}, {1}, {2}, 'g')", STRING)}),
    "regexp_extract": by_count(
        {
            2: simple("ss", "regexp_extract({0}, {1}, 1)", STRING),
            3: simple("ssx", "regexp_extract({0}, {1}, {2})", STRING),
        }
    ),
    "regexp_substr": by_count({2: simple("ss", "nullif(regexp_extract({0}, {1}), '')", STRING)}),
    "regexp_count": by_count({2: simple("ss", "len(regexp_extract_all({0}, {1}))", BIGINT)}),
    "regexp": by_count({2: simple("ss", "regexp_matches({0}, {1})", BOOLEAN)}),
    "rlike": by_count({2: simple("ss", "regexp_matches({0}, {1})", BOOLEAN)}),
    # Numbers.
    "abs": by_count({1: simple("n", "abs({0})", lambda args: number(args[0]).type)}),
    "negative": by_count({1: simple("n", "-{0}", lambda args: number(args[0]).type)}),
    "pow": by_count({2: simple("nn", "pow({0}, {1})", DOUBLE)}),
    "power": by_count({2: simple("nn", "pow({0}, {1})", DOUBLE)}),
    "atan2": by_count({2: simple("nn", "atan2({0}, {1})", DOUBLE)}),
    "log": by_count(
        {
            1: simple("n", "CASE WHEN {0} > 0 THEN ln({0}) END", DOUBLE),
            2: simple("nn", "CASE WHEN {1} > 0 THEN ln({1}) / ln({0}) END", DOUBLE),
        }
    ),
    "mod": by_count({2: simple("nn", "{0} % nullif({1}, 0)")}),
    "pmod": by_count({2: simple("nn", "({0} % nullif({1}, 0) + {1}) % nullif({1}, 0)")}),
    "shiftleft": by_count({2: simple("nn", "{0} << CAST({1} AS INTEGER)")}),
    "shiftright": by_count({2: simple("nn", "{0} >> CAST({1} AS INTEGER)")}),
    "pi": by_count({0: simple("", "pi()", DOUBLE)}),
    "e": by_count({0: simple("", "exp(1)", DOUBLE)}),
    "random": by_count({0: simple("", "random()", DOUBLE)}),
    "uuid": by_count({0: simple("", "CAST(uuid() AS VARCHAR)", STRING)}),
    # Conditions.
    "nullif": by_count({2: simple("xx", "nullif({0}, {1})", first_type)}),
    "isnull": by_count({1: simple("x", "{0} IS NULL", BOOLEAN)}),
    "isnotnull": by_count({1: simple("x", "{0} IS NOT NULL", BOOLEAN)}),
    "nvl2": by_count({3: simple("xxx", "CASE WHEN {0} IS NULL THEN {2} ELSE {1} END")}),
    # Arrays and maps.
    "array_contains": by_count({2: simple("xx", "list_contains({0}, {1})", BOOLEAN)}),
    "sort_array": by_count({1: simple("x", "list_sort({0}, 'ASC', 'NULLS FIRST')", first_type)}),
    "array_distinct": by_count({1: simple("x", "list_distinct({0})", first_type)}),
    "array_max": by_count({1: simple("x", "list_max({0})")}),
    "array_min": by_count({1: simple("x", "list_min({0})")}),
    "array_join": by_count({2: simple("xs", "array_to_string({0}, {1})", STRING)}),
    "array_position": by_count({2: simple("xx", "coalesce(list_position({0}, {1}), 0)", BIGINT)}),
    "map_keys": by_count({1: simple("x", "map_keys({0})")}),
    "map_values": by_count({1: simple("x", "map_values({0})")}),
}
SCALARS["substring"] = SCALARS["substr"]
SCALARS["regexp_like"] = SCALARS["regexp"]
SCALARS["rand"] = SCALARS["random"]
