"""Expressions: each kind of node that is carried, and a clear refusal of all others."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql import intervals
from maxcompute_emulator.sql.aggregates import Aggregate, aggregate
from maxcompute_emulator.sql.cast_types import data_type_of
from maxcompute_emulator.sql.coercion import (
    cast,
    clock,
    common_type,
    comparable,
    text,
)
from maxcompute_emulator.sql.functions import SCALARS, Call
from maxcompute_emulator.sql.operators import OPERATORS
from maxcompute_emulator.sql.scope import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    INT,
    STRING,
    Scope,
    Typed,
    fields_of,
)
from maxcompute_emulator.sql.special_functions import SPECIAL
from maxcompute_emulator.sql.time_formats import date_part
from maxcompute_emulator.types import DataType
from maxcompute_emulator.warehouse.storage import literal

if TYPE_CHECKING:
    from maxcompute_emulator.sql.queries import QueryCompiler

_INT_RANGE = 2**31


class ExpressionCompiler:
    """Turns expressions inside one scope into DuckDB's."""

    def __init__(self, queries: QueryCompiler, scope: Scope) -> None:
        self.queries = queries
        self.scope = scope
        self.session = scope.session
        self._makers: dict[type[exp.Expr], Callable[[Any], Typed]] = {
            exp.Column: self._column,
            exp.Identifier: lambda node: self.scope.resolve([node.name.lower()], 1, 1),
            exp.Dot: self._dot,
            exp.Literal: self._literal,
            exp.Boolean: lambda node: Typed("TRUE" if node.this else "FALSE", BOOLEAN),
            exp.Null: lambda _: Typed("NULL"),
            exp.Paren: self._paren,
            exp.In: self._in,
            exp.Exists: self._exists,
            exp.Case: self._case,
            exp.If: self._if,
            exp.Cast: self._cast,
            exp.TryCast: self._cast,
            exp.Bracket: self._bracket,
            exp.Interval: self._interval,
            exp.Extract: self._extract,
            exp.Trim: self._trim,
            exp.Subquery: self._scalar_subquery,
            exp.Tuple: self._tuple,
            exp.Window: self._window,
            exp.WithinGroup: self._within_group,
            exp.Anonymous: self._call,
            exp.CurrentTimestamp: lambda _: self._named("current_timestamp"),
            exp.CurrentDate: lambda _: self._named("current_date"),
            exp.Alias: lambda node: self(node.this),
        }

    def __call__(self, node: exp.Expr) -> Typed:
        """The expression for DuckDB.

        Raises:
            ServiceError: A name means nothing, or the construct is not carried.
        """
        if operator := OPERATORS.get(type(node)):
            return operator(self, node)
        maker = self._makers.get(type(node))
        if maker is None:
            raise errors.unsupported(f"{type(node).__name__} in '{node.sql()[:80]}'")
        return maker(node)

    # Names and constants.

    def _column(self, node: exp.Column) -> Typed:
        parts = [part for part in node.parts if isinstance(part, exp.Identifier)]
        if len(parts) != len(node.parts):
            raise errors.unsupported(f"'*' in '{node.sql()}'")
        line, end = parts[0].meta.get("line", 1), parts[0].meta.get("col", 1)
        start = max(1, end - len(parts[0].name) + 1)
        return self.scope.resolve([part.name.lower() for part in parts], line, start)

    def _dot(self, node: exp.Dot) -> Typed:
        return fields_of(self(node.this), [node.expression.name])

    def _literal(self, node: exp.Literal) -> Typed:
        if node.is_string:
            return Typed(literal(node.this), STRING)
        if re.fullmatch(r"\d+", node.this):
            small = int(node.this) < _INT_RANGE
            return Typed(node.this, INT if self.session.types2 and small else BIGINT)
        return Typed(f"CAST({node.this} AS DOUBLE)", DOUBLE)

    def _paren(self, node: exp.Paren) -> Typed:
        inner = self(node.this)
        return Typed(f"({inner.sql})", inner.type, inner.clock_sql)

    # Tests against lists and queries.

    def _in(self, node: exp.In) -> Typed:
        value = self(node.this)
        query = node.args.get("query")
        if query is not None:
            inner = self.queries.subquery(query, self.scope)
            return Typed(f"({value.sql} IN ({inner.sql}))", BOOLEAN)
        tests = []
        for item in node.expressions:
            left, right = comparable(value, self(item))
            tests.append(f"{left.sql} = {right.sql}")
        return Typed(f"({' OR '.join(tests)})", BOOLEAN)

    def _exists(self, node: exp.Exists) -> Typed:
        return Typed(f"EXISTS ({self.queries.subquery(node.this, self.scope).sql})", BOOLEAN)

    # Conditions and conversions.

    def _case(self, node: exp.Case) -> Typed:
        subject = self(node.this) if node.this else None
        parts, values = [], []
        for branch in node.args["ifs"]:
            condition = self(branch.this)
            if subject:
                left, right = comparable(subject, condition)
                condition = Typed(f"{left.sql} = {right.sql}", BOOLEAN)
            value = self(branch.args["true"])
            values.append(value)
            parts.append(f"WHEN {condition.sql} THEN {value.sql}")
        default = node.args.get("default")
        if default is not None:
            values.append(self(default))
            parts.append(f"ELSE {values[-1].sql}")
        return Typed(f"CASE {' '.join(parts)} END", _branch_type(values))

    def _if(self, node: exp.If) -> Typed:
        yes = self(node.args["true"])
        no = self(node.args["false"]) if node.args.get("false") else Typed("NULL")
        sql = f"CASE WHEN {self(node.this).sql} THEN {yes.sql} ELSE {no.sql} END"
        return Typed(sql, _branch_type([yes, no]))

    def _cast(self, node: exp.Cast) -> Typed:
        return cast(self(node.this), data_type_of(node.args["to"]), self.session)

    def _bracket(self, node: exp.Bracket) -> Typed:
        value, (key,) = self(node.this), node.expressions
        index = self(key)
        if value.kind == "MAP" and value.type:
            return Typed(f"{value.sql}[{index.sql}]", value.type.children[1])
        if value.kind == "ARRAY" and value.type:
            element = f"list_extract({value.sql}, CAST({index.sql} AS BIGINT) + 1)"
            return Typed(element, value.type.children[0])
        if index.kind == "STRING":
            return Typed(f"{value.sql}[{index.sql}]")
        return Typed(f"list_extract({value.sql}, CAST({index.sql} AS BIGINT) + 1)")

    def _interval(self, node: exp.Interval) -> Typed:
        found = intervals.constant(node)
        if found:
            return found
        unit = date_part(node.unit.name) if node.unit else ""
        amount = cast(self(node.this), BIGINT, self.session)
        return Typed(f"({amount.sql} * INTERVAL 1 {unit})")

    def _extract(self, node: exp.Extract) -> Typed:
        unit = date_part(node.this.name)
        return Typed(f"date_part('{unit}', {clock(self(node.expression))})", BIGINT)

    def _trim(self, node: exp.Trim) -> Typed:
        name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(node.args.get("position") or "")
        items = [text(self(node.this))]
        if node.expression is not None:
            items.append(text(self(node.expression)))
        return Typed(f"{name or 'trim'}({', '.join(items)})", STRING)

    def _scalar_subquery(self, node: exp.Subquery) -> Typed:
        inner = self.queries.subquery(node, self.scope)
        return Typed(f"({inner.sql})", inner.columns[0].type if inner.columns else None)

    def _tuple(self, node: exp.Tuple) -> Typed:
        return Typed("(" + ", ".join(self(item).sql for item in node.expressions) + ")")

    # Calls.

    def _call(self, node: exp.Anonymous) -> Typed:
        found = self._aggregate(node, windowed=False)
        if found:
            return Typed(found.wrap.format(found.call), found.type)
        call, _ = self._arguments(node)
        if call.name == "max_pt":
            return self.queries.newest_partition(call.constant(0))
        handler = SPECIAL.get(call.name) or SCALARS.get(call.name)
        if handler is None:
            raise errors.semantic_error(f"function {call.name} cannot be resolved")
        return handler(call)

    def _named(self, name: str) -> Typed:
        return SPECIAL[name](Call(name, [], [], self.session))

    def _arguments(self, node: exp.Anonymous) -> tuple[Call, bool]:
        items = list(node.expressions)
        distinct = bool(items) and isinstance(items[0], exp.Distinct)
        if distinct:
            items = [*items[0].expressions, *items[1:]]
        items = [item for item in items if not isinstance(item, exp.Star)]
        values = [self(item) for item in items]
        return Call(node.name.lower(), values, items, self.session), distinct

    def _aggregate(self, node: exp.Expr, windowed: bool) -> Aggregate | None:
        if not isinstance(node, exp.Anonymous):
            raise errors.unsupported(f"'{node.sql()[:60]}' as a window function")
        if node.name.lower() in SPECIAL or node.name.lower() in SCALARS:
            return None
        call, distinct = self._arguments(node)
        return aggregate(call, distinct, windowed)

    def _window(self, node: exp.Window) -> Typed:
        function = node.this
        if isinstance(function, exp.IgnoreNulls):
            function, nulls = function.this, " IGNORE NULLS"
        else:
            nulls = ""
        found = self._aggregate(function, windowed=True)
        if found is None:
            raise errors.semantic_error(f"{function.name} is not a window function")
        call = f"{found.call[:-1]}{nulls})" if nulls else found.call
        alias = node.args.get("alias")
        over = f'"{alias.name.lower()}"' if alias else f"({self.window(node)})"
        return Typed(found.wrap.format(f"{call} OVER {over}"), found.type)

    def window(self, node: exp.Window) -> str:
        """What stands between the parentheses of OVER."""
        parts = []
        if node.args.get("partition_by"):
            parts.append(
                "PARTITION BY " + ", ".join(self(item).sql for item in node.args["partition_by"])
            )
        if node.args.get("order"):
            parts.append(self.order(node.args["order"]))
        spec = node.args.get("spec")
        if spec:
            parts.append(self._frame(spec))
        return " ".join(parts)

    def order(self, node: exp.Order) -> str:
        """ORDER BY, in which NULL counts as the smallest value."""
        items = []
        for ordered in node.expressions:
            direction = "DESC" if ordered.args.get("desc") else "ASC"
            nulls = "FIRST" if ordered.args.get("nulls_first") else "LAST"
            items.append(f"{self(ordered.this).sql} {direction} NULLS {nulls}")
        return "ORDER BY " + ", ".join(items)

    def _frame(self, spec: exp.WindowSpec) -> str:
        def side(name: str) -> str:
            value = spec.args.get(name)
            edge = value if isinstance(value, str) else self(value).sql if value else "CURRENT ROW"
            return f"{edge} {spec.args.get(f'{name}_side') or ''}".strip()

        return f"{spec.args.get('kind') or 'ROWS'} BETWEEN {side('start')} AND {side('end')}"

    def _within_group(self, node: exp.WithinGroup) -> Typed:
        found = self._aggregate(node.this, windowed=False)
        if found is None:
            raise errors.unsupported(f"WITHIN GROUP after {node.this.name}")
        ordered = f"{found.call[:-1]} {self.order(node.expression)})"
        return Typed(found.wrap.format(ordered), found.type)


def _branch_type(values: list[Typed]) -> DataType | None:
    return common_type([value for value in values if value.sql != "NULL"])
