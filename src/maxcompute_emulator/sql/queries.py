"""SELECT and what it is made of, as a query for DuckDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlglot import exp

from maxcompute_emulator import errors
from maxcompute_emulator.sql import rules
from maxcompute_emulator.sql.dialect import parse_query
from maxcompute_emulator.sql.expressions import ExpressionCompiler
from maxcompute_emulator.sql.names import find_table
from maxcompute_emulator.sql.ordering import order_and_limit
from maxcompute_emulator.sql.scope import (
    OutputColumn,
    Relation,
    Scope,
    Session,
    Typed,
)
from maxcompute_emulator.sql.select import SelectCompiler, renamed
from maxcompute_emulator.warehouse import Table
from maxcompute_emulator.warehouse.storage import literal, quoted

_MAX_VIEW_DEPTH = 16
_SET_WORDS: dict[type[exp.Expr], str] = {
    exp.Union: "UNION",
    exp.Intersect: "INTERSECT",
    exp.Except: "EXCEPT",
}


@dataclass(frozen=True)
class _Named:
    """A common table expression, and the ones that it may use itself."""

    query: exp.Expr
    columns: list[str]
    environment: Environment


Environment = Mapping[str, _Named]


class QueryCompiler:
    """Compiles one query; common table expressions and views are put in where they are used."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._environments: list[Environment] = [_variables(session)]

    def query(
        self,
        node: exp.Expr,
        inherited: Sequence[exp.Expr] = (),
        outer: Scope | None = None,
    ) -> Relation:
        """A query of any shape.

        Args:
            node: Its tree.
            inherited: Conditions on its output that hold outside, for pruning.
            outer: Names of the query around it.

        Raises:
            ServiceError: A rule is broken, a name means nothing, a construct is not carried.
        """
        if isinstance(node, exp.Subquery) and not node.args.get("alias"):
            return self.query(node.this, inherited, outer)
        with_ = node.args.get("with_")
        if with_ is None:
            return self._body(node, inherited, outer)
        environment = dict(self._environments[-1])
        for cte in with_.expressions:
            names = [item.name.lower() for item in cte.args["alias"].columns]
            environment[cte.alias.lower()] = _Named(cte.this, names, dict(environment))
        self._environments.append(environment)
        try:
            return self._body(node, inherited, outer)
        finally:
            self._environments.pop()

    def subquery(self, node: exp.Expr, outer: Scope) -> Relation:
        """A query inside an expression."""
        return self.query(node.this if isinstance(node, exp.Subquery) else node, (), outer)

    def newest_partition(self, name: str) -> Typed:
        """`MAX_PT`: the greatest first-level partition that has rows."""
        table = find_table(self.session, name.replace("`", "").split("."))
        filled = [values[0] for values, part in table.partitions.items() if part.rows]
        if not filled:
            raise errors.semantic_error(f"max_pt: table {name} has no partition with data")
        return Typed(literal(max(filled)), table.partition_columns[0].type)

    def _body(self, node: exp.Expr, inherited: Sequence[exp.Expr], outer: Scope | None) -> Relation:
        rules.check_order_by(self.session, node)
        if isinstance(node, exp.Select):
            return SelectCompiler(self, node, inherited, outer).compile()
        if type(node) in _SET_WORDS:
            return self._set_operation(node, inherited, outer)
        if isinstance(node, exp.Values):
            return self.values(node)
        raise errors.unsupported(f"{type(node).__name__} as a query")

    def _set_operation(
        self, node: exp.Expr, inherited: Sequence[exp.Expr], outer: Scope | None
    ) -> Relation:
        whole = not node.args.get("limit") and not node.args.get("offset")
        safe = inherited if whole and _same_names(node) else ()
        left = self.query(node.this, safe, outer)
        right = self.query(node.expression, safe, outer)
        if len(left.columns) != len(right.columns):
            raise errors.semantic_error("both sides of a set operation need as many columns")
        word = _SET_WORDS[type(node)]
        both = "" if node.args.get("distinct") else " ALL"
        columns = tuple(
            one if one.type == other.type else OutputColumn(one.name, None)
            for one, other in zip(left.columns, right.columns, strict=True)
        )
        sql = f"({left.sql}) {word}{both} ({right.sql})"
        scope = Scope(
            self.session,
            aliases={column.name: Typed(quoted(column.name), column.type) for column in columns},
        )
        tail = order_and_limit(ExpressionCompiler(self, scope), node)
        return Relation(f"{sql}{tail}", columns)

    def values(self, node: exp.Values, names: Sequence[str] = ()) -> Relation:
        """Rows written in the query."""
        compile_ = ExpressionCompiler(self, Scope(self.session))
        rows = [
            [compile_(item) for item in (row.expressions if isinstance(row, exp.Tuple) else [row])]
            for row in node.expressions
        ]
        width = len(rows[0])
        if any(len(row) != width for row in rows):
            raise errors.semantic_error("rows of VALUES differ in their number of columns")
        heading = [name.lower() for name in names] or [f"_c{n}" for n in range(width)]
        text = ", ".join("(" + ", ".join(item.sql for item in row) + ")" for row in rows)
        columns = []
        for position, name in enumerate(heading):
            kinds = {row[position].type for row in rows if row[position].sql != "NULL"}
            columns.append(OutputColumn(name, kinds.pop() if len(kinds) == 1 else None))
        listed = ", ".join(quoted(name) for name in heading)
        return Relation(f"SELECT * FROM (VALUES {text}) AS v({listed})", tuple(columns))

    def named(
        self, node: exp.Table, conditions: Sequence[exp.Expr]
    ) -> tuple[Relation | None, Table | None]:
        """What a name in FROM means: a common table expression, a view, or a table."""
        parts = [part.name for part in node.parts]
        if isinstance(node.this, exp.Parameter):
            parts = [f"@{node.this.name.lower()}"]
            if parts[0] not in self._environments[-1]:
                raise errors.semantic_error(f"variable {parts[0]} is not defined")
        found = self._environments[-1].get(parts[0].lower()) if len(parts) == 1 else None
        if found:
            self._environments.append(found.environment)
            try:
                relation = self.query(found.query, () if found.columns else conditions)
            finally:
                self._environments.pop()
            return renamed(relation, found.columns), None
        table = find_table(self.session, parts)
        if not table.is_view:
            return None, table
        return self._view(table, conditions), None

    def _view(self, table: Table, conditions: Sequence[exp.Expr]) -> Relation:
        if len(self.session.views) >= _MAX_VIEW_DEPTH:
            raise errors.semantic_error(f"views are nested too deep at {table.full_name}")
        inner = replace(self.session, project=table.project, schema=table.schema)
        inner.views = [*self.session.views, table.full_name]
        tree = parse_query(table.view_text)
        names = [column.name for column in table.columns]
        relation = QueryCompiler(inner).query(tree, conditions)
        self.session.escaped |= inner.escaped
        self.session.input_bytes += inner.input_bytes
        return renamed(relation, names)


def _variables(session: Session) -> Environment:
    """Each variable of a script may use those before it."""
    found: dict[str, _Named] = {}
    for name, query in session.variables:
        found[name] = _Named(query, [], dict(found))
    return found


def _same_names(node: exp.Expr) -> bool:
    """Whether a condition by name means the same column on both sides."""
    sides = [
        side.this if isinstance(side, exp.Subquery) else side
        for side in (node.this, node.expression)
    ]
    if not all(isinstance(side, exp.Select) for side in sides):
        return False
    names = [[item.output_name.lower() for item in side.expressions] for side in sides]
    return names[0] == names[1]
