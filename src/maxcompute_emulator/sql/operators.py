"""Operators: what stands between or before operands, as DuckDB says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql import intervals
from maxcompute_emulator.sql.coercion import arithmetic_type, comparable, number, text
from maxcompute_emulator.sql.scope import BIGINT, BOOLEAN, CLOCK_TYPES, DOUBLE, STRING, Typed

Compile = Callable[[exp.Expr], Typed]
Operator = Callable[[Compile, Any], Typed]

_COMPARISONS = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
}
_ARITHMETIC = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*"}
_BITS = {
    exp.BitwiseAnd: "&",
    exp.BitwiseOr: "|",
    exp.BitwiseLeftShift: "<<",
    exp.BitwiseRightShift: ">>",
}


def _negative(compile_: Compile, node: exp.Neg) -> Typed:
    value = number(compile_(node.this))
    return Typed(f"(-{value.sql})", value.type)


def _joined(compile_: Compile, node: exp.Binary, word: str) -> Typed:
    return Typed(f"({compile_(node.left).sql} {word} {compile_(node.right).sql})", BOOLEAN)


def _compare(compile_: Compile, node: exp.Binary) -> Typed:
    left, right = comparable(compile_(node.left), compile_(node.right))
    return Typed(f"({left.sql} {_COMPARISONS[type(node)]} {right.sql})", BOOLEAN)


def _is(compile_: Compile, node: exp.Is) -> Typed:
    return Typed(f"({compile_(node.this).sql} IS {compile_(node.expression).sql})", BOOLEAN)


def _between(compile_: Compile, node: exp.Between) -> Typed:
    value = compile_(node.this)
    low_left, low = comparable(value, compile_(node.args["low"]))
    high_left, high = comparable(value, compile_(node.args["high"]))
    return Typed(f"({low_left.sql} >= {low.sql} AND {high_left.sql} <= {high.sql})", BOOLEAN)


def _like(compile_: Compile, node: exp.Binary) -> Typed:
    word = "ILIKE" if isinstance(node, exp.ILike) else "LIKE"
    value, pattern = text(compile_(node.left)), text(compile_(node.right))
    return Typed(f"({value} {word} {pattern} ESCAPE '\\')", BOOLEAN)


def _regexp(compile_: Compile, node: exp.RegexpLike) -> Typed:
    value, pattern = text(compile_(node.this)), text(compile_(node.expression))
    return Typed(f"regexp_matches({value}, {pattern})", BOOLEAN)


def _arithmetic(compile_: Compile, node: exp.Binary) -> Typed:
    left, right = compile_(node.left), compile_(node.right)
    if left.kind in CLOCK_TYPES or right.kind in CLOCK_TYPES:
        return _time_arithmetic(_ARITHMETIC[type(node)], left, right)
    left, right = number(left), number(right)
    kind = arithmetic_type(left, right)
    sign = _ARITHMETIC[type(node)]
    if kind == BIGINT:
        return Typed(f"(CAST({left.sql} AS BIGINT) {sign} {right.sql})", kind)
    return Typed(f"({left.sql} {sign} {right.sql})", kind)


def _divide(compile_: Compile, node: exp.Div) -> Typed:
    left, right = number(compile_(node.left)), number(compile_(node.right))
    return Typed(f"(CAST({left.sql} AS DOUBLE) / nullif({right.sql}, 0))", DOUBLE)


def _modulo(compile_: Compile, node: exp.Mod) -> Typed:
    left, right = number(compile_(node.left)), number(compile_(node.right))
    return Typed(f"({left.sql} % nullif({right.sql}, 0))", arithmetic_type(left, right))


def _whole_division(compile_: Compile, node: exp.IntDiv) -> Typed:
    left, right = number(compile_(node.left)), number(compile_(node.right))
    quotient = f"{left.sql} // nullif({right.sql}, 0)"
    return Typed(f"CAST(trunc({quotient}) AS BIGINT)", BIGINT)


def _bits(compile_: Compile, node: exp.Binary) -> Typed:
    sides = compile_(node.left).sql, compile_(node.right).sql
    return Typed(f"({sides[0]} {_BITS[type(node)]} {sides[1]})", BIGINT)


def _bitwise_xor(compile_: Compile, node: exp.BitwiseXor) -> Typed:
    return Typed(f"xor({compile_(node.left).sql}, {compile_(node.right).sql})", BIGINT)


def _pipe(compile_: Compile, node: exp.DPipe) -> Typed:
    return Typed(f"({text(compile_(node.left))} || {text(compile_(node.right))})", STRING)


def _adjacent(compile_: Compile, node: exp.Concat) -> Typed:
    """Strings written one after the other."""
    return Typed(f"({' || '.join(text(compile_(item)) for item in node.expressions)})", STRING)


def _time_arithmetic(sign: str, left: Typed, right: Typed) -> Typed:
    if left.kind in CLOCK_TYPES and right.kind in CLOCK_TYPES and sign == "-":
        return intervals.difference(left, right)
    if left.kind in CLOCK_TYPES:
        return intervals.shifted(left, sign, right)
    if sign == "-":
        raise errors.semantic_error("a time cannot be taken from an interval")
    return intervals.shifted(right, sign, left)


def _not(compile_: Compile, node: exp.Not) -> Typed:
    return Typed(f"(NOT {compile_(node.this).sql})", BOOLEAN)


def _bitwise_not(compile_: Compile, node: exp.BitwiseNot) -> Typed:
    return Typed(f"(~{compile_(node.this).sql})", BIGINT)


def _joining(word: str) -> Operator:
    return lambda compile_, node: _joined(compile_, node, word)


OPERATORS: dict[type[exp.Expr], Operator] = {
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(_BITS, _bits),
    exp.Neg: _negative,
    exp.Not: _not,
    exp.And: _joining("AND"),
    exp.Or: _joining("OR"),
    exp.Xor: _joining("<>"),
    exp.Is: _is,
    exp.Between: _between,
    exp.Like: _like,
    exp.ILike: _like,
    exp.RegexpLike: _regexp,
    exp.Div: _divide,
    exp.Mod: _modulo,
    exp.IntDiv: _whole_division,
    exp.BitwiseXor: _bitwise_xor,
    exp.BitwiseNot: _bitwise_not,
    exp.DPipe: _pipe,
    exp.Concat: _adjacent,
}
